"""Settings that the job and the service must agree on. Frozen; an unknown key is an error."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """A frozen section of the configuration that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class LabelSettings(Settings):
    """How confidential a document is, from the least to the most."""

    order: tuple[str, ...] = Field(
        default=("public", "internal", "confidential", "secret"),
        min_length=1,
        description="Labels from the least to the most confidential.",
    )
    default: str = Field(default="internal", description="The label of a document that nobody labelled.")

    @model_validator(mode="after")
    def _default_is_known(self) -> LabelSettings:
        if self.default not in self.order:
            raise ValueError(f"labels.default {self.default!r} is not in labels.order {list(self.order)}")
        if len(set(self.order)) != len(self.order):
            raise ValueError(f"labels.order names a label twice: {list(self.order)}")
        return self

    def rank(self, label: str | None) -> int:
        """How confidential a label is, 0 is the least. None or a label not in the list counts as the highest."""
        return self.order.index(label) if label in self.order else len(self.order) - 1

    def resolve(self, label: str | None) -> str:
        """The label a document gets: the default if nobody gave one, the highest if the given one is not known."""
        if label is None:
            return self.default
        return label if label in self.order else self.order[-1]

    def highest(self, labels: tuple[str | None, ...] | list[str | None] | list[str]) -> str:
        """The most confidential of some labels; the lowest label there is if there are none."""
        return self.order[max((self.rank(label) for label in labels), default=0)]


class EmbedderSettings(Settings):
    """The model that turns text into vectors."""

    model: str = Field(
        default="all-MiniLM-L6-v2",
        description="A sentence-transformers model: a folder, the packaged `all-MiniLM-L6-v2`, or a hub id (see allow_hub).",
    )
    allow_hub: bool = Field(default=False, description="Whether a model may be downloaded from the model hub.")
    max_tokens: int | None = Field(
        default=None, ge=16, description="Tokens embedded at most, special tokens included; empty = the model's own maximum."
    )
    query_prompt: str = Field(default="", description="Text put before a question before it is embedded.")
    document_prompt: str = Field(default="", description="Text put before a chunk before it is embedded.")
    engine: Literal["auto", "onnx", "sentence-transformers"] = Field(
        default="auto",
        description="auto, onnx or sentence-transformers; auto = onnx where the model can be exported, on the processor.",
    )
    precision: Literal["fp32", "int8"] = Field(
        default="fp32", description="fp32, or int8: faster and less exact; ingest says what it loses. Only with onnx."
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or mps.")
    batch_size: int = Field(default=8, ge=1, le=1024, description="Chunks embedded at once.")
    query_threads: int = Field(default=1, ge=1, le=64, description="Processor threads that embed questions.")

    @model_validator(mode="after")
    def _goes_together(self) -> EmbedderSettings:
        on_processor = self.device in ("auto", "cpu")
        if self.engine == "onnx" and not on_processor:
            raise ValueError(f"embedder.engine onnx runs on the processor; set embedder.device to cpu, not {self.device!r}")
        if self.precision == "int8" and (self.engine == "sentence-transformers" or not on_processor):
            raise ValueError(
                "embedder.precision int8 is there with engine onnx (or auto) on the processor only; set it to fp32"
            )
        return self


class SearchSettings(Settings):
    """How passages are found and ranked."""

    candidates: int = Field(default=100, ge=1, le=1000, description="Chunks taken from each index before fusion.")
    dense_weight: float = Field(default=1.0, ge=0, description="Weight of the similarity of meaning in a passage's score.")
    lexical_weight: float = Field(default=1.0, ge=0, description="Weight of the words in common in a passage's score.")
    identifier_weight: float = Field(
        default=0.5,
        ge=0,
        description="What a passage gains that alone holds a form number or code of the question; shared where several do.",
    )
    quotation_weight: float = Field(
        default=4.0,
        ge=0,
        description="What a passage gains for each string in quotation marks that it holds; 4 is more than all else together.",
    )
    expired_penalty: float = Field(
        default=0.2,
        ge=0,
        description="What a passage loses whose document is not valid today, unless the question names a time at which it was.",
    )
    valid_from_fields: tuple[str, ...] = Field(
        default=("valid_from", "effective_from", "effective", "effective_date"),
        description="Metadata fields that hold the first day a document is valid, such as 2026-01-01; the first found counts.",
    )
    valid_until_fields: tuple[str, ...] = Field(
        default=("valid_until", "valid_to", "expires", "expiry_date"),
        description="Metadata fields that hold the last day a document is valid; the first found counts.",
    )
    fold_near_duplicates: bool = Field(
        default=True, description="Whether only the best of several nearly identical passages is shown."
    )
    per_document: int | None = Field(
        default=None, ge=1, description="Passages of one document among those that are found, at most; empty = any number."
    )
    filter_fields: tuple[str, ...] = Field(
        default=("collection", "source", "format", "language", "label"),
        description="Fields a caller may filter by: these five, and any metadata field named here.",
    )
    reranker: str = Field(
        default="",
        description="A sentence-transformers CrossEncoder that orders what was found: a folder, or a hub id (see "
        "reranker_allow_hub); empty = none.",
    )
    reranker_allow_hub: bool = Field(default=False, description="Whether the reranker may be downloaded from the model hub.")
    rerank_candidates: int = Field(
        default=30, ge=1, le=200, description="Passages that the reranker reads for a question; its cost grows with them."
    )


class RetentionSettings(Settings):
    """Which old snapshots stay on disk. The current one always does, the one that is held, and what is in use."""

    snapshots: int = Field(default=3, ge=1, description="Snapshots kept, at most, the current one included.")
    days: float | None = Field(
        default=None, gt=0, description="Days after which one goes that was replaced by a newer one; empty = at any age."
    )
