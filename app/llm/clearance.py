"""Which provider may see which label: the one function that decides, and what a provider's clearance is."""

from __future__ import annotations

from app.llm.settings import ProviderSettings
from corpus.errors import ConfigError
from corpus.settings import LabelSettings


def is_cleared(prompt_label: str | None, clearance: str, labels: LabelSettings) -> bool:
    """Whether a prompt may go to a provider. A label that is missing or not known counts as the highest.

    A clearance that is not known allows nothing but the lowest label: both mistakes end on the safe side.
    """
    allowed = labels.rank(clearance) if clearance in labels.order else 0
    return labels.rank(prompt_label) <= allowed


def clearance_of(provider: str, settings: ProviderSettings, labels: LabelSettings) -> str:
    """What a provider may see: what the configuration states, or everything where the provider is on this machine.

    Raises: ConfigError if a provider elsewhere states nothing.
    """
    if settings.clearance is not None:
        return settings.clearance
    if settings.is_local:
        return labels.order[-1]
    raise ConfigError(
        f"llm.providers.{provider}.clearance is missing: {settings.base_url!r} is not on this machine, so state the "
        f"highest label it may see, one of {', '.join(labels.order)}"
    )
