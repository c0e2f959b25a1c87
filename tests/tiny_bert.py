"""What the tests' small models share: a BERT of a few thousand random weights with a tokenizer in the form that it takes."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer
from transformers import BertConfig, PreTrainedTokenizerFast
from transformers.models.bert.modeling_bert import BertPreTrainedModel

Model = TypeVar("Model", bound=BertPreTrainedModel)


def make_bert(
    kind: type[Model], fast: Tokenizer, special: dict[str, str], *, longest: int, **shape: Any
) -> tuple[Model, PreTrainedTokenizerFast]:
    """A model of the given shape, the same weights each time. `special` names the tokens for pad, unk, cls and sep."""
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=fast, model_max_length=longest, **{f"{name}_token": token for name, token in special.items()}
    )
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=fast.get_vocab_size(),
        pad_token_id=fast.token_to_id(special["pad"]),
        max_position_embeddings=longest,
        **shape,
    )
    return kind(config), tokenizer
