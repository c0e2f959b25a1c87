"""A share of invented Markdown files: small ones of a chunk each, or handbooks of twenty. Each is made by its number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.bench.generated import SEED
from evaluation.bench.invented import SUBJECTS, Language, Text

SMALL_CORPUS, SECTIONS = 10_000, 20
"""Up to so many chunks each is a file; beyond, a file has so many sections: what is large holds long documents."""

FILES_A_FOLDER = 1000
GOLDEN = (5**0.5 - 1) / 2
"""Its multiples fill the unit interval evenly, so that shares are met with few files too."""

SHARES = {"half": 0.5, "fifth": 0.2, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001}
"""Groups, and the share of the files that each may see. Everyone may see all."""

CHANGED_EVERY = 100


@dataclass(frozen=True, slots=True)
class Share:
    """So many chunks in files under a folder. `texts` is the language they are in."""

    folder: Path
    chunks: int
    language: Language

    @property
    def sections(self) -> int:
        """Chunks of a file."""
        return 1 if self.chunks <= SMALL_CORPUS else SECTIONS

    @property
    def files(self) -> int:
        """How many files there are."""
        return -(-self.chunks // self.sections)

    def write(self) -> None:
        """Write all files."""
        for first in range(0, self.files, FILES_A_FOLDER):
            (self.folder / f"{first // FILES_A_FOLDER:04d}").mkdir(parents=True)
            for number in range(first, min(first + FILES_A_FOLDER, self.files)):
                self.write_file(number, 1)

    def write_file(self, number: int, version: int) -> None:
        """Write one file; each of its versions has other texts."""
        _, title, texts = self._document(number, version)
        groups = ["everyone", *(name for name, share in SHARES.items() if number * GOLDEN % 1 < share)]
        parts = [f"---\nlanguage: en\ngroups: [{', '.join(groups)}]\n---\n# {title}"]
        for text in texts:
            parts += [f"## {text.heading}", *text.paragraphs] if self.sections > 1 else text.paragraphs
        path = self.folder / f"{number // FILES_A_FOLDER:04d}" / f"{number:07d}.md"
        path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")

    def change(self) -> int:
        """Write every hundredth file anew, with other texts; how many chunks they hold."""
        changed = range(0, self.files, CHANGED_EVERY)
        for number in changed:
            self.write_file(number, 2)
        return len(changed) * self.sections

    def questions(self, count: int, seed: int = SEED + 1) -> list[str]:
        """Questions about texts anywhere in the files, as they were written first."""
        random = np.random.default_rng(seed)
        return [self._question(random, int(number)) for number in random.integers(0, self.files, count)]

    def _question(self, random: np.random.Generator, number: int) -> str:
        subject, _, texts = self._document(number, 1)
        return self.language.question(random, subject, texts[int(random.integers(len(texts)))])

    def _document(self, number: int, version: int) -> tuple[int, str, list[Text]]:
        """A file's subject, title and texts."""
        random = np.random.default_rng((SEED, number, version))
        subject = int(random.integers(SUBJECTS))
        title = self.language.title(random, subject)
        return subject, title, [self.language.text(random, subject) for _ in range(self.sections)]
