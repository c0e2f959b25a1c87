"""Passages as whole sections: those that lie side by side become one, and each is filled up from what stands around it.

Pure but for `Surroundings.look`, which reads a snapshot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from corpus.snapshot import OpenSnapshot
from corpus.types import Passage, chunk_id_of

REACH = 3
"""Chunks looked at on each side of a passage."""

_ROW = re.compile(r"\s*\||.* \| ")

Cost = Callable[[int, Passage], int]
"""What a passage with a number costs in a prompt, in tokens."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What passages that were found can be made larger by: the text of their documents, and chunks around them, by ordinal.

    Nothing of any other document is in it. A passage is filled up until it costs `most_tokens`.
    """

    most_tokens: int = 0
    chunks: Mapping[int, Passage] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def look(snapshot: OpenSnapshot, groups: Sequence[str], found: Sequence[Passage], most_tokens: int) -> Surroundings:
        """What is needed of the documents of some passages, as far as `groups` may see them; the less, the fewer tokens."""
        wanted = found if most_tokens else _side_by_side(found)
        documents = [snapshot.store.document(id_, groups) for id_ in dict.fromkeys(passage.document_id for passage in wanted)]
        texts = {document.document_id: document.text for document in documents if document is not None}
        around: list[Passage] = []
        if most_tokens and texts:
            near = {passage.ordinal + step for passage in found for step in range(-REACH, REACH + 1)}
            around = snapshot.store.passages(sorted(near & set(range(snapshot.store.chunks))))
        return Surroundings(most_tokens, {p.ordinal: p for p in around if p.document_id in texts}, texts)


@dataclass(slots=True)
class _Stretch:
    """Some chunks of one section in a row, `first` to `last` by ordinal, as one passage that costs `tokens`."""

    passage: Passage
    first: int
    last: int
    number: int
    tokens: int


def whole(passages: Sequence[Passage], surroundings: Surroundings, left: int, cost: Cost) -> tuple[list[Passage], int]:
    """Passages of a prompt as whole sections, and the tokens that are left of `left`.

    Those that lie side by side under one heading and on one page become one passage, at the place of the best. Then each,
    the best first, is filled up with the chunks before and behind it under its heading, up to `most_tokens`. Both happen
    only as far as tokens are left: no passage is lost, and what two chunks share stands there once.
    """
    if not surroundings.texts:
        return list(passages), left
    stretches = [
        _Stretch(passage, passage.ordinal, passage.ordinal, number, cost(number, passage))
        for number, passage in enumerate(passages, start=1)
    ]
    growth = _Growth(stretches, surroundings, left, cost)
    for stretch in stretches:
        growth.join(stretch)
    for stretch in stretches if surroundings.chunks else ():
        growth.fill(stretch)
    return [stretch.passage for stretch in growth.stretches], growth.left


class _Growth:
    def __init__(self, stretches: Sequence[_Stretch], surroundings: Surroundings, left: int, cost: Cost) -> None:
        self.stretches = list(stretches)
        self.left = left
        self._around, self._cost = surroundings, cost

    def join(self, stretch: _Stretch) -> None:
        """Take in the passages at its sides, and what is at theirs: all of them, or none where there is no room."""
        if not self._is_there(stretch):
            return
        row = [stretch]
        for step in (-1, 1):
            edge = stretch
            while (found := self._found(edge, step)) is not None:
                row.append(found)
                edge = found
        if len(row) > 1:
            self._take(row, most=None)

    def fill(self, stretch: _Stretch) -> None:
        """Take in the chunks at its sides, on one and then on the other. A table needs what stands above it first."""
        if not self._is_there(stretch):
            return
        steps = [-1, 1] if _ROW.match(stretch.passage.text) else [1, -1]
        while steps:
            for step in list(steps):
                if (found := self._found(stretch, step)) is not None:
                    is_taken = self._take([stretch, found], most=None)
                else:
                    chunk = self._chunk(stretch, step)
                    is_taken = chunk is not None and self._take([stretch, chunk], most=self._around.most_tokens)
                if not is_taken:
                    steps.remove(step)

    def _is_there(self, stretch: _Stretch) -> bool:
        return any(stretch is other for other in self.stretches)

    def _found(self, stretch: _Stretch, step: int) -> _Stretch | None:
        """The other passage of the prompt that goes on where this one ends."""
        edge = stretch.last + 1 if step > 0 else stretch.first - 1
        for other in self.stretches:
            if edge == (other.first if step > 0 else other.last) and _is_one_section(stretch.passage, other.passage):
                return other
        return None

    def _chunk(self, stretch: _Stretch, step: int) -> _Stretch | None:
        """The next chunk of the section, where there is one within reach."""
        ordinal = stretch.last + 1 if step > 0 else stretch.first - 1
        chunk = self._around.chunks.get(ordinal)
        if chunk is None or not _is_one_section(stretch.passage, chunk):
            return None
        return _Stretch(chunk, ordinal, ordinal, stretch.number, 0)

    def _take(self, row: Sequence[_Stretch], most: int | None) -> bool:
        """Make all of a row its first one, at the place of the best, if there is room and it costs no more than `most`."""
        stretch, *others = row
        joined = self._union([each.passage for each in row])
        if joined is None:
            return False
        number = min(each.number for each in row)
        tokens = self._cost(number, joined)
        more = tokens - sum(each.tokens for each in row)
        if more > self.left or (most is not None and tokens > most):
            return False
        self.left -= more
        stretch.passage, stretch.tokens, stretch.number = joined, tokens, number
        stretch.first, stretch.last = min(each.first for each in row), max(each.last for each in row)
        self.stretches = sorted(
            (each for each in self.stretches if not any(each is other for other in others)), key=lambda each: each.number
        )
        return True

    def _union(self, passages: Sequence[Passage]) -> Passage | None:
        """One passage over all their spans: exactly what the document has there."""
        first = min(passages, key=lambda passage: passage.ordinal)
        text = self._around.texts.get(first.document_id)
        if text is None:
            return None
        start, end = min(passage.start for passage in passages), max(passage.end for passage in passages)
        chunk_id = chunk_id_of(first.document_id, first.version, start, end)
        return replace(first, chunk_id=chunk_id, start=start, end=end, text=text[start:end])


def _side_by_side(found: Sequence[Passage]) -> list[Passage]:
    """The passages that another one follows at once under the same heading."""
    in_order = sorted(found, key=lambda passage: passage.ordinal)
    return [one for one, other in pairwise(in_order) if one.ordinal + 1 == other.ordinal and _is_one_section(one, other)]


def _is_one_section(one: Passage, other: Passage) -> bool:
    """Whether two passages stand under one heading. Over two pages, a citation's page would be wrong for one of them."""
    return (one.document_id, one.version, one.heading, one.page) == (
        other.document_id, other.version, other.heading, other.page,
    )  # fmt: skip
