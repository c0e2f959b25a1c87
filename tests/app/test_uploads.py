"""Uploaded files in their folder: names, sidecars, and no half of anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.uploads import CLOSED, Said, Uploads, checked_name, document_of
from corpus.errors import Conflict, DocumentError, Invalid, NotWritten
from corpus.types import document_id_of
from ingest.sources.sidecar import parse_sidecar

EVERYONE = Said(("everyone",), "internal")
BOARD = Said(("board",), "secret", "Pay: the 'bands' # not a comment")

BAD_NAMES = (
    "", " ", ".", "..", "../a.md", "a/../../b.md", "/etc/passwd.md", "..\\a.md", "C:\\a.md", "C:a.md", "a\x00.md", "a\n.md",
    ".hidden.md", "~$a.docx", " a.md", "a.md.", "a.md ", "CON.md", "nul.txt", "Aux", "com1.pdf", "LPT9.md", "COM¹.md",
    "a\u202edm.md", "a\u200b.md", "a\u2028.md", "\ud800.md", "a" * 201 + ".md", "ä" * 100 + ".md", "a*.md", "a?.md", "a|.md",
)  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_name_that_means_more_than_one_file_is_refused(name: str) -> None:
    """Threat C7: paths, devices, hidden and unseen characters, too long; the error names it."""
    with pytest.raises(Invalid, match="name ") as refused:
        checked_name(name)
    assert refused.value.field == "name"


def test_other_names_are_stored_composed() -> None:
    """Umlauts, spaces, percent signs, emoji; one written with combining marks is the same as the composed one."""
    for name in ("Report.pdf", "Spesen 2026 (neu).docx", "100%2e.md", "Grüße 😀.txt", "console.md", "a..b.md"):
        assert checked_name(name) == name
    assert checked_name("Gru\u0308\u00dfe.md") == "Gr\u00fc\u00dfe.md"


def put(uploads: Uploads, name: str, data: bytes, said: Said) -> bool:
    """Upload a file whole."""
    received = uploads.receive()
    try:
        uploads.add(received, data)
        return uploads.put(received, name, said)
    finally:
        uploads.discard(received)


def files(data_dir: Path) -> dict[str, bytes]:
    """What lies in the folder of uploads."""
    return {path.name: path.read_bytes() for path in (data_dir / "uploads").iterdir()}


def test_a_file_lies_there_with_what_is_said_of_it(tmp_path: Path) -> None:
    """The job reads the same groups, label and title from the sidecar that were given; a second upload takes its place."""
    uploads = Uploads(tmp_path)
    assert put(uploads, "pay.md", b"one", BOARD) is False
    assert put(uploads, "pay.md", b"two", BOARD) is True
    assert sorted(files(tmp_path)) == ["pay.md", "pay.md.meta.yaml"]
    assert files(tmp_path)["pay.md"] == b"two"
    described = parse_sidecar(files(tmp_path)["pay.md.meta.yaml"], "pay.md.meta.yaml", "pay.md")
    assert (described.groups, described.label, described.title) == (BOARD.groups, BOARD.label, BOARD.title)


@pytest.mark.parametrize("steps", range(4))
def test_what_is_replaced_is_never_open_wider_than_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Stopped after any step, a confidential file does not stand beside the sidecar of the public one that replaces it."""
    put(Uploads(tmp_path), "pay.md", b"confidential", BOARD)
    before, made = files(tmp_path), 0
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        nonlocal made
        if made == steps:
            raise OSError(5, "stopped")
        made += 1
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    if steps == 3:
        assert put(Uploads(tmp_path), "pay.md", b"public", EVERYONE) is True
    else:
        with pytest.raises(NotWritten):
            put(Uploads(tmp_path), "pay.md", b"public", EVERYONE)
    after = files(tmp_path)
    sidecar = after["pay.md.meta.yaml"]
    if steps == 0:
        assert after == before
    elif steps < 3:
        assert sidecar == CLOSED.encode()
        with pytest.raises(DocumentError, match="groups is not a list of at least one group"):
            parse_sidecar(sidecar, "pay.md.meta.yaml", "pay.md")
    else:
        assert parse_sidecar(sidecar, "pay.md.meta.yaml", "pay.md").groups == ("everyone",)
    assert after["pay.md"] == (b"confidential" if steps < 2 else b"public")
    assert sorted(after) == ["pay.md", "pay.md.meta.yaml"]


def test_a_new_file_never_stands_without_its_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sidecar is there first, and goes last."""
    uploads = Uploads(tmp_path)
    seen: list[list[str]] = []
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        done = real(path, target)
        seen.append(sorted(name for name in files(tmp_path) if not name.startswith(".")))
        return done

    monkeypatch.setattr(Path, "replace", replace)
    put(uploads, "a.md", b"a", EVERYONE)
    assert seen == [["a.md.meta.yaml"], ["a.md", "a.md.meta.yaml"]]
    uploads.remove(document_id_of("uploads", "a.md"))
    assert files(tmp_path) == {}


def test_what_was_being_received_is_removed(tmp_path: Path) -> None:
    """When the caller hangs up at once, and after a kill at the next start; what is complete stays."""
    uploads = Uploads(tmp_path)
    put(uploads, "a.md", b"a", EVERYONE)
    received = uploads.receive()
    uploads.add(received, b"half of it")
    uploads.discard(received)
    assert sorted(files(tmp_path)) == ["a.md", "a.md.meta.yaml"]
    left = uploads.receive()
    left.close()
    assert len(files(tmp_path)) == 3
    Uploads(tmp_path).tidy()
    assert sorted(files(tmp_path)) == ["a.md", "a.md.meta.yaml"]


def test_names_that_differ_by_capitals_only_are_one_too_many(tmp_path: Path) -> None:
    """On some systems they are one file."""
    uploads = Uploads(tmp_path)
    put(uploads, "Report.md", b"a", EVERYONE)
    with pytest.raises(Conflict, match=r"Report\.md"):
        put(uploads, "report.md", b"b", EVERYONE)
    assert sorted(files(tmp_path)) == ["Report.md", "Report.md.meta.yaml"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """What a link in the folder leads to stays as it is."""
    outside = tmp_path / "outside.md"
    outside.write_bytes(b"outside")
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "a.md").symlink_to(outside)
    assert put(Uploads(tmp_path), "a.md", b"mine", EVERYONE) is True
    assert (outside.read_bytes(), (tmp_path / "uploads" / "a.md").is_symlink()) == (b"outside", False)


def test_a_document_is_found_by_its_id(tmp_path: Path) -> None:
    """The id that the job gives it; an export has none of its own."""
    uploads = Uploads(tmp_path)
    assert uploads.name_of("x") is None
    put(uploads, "a.md", b"a", EVERYONE)
    put(uploads, "rows.jsonl", b"{}", EVERYONE)
    assert uploads.name_of(document_id_of("uploads", "a.md")) == "a.md"
    assert uploads.name_of(document_id_of("uploads", "rows.jsonl")) is None
    assert document_of("rows.jsonl") is None
