"""What the job reads and how it cuts it. Frozen sections of the configuration."""

from __future__ import annotations

from datetime import date
from ipaddress import ip_network
from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from corpus.settings import EmbedderSettings, LabelSettings, RetentionSettings, SearchSettings, Settings
from ingest.isolation.settings import IsolationSettings


class RuleSettings(Settings):
    """What holds for the files of a source that match a pattern; the last matching rule wins, key by key."""

    match: str = Field(description="A glob over the path relative to the source, such as `management/**`.")
    groups: tuple[str, ...] | None = Field(default=None, description="Groups that may see these files.")
    label: str | None = Field(default=None, description="The label of these files.")
    title: str | None = Field(default=None, description="The title of these files.")
    language: str | None = Field(default=None, description="Their language, such as `de`.")
    valid_from: date | None = Field(default=None, description="The day from which they hold, such as 2026-01-31.")
    valid_until: date | None = Field(default=None, description="The last day on which they hold.")

    @model_validator(mode="after")
    def _dates_in_order(self) -> RuleSettings:
        if self.valid_from and self.valid_until and self.valid_until < self.valid_from:
            raise ValueError(f"rule {self.match!r}: valid_until {self.valid_until} is before valid_from {self.valid_from}")
        return self


class SourceSettings(Settings):
    """A folder (or one file) of documents, or a list of pages."""

    path: Path | None = Field(default=None, description="The folder or file to read.")
    urls: tuple[str, ...] = Field(default=(), description="Pages and files to fetch by http:// or https://.")
    urls_file: Path | None = Field(default=None, description="A file with one such address a line; `#` begins a comment.")
    allow_networks: tuple[str, ...] = Field(
        default=(),
        description="Networks or addresses that are not public and may be fetched from all the same, such as 10.20.0.0/16.",
    )
    name: str = Field(
        default="",
        description="A short, stable name; part of every document's id. Empty = the folder's name; pages need one.",
    )
    include: tuple[str, ...] = Field(default=("**",), description="Globs of the files to read.")
    exclude: tuple[str, ...] = Field(
        default=(".*", "**/.*", "**/~$*", "**/Thumbs.db"), description="Globs of the files and folders to leave out."
    )
    groups: tuple[str, ...] = Field(default=("everyone",), description="Groups that may see the documents.")
    label: str | None = Field(default=None, description="The documents' label; empty = labels.default.")
    rules: tuple[RuleSettings, ...] = Field(
        default=(), description="What differs for some of the files; of pages the address is matched."
    )
    max_file_bytes: int = Field(default=100_000_000, ge=1, description="A larger file is listed as failed, in bytes.")

    @field_validator("groups")
    @classmethod
    def _somebody(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if not groups or any(not group.strip() for group in groups):
            raise ValueError("groups must name at least one group; a document without a group is visible to nobody")
        return groups

    @model_validator(mode="after")
    def _one_kind(self) -> SourceSettings:
        if (self.path is None) is not self.is_pages:
            raise ValueError("a source has either a path, or urls (or urls_file)")
        if self.is_pages and not self.name.strip():
            raise ValueError("a source of urls needs a name: it is part of its documents' ids")
        for network in self.allow_networks:
            try:
                ip_network(network.strip())
            except ValueError as error:
                raise ValueError(f"{network!r} is not an address or a network such as 10.20.0.0/16") from error
        return self

    @property
    def is_pages(self) -> bool:
        """Whether it is a list of addresses rather than a folder."""
        return bool(self.urls) or self.urls_file is not None

    @property
    def folder(self) -> Path:
        """The folder or file of a source that has one."""
        assert self.path is not None, "a source of pages has no folder"
        return self.path.expanduser()

    @property
    def collection(self) -> str:
        """The source's name, or its folder's."""
        return self.name or self.folder.resolve().name


class ChunkingSettings(Settings):
    """How documents are cut into chunks."""

    max_tokens: int = Field(
        default=256, ge=16, description="Tokens of heading path, text and special tokens together; at most the model's maximum."
    )
    overlap_tokens: int = Field(default=32, ge=0, description="Tokens that neighbouring chunks share.")


class CanarySettings(Settings):
    """A question whose document is known: if it is not found, something is wrong with the batch."""

    question: str = Field(min_length=1, description="The question.")
    document: str = Field(min_length=1, description="The document that must be found, by its id or its source.")
    within: int = Field(default=5, ge=1, le=50, description="Among how many documents it must be.")
    groups: tuple[str, ...] = Field(default=("everyone",), min_length=1, description="The groups of who asks.")


class GateSettings(Settings):
    """What must hold before a snapshot is published; what is empty is not asked for."""

    max_failure_share: float | None = Field(
        default=None, ge=0, le=1, description="Documents that could not be read, of all, at most: 0.05 is one in twenty."
    )
    max_count_drift: float | None = Field(
        default=None, ge=0, description="By how much the number of documents or of chunks may differ from the last, as a share."
    )
    golden: Path | None = Field(default=None, description="A golden set (.jsonl) that the new snapshot is measured with.")
    min_recall: float = Field(default=0.8, ge=0, le=1, description="Recall that it must reach there, 0 to 1.")
    recall_at: int = Field(default=5, ge=1, le=50, description="The depth at which recall is measured, in documents.")
    canaries: tuple[CanarySettings, ...] = Field(default=(), description="Questions with the document that must be found.")


class IngestSettings(Settings):
    """How a run behaves."""

    max_removed_share: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="A run that would remove a larger share of the files or documents stops, unless told --allow-removals.",
    )
    webhook_url: SecretStr | None = Field(
        default=None,
        description="Address that is told when a run fails, is refused, is killed, or leaves documents out; JSON by POST.",
    )
    runs_kept: int = Field(default=100, ge=1, description="Reports of past runs that are kept in data_dir/runs.")


class JobSettings(Settings):
    """Everything the job is told."""

    data_dir: Path
    sources: tuple[SourceSettings, ...]
    labels: LabelSettings
    embedder: EmbedderSettings
    chunking: ChunkingSettings
    retention: RetentionSettings
    search: SearchSettings = SearchSettings()
    gate: GateSettings = GateSettings()
    ingest: IngestSettings = IngestSettings()
    isolation: IsolationSettings = IsolationSettings()
