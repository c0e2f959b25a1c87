"""What one process holds: threads that know the request, and an orderly start and end."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import structlog

from tests.app.serving import composed, settings_of

pytestmark = pytest.mark.anyio


async def test_work_in_a_thread_knows_the_request_it_is_done_for(site: Path) -> None:
    """What is bound to the logs of each of twenty requests is bound in their threads too, and in no other's."""
    services = composed(settings_of(site / "data"))

    def seen() -> tuple[object, bool]:
        return structlog.contextvars.get_contextvars().get("request_id"), threading.current_thread() is threading.main_thread()

    async def request(number: int) -> None:
        structlog.contextvars.bind_contextvars(request_id=f"request-{number}")
        assert await services.compute(seen) == (f"request-{number}", False)

    try:
        await asyncio.gather(*(asyncio.create_task(request(number)) for number in range(20)))
        assert await services.compute(seen) == (None, False)
    finally:
        await services.close()


async def test_the_event_loop_runs_on_while_questions_are_embedded(site: Path) -> None:
    """Embedding forty texts holds the loop for less than a tenth of a second at a time."""
    services = composed(settings_of(site / "data"))
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            before = asyncio.get_running_loop().time()
            await asyncio.sleep(0.001)
            longest = max(longest, asyncio.get_running_loop().time() - before)

    beating = asyncio.create_task(beat())
    try:
        await services.compute(services.snapshots.refresh)
        with services.snapshots.lease() as leased:
            vectors = await services.embed(
                leased.embedder, ["How many days of leave do employees get in their first year?"] * 40
            )
            assert vectors.shape == (40, leased.embedder.dimension)
        assert 0 < longest < 0.25
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        await services.close()


async def test_closing_ends_every_thread(site: Path) -> None:
    """After close no thread of the service is left, and closing one that never started works too."""
    before = {*threading.enumerate()}  # other tests' embedders may have left theirs
    for is_started in (True, False):
        services = composed(settings_of(site / "data"))
        if is_started:
            await services.start()
        await services.close()
    names = [thread.name for thread in threading.enumerate() if thread not in before]
    assert not [name for name in names if name.startswith(("compute", "embed"))]


async def test_the_watcher_outlives_a_look_that_fails(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a look at the disk raises, the next one takes place."""
    monkeypatch.setattr("app.process.SNAPSHOT_POLL_S", 0.01)
    services = composed(settings_of(site / "data"))
    await services.start()
    looks: list[int] = []
    third = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail() -> bool:
        looks.append(1)
        if len(looks) == 3:
            loop.call_soon_threadsafe(third.set)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(services.snapshots, "refresh", fail)
    try:
        await asyncio.wait_for(third.wait(), 5)
    finally:
        await services.close()
