"""What lies in the sources now, with what rules and sidecars say of it. Loads no model and, for a plan, writes nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import lru_cache

from corpus.errors import DocumentError
from corpus.records import FileRecord
from corpus.settings import LabelSettings
from ingest.described import Described, described_by_rules, over
from ingest.labels import Access, access_of_file, narrowed
from ingest.readers.read import READER_VERSION
from ingest.settings import JobSettings, SourceSettings
from ingest.sources.folder import SourceFile, walk
from ingest.sources.pages import fetch_pages

NOTHING = Described()


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a source, what is said of it, who may see it, and the record by which runs compare it."""

    file: SourceFile
    described: Described
    rights: Access
    record: FileRecord


def scan(settings: JobSettings, *, keep_pages: bool) -> list[Found]:
    """The files of all sources, ordered by source and path. `keep_pages` stores what was fetched; a plan only compares it.

    Raises: ConfigError where a source is not there.
    """
    found = []
    for source in settings.sources:
        files = fetch_pages(source, settings.data_dir, keep=keep_pages) if source.is_pages else walk(source)
        found += [_found(source, file, settings.labels) for file in files]
    return sorted(found, key=lambda one: (one.file.collection, one.file.path))


def _found(source: SourceSettings, file: SourceFile, labels: LabelSettings) -> Found:
    described = over(file.described, described_by_rules(source, file.path))
    by_rules = access_of_file(source, file.path, labels)
    rights = narrowed(by_rules, described.groups, described.label, labels)
    if rights is None:
        rights = by_rules
        problem = DocumentError(
            file.path,
            f"its sidecar names none of the groups that its source gives it to, {list(by_rules.groups)}",
            "name some of the source's groups, or give it to more in the source's rules",
        )
        file = replace(file, content_hash=None, problem=problem)
    return Found(file, described, rights, _record(file, described, rights, labels))


def _record(file: SourceFile, described: Described, rights: Access, labels: LabelSettings) -> FileRecord:
    said = () if described == NOTHING else (described.title, described.language, described.valid_from, described.valid_until)
    metadata = tuple(sorted(described.metadata.items()))
    # What is wrong with a file counts too, so that it is listed in today's words.
    problem = file.problem.reason if file.problem is not None else ""
    rules_hash = _hash_of(rights.groups, rights.label, labels.order, said, metadata, problem, file.read_as)
    return FileRecord(file.collection, file.path, file.size_bytes, file.content_hash, rules_hash)


@lru_cache(maxsize=1024)
def _hash_of(*rules: str | tuple[object, ...]) -> str:
    # The labels' order is among them: it decides what the labels in an export's rows come to.
    return hashlib.sha256(json.dumps([READER_VERSION, *rules]).encode()).hexdigest()[:16]
