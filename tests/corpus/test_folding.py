"""Near-duplicates are folded; passages that differ in a figure are not."""

from __future__ import annotations

import pytest

from corpus.folding import Folder, alike
from tests.making import REMOTE

POLICY = REMOTE.format(days=3)


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        ([POLICY, POLICY], [0]),
        ([POLICY, POLICY.upper(), POLICY.replace(" ", "\n")], [0]),
        ([POLICY, POLICY.replace("telephone", "phone")], [0]),
        ([POLICY, REMOTE.format(days=2)], [0, 1]),
        ([POLICY, POLICY + " See form TR-204."], [0, 1]),
        ([POLICY, POLICY[: len(POLICY) // 2]], [0, 1]),
        (["Form TR-204", "Form TR-205"], [0, 1]),
        (["one two", "two one"], [0, 1]),
        (["", " "], [0]),
        ([], []),
    ],
    ids=[
        "same", "case and blanks", "one word", "a figure", "a form number more", "half of it", "short", "two words", "empty",
        "none",
    ],
)  # fmt: skip
def test_only_the_first_of_near_duplicates_is_kept(texts: list[str], kept: list[int]) -> None:
    """The positions that stay are those that say something of their own."""
    folder = Folder()
    assert [position for position, text in enumerate(texts) if not folder.repeats(text)] == kept


def test_versions_are_texts_that_differ_in_figures_and_few_words() -> None:
    """Each text belongs to the first that it is like; one that is like no other is in no group."""
    texts = [POLICY, "Something else.", REMOTE.format(days=2), POLICY.replace("telephone", "phone"), POLICY[: len(POLICY) // 2]]
    assert alike(list(enumerate(texts))) == [[0, 2, 3]]
    assert alike([(7, "Form TR-204"), (3, "Form TR-205"), (1, "Form")]) == [[7, 3]]
    assert alike([]) == []
