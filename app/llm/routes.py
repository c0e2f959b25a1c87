"""Who answers which questions: the configured rules, walked in order. Pure: nothing is read, asked or written here."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import TypeVar

from app.llm.patterns import Pattern
from app.llm.settings import ConditionSettings, LlmSettings, RouteSettings
from corpus.errors import ConfigError
from corpus.language import known_languages, language_of_question

T = TypeVar("T")
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known before anything is searched. `turn` counts the conversation's questions, this one included."""

    question: str
    turn: int = 1


@dataclass(frozen=True, slots=True)
class Signals:
    """What is known once passages are found.

    `label` is the highest of the prompt, `nearness` the cosine of the question and the nearest passage, `coverage` the share of
    the question's content words, weighed by rarity, that the passages hold.
    """

    label: str
    nearness: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who is tried, in order, or the fixed `answer`; and why, in words for people that never quote the question."""

    rule: str | None
    providers: tuple[str, ...]
    answer: str
    reason: str


class Routes:
    """The rules of one configuration. Safe for concurrent use."""

    def __init__(self, settings: LlmSettings) -> None:
        """Where a rule names languages, what tells them apart is loaded: 0.7 s and 75 MB, once a process.

        Raises: ConfigError where a rule names a language that is never told, or lists a question without a word.
        """
        self._rules = [_Rule(route) for route in settings.routes]
        self._default = Chosen(None, settings.chain, "", "the default provider")

    def early(self, asked: Asked) -> Chosen | None:
        """The choice, where the question alone settles it; None where it takes a search, or no rule holds.

        It is the choice that `choose` makes, whatever is found.
        """
        question = _Question(asked)
        for rule in self._rules:
            why = rule.why_asked(question)
            if why is not None:
                return None if rule.needs_search else rule.chosen(why)
        return None

    def choose(self, asked: Asked, signals: Signals) -> Chosen:
        """The first rule that holds, or the default provider and its fallbacks."""
        question = _Question(asked)
        for rule in self._rules:
            why = rule.why_asked(question)
            found = rule.why_found(signals) if why is not None else None
            if why is not None and found is not None:
                return rule.chosen(why + found)
        return self._default


class _Question:
    """A question, with what conditions ask of it, each worked out once and only where one asks."""

    def __init__(self, asked: Asked) -> None:
        self.text = asked.question
        self.turn = asked.turn

    @cached_property
    def alike(self) -> str:
        return _alike(self.text)

    @cached_property
    def words(self) -> int:
        return len(_WORD.findall(unicodedata.normalize("NFC", self.text)))

    @cached_property
    def language(self) -> str | None:
        return language_of_question(self.text)


class _Rule:
    """One route, its conditions split into those on the question and those on what is found."""

    def __init__(self, route: RouteSettings) -> None:
        self._route = route
        self._asked = _conditions_on_question(route)
        self._found = _conditions_on_findings(route.when)
        self.needs_search = bool(self._found)

    def why_asked(self, question: _Question) -> list[str] | None:
        """Why it may be taken, as far as the question says; None where it may not."""
        return _all_hold(self._asked, question)

    def why_found(self, signals: Signals) -> list[str] | None:
        """Why it may be taken, as far as the passages say; None where it may not."""
        return _all_hold(self._found, signals)

    def chosen(self, why: list[str]) -> Chosen:
        """The choice, once both hold."""
        reason = f"rule {self._route.name!r} ({', '.join(why) or 'always'})"
        return Chosen(self._route.name, self._route.providers, self._route.answer, reason)


def _all_hold(conditions: Sequence[Callable[[T], str | None]], known: T) -> list[str] | None:
    """What each condition says where it holds; None as soon as one does not."""
    why: list[str] = []
    for condition in conditions:
        said = condition(known)
        if said is None:
            return None
        why.append(said)
    return why


def _conditions_on_question(route: RouteSettings) -> list[Callable[[_Question], str | None]]:
    """In the order of what they cost. Raises: ConfigError."""
    when = route.when
    conditions: list[Callable[[_Question], str | None]] = []
    if turn := _bounds("turn", when.min_turn, when.max_turn):
        conditions.append(lambda question: turn.why(question.turn))
    if listed := frozenset(_alike(text) for text in when.exact):
        if "" in listed:
            raise ConfigError(f"llm.routes {route.name!r}: exact holds a question without a word; take it out")
        conditions.append(lambda question: "a listed question" if question.alike in listed else None)
    if words := _bounds("word count", when.min_words, when.max_words):
        conditions.append(lambda question: words.why(question.words))
    if when.matches:
        pattern = Pattern(when.matches)
        conditions.append(lambda question: "its pattern is found" if pattern.is_in(question.text) else None)
    if languages := frozenset(code.lower() for code in when.languages):
        for code in sorted(languages - known_languages()):
            raise ConfigError(
                f"llm.routes {route.name!r}: language {code!r} is none that can be told; give a code of ISO 639-1, such as de"
            )
        conditions.append(lambda question: f"language {question.language}" if question.language in languages else None)
    return conditions


def _conditions_on_findings(when: ConditionSettings) -> list[Callable[[Signals], str | None]]:
    conditions: list[Callable[[Signals], str | None]] = []
    if when.labels:
        conditions.append(lambda signals: f"label {signals.label}" if signals.label in when.labels else None)
    if nearness := _bounds("nearness", when.min_nearness, when.max_nearness):
        conditions.append(lambda signals: nearness.why(signals.nearness))
    if coverage := _bounds("coverage", when.min_coverage, when.max_coverage):
        conditions.append(lambda signals: coverage.why(signals.coverage))
    return conditions


@dataclass(frozen=True, slots=True)
class _Bounds:
    """From `low` to `high`, both included; what is not a number is outside."""

    name: str
    low: float
    high: float

    def why(self, value: float) -> str | None:
        """The value beside what it is held to; None where it is outside."""
        if not self.low <= value <= self.high:
            return None
        shown = value if isinstance(value, int) else f"{value:.2f}"
        low = [f"at least {self.low:g}"] if self.low > -inf else []
        high = [f"at most {self.high:g}"] if self.high < inf else []
        return f"{self.name} {shown} {' and '.join(low + high)}"


def _bounds(name: str, low: float | None, high: float | None) -> _Bounds | None:
    if low is None and high is None:
        return None
    return _Bounds(name, -inf if low is None else low, inf if high is None else high)


def _alike(text: str) -> str:
    """What a question is compared by: its case, its white space and punctuation at its ends do not count."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    first, last = 0, len(text)
    while first < last and _is_edge(text[first]):
        first += 1
    while last > first and _is_edge(text[last - 1]):
        last -= 1
    return " ".join(text[first:last].split())


def _is_edge(character: str) -> bool:
    return character.isspace() or unicodedata.category(character).startswith("P")
