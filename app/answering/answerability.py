"""How likely the passages answer, before anybody is asked: one calibrated number for every provider. Pure."""

from __future__ import annotations

import math

from app.answering.types import Signals
from app.settings import AnswerabilityWeights


def answerability(signals: Signals, weights: AnswerabilityWeights) -> float:
    """A logistic model of two signals, 0..1; 0 where the question names a code or a form and no passage holds one.

    Source: fitted by `archivist evaluate fit-answerability`; docs/decisions/005-abstention.md has data and operating point.
    """
    if signals.identified == 0:
        # What is near is not what is meant.
        return 0.0
    return logistic(weights.intercept + weights.lead * signals.lead + weights.nearness * signals.nearness)


def logistic(value: float) -> float:
    """1 / (1 + e^-value), for any value."""
    return 1 / (1 + math.exp(-value)) if value >= 0 else 1 - 1 / (1 + math.exp(value))
