"""The scaling table: invented texts, files and vectors that behave like real ones, and every figure of a small corpus."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app.llm.settings import LlmSettings
from app.settings import HistorySettings, PromptSettings, ServerSettings, ServiceSettings
from corpus.embedders.embedder import Embedder
from corpus.settings import EmbedderSettings, LabelSettings, SearchSettings
from evaluation.bench.figures import Aim, BenchError, Figure
from evaluation.bench.invented import FREQUENT, WORDS, WORDS_A_TEXT, Language
from evaluation.bench.invented_embedder import InventedEmbedder
from evaluation.bench.invented_files import SHARES, Share
from evaluation.bench.memory import PeakMemory, family, memory_of
from evaluation.bench.options import Options
from evaluation.bench.scaling import disk_mb, measure_scaling, run_job
from evaluation.bench.scaling_search import recall
from ingest.readers.markdown import read_markdown
from tests.making import job_settings

ROOT = Path(__file__).parents[2]
NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux' /proc")


@pytest.fixture(scope="module")
def language() -> Language:
    """The invented language."""
    return Language()


@pytest.fixture(scope="module")
def texts(language: Language) -> list[str]:
    """2,000 texts of 400 subjects."""
    random = np.random.default_rng(5)
    made = [language.text(random, number % 400) for number in range(2000)]
    return ["\n\n".join((text.heading, *text.paragraphs)) for text in made]


def options(scratch: Path, **values: object) -> Options:
    """The default settings, and a folder to work in."""
    settings = ServiceSettings(
        data_dir=scratch / "data", server=ServerSettings(), labels=LabelSettings(), embedder=EmbedderSettings(),
        search=SearchSettings(), history=HistorySettings(), prompt=PromptSettings(folder=ROOT / "config" / "prompts"),
        llm=LlmSettings(),
    )  # fmt: skip
    given = {"config": Path("none"), "golden": Path("none"), "scratch": scratch, **values}
    return Options(settings=settings, job=job_settings(scratch / "data"), **given)  # type: ignore[arg-type]


def written(folder: Path) -> dict[str, bytes]:
    """The files under a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.md")}


def test_the_same_seed_invents_the_same_language(language: Language) -> None:
    """60,000 different words; another seed invents others, but the function words are English."""
    assert len(set(language.words.words)) == WORDS
    assert Language().words.words == language.words.words
    other = Language(7).words.words
    assert other[: len(FREQUENT)] == FREQUENT
    assert len(set(other) & set(language.words.words)) < WORDS / 4


def test_words_are_as_frequent_as_in_real_texts(texts: list[str]) -> None:
    """The document frequencies at some ranks are within a factor of 1.6 of those of scifact's chunks."""
    counts = Counter(word for text in texts for word in set(text.lower().replace(".", " ").split()))
    found = [count / len(texts) for _, count in counts.most_common(1000)]
    for rank, real in {1: 0.97, 10: 0.48, 30: 0.22, 100: 0.085, 300: 0.036, 1000: 0.013}.items():
        assert real / 1.6 < found[rank - 1] < real * 1.6, rank


def test_questions_have_8_to_13_words_of_which_some_are_of_the_text(language: Language) -> None:
    """Each length occurs; each question shares at least two different words with what it is about."""
    random = np.random.default_rng(6)
    lengths = set()
    for _ in range(100):
        about = language.text(random, 17)
        words = language.question(random, 17, about).lower().rstrip("?").split()
        lengths.add(len(words))
        assert len(set(words) & set(about.key_words)) >= 2
    assert lengths == {8, 9, 10, 11, 12, 13}


def test_files_are_what_they_say(tmp_path: Path, language: Language) -> None:
    """Small corpora are a chunk a file; the same share is written byte by byte alike; groups come in their shares."""
    for name in ("one", "two"):
        Share(tmp_path / name, 1000, language).write()
    assert written(tmp_path / "one") == written(tmp_path / "two")
    groups: Counter[str] = Counter()
    for path in sorted((tmp_path / "one").rglob("*.md")):
        found = read_markdown(path.name, path.read_bytes())
        assert found.language == "en"
        assert len(found.text.split()) == pytest.approx(WORDS_A_TEXT + 5, abs=1)
        groups.update(found.groups or ())
    assert groups["everyone"] == 1000
    for name, share in SHARES.items():
        assert groups[name] == pytest.approx(1000 * share, abs=2), name


