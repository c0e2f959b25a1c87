"""Reports: for machines, for the terminal, and the page, which loads nothing and shows no markup of a document's."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from app.answering.types import Signals
from corpus.errors import ConfigError
from evaluation.compare import compare
from evaluation.gate import Least, check, least_of
from evaluation.golden import AS_ANSWERED_THEN, Question, Then
from evaluation.report import Report
from evaluation.report_html import comparison_html, report_html
from evaluation.report_terminal import comparison_tables, report_tables
from evaluation.run import Cited
from tests.evaluation.outcomes import answer, forty, outcome, report

HOSTILE = '<script src="https://evil.example/x.js">alert(1)</script>'


class Page(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def mixed() -> Report:
    """A report with everything in it: groups, drafts, failures, gold that is not there, two providers, a hostile question."""
    question = Question("q", HOSTILE, gold={"a.md": 2, "b.md": 1}, answers=("in the yard",), kind="single")
    outcomes = [
        outcome(
            question, "b.md", HOSTILE,
            given=answer("SECRET-ANSWER", answerability=0.4), cited=[Cited("a.md", "SECRET-QUOTE", True)],
        ),
        outcome(
            Question("n", "None?", answerability="UNANSWERABLE", drafted=True, kind="none"), "b.md",
            given=answer("Yes.", answerability=0.3),
        ),
        outcome(
            Question("o", "Other?", gold={"c.md": 1}, answers=("x",), kind="none"), "c.md",
            given=replace(answer("x", answerability=0.9), provider="near"),
        ),
        outcome(Question("f", "Failed?", gold={"c.md": 1}), "c.md", failure="near: HTTP 500"),
    ]  # fmt: skip
    return report(outcomes, missing={"q": ("a.md",)})


def shown(*tables: object) -> str:
    """What stands on a wide terminal."""
    console = Console(width=240, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    return captured.get()


def test_the_json_has_what_its_description_promises() -> None:
    """Values with intervals and the number of questions, groups, rows, and what one must know of them."""
    told = json.loads(json.dumps(mixed().as_json()))
    assert told["schema"] == 1
    assert (told["questions"], told["drafted"]) == (4, 1)
    assert told["providers"] == {"extractive": 2, "near": 1}
    assert told["failures"] == {"f": "near: HTTP 500"}
    assert told["gold_not_found"] == {"q": ["a.md"]}
    assert told["metrics"]["success@5"] | {"means": ""} == {
        "value": pytest.approx(2 / 3, abs=1e-6),
        "interval_95": [pytest.approx(0.2077, abs=1e-4), pytest.approx(0.9385, abs=1e-4)],
        "questions": 3, "unit": "share", "better": "higher", "means": "",
    }  # fmt: skip
    assert told["groups"]["type"]["none"]["questions"] == 2
    assert told["groups"]["type"]["single"]["metrics"]["success@5"]["value"] == 0.0
    row = told["rows"][0]
    assert (row["id"], row["question"], row["answer"], row["abstained"]) == ("q", HOSTILE, "SECRET-ANSWER", False)
    assert row["metrics"]["recall@5"] == 0.5
    assert (row["estimated_answerability"], row["signals"], row["then"]) == (0.4, asdict(Signals()), None)
    assert told["reference"] == "gold"
    curve = told["risk_coverage"]
    assert (curve["confidence"], curve["points"][0]["confidence"]) == ("answerability", 0.9)
    # Three questions: .4 and .9 of answerable ones, .3 of one that is not.
    assert curve["calibration"]["error"] == pytest.approx((0.6 + 0.1 + 0.3) / 3)
    assert [(b["low"], b["questions"], b["answerable_share"]) for b in curve["calibration"]["bins"]] == [
        (0.3, 1, 0.0), (0.4, 1, 1.0), (0.9, 1, 1.0),
    ]  # fmt: skip
    assert told["metrics"]["calibration_error"]["value"] == pytest.approx(1 / 3)


def test_groups_are_those_in_which_the_questions_differ() -> None:
    """By type, but not by turn, language or collection, which are the same for all or not known."""
    assert {(group.dimension, group.name) for group in mixed().groups} == {("type", "none"), ("type", "single")}
    follow_ups = report([replace(o, collection="ab"[i % 2]) for i, o in enumerate(forty(30))], has_answers=False)
    assert {(group.name, group.questions) for group in follow_ups.groups} == {("a", 20), ("b", 20)}


@pytest.mark.parametrize("kind", ["one run", "comparison"])
def test_the_page_loads_nothing(kind: str) -> None:
    """No element that fetches, no address, a policy that forbids both; what documents and questions say is text."""
    page = report_html(mixed()) if kind == "one run" else comparison_html(compare(mixed(), mixed()))
    read = Page(page)
    fetching = {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "video",
        "audio",
        "source",
        "use",
        "image",
        "base",
        "a",
        "form",
    }
    assert set(read.elements) & fetching == set()
    assert {name for name, _ in read.attributes} & {"src", "href", "srcset", "xlink:href", "style", "onload"} == set()
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in read.attributes
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert re.findall(r"https?://(?!evil\.example)", page) == []


def test_the_page_shows_questions_and_no_text_of_documents() -> None:
    """It is for sending on: what went wrong is named, and neither an answer nor a quote is in it."""
    page = report_html(mixed())
    texts = " ".join(Page(page).texts)
    assert HOSTILE in texts
    for said in (
        "right document not found",
        "answered, though there is no answer",
        "the answer failed",
        "1 of 4 questions are drafted",
    ):
        assert said in texts
    assert "SECRET" not in page


def test_the_page_has_a_plot_for_each_thing() -> None:
    """Groups with whiskers, risk over coverage, time by stage; a comparison has differences around zero."""
    one, two = report_html(mixed()), comparison_html(compare(report(forty(20)), report(forty(35))))
    titles = re.findall(r'aria-label="([^"]+)"', one)
    assert titles[0] == "right document found, first 5"
    assert titles[-3:] == ["Risk over coverage", "Answerability against what is answerable", "Time by stage"]
    assert re.findall(r'aria-label="([^"]+)"', two)[0] == "Differences, B less A"
    assert two.count("<polyline") == 2
    beside = comparison_html(compare(mixed(), mixed()))
    assert beside.count('<circle class="b hollow"') == 3 + 1


def replayed() -> Report:
    """A stored conversation of three turns, asked again; the third answer may not be used any more."""
    then = Then("local", "c", 0, abstained=False, cited=("travel.md",))
    first, second, third = (
        Question(name, f"{name}?", gold=gold, answerability=AS_ANSWERED_THEN, conversation="c", then=was)
        for name, gold, was in (
            ("first", {"doc1": 1}, then),
            ("second", {"doc2": 1}, replace(then, position=2)),
            ("third", {}, replace(then, position=4, abstained=None, cited=())),
        )
    )
    return report(
        [
            outcome(first, "doc1", given=answer("Yes.")),
            outcome(second, "doc9", given=answer("No.", abstained=True)),
            outcome(third, "doc1", given=answer("Yes.")),
        ]
    )


def test_a_replay_says_everywhere_that_its_reference_is_no_truth() -> None:
    """In the JSON, on the terminal and on the page, alone and in a comparison; nothing is called right or wrong."""
    told = json.loads(json.dumps(replayed().as_json()))
    assert told["reference"] == "as answered then"
    assert [row["then"] for row in told["rows"]][1:] == [
        {"abstained": False, "cited": ["travel.md"]}, {"abstained": None, "cited": []},
    ]  # fmt: skip
    both = compare(replayed(), replayed())
    pages = (report_html(replayed()), comparison_html(both))
    for text in (shown(*report_tables(replayed())), shown(*comparison_tables(both)), *(" ".join(Page(p).texts) for p in pages)):
        flat = " ".join(text.split())
        assert "As answered then: the questions are those of stored conversations" in flat
        assert "1 stored answers rest on documents" in flat
        assert "right document" not in flat
        assert "What went wrong" not in flat
    assert "no document cited then found; no answer, and one then" in " ".join(Page(pages[0]).texts)


def test_a_comparison_of_replays_names_what_is_no_more_as_then() -> None:
    """B abstains where A answered as it did then: the flip is a lost one, in a respect that says so."""
    was = replayed()
    kept = [replace(o, answer=answer("No.", abstained=True)) for o in was.outcomes]
    found = compare(was, report(kept, name="b"))
    assert [(flip.question_id, flip.respect, flip.won) for flip in found.flips] == [
        ("first", "has an answer or none, as it did then", False)
    ]
    change = next(change for change in found.changes if change.metric.name == "newly_abstained")
    assert (change.first, change.second, change.questions) == (0.5, 1.0, 2)
    cited = next(change for change in found.changes if change.metric.name == "success@5")
    assert cited.metric.better == "neither"
    assert "0 won (B is as then, A was not), 1 lost" in " ".join(Page(comparison_html(found)).texts)


def test_the_terminal_shows_values_groups_and_notes() -> None:
    """With intervals, and first what one must know."""
    text = shown(*report_tables(mixed()))
    assert re.search(r"success@5\s*│\s*0\.667\s*│\s*0\.208–0\.939\s*│\s*3", text)
    assert re.search(r"type\s*│ none\s*│\s*2", text)
    assert re.search(r"0\.9–1\.0\s*│\s*1\s*│\s*0\.90\s*│\s*1\.00", text)
    assert "1 of 4 questions are drafted" in text
    assert "Gold of 1 questions is not in the snapshot" in text
    assert "1 of 4 questions got no answer; the first failure: near: HTTP 500" in text


def test_a_comparison_says_what_changed_and_which_questions() -> None:
    """Fifteen questions of forty were won: the difference, its test, and their names."""
    found = compare(report(forty(20), has_answers=False), report(forty(35), has_answers=False, name="b"))
    change = next(change for change in found.changes if change.metric.name == "success@5")
    assert (change.first, change.second, change.difference.value, change.verdict) == (0.5, 0.875, 0.375, "better")
    assert change.difference.p_value is not None
    assert change.difference.p_value < 0.001
    assert [flip.question_id for flip in found.flips] == [f"q{number}" for number in range(20, 35)]
    assert all(flip.won for flip in found.flips)
    area = next(change for change in found.changes if change.metric.name == "risk_coverage_area")
    assert (area.difference.value < 0, area.verdict) == (True, "better")
    text = shown(*comparison_tables(found))
    assert re.search(r"success@5\s*│\s*0\.500\s*│\s*0\.875\s*│\s*\+0\.375", text)
    assert "Changed sides: 15 won by B, 0 lost" in text
    told = json.loads(json.dumps(found.as_json()))
    assert told["changes"]["success@5"]["verdict"] == "better"
    assert told["flips"][0] == {
        "question_id": "q20", "question": "Question 20?", "respect": "right document found, first 5", "won": True,
    }  # fmt: skip


def test_an_interval_is_wider_where_questions_are_of_few_conversations() -> None:
    """Twenty of forty questions in two conversations are less than twenty questions."""
    alone, clustered = report(forty(20), has_answers=False), report(forty(20, follow_ups=20), has_answers=False)
    first, second = alone.value("success@5"), clustered.value("success@5")
    assert first is not None
    assert second is not None
    assert first.interval is not None
    assert second.interval is not None
    assert first.value == second.value == 0.5
    assert second.interval[1] - second.interval[0] > first.interval[1] - first.interval[0]


@pytest.mark.parametrize("text", ["recall@5", "recall@5=much", "recall@5=1.5", "recall@5=-1", "recall@5=nan", "=0.5x"])
def test_a_gate_that_is_none_is_refused(text: str) -> None:
    """The error shows how one is written."""
    with pytest.raises(ConfigError, match=r"write it as recall@5=0\.9"):
        least_of(text)


def test_a_gate_holds_at_its_value_and_not_below() -> None:
    """Reached at .5 exactly, not at more; what was not measured was not reached."""
    measured = report(forty(20), has_answers=False)
    leasts = [least_of("success@5=0.5"), least_of("success@5=0.51"), Least("key_fact", 0.0)]
    checked = check(measured, leasts)
    assert [one.passed for one in checked] == [True, False, False]
    assert checked[1].shown == "--min success@5=0.51: 0.5000, not reached"
    assert "not measured" in checked[2].shown
