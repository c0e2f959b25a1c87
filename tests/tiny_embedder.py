"""A real embedding model of a few thousand random weights, with a subword vocabulary of several scripts, in its own folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer
from tokenizers.decoders import Metaspace as MetaspaceDecoder
from tokenizers.models import Unigram
from tokenizers.normalizers import NFKC
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import UnigramTrainer
from transformers import BertModel

from tests.tiny_bert import make_bert

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
DIMENSION = 48
LONGEST = 512


def make_multilingual_model(folder: Path, texts: Sequence[str]) -> Path:
    """Save a two-layer model whose subwords are learned from `texts`, in the form sentence-transformers loads."""
    fast = Tokenizer(Unigram())
    fast.normalizer = NFKC()
    fast.pre_tokenizer = Metaspace()
    fast.decoder = MetaspaceDecoder()
    fast.train_from_iterator(
        texts, UnigramTrainer(vocab_size=400, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    )
    fast.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    special = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>"}
    model, tokenizer = make_bert(
        BertModel, fast, special,
        longest=LONGEST, hidden_size=DIMENSION, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
    )  # fmt: skip
    bare = folder.with_name(f"{folder.name}-bare")
    model.save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    transformer = Transformer(str(bare), max_seq_length=LONGEST)
    SentenceTransformer(modules=[transformer, Pooling(DIMENSION), Normalize()], device="cpu").save(str(folder))
    return folder
