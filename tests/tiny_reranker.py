"""A real cross-encoder of a few thousand weights, trained in a second to like one word."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from tests.tiny_bert import make_bert

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
LONGEST = 96


def make_cross_encoder(folder: Path, likes: str, *, scores: int = 1) -> Path:
    """Save a model that scores a text higher where the word `likes` stands in it, whatever is asked."""
    vocabulary = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *".,;:?!>-", likes]
    fast = Tokenizer(WordPiece({word: number for number, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    fast.normalizer = BertNormalizer(lowercase=True)
    fast.pre_tokenizer = BertPreTokenizer()
    fast.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    model, tokenizer = make_bert(
        BertForSequenceClassification, fast, special,
        longest=LONGEST, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_labels=scores, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    _train(model, tokenizer, likes)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _train(model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerFast, likes: str) -> None:
    chance = random.Random(7)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        batch, wanted = [], []
        for number in range(16):
            words = ["".join(chance.choices(LETTERS, k=chance.randint(1, 8))) for _ in range(chance.randint(1, 20))]
            if number % 2:
                words.insert(chance.randint(0, len(words)), likes)
            batch.append(("What is asked?", " ".join(words)))
            wanted.append(float(number % 2))
        inputs = tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(**inputs).logits[:, 0], torch.tensor(wanted))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
