"""The lexical index: BM25 with stemming by language, under a filter. The only importer of tantivy."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import tantivy
from numpy.typing import NDArray
from tantivy import Filter, Occur, Query, Schema, SchemaBuilder, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

from corpus.effects import UNTOUCHED, Overlaid
from corpus.errors import NotWritten, SnapshotDamaged
from corpus.types import Mask, Ordinals
from corpus.words import FUNCTION_WORDS, WORD, function_words

STEMMED = {
    "ar": "arabic", "da": "danish", "nl": "dutch", "en": "english", "fi": "finnish", "fr": "french", "de": "german",
    "el": "greek", "hu": "hungarian", "it": "italian", "no": "norwegian", "nb": "norwegian", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "es": "spanish", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
"""Languages that the index stems, by ISO 639-1 code; a text in any other is indexed as it is."""

WITH_STOP_WORDS = frozenset({
    "danish", "dutch", "english", "finnish", "french", "german", "hungarian", "italian", "norwegian", "portuguese", "russian",
    "spanish", "swedish",
})  # fmt: skip
ANY = "any"
LONGEST_TOKEN = 100
# Both patterns take linear time: a question may be one word of a million letters.
JOINED = re.compile(r"[\w./-]+")
BROKEN = re.compile(r"[./-]{2,}")
BEFORE_FIGURES = re.compile(r"(?<=[^\W\d_])[-_./]?(?=\d)")
SEPARATORS = ("", "-", "_", ".", "/")
IDENTIFIER_WEIGHT = 2.0
"""An exact identifier counts as a word that is this much rarer than it is: two words that also match by chance must not win."""

MUCH, MORE = 0.25, 1.5
"""Where this share of the chunks may be seen, so many times as many of the best of all are asked for as should hold enough."""

FILTERS_KEPT, COUNTS_KEPT = 256, 65_536
"""How many chunks a filter admits, and how many of them hold a term, is counted once for so many."""

IDENTIFYING, IDENTIFYING_SHARE = 10, 0.002
"""An identifier singles something out where at most this many visible chunks, or this share of them, hold it."""


Found = tuple[Ordinals, NDArray[np.float32]]
"""Ordinals and scores, best first; equal scores by ordinal."""


def field_of(language: str | None) -> str:
    """The index field that holds texts of a language, such as `text_german`."""
    return f"text_{STEMMED.get((language or '').split('-')[0].lower(), ANY)}"


_NOT_ASKED_FOR = {field_of(language): function_words(language) for language in (*FUNCTION_WORDS, None)}
"""Words that a question is not searched by, by field: "do I have to" says how one asks, not what for."""


def identifiers(text: str) -> list[str]:
    """Form numbers, error codes, part numbers: whole tokens with a digit that are not plain numbers, lower-cased."""
    # Most runs are words, which is told fast.
    runs = (run for run in JOINED.findall(text) if not run.strip("-_./").isalpha())
    found = (part.strip("-_./").lower() for run in runs for part in BROKEN.split(run))
    return sorted({token for token in found if len(token) <= LONGEST_TOKEN and _is_identifier(token)})


def _is_identifier(token: str) -> bool:
    return any(c.isdigit() for c in token) and not token.isdigit()


def variants(identifier: str) -> list[str]:
    """How an identifier may be written: P-300, P300 and P_300 are one. Separators between two figures stay, as in 1.12."""
    return list(dict.fromkeys([identifier, *(BEFORE_FIGURES.sub(separator, identifier) for separator in SEPARATORS)]))


def _is_acronym(word: str, text: str) -> bool:
    """Whether a word is written as a name: the US in "US rates", but nothing in a text that is all capitals."""
    return len(word) > 1 and word.isupper() and not text.isupper()


def _new_analyzer(field: str) -> TextAnalyzer:
    language = field.removeprefix("text_")
    builder = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.remove_long(LONGEST_TOKEN)).filter(Filter.lowercase())
    if language in WITH_STOP_WORDS:
        builder = builder.filter(Filter.stopword(language))
    if language != ANY:
        builder = builder.filter(Filter.stemmer(language))
    return builder.filter(Filter.ascii_fold()).build()


@cache
def _analyzer(field: str) -> TextAnalyzer:
    return _new_analyzer(field)


def stems(text: str, language: str | None) -> list[str]:
    """The words of a text as the index knows them: lower-cased, stemmed, stop words left out; in order, with repeats."""
    return list(_analyzer(field_of(language)).analyze(text))


def _schema(fields: Sequence[str]) -> Schema:
    builder = SchemaBuilder()
    builder.add_unsigned_field("ordinal", fast=True)
    builder.add_unsigned_field("document", indexed=True)
    builder.add_text_field("groups", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("facets", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("identifiers", tokenizer_name="raw", index_option="basic")
    for field in fields:
        builder.add_text_field(field, tokenizer_name=field, index_option="freq")
    return builder.build()


def facet(field: str, value: str) -> str:
    """How a filterable field and its value stand in the index."""
    return f"{field}\x1f{value}"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Translates what tantivy raises where the disk is full or failing: a ValueError with its own words, whatever it is."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise NotWritten(str(folder), " ".join(str(error).split())[:200]) from error


class LexicalWriter:
    """Writes a new index. The fields (one a language) must be known from the start. Every call may raise NotWritten."""

    def __init__(self, folder: Path, fields: Iterable[str]) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=False)
        self._fields = sorted(set(fields) | {field_of("en"), field_of(None)})
        with _writing(folder):
            self._index = tantivy.Index(_schema(self._fields), path=str(folder), reuse=False)
            for field in self._fields:
                self._index.register_tokenizer(field, _new_analyzer(field))
            # One thread: a file then depends on nothing but its input.
            self._writer = self._index.writer(heap_size=200_000_000, num_threads=1)

    def add(
        self,
        ordinal: int,
        number: int,
        text: str,
        language: str | None,
        groups: Sequence[str],
        facets: Mapping[str, Sequence[str]],
    ) -> None:
        """Add one chunk: its document's number, its heading path and text, who may see it, what it can be filtered by."""
        document = tantivy.Document()
        document.add_unsigned("ordinal", ordinal)
        document.add_unsigned("document", number)
        document.add_text(field_of(language), text)
        for group in groups:
            document.add_text("groups", group)
        for field, values in facets.items():
            for value in values:
                document.add_text("facets", facet(field, value))
        for identifier in identifiers(text):
            document.add_text("identifiers", identifier)
        with _writing(self._folder):
            self._writer.add_document(document)

    def close(self) -> None:
        """Make the index complete on disk."""
        with _writing(self._folder):
            self._writer.commit()
            self._writer.wait_merging_threads()


