"""`archivist snapshots`: what was published, what is served, whether it is whole, and that what was deleted is gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from archivist.settings import load_settings
from corpus.errors import NotFound, SnapshotDamaged

if TYPE_CHECKING:
    from corpus.diff import Access, Difference, Named
    from corpus.manifest import Manifest

LISTED = 20
"""Documents of each kind that a comparison names; all of them stand in its JSON."""

snapshots_app = typer.Typer(help="Look at what was published.", no_args_is_help=True)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file.")]
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of snapshots and conversations (data_dir).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@snapshots_app.command("list")
def list_snapshots(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """The published snapshots, oldest first; the current one is marked, the one that is held, and those that are damaged."""
    from corpus.published import current_id, held, snapshot_ids

    data_dir = _data_dir(config, data)
    current, pinned = current_id(data_dir), held(data_dir)
    found = [(name, _manifest(data_dir, name)) for name in snapshot_ids(data_dir)]
    if as_json:
        told = [asdict(each) if not isinstance(each, str) else {"id": name, "problem": each} for name, each in found]
        _print_json([{**each, "current": each["id"] == current, "held": each["id"] == pinned} for each in told])
        return
    for name, each in found:
        mark = "*" if name == current else " "
        is_held = "  held" if name == pinned else ""
        _print(f"{mark} {name}  {f'damaged: {each}' if isinstance(each, str) else _counts(each)}{is_held}")


def _manifest(data_dir: Path, snapshot: str) -> Manifest | str:
    """What a snapshot says of itself, or why that cannot be read."""
    from corpus.manifest import read_manifest

    try:
        return read_manifest(data_dir / "snapshots" / snapshot)
    except SnapshotDamaged as error:
        return error.reason


def _counts(manifest: Manifest) -> str:
    return f"{manifest.created_at}  {manifest.documents} documents  {manifest.chunks} chunks  {manifest.embedder.model}"


@snapshots_app.command("show")
def show_snapshot(
    snapshot: Annotated[str | None, typer.Argument(help="Id of a snapshot; the current one if left out.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a snapshot holds, what made it, what was checked before it was published, and what it takes on disk."""
    from corpus.manifest import read_manifest
    from corpus.published import current_id, hold_of

    data_dir = _data_dir(config, data)
    current, hold = current_id(data_dir), hold_of(data_dir)
    name = snapshot or current
    manifest = read_manifest(_folder(data_dir, name))
    sizes = {file: _size(data_dir / "snapshots" / name, file) for file in manifest.files}
    since = hold.since if hold is not None and hold.snapshot == name else None
    if as_json:
        told = {**asdict(manifest), "current": name == current, "held_since": since, "sizes_bytes": sizes}
        _print_json(told)
        return
    state = ["current"] if name == current else []
    _print(f"{name}  {', '.join([*state, *([f'held since {since}'] if since else [])])}".rstrip())
    for title, value in _shown(manifest, sum(sizes.values())):
        _print(f"  {title:<10} {value}")


def _size(folder: Path, file: str) -> int:
    try:
        return (folder / file).stat().st_size
    except OSError as error:
        raise SnapshotDamaged(folder.name, f"{file} cannot be read ({error.strerror})") from error


def _shown(manifest: Manifest, size_bytes: int) -> list[tuple[str, str]]:
    stamp = manifest.embedder
    graph = f", graph {stamp.graph}" if stamp.graph is not None else ""
    failures = f", {manifest.failures} could not be read" if manifest.failures else ""
    told = [
        ("made", manifest.created_at + (f" from {manifest.parent}" if manifest.parent else " from nothing")),
        ("documents", f"{manifest.documents} in {manifest.chunks} chunks{failures}"),
        ("embedder", f"{stamp.model} ({stamp.dimension} dimensions, {stamp.engine}{graph})"),
        ("chunking", ", ".join(f"{key} {value}" for key, value in manifest.chunking.items())),
        ("on disk", f"{size_bytes / 1e6:,.1f} MB in {len(manifest.files)} files"),
    ]
    return told + [("checked", _checked(check)) for check in manifest.gate]


def _checked(check: Mapping[str, Any]) -> str:
    """One line for a check of the gate."""
    outcome = "held" if check["passed"] else "did not hold"
    measured = "nothing" if check["measured"] is None else f"{check['measured']:g}"
    return f"{check['name']} {outcome}: {check['detail']} (measured {measured}, limit {check['wanted']:g})"


