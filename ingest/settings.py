"""What the job reads and how it cuts it. Frozen sections of the configuration."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from corpus.settings import EmbedderSettings, LabelSettings, RetentionSettings, Settings
from ingest.isolation.settings import IsolationSettings


class RuleSettings(Settings):
    """Groups and a label for the files of a source that match a pattern; the last matching rule wins, key by key."""

    match: str = Field(description="A glob over the path relative to the source, such as `management/**`.")
    groups: tuple[str, ...] | None = Field(default=None, description="Groups that may see these files.")
    label: str | None = Field(default=None, description="The label of these files.")


class SourceSettings(Settings):
    """A folder (or one file) of documents."""

    path: Path = Field(description="The folder or file to read.")
    name: str = Field(default="", description="A short, stable name; part of every document's id. Empty = the folder's name.")
    include: tuple[str, ...] = Field(default=("**",), description="Globs of the files to read.")
    exclude: tuple[str, ...] = Field(
        default=(".*", "**/.*", "**/~$*", "**/Thumbs.db"), description="Globs of the files and folders to leave out."
    )
    groups: tuple[str, ...] = Field(default=("everyone",), description="Groups that may see the documents.")
    label: str | None = Field(default=None, description="The documents' label; empty = labels.default.")
    rules: tuple[RuleSettings, ...] = Field(default=(), description="Other groups and labels for some of the files.")
    max_file_bytes: int = Field(default=100_000_000, ge=1, description="A larger file is listed as failed, in bytes.")

    @field_validator("groups")
    @classmethod
    def _somebody(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if not groups or any(not group.strip() for group in groups):
            raise ValueError("groups must name at least one group; a document without a group is visible to nobody")
        return groups

    @property
    def collection(self) -> str:
        """The source's name, or its folder's."""
        return self.name or self.path.resolve().name


class ChunkingSettings(Settings):
    """How documents are cut into chunks."""

    max_tokens: int = Field(
        default=256, ge=16, description="Tokens of heading path, text and special tokens together; at most the model's maximum."
    )
    overlap_tokens: int = Field(default=32, ge=0, description="Tokens that neighbouring chunks share.")


class JobSettings(Settings):
    """Everything the job is told."""

    data_dir: Path
    sources: tuple[SourceSettings, ...]
    labels: LabelSettings
    embedder: EmbedderSettings
    chunking: ChunkingSettings
    retention: RetentionSettings
    isolation: IsolationSettings = Field(default_factory=IsolationSettings)