class LexicalFilter:
    """What a search may find: any of the groups, and for every field any of its values, as the overlay has it. Each is equal
    only to itself.
    """

    def __init__(
        self,
        groups: Sequence[str],
        facets: Mapping[str, Sequence[str]],
        *,
        sees_everything: bool,
        overlaid: Overlaid = UNTOUCHED,
    ) -> None:
        self.groups = tuple(groups)
        self.facets = {field: tuple(values) for field, values in facets.items()}
        self.sees_everything = sees_everything
        self._hidden, self._labels = overlaid.hidden_from(groups), overlaid.labels

    def query(self, schema: Schema) -> Query:
        """The filter as a query that adds nothing to a score."""
        parts = [(Occur.Must, Query.term_set_query(schema, "groups", list(self.groups)))]
        parts += [(Occur.Must, self._facet(schema, field, values)) for field, values in self.facets.items()]
        if self._hidden:
            # Left out by the index itself: what is hidden must not crowd the candidates.
            parts.append((Occur.MustNot, _documents(schema, self._hidden)))
        return Query.const_score_query(Query.boolean_query(parts), 0.0)

    def _facet(self, schema: Schema, field: str, values: Sequence[str]) -> Query:
        stored = Query.term_set_query(schema, "facets", [facet(field, value) for value in values])
        if field != "label" or not self._labels:
            return stored
        unchanged = Query.boolean_query([(Occur.Must, stored), (Occur.MustNot, _documents(schema, self._labels))])
        raised = _documents(schema, [number for number, label in self._labels.items() if label in values])
        return Query.boolean_query([(Occur.Should, unchanged), (Occur.Should, raised)])


def _documents(schema: Schema, numbers: Iterable[int]) -> Query:
    return Query.term_set_query(schema, "document", list(numbers))