@snapshots_app.command("diff")
def diff_snapshots(
    before: Annotated[str, typer.Argument(help="Id of a snapshot.")],
    now: Annotated[str, typer.Argument(help="Id of another one.")],
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """The documents that were added, changed, moved and gone from one snapshot to another, and those whose access changed."""
    from corpus.diff import difference

    data_dir = _data_dir(config, data)
    found = difference(_folder(data_dir, before), _folder(data_dir, now))
    if as_json:
        _print_json({"before": before, "now": now, **found.as_json()})
        return
    _print("\n".join(_told(found)))


def _told(found: Difference) -> list[str]:
    kinds: list[tuple[str, str, list[Named] | list[Access]]] = [
        ("added", "+", found.added), ("changed", "~", found.changed), ("moved", ">", found.moved), ("gone", "-", found.gone),
        ("access", "!", found.access),
    ]  # fmt: skip
    lines = [", ".join([*(f"{len(each)} {kind}" for kind, _, each in kinds), f"{found.kept} the same"])]
    for kind, mark, each in kinds:
        lines += [f"{mark} {_line(one)}" for one in each[:LISTED]]
        if len(each) > LISTED:
            lines.append(f"{mark} … and {len(each) - LISTED} more {kind}; --json names them all")
    return lines


def _line(one: Named | Access) -> str:
    from corpus.diff import Named

    if isinstance(one, Named):
        return one.source if one.was is None else f"{one.was} → {one.source}"
    (label_was, label), (groups_were, groups) = one.labels, one.groups
    parts = [f"label {label_was} → {label}"] if label_was != label else []
    if set(groups_were) != set(groups):
        parts.append(f"groups {', '.join(groups_were)} → {', '.join(groups)}")
    return f"{one.source}: {'; '.join(parts)}"


@snapshots_app.command("activate")
def activate_snapshot(
    snapshot: Annotated[str, typer.Argument(help="Id of a snapshot.")],
    hold: Annotated[bool, typer.Option("--hold", help="Hold it: until it is released, no run publishes another.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Serve a published snapshot, an older one to roll back; a running service takes it up within seconds."""
    from corpus.snapshot import activate

    settings = load_settings(config, {"data_dir": data} if data is not None else {})
    activate(settings.data_dir, snapshot, hold=hold, embedder=settings.embedder)
    _print(f"{snapshot} is current{', and held: runs publish nothing until `archivist snapshots release`' if hold else ''}.")


@snapshots_app.command("release")
def release_snapshot(config: ConfigOption = None, data: DataOption = None) -> None:
    """Let runs publish again."""
    from corpus.published import release

    snapshot = release(_data_dir(config, data))
    _print("No snapshot was held." if snapshot is None else f"{snapshot} is not held any more; the next run publishes again.")


@snapshots_app.command("verify")
def verify_snapshot(
    snapshot: Annotated[str | None, typer.Argument(help="Id of a snapshot; the current one if left out.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a snapshot: hashes, counts, ids, offsets, groups, the three stores against each other, the exported model.

    Exit code 1: damaged.
    """
    from corpus.manifest import read_manifest
    from corpus.published import current_id
    from corpus.verify import problems_of

    data_dir = _data_dir(config, data)
    name = snapshot or current_id(data_dir)
    folder = _folder(data_dir, name) if snapshot else data_dir / "snapshots" / name
    problems = problems_of(folder)
    if as_json:
        typer.echo(json.dumps({"snapshot": name, "problems": problems}, indent=1, ensure_ascii=False))
    elif not problems:
        manifest = read_manifest(folder)
        typer.echo(f"{name} is whole: {manifest.documents} documents, {manifest.chunks} chunks.")
    else:
        for problem in problems:
            typer.echo(f"{name}: {problem}")
    if problems:
        raise SnapshotDamaged(name, problems[0] if len(problems) == 1 else f"{problems[0]}, and {len(problems) - 1} more")


@snapshots_app.command("purge")
def purge_snapshots(
    keep: Annotated[int, typer.Option(min=1, help="Newest snapshots that stay; the current one always does.")] = 1,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds that a running service has to let go of a snapshot.")
    ] = 20.0,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Remove old snapshots and all else that holds text of deleted documents; print as JSON what was removed where.

    Where the current snapshot holds any, it is made anew without them, and every other one that does goes, whatever `--keep`
    says. `pages` counts the files that were kept of pages which the current snapshot does not hold.
    Answers that rest on documents which stand in no snapshot any more are erased from the conversations.
    """
    from archivist.erasing import erase

    settings = load_settings(config, {"data_dir": data} if data is not None else {})
    erased = erase(settings.data_dir, settings.labels, keep=keep, wait_s=wait_s)
    typer.echo(json.dumps(erased.as_json(), indent=1, ensure_ascii=False))
    if not erased.is_complete:
        typer.echo("archivist: some of it is in use; purge again in a minute", err=True)
        raise typer.Exit(1)


def _data_dir(config: Path | None, data: Path | None) -> Path:
    return load_settings(config, {"data_dir": data} if data is not None else {}).data_dir


def _folder(data_dir: Path, snapshot: str) -> Path:
    """A published snapshot's folder. Raises: NotFound."""
    from corpus.published import snapshot_ids

    if snapshot not in snapshot_ids(data_dir):
        raise NotFound("snapshot", snapshot)
    return data_dir / "snapshots" / snapshot


def _print(text: str) -> None:
    Console(soft_wrap=True, highlight=False, markup=False).print(text)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