def test_a_hundredth_of_the_files_changes(tmp_path: Path, language: Language) -> None:
    """Every text of these files is another; the others stay to the byte."""
    share = Share(tmp_path / "files", 300, language)
    share.write()
    before = written(tmp_path / "files")
    assert share.change() == 3
    after = written(tmp_path / "files")
    assert before.keys() == after.keys()
    changed = sorted(name for name in before if before[name] != after[name])
    assert changed == ["0000/0000000.md", "0000/0000100.md", "0000/0000200.md"]


def test_a_large_corpus_holds_long_documents(tmp_path: Path, language: Language) -> None:
    """Beyond 10,000 chunks a file has twenty sections, each with a heading of its own, and the last file is whole."""
    share = Share(tmp_path / "files", 10_020, language)
    assert (share.sections, share.files) == (20, 501)
    assert share.questions(3) == share.questions(3) != share.questions(3, seed=9)
    (tmp_path / "files" / "0000").mkdir(parents=True)
    share.write_file(500, 1)
    (path,) = tmp_path.rglob("*.md")
    found = read_markdown(path.name, path.read_bytes())
    assert len({section.heading for section in found.sections if section.heading}) == 20


def test_the_embedder_without_a_model_is_an_embedder() -> None:
    """Unit vectors in order, the same for questions and documents, from several threads; tokens without special ones."""
    embedder: Embedder = InventedEmbedder()
    texts = ["", "the of and", "banofet banogum 12.5", "Banofet, banogum! 12.5"] * 40
    vectors = embedder.embed_documents(texts)
    assert (vectors.shape, vectors.dtype) == ((160, embedder.dimension), np.dtype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors[2], vectors[3])
    assert vectors[2] @ vectors[1] < 0.9
    with ThreadPoolExecutor(4) as pool:
        for again in pool.map(InventedEmbedder().embed_queries, [texts] * 4):
            np.testing.assert_array_equal(again, vectors)
    assert embedder.embed_documents([]).shape == (0, embedder.dimension)
    assert [embedder.count_tokens(text) for text in ("", "banofet", "the of, and")] == [0, 2, 4]


def test_vectors_lie_to_each_other_as_a_models_do(texts: list[str]) -> None:
    """Mean and spread of the cosines, of the nearest and of the spectrum are near those of all-MiniLM-L6-v2 on scifact."""
    vectors = InventedEmbedder().embed_documents(texts)
    cosines = vectors @ vectors.T
    pairs = cosines[np.triu_indices(len(texts), k=1)]
    assert pairs.mean() == pytest.approx(0.12, abs=0.03)
    assert pairs.std() == pytest.approx(0.12, abs=0.02)
    assert np.median(np.sort(cosines, axis=1)[:, -2]) == pytest.approx(0.65, abs=0.1)
    spectrum = np.sort(np.linalg.eigvalsh(np.cov(vectors.T)))[::-1].cumsum()
    assert spectrum[[9, 49, 99, 199]] / spectrum[-1] == pytest.approx([0.29, 0.6, 0.77, 0.94], abs=0.11)


def test_texts_are_as_long_as_real_chunks(texts: list[str]) -> None:
    """About 176 tokens, and never more than a chunk may have with its heading and title."""
    embedder = InventedEmbedder()
    counts = [embedder.count_tokens(text) for text in texts[:300]]
    assert np.mean(counts) == pytest.approx(176, abs=8)
    assert max(counts) < 220


