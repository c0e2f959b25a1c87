"""Which rule a question takes: every condition alone and with others, their order, and what is decided before a search."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.llm.routes import Asked, Chosen, Routes, Signals
from app.llm.settings import LlmSettings
from corpus.errors import ConfigError

SIGNALS = Signals("internal", 0.5, 0.5)
PROVIDERS = {name: {"base_url": "http://127.0.0.1:1/v1", "model": "m"} for name in ("small", "large")}
DEFAULT = Chosen(None, ("small", "extractive"), "", "the default provider")


def routes_of(*rules: dict[str, Any]) -> Routes:
    """Rules over two providers; without a target they lead to `large`."""
    given = [{"name": f"r{number}", **rule} for number, rule in enumerate(rules, start=1)]
    given = [rule if "answer" in rule else {"providers": ("large",), **rule} for rule in given]
    settings = {"default": "small", "fallbacks": ("extractive",), "providers": PROVIDERS, "routes": given}
    return Routes(LlmSettings.model_validate(settings))


def rule_of(when: dict[str, Any], question: str = "x", turn: int = 1, signals: Signals = SIGNALS) -> str | None:
    """The reason where a single rule with these conditions is taken, else None."""
    chosen = routes_of({"when": when}).choose(Asked(question, turn), signals)
    assert (chosen.rule == "r1") == (chosen != DEFAULT)
    return chosen.reason.removeprefix("rule 'r1' ") if chosen.rule else None


def test_without_rules_the_default_chain_is_tried() -> None:
    """Nothing is settled early, and the default provider comes before its fallbacks."""
    routes = routes_of()
    assert routes.early(Asked("Anything?")) is None
    assert routes.choose(Asked("Anything?"), SIGNALS) == DEFAULT


@pytest.mark.parametrize(
    "question",
    ["What is the WiFi password?", "what is the wifi password", "What is the WiFi password？",
     "  ¿What  is\nthe\twifi password ?! ", "“WHAT IS THE WIFI PASSWORD…”", "What is the ＷｉＦｉ password?"],
)  # fmt: skip
def test_exact_looks_past_case_space_and_punctuation_at_the_ends(question: str) -> None:
    """However it is typed, it is the listed question."""
    assert rule_of({"exact": ["Hello", "What is the WiFi password?"]}, question) == "(a listed question)"


@pytest.mark.parametrize(
    ("listed", "question"),
    [
        ("What is the WiFi password?", "What is the WiFi password of the lab?"),
        ("What is the WiFi password?", "What is the Wi-Fi password?"),
        ("What is the WiFi password?", "WiFi"),
        ("What is the WiFi password?", ""),
        ("What is the WiFi password?", "?"),
        ("What is C++?", "What is C?"),
    ],
)
def test_exact_is_the_whole_question(listed: str, question: str) -> None:
    """More, less or other words, or punctuation within, are another question."""
    assert rule_of({"exact": [listed]}, question) is None


def test_exact_folds_letters_that_have_no_single_other_case() -> None:
    """ß and SS, a ligature and its letters, an accent encoded either way are the same."""
    assert rule_of({"exact": ["Straße"]}, "STRASSE?") is not None
    assert rule_of({"exact": ["office"]}, "oﬃce") is not None
    assert rule_of({"exact": ["Über"]}, "u\u0308ber") is not None


@pytest.mark.parametrize(
    ("pattern", "question", "taken"),
    [("salar(y|ies)", "Which SALARIES are paid?", True), ("^who", "Tell me who", False), (r"\bTR-\d+", "form tr-204?", True)],
)
def test_matches_searches_the_question(pattern: str, question: str, taken: bool) -> None:
    """Anywhere, whatever the case."""
    assert rule_of({"matches": pattern}, question) == ("(its pattern is found)" if taken else None)


@pytest.mark.parametrize(
    ("languages", "question", "reason"),
    [
        (["de"], "Wie viele Urlaubstage habe ich?", "(language de)"),
        (["fr", "DE"], "Wie viele Urlaubstage habe ich?", "(language de)"),
        (["de"], "How many vacation days do I get?", None),
        (["de"], "Laptop", None),
        (["pl"], "Czy mogę w piątki pracować z domu?", "(language pl)"),
    ],
)
def test_languages_are_of_the_question(languages: list[str], question: str, reason: str | None) -> None:
    """Any of those listed; what cannot be told is none of them."""
    assert rule_of({"languages": languages}, question) == reason


@pytest.mark.parametrize(
    ("when", "question", "reason"),
    [
        ({"min_words": 3}, "one two three", "(word count 3 at least 3)"),
        ({"min_words": 3}, "one two", None),
        ({"max_words": 3}, "one, two - three!", "(word count 3 at most 3)"),
        ({"max_words": 3}, "one two three four", None),
        ({"min_words": 2, "max_words": 3}, "Größe № 42", "(word count 2 at least 2 and at most 3)"),
        ({"min_words": 2, "max_words": 2}, "u\u0308ber e\u0301te\u0301", "(word count 2 at least 2 and at most 2)"),
        ({"max_words": 0}, "???", "(word count 0 at most 0)"),
        ({"max_words": 1}, "snake_case", None),
    ],
)
def test_words_are_runs_of_letters_and_digits(when: dict[str, int], question: str, reason: str | None) -> None:
    """Bounds are included; an accent of its own ends no word; punctuation is none."""
    assert rule_of(when, question) == reason


@pytest.mark.parametrize(
    ("when", "turn", "reason"),
    [
        ({"min_turn": 2}, 1, None),
        ({"min_turn": 2}, 2, "(turn 2 at least 2)"),
        ({"max_turn": 1}, 1, "(turn 1 at most 1)"),
        ({"max_turn": 1}, 2, None),
        ({"min_turn": 2, "max_turn": 3}, 3, "(turn 3 at least 2 and at most 3)"),
    ],
)
def test_turns_count_from_the_first_question(when: dict[str, int], turn: int, reason: str | None) -> None:
    """Bounds are included."""
    assert rule_of(when, turn=turn) == reason


@pytest.mark.parametrize(
    ("when", "signals", "reason"),
    [
        ({"labels": ["public", "internal"]}, Signals("internal", 0, 0), "(label internal)"),
        ({"labels": ["public"]}, Signals("internal", 0, 0), None),
        ({"max_nearness": 0.45}, Signals("public", 0.311, 0), "(nearness 0.31 at most 0.45)"),
        ({"max_nearness": 0.45}, Signals("public", 0.45, 0), "(nearness 0.45 at most 0.45)"),
        ({"max_nearness": 0.45}, Signals("public", 0.4501, 0), None),
        ({"min_nearness": 0.45}, Signals("public", 0.44, 0), None),
        ({"min_nearness": -1}, Signals("public", -1, 0), "(nearness -1 at least -1)"),
        ({"min_coverage": 0.25}, Signals("public", 0, 0.25), "(coverage 0.25 at least 0.25)"),
        ({"min_coverage": 0.25}, Signals("public", 0, 0.2), None),
        ({"max_coverage": 0.5}, Signals("public", 0, 0.75), None),
        ({"min_coverage": 0.2, "max_coverage": 0.5}, Signals("public", 0, 0.3), "(coverage 0.30 at least 0.2 and at most 0.5)"),
        ({"max_nearness": 1}, Signals("public", float("nan"), 0), None),
    ],
)
def test_what_is_found_decides(when: dict[str, Any], signals: Signals, reason: str | None) -> None:
    """The highest label is one of those listed, nearness and coverage lie within bounds; what is no number lies in none."""
    assert rule_of(when, signals=signals) == reason


COMBINED: dict[str, Any] = {
    "exact": ["Wie viele Urlaubstage habe ich?"],
    "matches": "urlaub",
    "languages": ["de"],
    "labels": ["internal"],
    "min_words": 4,
    "max_words": 6,
    "min_turn": 2,
    "max_turn": 2,
    "min_nearness": 0.2,
    "max_nearness": 0.6,
    "min_coverage": 0.2,
    "max_coverage": 0.6,
}


def test_all_conditions_together_hold() -> None:
    """The reason names each, and no word of the question but what was measured of it."""
    assert rule_of(COMBINED, "wie viele Urlaubstage habe ich", 2, Signals("internal", 0.3, 0.4)) == (
        "(turn 2 at least 2 and at most 2, a listed question, word count 5 at least 4 and at most 6, its pattern is found, "
        "language de, label internal, nearness 0.30 at least 0.2 and at most 0.6, coverage 0.40 at least 0.2 and at most 0.6)"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("exact", ["Other"]), ("matches", "other"), ("languages", ["en"]), ("labels", ["public"]), ("min_words", 6),
     ("max_words", 4), ("min_turn", 3), ("max_turn", 1), ("min_nearness", 0.4), ("max_nearness", 0.2), ("min_coverage", 0.5),
     ("max_coverage", 0.3)],
)  # fmt: skip
def test_one_condition_that_fails_is_enough(key: str, value: Any) -> None:
    """All others hold, and the rule is not taken."""
    when = COMBINED | {key: value}
    for low, high in (("min_words", "max_words"), ("min_turn", "max_turn"), ("min_nearness", "max_nearness"),
                      ("min_coverage", "max_coverage")):  # fmt: skip
        if key in (low, high):
            del when[high if key == low else low]
    assert rule_of(when, "wie viele Urlaubstage habe ich", 2, Signals("internal", 0.3, 0.4)) is None


def test_a_rule_without_conditions_always_holds() -> None:
    """It settles everything before a search, and says so."""
    chosen = Chosen("r1", ("large",), "", "rule 'r1' (always)")
    routes = routes_of({})
    assert routes.early(Asked("x")) == routes.choose(Asked("x"), SIGNALS) == chosen


def test_the_first_rule_that_holds_is_taken() -> None:
    """In the order they are written, with its own providers or its own answer."""
    routes = routes_of(
        {"name": "greeting", "when": {"exact": ["hello"]}, "answer": "Good day."},
        {"name": "long", "when": {"min_words": 3}, "providers": ("large", "small")},
        {"name": "longer", "when": {"min_words": 5}, "providers": ("small",)},
    )
    assert routes.early(Asked("Hello!")) == Chosen("greeting", (), "Good day.", "rule 'greeting' (a listed question)")
    five = routes.early(Asked("one two three four five"))
    assert five == Chosen("long", ("large", "small"), "", "rule 'long' (word count 5 at least 3)")
    assert routes.early(Asked("one two")) is None


def test_a_rule_that_waits_for_a_search_holds_back_those_after_it() -> None:
    """Whether the second is taken depends on what is found for the first; where the first cannot hold, nothing waits."""
    routes = routes_of({"name": "weak", "when": {"min_words": 2, "max_nearness": 0.3}}, {"name": "rest", "answer": "No."})
    assert routes.early(Asked("two words")) is None
    assert routes.choose(Asked("two words"), Signals("public", 0.2, 0)).rule == "weak"
    assert routes.choose(Asked("two words"), Signals("public", 0.4, 0)).rule == "rest"
    assert routes.early(Asked("one")) == Chosen("rest", (), "No.", "rule 'rest' (always)")


def test_a_rule_before_one_that_waits_is_taken_early() -> None:
    """Order decides, not kind."""
    routes = routes_of({"when": {"exact": ["hello"]}, "answer": "Good day."}, {"when": {"labels": ["secret"]}})
    early = routes.early(Asked("hello"))
    assert early is not None
    assert early.rule == "r1"


CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "exact": st.just(["hello"]),
        "matches": st.sampled_from(["l+", "urlaub", "^$"]),
        "languages": st.sampled_from([["de"], ["en", "fr"]]),
        "labels": st.sampled_from([["public"], ["internal", "secret"]]),
        "min_words": st.integers(0, 4),
        "max_words": st.integers(4, 8),
        "min_turn": st.integers(1, 2),
        "max_turn": st.integers(2, 3),
        "max_nearness": st.floats(-1, 1),
        "min_coverage": st.floats(0, 1),
    },
)
ASKED = st.builds(
    Asked,
    st.sampled_from(["hello", "Wie viele Urlaubstage habe ich?", "How many vacation days do I get?", "?"])
    | st.text(max_size=30),
    st.integers(1, 4),
)
FOUND = st.builds(Signals, st.sampled_from(["public", "internal", "secret"]), st.floats(-1, 1), st.floats(0, 1))


@given(st.lists(CONDITIONS, max_size=4), ASKED, st.lists(FOUND, min_size=1, max_size=4))
def test_what_is_decided_early_is_what_would_be_decided_late(
    conditions: list[dict[str, Any]], asked: Asked, signals: list[Signals]
) -> None:
    """Whatever a search finds; and where the rules hold none that a search decides, late is early or the default."""
    routes = routes_of(*({"when": when} for when in conditions))
    early, late = routes.early(asked), [routes.choose(asked, found) for found in signals]
    if early is not None:
        assert late == [early] * len(signals)
    elif not any({"labels", "max_nearness", "min_coverage"} & set(when) for when in conditions):
        assert late == [DEFAULT] * len(signals)


@given(st.text(max_size=60))
def test_any_question_gets_a_choice_that_does_not_repeat_it(question: str) -> None:
    """Threat C2: no text breaks a condition; the reason is the same for every question of the same measures."""
    routes = routes_of(
        {"when": {"matches": "a", "max_words": 999, "min_turn": 1}}, {"when": {"exact": ["x"], "languages": ["de"]}}
    )
    chosen = routes.choose(Asked("a" + question), SIGNALS)
    words = routes_of({"when": {"max_words": 999}}).choose(Asked("a" + question), SIGNALS).reason.removeprefix("rule 'r1' (")
    assert chosen.reason == f"rule 'r1' (turn 1 at least 1, {words.removesuffix(')')}, its pattern is found)"


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"matches": "(?=x)"}, "route 'r1': matches '(?=x)' is not an RE2 pattern (invalid perl operator: (?=); RE2 has no "),
        (
            {"matches": r"(a)\1"},
            "route 'r1': matches '(a)\\\\1' is not an RE2 pattern (invalid escape sequence: \\1); RE2 has no ",
        ),
        ({"matches": "(.?){900}"}, "route 'r1': matches '(.?){900}' is too large a pattern"),
        ({"min_words": 5, "max_words": 4}, "route 'r1' is never taken: min_words 5 is more than max_words 4"),
        ({"min_turn": 5, "max_turn": 4}, "route 'r1' is never taken: min_turn 5 is more than max_turn 4"),
        (
            {"min_nearness": 0.5, "max_nearness": 0.4},
            "route 'r1' is never taken: min_nearness 0.5 is more than max_nearness 0.4",
        ),
        (
            {"min_coverage": 0.5, "max_coverage": 0.4},
            "route 'r1' is never taken: min_coverage 0.5 is more than max_coverage 0.4",
        ),
    ],
)
def test_a_rule_that_cannot_work_is_refused_by_name(when: dict[str, Any], said: str) -> None:
    """The route, the value and what is wrong are named."""
    with pytest.raises(ValidationError) as caught:
        routes_of({"when": when})
    assert said in str(caught.value)


def test_bounds_that_meet_are_accepted() -> None:
    """Exactly three words is a condition."""
    assert rule_of({"min_words": 3, "max_words": 3}, "one two three") is not None


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"languages": ["de", "german"]}, "llm.routes 'r1': language 'german' is none that can be told"),
        ({"exact": ["hello", "?!"]}, "llm.routes 'r1': exact holds a question without a word"),
    ],
)
def test_a_condition_that_says_nothing_is_refused(when: dict[str, Any], said: str) -> None:
    """A language that is never told would never be taken; a question without a word would be any of them."""
    with pytest.raises(ConfigError, match=said):
        routes_of({"when": when})


def test_languages_are_loaded_only_where_a_rule_names_one() -> None:
    """Without, neither the rules nor a question load the model; with, the rules do, so that no question waits for it."""
    code = """
from app.llm.routes import Asked, Routes, Signals
from app.llm.settings import LlmSettings
from corpus.language import _load
plain = LlmSettings.model_validate({"routes": [{"name": "r", "when": {"min_words": 1}, "answer": "a"}]})
assert Routes(plain).choose(Asked("a"), Signals("public", 0, 0)).rule == "r"
assert _load.cache_info().currsize == 0
Routes(LlmSettings.model_validate({"routes": [{"name": "r", "when": {"languages": ["de"]}, "answer": "a"}]}))
assert _load.cache_info().currsize == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
