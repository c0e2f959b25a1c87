"""Which language a text is in. The only importer of py3langid."""

from __future__ import annotations

from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from corpus.lexical import STEMMED

SAMPLE = 3000
SHORTEST = 40
SURE = 0.9


@cache
def _identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # Only what the lexical index can stem makes a difference, and fewer choices make fewer mistakes.
    identifier.set_languages(sorted(set(STEMMED) & set(identifier.labels)))
    return identifier


def detect_language(text: str) -> str | None:
    """The ISO 639-1 code of a text's language, or None where it is too short or unclear to tell."""
    sample = text[:SAMPLE]
    if len(sample.strip()) < SHORTEST:
        return None
    language, probability = _identifier().classify(sample)
    return str(language) if probability >= SURE else None
