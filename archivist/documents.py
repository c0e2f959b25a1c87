"""`archivist documents`: list them, and decide between runs who may not see one any more, and under which label."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from archivist.settings import Settings, load_settings
from corpus.effects import Effect, Entry, Seen
from corpus.errors import ConfigError, Conflict, NoSnapshot, NotFound, SnapshotDamaged
from corpus.overlay import NAME, Overlay

if TYPE_CHECKING:
    from corpus.records import DocumentSummary
    from corpus.stored import Stored

PAGE = 500

documents_app = typer.Typer(help="Look at documents, delete them, revoke groups, raise labels.", no_args_is_help=True)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file.")]
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of snapshots and conversations (data_dir).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DocumentArgument = Annotated[str, typer.Argument(help="Id of a document; `archivist documents list` has them.")]


@documents_app.command("list")
def list_documents(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """The documents of the current snapshot as they may be seen now, whoever may see them; ordered by source."""
    from corpus.settings import SearchSettings
    from corpus.snapshot import open_current

    with _opened(config, data) as (settings, overlay):
        snapshot, _ = open_current(settings.data_dir, SearchSettings(), overlay)
        with closing(snapshot):
            store, groups = snapshot.store, snapshot.store.stored.groups()
            found: list[DocumentSummary] = []
            while page := store.document_summaries(groups, after=found[-1].document_id if found else None, limit=PAGE):
                found += page
    found.sort(key=lambda each: (each.collection, each.source))
    if as_json:
        _print_json([asdict(each) for each in found])
        return
    for each in found:
        _print(f"{each.document_id}  {each.label:<12}  {','.join(each.groups)}  {each.collection}: {each.source}")


@documents_app.command("delete")
def delete_document(
    document: DocumentArgument, config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Nobody sees the document from the next request on, and no run brings it back while its file still lies there.

    Its text is erased by the next run, or at once by `archivist snapshots purge`.
    """
    with _opened(config, data) as (settings, overlay):
        seen, effect, _ = _known(settings.data_dir, overlay, document)
        if effect.deleted:
            raise Conflict(f"document {document!r} is deleted already; see `archivist documents overrides`")
        _told(overlay.delete(document, _user(), seen), as_json=as_json)


@documents_app.command("revoke")
def revoke_group(
    document: DocumentArgument,
    group: Annotated[str, typer.Argument(help="A group that may see the document.")],
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """The group does not see the document from the next request on, whatever its source says of it later."""
    with _opened(config, data) as (settings, overlay):
        seen, effect, groups = _known(settings.data_dir, overlay, document)
        left = sorted(set(groups) - effect.revoked)
        if group not in left:
            raise ConfigError(f"group {group!r} is none that may see document {document!r}; these may: {', '.join(left)}")
        _told(overlay.revoke(document, group, _user(), seen), as_json=as_json)


@documents_app.command("relabel")
def relabel_document(
    document: DocumentArgument,
    label: Annotated[str, typer.Argument(help="A label of labels.order; a lower one than the document has changes nothing.")],
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """The document has at least this label from the next request on, for earlier answers from it too."""
    with _opened(config, data) as (settings, overlay):
        if label not in settings.labels.order:
            raise ConfigError(f"label {label!r} is not in labels.order; known: {', '.join(settings.labels.order)}")
        seen, _, _ = _known(settings.data_dir, overlay, document)
        _told(overlay.relabel(document, label, _user(), seen), as_json=as_json)


@documents_app.command("overrides")
def list_overrides(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """All that was ever decided, by number; what was undone, and which deletions are erased."""
    with _opened(config, data) as (_, overlay):
        entries = overlay.entries()
    if as_json:
        _print_json([asdict(entry) for entry in entries])
        return
    for entry in entries:
        ended = f"  undone {entry.undone_at}" if entry.undone_at else f"  erased {entry.erased_at}" if entry.erased_at else ""
        _print(f"{entry.number:>5}  {entry.created_at}  {_what(entry)}  by {entry.by}{ended}")


@documents_app.command("undo")
def undo_override(
    number: Annotated[int, typer.Argument(help="Number of an override.")],
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was decided ends. What a run or a purge has taken out comes back with the next run that reads it."""
    with _opened(config, data) as (_, overlay):
        entry = overlay.undo(number)
    _print_json(asdict(entry)) if as_json else _print(f"Undone: {entry.number}, {_what(entry)}.")


def _known(data_dir: Path, overlay: Overlay, document_id: str) -> tuple[Seen, Effect, tuple[str, ...]]:
    """Where a document was seen last, what is decided of it already, and the groups that it is stored for.

    Raises: NotFound where no snapshot knows it, NoSnapshot.
    """
    from corpus.published import current_id, number_of, snapshot_ids

    current = current_id(data_dir)
    for name in [current, *(each for each in reversed(snapshot_ids(data_dir)) if each != current)]:
        folder = data_dir / "snapshots" / name
        with suppress(SnapshotDamaged), closing(_stored(folder)) as stored:
            parts = stored.document_with_parts(document_id)
            if parts is not None:
                seen = stored.seen(document_id, number_of(name))
                effect = overlay.effects().effect(document_id, seen.former, text_hash=seen.text_hash)
                return seen, effect, parts[0].groups
            if any(record.document_id == document_id for record in stored.effect_records()):
                return Seen(number_of(name)), overlay.effects().effect(document_id), ()
    raise NotFound("document in any snapshot with the id", document_id)


def _stored(folder: Path) -> Stored:
    """A snapshot's chunks.db. Raises: SnapshotDamaged, also for one of another version's format."""
    from corpus.manifest import read_manifest
    from corpus.stored import Stored

    read_manifest(folder)
    return Stored(folder / "chunks.db")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "command line"


def _what(entry: Entry) -> str:
    return f"{entry.kind} {entry.document_id} {entry.value}".rstrip()


def _told(entry: Entry, *, as_json: bool) -> None:
    if as_json:
        _print_json(asdict(entry))
        return
    _print(f"Override {entry.number}: {_what(entry)}. It holds from the next request on.")


@contextmanager
def _opened(config: Path | None, data: Path | None) -> Iterator[tuple[Settings, Overlay]]:
    settings = load_settings(config, {} if data is None else {"data_dir": data})
    if not settings.data_dir.is_dir():
        raise NoSnapshot(str(settings.data_dir))
    with closing(Overlay(settings.data_dir / NAME, settings.labels)) as overlay:
        yield settings, overlay


def _print(text: str) -> None:
    Console(soft_wrap=True, highlight=False, markup=False).print(text)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))  # noqa: T201 - the command's output