class LexicalIndex:
    """An open index. The caller has checked its files' hashes."""

    def __init__(self, folder: Path) -> None:
        try:
            self._index = tantivy.Index.open(str(folder))
            self._index.config_reader(reload_policy="manual")
            self._searcher = self._index.searcher()
        except (ValueError, OSError) as error:
            raise SnapshotDamaged(folder.parent.name, f"the lexical index cannot be opened ({error})") from error
        self._schema = self._index.schema
        self._analyzers = {
            field: _analyzer(field) for field in sorted({field_of(None), *map(field_of, STEMMED)}) if self._has_field(field)
        }
        self.size = int(self._searcher.num_docs)
        # What a filter admits does not change, and the words that take longest to count are asked for again and again.
        self._visible = lru_cache(maxsize=FILTERS_KEPT)(self._count_admitted)
        self._holding = lru_cache(maxsize=COUNTS_KEPT)(self._count_holding)

    def _has_field(self, field: str) -> bool:
        try:
            self._searcher.doc_freq(field, "x")
        except ValueError:
            return False
        return True

    def terms(self, text: str) -> list[tuple[str, str]]:
        """What a text is searched by: (field, term) pairs, function words left out, each once, in order."""
        # A lone surrogate is no character; tantivy takes none.
        text = text.encode("utf-8", "replace").decode()
        words = WORD.findall(text)
        found = []
        for field, analyzer in self._analyzers.items():
            skipped = _NOT_ASKED_FOR.get(field, frozenset())
            asked = " ".join(word for word in words if word.lower() not in skipped or _is_acronym(word, text))
            found += [(field, term) for term in dict.fromkeys(analyzer.analyze(asked))]
        return found + [("identifiers", identifier) for identifier in identifiers(text)]

    def search(
        self, text: str, limit: int, only: LexicalFilter, mask: Mask | None = None, *, must_identify: bool = False
    ) -> Found:
        """The visible chunks that best match the words of a text, by BM25; with `must_identify` only those that hold one of
        its identifiers, none where it has none.

        Order: best first; equal scores by ordinal. Words are never read as query syntax.

        Where the caller does not see everything, each term is boosted by the ratio of its inverse document frequency among
        the visible chunks to that among all, so that hidden documents do not weigh terms. What remains of them in a score is
        the average length of a text, which BM25 takes over the whole index.

        `mask` is what `only` admits, by ordinal: where it is much of all, asking the filter of each chunk takes longest.
        """
        named = self._identifying(text, only) if must_identify else []
        if must_identify and not named:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        clauses = []
        asked = [(field, form) for field, term in self.terms(text) for form in _forms(field, term)]
        for field, term in dict.fromkeys(asked):
            boost = self._boost(field, term, only)
            if boost > 0:
                clauses.append((Occur.Should, Query.boost_query(self._term(field, term), boost)))
        if not clauses or limit <= 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        words = Query.boolean_query(clauses)
        if not named and (found := self._among_the_best(words, limit, only, mask)) is not None:
            return found
        required = [Query.boolean_query([(Occur.Should, term) for term in named])] if named else []
        parts = [words, *required] if only.sees_everything else [words, only.query(self._schema), *required]
        return self._best(Query.boolean_query([(Occur.Must, part) for part in parts]), limit)

    def _among_the_best(self, words: Query, limit: int, only: LexicalFilter, mask: Mask | None) -> Found | None:
        """The best visible chunks where they are among the best of all; None where they may not be.

        Words alone are searched many times faster: what cannot be among the best is stepped over.
        """
        if only.sees_everything:
            return self._best(words, limit)
        if mask is None or self._visible(only) < MUCH * self.size:
            return None
        asked = math.ceil(MORE * limit * self.size / self._visible(only))
        ordinals, scores = self._best(words, asked)
        seen = np.flatnonzero(mask[ordinals])
        if len(seen) < limit and len(ordinals) == asked:
            return None
        return ordinals[seen[:limit]], scores[seen[:limit]]

    def _best(self, query: Query, limit: int) -> Found:
        hits = self._searcher.search(query, limit=limit, count=False).hits
        ordinals = np.array(self._searcher.fast_field_values("ordinal", [address for _, address in hits]), dtype=np.int64)
        scores = np.array([score for score, _ in hits], dtype=np.float32)
        order = np.lexsort((ordinals, -scores))
        return ordinals[order], scores[order]

    def holding(self, text: str, limit: int, only: LexicalFilter) -> Ordinals:
        """The visible chunks that hold every word of a text, stop words aside, in whatever order and form; none where it has
        no words but those. Of more than `limit` those that the index has first, none of them better than another."""
        text = text.encode("utf-8", "replace").decode()
        texts = []
        for field, analyzer in self._analyzers.items():
            if terms := list(dict.fromkeys(analyzer.analyze(text))):
                texts.append(Query.boolean_query([(Occur.Must, self._term(field, term)) for term in terms]))
        if not texts:
            return np.empty(0, dtype=np.int64)
        anywhere = Query.boolean_query([(Occur.Should, each) for each in texts])
        # A constant score: BM25 would let what is hidden choose the candidates.
        held = Query.const_score_query(anywhere, 0.0)
        query = Query.boolean_query([(Occur.Must, held), (Occur.Must, only.query(self._schema))])
        hits = self._searcher.search(query, limit=limit, count=False).hits
        return np.array(self._searcher.fast_field_values("ordinal", [address for _, address in hits]), dtype=np.int64)

    def holds_identifier(self, identifier: str, only: LexicalFilter) -> bool:
        """Whether any visible chunk holds an identifier, however its parts are joined."""
        return self._count_visible(self._identifier(identifier), only) > 0

    def _identifying(self, text: str, only: LexicalFilter) -> list[Query]:
        """The identifiers of a text that single something out: a token that stands in many chunks is a word like others.

        Only visible chunks count: how many hidden ones hold it must not show in an order.
        """
        named = [self._identifier(identifier) for identifier in identifiers(text)]
        if not named:
            return []
        most = max(IDENTIFYING, int(self._visible(only) * IDENTIFYING_SHARE))
        return [query for query in named if 0 < self._count_visible(query, only) <= most]

    def _identifier(self, identifier: str) -> Query:
        forms = [(Occur.Should, self._term("identifiers", form)) for form in variants(identifier)]
        return Query.boolean_query(forms)

    def _count_visible(self, query: Query, only: LexicalFilter) -> int:
        if only.sees_everything:
            return self._count(query)
        return self._count(Query.boolean_query([(Occur.Must, query), (Occur.Must, only.query(self._schema))]))

    def ordinals(self) -> Ordinals:
        """The ordinals of all that is in the index, in no order."""
        hits = self._searcher.search(Query.all_query(), limit=max(1, self.size), count=False).hits
        return np.array(self._searcher.fast_field_values("ordinal", [address for _, address in hits]), dtype=np.int64)

    def count(self, only: LexicalFilter) -> int:
        """How many chunks a filter admits."""
        return self._count(only.query(self._schema))

    def rarity(self, term: str, language: str | None, only: LexicalFilter) -> float:
        """The inverse document frequency of a stemmed term among the visible chunks; the highest where none has it."""
        field = field_of(language)
        holding = self._holding(field, term, only) if field in self._analyzers else 0
        return inverse_document_frequency(self._visible(only), holding)

    def _term(self, field: str, term: str) -> Query:
        return Query.term_query(self._schema, field, term, index_option="basic" if field == "identifiers" else "freq")

    def _count(self, query: Query) -> int:
        # tantivy's stubs leave the count out.
        return int(self._searcher.search(query, limit=1, count=True).count)  # type: ignore[attr-defined]

    def _count_admitted(self, only: LexicalFilter) -> int:
        return self.size if only.sees_everything else self.count(only)

    def _count_holding(self, field: str, term: str, only: LexicalFilter) -> int:
        if only.sees_everything:
            return int(self._searcher.doc_freq(field, term))
        return self._count_visible(self._term(field, term), only)

    def _boost(self, field: str, term: str, only: LexicalFilter) -> float:
        weight = IDENTIFIER_WEIGHT if field == "identifiers" else 1.0
        everywhere = int(self._searcher.doc_freq(field, term))
        if everywhere == 0:
            return 0.0
        if only.sees_everything:
            return weight
        here = self._holding(field, term, only)
        if here == 0:
            return 0.0
        visible = inverse_document_frequency(self._visible(only), here)
        return weight * visible / inverse_document_frequency(self.size, everywhere)


def _forms(field: str, term: str) -> list[str]:
    return variants(term) if field == "identifiers" else [term]


def inverse_document_frequency(size: int, frequency: int) -> float:
    """How rare a term is. Source: Robertson and Zaragoza 2009, the form of BM25 that Lucene and tantivy use."""
    return math.log(1 + (size - frequency + 0.5) / (frequency + 0.5))
