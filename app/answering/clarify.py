"""A question back, where a question says too little and several documents match it about equally. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.answering.history import points_back
from app.answering.sentences import content_stems, figures, stem_set
from corpus.types import Hit, Passage
from corpus.words import FUNCTION_WORDS, WORD, content_words

MOST_CHOICES = 4
POINTING_WORDS = 2
"""Content words, at most, of a question that points back to nothing."""
ALIKE = 0.1
"""How much worse than the best a document may score to match about equally; scores of one way of asking lie about 0 to 2."""

_ASKS: Mapping[str, tuple[str, str]] = {
    "en": ("Your question could be about several things. Which of these do you mean?", "Please ask again and name it."),
    "de": (
        "Ihre Frage könnte mehreres meinen. Was davon meinen Sie?",
        "Bitte fragen Sie noch einmal und nennen Sie es.",
    ),
    "es": ("Su pregunta puede referirse a varias cosas. ¿A cuál de ellas?", "Pregunte otra vez y nómbrela, por favor."),
}


@dataclass(frozen=True, slots=True)
class Clarification:
    """A question back. `numbers` are those of the passages it names as choices, in the order of the text."""

    text: str
    numbers: tuple[int, ...]


def clarification(
    question: str, *, has_history: bool, hits: Sequence[Hit], passages: Sequence[Passage]
) -> Clarification | None:
    """A question back to the asker; None where the question is clear, or where there are no two things to choose from."""
    if has_history or not is_underspecified(question):
        return None
    choices = _choices(question, hits, passages)
    if len(choices) < 2:
        return None
    before, after = _ASKS[_language(question)]
    listed = [f"- {name} [{number}]" for number, name in choices]
    return Clarification("\n".join([before, *listed, "", after]), tuple(number for number, _ in choices))


def is_underspecified(question: str) -> bool:
    """Whether a first question names next to nothing: a single word, or two beside a pronoun that points back to nothing.

    A figure, a form number or a code is enough to be clear.
    """
    if figures(question):
        return False
    words = len(content_words(question, None))
    return words == 1 or (words <= POINTING_WORDS and points_back(question))


def _choices(question: str, hits: Sequence[Hit], passages: Sequence[Passage]) -> list[tuple[int, str]]:
    """The documents that match about as well as the best: the number of each one's first passage, and its name.

    There is nothing to choose from where one of them has no word of the question: then the question is about something else.
    """
    best: dict[str, float] = {}
    for hit in hits:
        best.setdefault(hit.passage.document_id, hit.score)
    enough = max(best.values(), default=0.0) - ALIKE
    found: dict[str, int] = {}
    for number, passage in enumerate(passages, start=1):
        if best.get(passage.document_id, enough - 1) >= enough:
            found.setdefault(passage.document_id, number)
    if not all(_holds_a_word(question, passages[number - 1]) for number in found.values()):
        return []
    named: dict[str, int] = {}
    for number in found.values():
        # Two documents of one name are no choice: where they are, tells them apart.
        name = _unmarked(passages[number - 1].title)
        named.setdefault(name if name not in named else f"{name} ({_unmarked(passages[number - 1].source)})", number)
    return [(number, name) for name, number in list(named.items())[:MOST_CHOICES]]


def _holds_a_word(question: str, passage: Passage) -> bool:
    there = stem_set("\n".join([passage.title, *passage.heading, passage.text]), passage.language)
    return not there.isdisjoint(content_stems(question, passage.language))


def _unmarked(name: str) -> str:
    # A bracket in a name would look like a marker of ours.
    return " ".join(name.replace("[", "(").replace("]", ")").split())


def _language(question: str) -> str:
    """The language whose function words a question has most of, of those there are texts for; English where none has."""
    words = [word.lower() for word in WORD.findall(question)]
    counts = {language: sum(word in FUNCTION_WORDS[language] for word in words) for language in _ASKS}
    return max(counts, key=lambda language: counts[language])
