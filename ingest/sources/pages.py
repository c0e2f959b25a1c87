"""Fetches the pages of a source and keeps them in data_dir/work/pages, with what their servers need to say "unchanged".

A page that cannot be had tonight stands as the last run fetched it; one that its server says is gone is gone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from corpus.addresses import Guard
from corpus.disk import writing
from corpus.errors import ConfigError, DocumentError, EgressError, PageTooLarge
from corpus.fetching import Fetcher, Page
from corpus.formats import format_of
from ingest.settings import SourceSettings
from ingest.sources.folder import SourceFile

AT_ONCE = 4
"""Pages fetched at the same time: few enough for a small intranet server."""

EXTENSIONS = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/markdown": ".md",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/pdf": ".pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "message/rfc822": ".eml",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
}
"""What a server's content type says about how to read a page. What is not here (text/plain too) is left to the address."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is known of a page from an earlier run. Its body is in the file `<key>-<content_hash>`."""

    collection: str
    url: str
    content_hash: str
    size_bytes: int
    read_as: str
    etag: str | None
    last_modified: str | None


def fetch_pages(source: SourceSettings, data_dir: Path, *, keep: bool) -> list[SourceFile]:
    """The pages of a source, ordered by address; those that are gone (404, 410) are left out.

    Without `keep` nothing is written in the data folder: what came is compared and dropped, for a plan.
    Raises: ConfigError where `urls_file` cannot be read, NotWritten.
    """
    urls = addresses_of(source)
    folder = data_dir / "work" / "pages"
    if keep:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            return asyncio.run(_fetch_all(source, urls, folder, folder))
    with tempfile.TemporaryDirectory(prefix="archivist-plan-") as scratch:
        return asyncio.run(_fetch_all(source, urls, folder, Path(scratch)))


def addresses_of(source: SourceSettings) -> list[str]:
    """The addresses of a source, each once, ordered. Raises: ConfigError."""
    lines = list(source.urls)
    if source.urls_file is not None:
        try:
            lines += source.urls_file.expanduser().read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"source {source.collection!r}: urls_file {str(source.urls_file)!r} cannot be read ({type(error).__name__})"
            ) from error
    named = (line.strip() for line in lines)
    return sorted({line.partition("#")[0].strip() for line in named if line and not line.startswith("#")})


def forget_pages(data_dir: Path, present: Iterable[tuple[str, str]]) -> int:
    """Remove what is kept of pages that are not `present` (source's name, address) any more. Returns how many files went.

    To be called behind the publication that leaves them out, and behind a deletion.
    """
    folder = data_dir / "work" / "pages"
    if not folder.is_dir():
        return 0
    wanted = set()
    for collection, url in present:
        kept = _kept(folder, collection, url)
        if kept is not None:
            wanted |= {_note(folder, collection, url).name, _body(folder, kept).name}
    left = [entry for entry in folder.iterdir() if entry.name not in wanted]
    for entry in left:
        entry.unlink(missing_ok=True)
    return len(left)


async def _fetch_all(source: SourceSettings, urls: list[str], folder: Path, into: Path) -> list[SourceFile]:
    fetcher = Fetcher(Guard(source.allow_networks), max_bytes=source.max_file_bytes)
    places = asyncio.Semaphore(AT_ONCE)

    async def one(url: str) -> SourceFile | None:
        async with places:
            return await _fetch(fetcher, source.collection, url, folder, into)

    try:
        return [file for file in await asyncio.gather(*map(one, urls)) if file is not None]
    finally:
        await fetcher.close()


async def _fetch(fetcher: Fetcher, collection: str, url: str, folder: Path, into: Path) -> SourceFile | None:
    kept = _kept(folder, collection, url)
    etag, last_modified = (kept.etag, kept.last_modified) if kept is not None else (None, None)
    part = into / f".part-{secrets.token_hex(8)}"
    digest, size = hashlib.sha256(), 0
    try:
        with part.open("wb") as file:

            def write(data: bytes) -> None:
                nonlocal size
                digest.update(data)
                size += len(data)
                file.write(data)

            page = await fetcher.fetch(url, write, etag=etag, last_modified=last_modified)
            file.flush()
            os.fsync(file.fileno())
        if page.outcome == "gone":
            return None
        if page.outcome == "unchanged":
            if kept is None:
                raise EgressError("its server says 'unchanged' of a page that it was not asked to compare")
            return _file(folder, kept)
        fresh = _Kept(collection, url, digest.hexdigest(), size, _read_as(url, page), page.etag, page.last_modified)
        _keep(into, part, fresh, kept)
        return _file(into, fresh)
    except PageTooLarge as error:
        problem = DocumentError(url, _reason(error), "take it off the list, or raise max_file_bytes")
        return SourceFile(collection, url, part, 0, None, problem)
    except EgressError as error:
        problem = DocumentError(url, _reason(error), "look at the address and its server; the next run asks again")
        if kept is None:
            return SourceFile(collection, url, part, 0, None, problem)
        found = _file(folder, kept)
        return SourceFile(
            collection, url, found.location, found.size_bytes, found.content_hash, read_as=found.read_as, stale=problem
        )
    finally:
        part.unlink(missing_ok=True)


def _reason(error: EgressError) -> str:
    return f"could not be fetched ({error})"


def _file(folder: Path, kept: _Kept) -> SourceFile:
    return SourceFile(kept.collection, kept.url, _body(folder, kept), kept.size_bytes, kept.content_hash, read_as=kept.read_as)


def _read_as(url: str, page: Page) -> str:
    """A name whose extension is that of the page's format: its content type's, else its address', else that of plain text."""
    content_type = page.content_type.split(";")[0].strip().casefold()
    bare = url.partition("?")[0]
    own = format_of(bare) if bare.count("/") > 2 else None  # a host's name has no format, though it ends in .md
    extension = EXTENSIONS.get(content_type) or (".txt" if content_type.startswith("text/") and own is None else None)
    return bare if extension is None or own == format_of(f"x{extension}") else f"{bare}{extension}"


def _key(collection: str, url: str) -> str:
    return hashlib.sha256(f"{collection}\x00{url}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _note(folder: Path, collection: str, url: str) -> Path:
    return folder / f"{_key(collection, url)}.json"


def _body(folder: Path, kept: _Kept) -> Path:
    return folder / f"{_key(kept.collection, kept.url)}-{kept.content_hash[:32]}"


def _kept(folder: Path, collection: str, url: str) -> _Kept | None:
    """What an earlier run kept, if its body is what it was then: the hash decides."""
    try:
        kept = _Kept(**json.loads(_note(folder, collection, url).read_text(encoding="utf-8")))
        with _body(folder, kept).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, TypeError):
        return None
    return kept if (kept.collection, kept.url, kept.content_hash) == (collection, url, found) else None


def _keep(folder: Path, part: Path, fresh: _Kept, before: _Kept | None) -> None:
    """Body, then the note that names it, each written beside and renamed: a kill leaves the page as it was, or as it is."""
    part.replace(_body(folder, fresh))
    note = _note(folder, fresh.collection, fresh.url)
    beside = note.with_suffix(f".{secrets.token_hex(4)}")
    with beside.open("w", encoding="utf-8") as file:
        json.dump(asdict(fresh), file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(note)
    if before is not None and before.content_hash != fresh.content_hash:
        _body(folder, before).unlink(missing_ok=True)
