"""The configuration in force, and its replacement while the service runs.

A request works with what was in force when it came, to its end. A change is read, checked and built beside that; only then
does the next request get it. What cannot be used changes nothing, and is told by the log, a metric and /readyz.
"""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
from watchfiles import Change, awatch

from app.logs import error_fields
from app.services import Services
from app.settings import LIVE, ServiceSettings
from corpus.errors import ConfigError

DEBOUNCE_MS = 200
"""An editor writes a file in several steps; they count as one change."""

SETTLED_S = 0.2
"""Files are read whole once they are the same after so long: an editor or `cp` empties a file before it writes it."""

SETTLE_TRIES = 5

WATCH_AGAIN_S = 5.0
"""Seconds until files are watched again after watching them failed."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the configuration comes from. `load` reads all of it anew, and raises ConfigError.

    `ingest` is the command line that starts the job under this configuration; empty where the service starts none. `tell` says
    of a run that died, by its report, what came of telling who wants to hear of runs; None where nobody does.
    """

    file: Path
    load: Callable[[], ServiceSettings]
    ingest: tuple[str, ...] = ()
    tell: Callable[[Mapping[str, Any]], str | None] = lambda report: None


class Current:
    """The services in force. Belongs to one event loop."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._leases: dict[Services, int] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @contextmanager
    def leased(self) -> Iterator[Services]:
        """What is in force now; it stays whole for as long as the block runs."""
        services = self.services
        self._leases[services] = self._leases.get(services, 0) + 1
        try:
            yield services
        finally:
            self._leases[services] -= 1
            if not self._leases[services]:
                del self._leases[services]
                if services is not self.services:
                    self._retire(services)

    async def replace(self, settings: ServiceSettings) -> None:
        """Put another configuration in force. Raises: ConfigError; then the old one stays."""
        old = self.services
        new = await old.compute(Services, settings, old.process, old)
        await new.gateway.start()
        self.services = new
        if old not in self._leases:
            self._retire(old)

    def _retire(self, services: Services) -> None:
        # One that is older still may be at work, with providers that it shares with this one.
        in_use = [each.gateway for each in (self.services, *self._leases)]
        closing = asyncio.create_task(services.gateway.close(kept_by=in_use))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close what is in force, and wait for what is closing."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self.services.close()


class Reloader:
    """Looks after the files of the configuration. `problem` says why the one on disk was refused; None where it is in force.

    `needs_restart` names changed sections that only a restart puts in force.
    """

    def __init__(self, current: Current, origin: Origin) -> None:
        self._current, self._origin = current, origin
        self._one_at_a_time = asyncio.Lock()
        self._wanted: ServiceSettings | None = None
        self._watched: set[Path] = set()
        self._moved = asyncio.Event()
        # Who started without a file's content, over variables alone, may go on so.
        self._has_content = not _is_empty(_content(origin.file))
        self.problem: str | None = None
        self.needs_restart: tuple[str, ...] = ()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._watch()
            except Exception as error:  # noqa: BLE001 - the watcher's boundary: a folder that is gone must not end it
                _log.error("watching the configuration failed", action="watch_failed", **error_fields(error))
                await asyncio.sleep(WATCH_AGAIN_S)

    async def _watch(self) -> None:
        """Watch for as long as the files are the same."""
        self._watched = self._files()
        names = {path.name for path in self._watched}
        self._moved.clear()

        def concerns(_change: Change, path: str) -> bool:
            # A mounted ConfigMap is swapped by a link beside its files, whose name begins with two dots.
            name = Path(path).name
            return name in names or name.startswith("..")

        async with asyncio.TaskGroup() as tasks:
            # It begins once the folders are watched, and sees what changed before.
            tasks.create_task(self._look())
            async for _ in awatch(
                *_folders(self._watched),
                watch_filter=concerns,
                debounce=DEBOUNCE_MS,
                step=50,
                stop_event=self._moved,
                recursive=False,
            ):
                await self._look()

    async def _look(self) -> None:
        with suppress(ConfigError):  # told by `reload`
            await self.reload()

    async def reload(self) -> None:
        """Read the configuration and put it in force if it is another. Raises: ConfigError; then nothing has changed."""
        async with self._one_at_a_time:
            try:
                await self._reload()
            finally:
                if self._files() != self._watched:
                    self._moved.set()

    async def _reload(self) -> None:
        process = self._current.services.process
        try:
            self._wanted = wanted = await self._read()
            settings = self._current.services.settings
            self.needs_restart = tuple(
                name
                for name in ServiceSettings.model_fields
                if name not in LIVE and getattr(wanted, name) != getattr(settings, name)
            )
            outcome = await self._put_in_force(settings.model_copy(update={name: getattr(wanted, name) for name in LIVE}))
        except ConfigError as error:
            self.problem = str(error)
            process.metrics.count_reload("refused")
            _log.error("configuration refused, the old one serves on", action="config_refused", reason=self.problem)
            raise
        self.problem = None
        process.metrics.count_reload(outcome)
        _log.info("configuration read", action=f"config_{outcome}", needs_restart=list(self.needs_restart))

    async def _read(self) -> ServiceSettings:
        """What the files say once they have settled. Raises: ConfigError."""
        compute = self._current.services.process.compute
        for _ in range(SETTLE_TRIES):
            before = await compute(self._contents)
            content = before.get(self._origin.file.absolute())
            outcome = await compute(self._loaded, content)
            await asyncio.sleep(SETTLED_S)
            if await compute(self._contents) != before:
                continue
            if isinstance(outcome, ConfigError):
                raise outcome
            self._has_content = not _is_empty(content)
            return outcome
        raise ConfigError(f"{self._origin.file} or a file that it names is being written on and on; write it once, as a whole")

    def _loaded(self, content: bytes | None) -> ServiceSettings | ConfigError:
        """What is loaded, or why it cannot be, which counts only if the files have settled."""
        if content is not None and _is_empty(content) and self._has_content:
            return ConfigError(f"{self._origin.file} is empty; write {{}} in it if every default is meant")
        try:
            return self._origin.load()
        except ConfigError as error:
            return error

    def _contents(self) -> dict[Path, bytes | None]:
        return {path: _content(path) for path in self._files()}

    async def _put_in_force(self, settings: ServiceSettings) -> str:
        before = self._current.services
        prompts = await before.compute(type(before.prompts).load, settings.prompt)
        same = settings == before.settings and prompts == before.prompts
        if same and not await before.compute(before.gateway.files_changed):
            return "unchanged"
        await self._current.replace(settings)
        return "applied"

    def _files(self) -> set[Path]:
        """The files whose change concerns us: of what is in force, and of what was read last and perhaps refused."""
        found: list[Path] = [self._origin.file]
        for settings in _given(self._current.services.settings, self._wanted):
            if settings.prompt.folder is not None:
                found += [settings.prompt.folder / name for name in ("system.txt", "passages.txt", "rewrite.txt")]
            for provider in settings.llm.providers.values():
                found += _given(provider.api_key_file, provider.ca_file, provider.chat_template)
        # A link may be put in place anew, or the file behind it be written.
        both = {each for path in found for each in (path.absolute(), Path(os.path.realpath(path)))}
        return {path for path in both if path.parent.is_dir()}


def _folders(files: Iterable[Path]) -> set[str]:
    """Where files lie, by real paths: the watcher tells only one path of a folder that has two."""
    return {os.path.realpath(file.parent) for file in files}


def _content(file: Path) -> bytes | None:
    """The bytes of a file, None where it cannot be read, which whoever loads it tells."""
    try:
        return file.read_bytes()
    except OSError:
        return None


def _is_empty(content: bytes | None) -> bool:
    """Whether there is nothing but space and comments. A file that says `{}` or `---` says something."""
    lines = (content or b"").removeprefix(codecs.BOM_UTF8).splitlines()
    return all(not line.strip() or line.lstrip().startswith(b"#") for line in lines)


def _given(*values: T | None) -> Iterable[T]:
    return (value for value in values if value is not None)
