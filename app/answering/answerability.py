"""How likely the passages answer, before anybody is asked: one number for every provider, even odds assumed. Pure."""

from __future__ import annotations

import math

from app.answering.types import Signals
from app.settings import AnswerabilityWeights

UNKNOWN_CODE = 1.5
"""What naming a code that nothing holds takes from the log-odds. Source: docs/decisions/005-abstention.md."""

DIGITS = 4
"""Of an answerability: further ones differ with what is embedded beside a question."""


def answerability(signals: Signals, weights: AnswerabilityWeights) -> float:
    """A logistic model of two signals, 0..1, less what a code takes that nothing holds: what is near may not be what is meant.

    Source: fitted by `archivist evaluate fit-answerability`; docs/decisions/005-abstention.md has data and operating point.
    """
    known = weights.intercept + weights.lead * signals.lead + weights.nearness * signals.nearness
    return round(logistic(known - UNKNOWN_CODE * (1 - signals.identified)), DIGITS)


def logistic(value: float) -> float:
    """1 / (1 + e^-value), for any value."""
    return 1 / (1 + math.exp(-value)) if value >= 0 else 1 - 1 / (1 + math.exp(value))
