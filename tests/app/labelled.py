"""A corpus in which every sentence has a word of its own, three recording providers, and a detector of what leaked."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.llm.fake.behaviour import Recorded
from app.llm.settings import ProviderSettings
from corpus.settings import LabelSettings
from ingest.settings import RuleSettings
from tests.servers import RunningFake, running_fake_llm

ORDER = LabelSettings().order
CLEARANCES = {"local": "secret", "partner": "internal", "commercial": "public"}
"""What each provider may see. `local` states nothing, since it is on this machine."""

TOPICS = {
    "public": ("canteen", "parking", "library"),
    "internal": ("travel", "holiday", "training"),
    "confidential": ("takeover", "salary", "lawsuit"),
    "secret": ("vaccine", "encryption", "whistleblower"),
}
RULES = tuple(RuleSettings(match=f"{label}/**", label=label) for label in ORDER)
_GRAM = 8
_WORDS = (
    "river lantern copper meadow signal harbour velvet engine orchard pepper tunnel marble window cedar anchor feather "
    "ribbon thunder candle bridge walnut saddle mirror garden kettle prairie helmet barrel compass needle spider tractor"
)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Files by path, and what of them is labelled how: the canaries, and all runs of eight words."""

    files: Mapping[str, str]
    canaries: Mapping[str, frozenset[str]]
    runs: Mapping[str, frozenset[tuple[str, ...]]]

    def derived(self, texts: Iterable[str], label: str) -> list[str]:
        """What in some texts is from a passage above a label."""
        above = ORDER[ORDER.index(label) + 1 :]
        together = "\n".join(texts).lower()
        # Without what stands between letters: a canary is found also where a format has cut it in two.
        squeezed, found = re.sub(r"[\W_]+", "", together), runs(together)
        return [
            *(canary for each in above for canary in sorted(self.canaries[each]) if canary in squeezed),
            *(" ".join(run) for each in above for run in sorted(self.runs[each] & found)),
        ]

    def labels_in(self, requests: Iterable[Recorded]) -> set[str]:
        """The labels of which some requests hold a canary."""
        together = " ".join(text for request in requests for text in texts_of(request)).lower()
        return {label for label, canaries in self.canaries.items() if any(canary in together for canary in canaries)}


def labelled(seed: int) -> Labelled:
    """Three documents of each label, and an export with rows that have no label and one that nobody knows."""
    chance = random.Random(seed)
    files: dict[str, str] = {}
    texts: dict[str, list[str]] = {label: [] for label in ORDER}
    canaries: dict[str, set[str]] = {label: set() for label in ORDER}

    def canary_of(label: str) -> str:
        canary = "".join(chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(4)) + "x"
        canaries[label].add(canary)
        return canary

    def sentence(label: str, topic: str) -> str:
        canary = canary_of(label)
        tail = " ".join(chance.sample(_WORDS.split(), 9))
        return chance.choice(
            (
                f"The {topic} is run by {canary} since last year, beside {tail}.",
                f"Whoever asks about the {topic} must say {canary} and then {tail}.",
                f"The {topic} costs {chance.randint(100, 999)} crowns and is called {canary}, of {tail}.",
            )
        )

    def text_of(label: str, topic: str, sentences: int) -> str:
        text = " ".join(sentence(label, topic) for _ in range(sentences))
        texts[label].append(text)
        return text

    for label, topics in TOPICS.items():
        for topic in topics:
            parts = (f"## Part {number}\n\n{text_of(label, topic, 3)}" for number in range(1, 4))
            files[f"{label}/{topic}.md"] = f"# About the {topic} of {canary_of(label)}\n\n" + "\n\n".join(parts) + "\n"
    # What nobody labelled is internal here, a row can only raise that, and a label that nobody knows counts as the highest.
    rows = (
        {"id": "1", "title": "Bicycle", "text": text_of("internal", "bicycle", 2)},
        {"id": "2", "title": "Merger", "text": text_of("secret", "merger", 2), "label": "streng vertraulich"},
        {"id": "3", "title": "Weather", "text": text_of("internal", "weather", 2), "label": "public"},
    )
    files["export.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows)
    found = {label: frozenset(run for text in texts[label] for run in runs(text)) for label in ORDER}
    return Labelled(files, {label: frozenset(words) for label, words in canaries.items()}, found)


def runs(text: str) -> frozenset[tuple[str, ...]]:
    """All runs of eight words."""
    words = re.findall(r"\w+", text.lower())
    return frozenset(tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1))


def texts_of(request: Recorded) -> list[str]:
    """Every text in a request: address, headers, and what the body says once it is parsed."""
    parsed = [json.loads(request.body)] if request.body else []
    return [request.path, request.query, *request.headers.values(), *_strings(parsed)]


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, inner in value.items():
                yield name
                yield from _strings(inner)
        case list():
            for inner in value:
                yield from _strings(inner)


@dataclass(frozen=True, slots=True)
class Providers:
    """The fakes by the names of the providers, each spoken to in another wire format."""

    fakes: Mapping[str, RunningFake]

    def settings(self, **changes: Any) -> dict[str, ProviderSettings]:
        """All three as the configuration has them; a failure takes a quarter of a second at most."""
        quick = {"first_token_timeout_s": 0.25, "between_tokens_timeout_s": 0.25, "total_timeout_s": 10.0, **changes}
        values: dict[str, dict[str, Any]] = {
            "local": {"kind": "openai", "base_url": self.fakes["local"].base_url},
            "partner": {"kind": "anthropic", "base_url": self.fakes["partner"].base_url, "clearance": "internal"},
            "commercial": {"kind": "google", "base_url": self.fakes["commercial"].google_base_url, "clearance": "public"},
        }
        return {name: ProviderSettings.model_validate({"model": name, **quick, **each}) for name, each in values.items()}

    def clear(self) -> None:
        """Forget what was received."""
        for fake in self.fakes.values():
            fake.requests.clear()

    def sent(self, name: str) -> Sequence[Recorded]:
        """What a provider received."""
        return self.fakes[name].requests

    def leaks(self, corpus: Labelled) -> dict[str, list[str]]:
        """What each provider received that is above its clearance; empty where all is well."""
        found = {
            name: corpus.derived((text for request in fake.requests for text in texts_of(request)), CLEARANCES[name])
            for name, fake in self.fakes.items()
        }
        return {name: what for name, what in found.items() if what}


@contextmanager
def running_providers() -> Iterator[Providers]:
    """The three fakes, each listening."""
    with ExitStack() as stack:
        yield Providers({name: stack.enter_context(running_fake_llm()) for name in CLEARANCES})


def corpus_rules(**raised: str) -> tuple[RuleSettings, ...]:
    """The rules of the corpus, with further labels for some topics, by the topic's name; the last one holds."""
    return (*RULES, *(RuleSettings(match=f"*/{topic}.md", label=label) for topic, label in raised.items()))


def write(corpus: Labelled, folder: Path) -> Path:
    """The corpus as files."""
    for name, text in corpus.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
