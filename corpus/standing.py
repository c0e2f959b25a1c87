"""What an earlier answer rests on, held against a snapshot of now: whether it still stands there, and under which label."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from corpus.effects import Effects, Overlaid
from corpus.stored import Stored

Rested = tuple[str, str]
"""The id and the version of a document that an answer was written from."""


def standing(
    stored: Stored, effects: Effects, over: Overlaid, wanted: Iterable[Rested], groups: Sequence[str] | None
) -> dict[Rested, str]:
    """Those of some versions that any of `groups` may see (None: all the groups there are), each with its label of now.

    A version stands where a document has it that has the id, or had it before it was moved. Where none has it, the document
    was edited since: it stands for its earlier version too, unless something was decided of one that had the id in that
    version, and that another one may have taken the id from.
    """
    pairs = list(dict.fromkeys(wanted))
    called = defaultdict(list)
    for asked, number, version, label, own in stored.known_as({document_id for document_id, _ in pairs}):
        called[asked].append((number, version, label, json.loads(own)))
    found = {}
    for document_id, version in pairs:
        there = called[document_id]
        exact = [each for each in there if each[1] == version]
        left = effects.of_version(document_id, version)
        if not exact and (left.deleted or (left.revoked and groups is not None)):
            continue
        labels = {
            over.label_of(number, label)
            for number, _, label, own in exact or there
            if number not in over.deleted and (groups is None or not set(groups).isdisjoint(over.groups_of(number, own)))
        }
        if labels:
            if not exact and left.label is not None:
                labels.add(left.label)
            # One alone is as it was stored, whatever labels are known today.
            found[document_id, version] = labels.pop() if len(labels) == 1 else effects.labels.highest(sorted(labels))
    return found
