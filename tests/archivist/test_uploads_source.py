"""What was uploaded to the service is one more source of the job."""

from __future__ import annotations

from pathlib import Path

import pytest

from archivist.settings import load_settings
from corpus.errors import ConfigError
from corpus.overlay import Overlay
from corpus.settings import RetentionSettings
from corpus.types import document_id_of
from tests.conftest import Run
from tests.making import job_settings, write_files


def settings_in(tmp_path: Path, *names: str) -> Path:
    """A configuration with sources of these names."""
    sources = "".join(f"  - {{path: documents, name: {name}}}\n" for name in names)
    text = f"data_dir: {tmp_path / 'data'}\nserver: {{max_upload_bytes: 5000}}\n" + (f"sources:\n{sources}" if sources else "")
    write_files(tmp_path, {"archivist.yaml": text})
    return tmp_path / "archivist.yaml"


def test_uploads_are_read_where_there_are_some(tmp_path: Path) -> None:
    """Behind the configured sources, whatever these are; before the first upload there is no such source."""
    config = settings_in(tmp_path, "handbook")
    assert [source.collection for source in load_settings(config).job().sources] == ["handbook"]
    write_files(tmp_path / "data" / "uploads", {"a.md": "A.\n"})
    job = load_settings(config, {"sources": [{"path": str(tmp_path / "other")}]}).job()
    assert [source.collection for source in job.sources] == ["other", "uploads"]
    uploads = job.sources[1]
    assert (uploads.folder, uploads.max_file_bytes) == (tmp_path / "data" / "uploads", 5000)
    # Sidecars only narrow, so the source gives everything to everyone, at the lowest label.
    assert (uploads.groups, uploads.label) == (("everyone",), "public")


def test_no_other_source_may_be_called_uploads(tmp_path: Path) -> None:
    """Both would give the same ids; the error says what that name is."""
    config = settings_in(tmp_path, "uploads")
    assert [source.collection for source in load_settings(config).job().sources] == ["uploads"]
    (tmp_path / "data" / "uploads").mkdir(parents=True)
    with pytest.raises(ConfigError, match="the name of what was uploaded to the service; give yours another `name`"):
        load_settings(config).job()


@pytest.mark.parametrize("other_changes", [True, False])
def test_what_was_stored_after_its_delete_was_erased_goes_with_the_next_run(
    tmp_path: Path, run: Run, other_changes: bool
) -> None:
    """Though nothing is pending any more: the run that withholds it removes it, published or unchanged, where runs erase."""
    data, late = tmp_path / "data", {"kit.md": "Kit.\n", "kit.md.meta.yaml": "groups: [everyone]\n"}
    uploads = write_files(data / "uploads", {"a.md": "A.\n", **late})
    settings = job_settings(data, uploads)
    run(settings)
    overlay = Overlay(data / "overlay.db")
    overlay.delete(document_id_of("uploads", "kit.md"), "anna")
    run(settings)
    assert sorted(path.name for path in uploads.iterdir()) == ["a.md"]
    overlay.note_erased([1])
    assert overlay.pending() == []
    overlay.close()
    write_files(uploads, {**late, **({"b.md": "B.\n"} if other_changes else {})})
    kept = run(settings.model_copy(update={"retention": RetentionSettings(purge_deleted=False)}))
    assert (kept.withheld, (uploads / "kit.md").exists()) == (1, True)
    if other_changes:
        write_files(uploads, {"b.md": "B by now.\n"})
    ended = run(settings)
    assert (ended.published, ended.withheld) == (other_changes, 1)
    assert not list(uploads.glob("kit.md*"))
