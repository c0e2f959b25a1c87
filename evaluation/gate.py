"""The least values that a run must reach to pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corpus.errors import ConfigError
from evaluation.report import Report


@dataclass(frozen=True, slots=True)
class Least:
    """What a metric must reach."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Checked:
    """A metric against its least value; one that was not measured has not reached it."""

    least: Least
    measured: float | None

    @property
    def passed(self) -> bool:
        """Whether it was reached."""
        return self.measured is not None and self.measured >= self.least.value

    @property
    def shown(self) -> str:
        """One line for people."""
        least = f"--min {self.least.name}={self.least.value:g}"
        if self.measured is None:
            return f"{least}: not measured, since no question of the golden set concerns it"
        return f"{least}: {self.measured:.4f}, {'reached' if self.passed else 'not reached'}"

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return {"metric": self.least.name, "least": self.least.value, "measured": self.measured, "passed": self.passed}


def least_of(text: str) -> Least:
    """A gate as it is written, such as `recall@5=0.9`. Raises: ConfigError."""
    name, equals, written = text.partition("=")
    try:
        value = float(written)
    except ValueError:
        value = -1.0
    if not equals or not 0 <= value <= 1:
        raise ConfigError(f"--min {text!r} is not a metric and a value of 0 to 1; write it as recall@5=0.9")
    return Least(name.strip(), value)


def check(report: Report, leasts: Iterable[Least]) -> list[Checked]:
    """Each gate against what was measured."""
    found = {least: report.value(least.name) for least in leasts}
    return [Checked(least, None if value is None else value.value) for least, value in found.items()]