def test_recall_is_counted_against_all_visible_chunks() -> None:
    """A found chunk counts where none is better; a hidden one does not, nor one beyond the tenth; equal ones are as good."""
    random = np.random.default_rng(3)
    vectors = random.standard_normal((60, 16)).astype(np.float32)
    vectors[7] = vectors[8]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[7:8]
    everything, some, none = np.ones(60, dtype=bool), np.arange(60) % 20 == 7, np.zeros(60, dtype=bool)
    best = np.argsort(-(vectors @ query[0]), kind="stable")
    worst = best[::-1][:10]
    masks = {"all": everything, "half": everything, "tie": everything, "three": some, "hidden": some, "none": none}
    found = {
        "all": best[:12], "half": np.concatenate([best[:5], worst[:5], best[5:10]]),
        "tie": np.where(best[:10] == 7, 8, best[:10]), "three": np.array([7, 27]), "hidden": best[1:11], "none": best[:0],
    }  # fmt: skip
    recalls = recall(vectors.__getitem__, 60, query, masks, {name: [ordinals] for name, ordinals in found.items()})
    expected = len(set(best[1:11].tolist()) & {27, 47, 7}) / 3
    assert recalls == pytest.approx({"all": 1, "half": 0.5, "tie": 1, "three": 2 / 3, "hidden": expected, "none": 1})


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    """What a hard link adds is nothing."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one").write_bytes(os.urandom(1_000_000))
    once = disk_mb(tmp_path)
    assert once == pytest.approx(1.0, abs=0.1)
    os.link(tmp_path / "sub" / "one", tmp_path / "two")
    assert disk_mb(tmp_path) == once


@NEEDS_PROC
def test_memory_is_that_of_a_process_and_its_children() -> None:
    """A process that starts another: both hold 100 MB, and so does what is seen of them together, twice."""
    hold = "import time; held = bytearray(b'x' * 100_000_000); print('held', flush=True)"
    starts = f"import subprocess, sys; {hold}; subprocess.run([sys.executable, '-c', {hold + '; time.sleep(30)'!r}])"
    with subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            with PeakMemory(process.pid) as memory:
                assert [process.stdout.readline() for _ in range(2)] == [b"held\n", b"held\n"]
                time.sleep(0.5)
            pids = family(process.pid)
            assert len(pids) == 2
            assert memory.resident_mb is not None
            assert memory.anonymous_mb is not None
            assert 200 < memory.anonymous_mb <= memory.resident_mb < 500
        finally:
            for pid in reversed(family(process.pid)):
                os.kill(pid, 9)
    assert memory_of(process.pid) is None


def test_a_job_that_fails_is_an_error_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a row of figures."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(BenchError, match=r"the job ended with 1: corpus\.errors\.ConfigError: source 'nowhere'"):
        run_job(options(tmp_path), job_settings(tmp_path / "data", tmp_path / "nowhere"), tmp_path)


def test_a_small_corpus_has_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the real job and search: 300 chunks, nothing embedded twice, recall 1 where search is exact, nothing left."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    said: list[str] = []
    part = measure_scaling(options(tmp_path, sizes=(300,), say=said.append))
    assert {figure.part for figure in part.figures} == {"scaling 300"}
    found = {figure.name: figure for figure in part.figures}
    assert len(found) == len(part.figures)
    assert "writing 300 files with 300 chunks" in said
    exact = {
        "unchanged, embedded": 0, "unchanged, new snapshots": 0, "1 % changed, embedded": 3,
        **{f"{scope}: dense recall@10 against exact": 1 for scope in ("all", "50 % visible", "10 % visible", "1 % visible")},
    }  # fmt: skip
    assert {name: found[name].value for name in exact} == exact
    assert found["all: dense recall@10 against exact"].aim == Aim(0.98, at_least=True)
    assert found["1 % visible: dense recall@10 against exact"].aim == Aim(1.0, at_least=True)
    assert found["20 % visible: hybrid search p50"].data == "61 of 300 chunks visible, 100 questions"
    assert found["disk, one snapshot"].value * 1.5 < found["disk, with the snapshot before"].value + 1
    for name, figure in found.items():
        _is_plausible(name, figure)
    assert list(tmp_path.iterdir()) == []


def _is_plausible(name: str, figure: Figure) -> None:
    if figure.unit in ("s", "ms", "/s"):
        assert 0 < figure.value < 100_000, name
    if "memory" in name:
        assert 10 < figure.value < 2000, name
    if "p99" in name:
        assert figure.value > 0, name
