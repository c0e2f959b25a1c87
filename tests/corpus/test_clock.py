"""One timer for many waits: whose cancellation it was, and that nobody is cancelled who does not wait."""

from __future__ import annotations

import asyncio

import pytest

from corpus.clock import Clock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def waited(clock: Clock, limit_s: float, wait_s: float = 5) -> str:
    """How a wait ended: by itself or by the clock. Every other cancellation passes."""
    clock.start(asyncio.get_running_loop().time() + limit_s)
    try:
        await asyncio.sleep(wait_s)
    except asyncio.CancelledError:
        if not clock.ended_it():
            raise
        return "rang"
    finally:
        clock.stop()
    return "ended"


async def test_a_wait_ends_at_its_deadline_and_leaves_no_cancellation_behind() -> None:
    """Afterwards the task is as if nothing had been, and can wait again."""
    clock = Clock()
    task = asyncio.current_task()
    assert task is not None
    for _ in range(3):
        assert await waited(clock, 0.02) == "rang"
        assert task.cancelling() == 0
    assert await waited(clock, 5, 0.01) == "ended"
    clock.close()


async def test_a_deadline_that_moves_on_is_kept() -> None:
    """A timer set for an earlier wait rings in vain during a later one."""
    clock = Clock()
    assert await waited(clock, 0.03, 0.02) == "ended"
    assert await waited(clock, 5, 0.05) == "ended"
    assert await waited(clock, 0.05) == "rang"
    clock.close()


async def test_a_deadline_that_comes_nearer_is_kept() -> None:
    """A timer set for later does not make an earlier deadline late."""
    clock = Clock()
    assert await waited(clock, 30, 0.01) == "ended"
    began = asyncio.get_running_loop().time()
    assert await waited(clock, 0.05) == "rang"
    assert asyncio.get_running_loop().time() - began < 1
    clock.close()


async def test_nobody_is_cancelled_between_two_waits() -> None:
    """The deadline of a wait that is over cancels nothing."""
    clock = Clock()
    assert await waited(clock, 0.03, 0.01) == "ended"
    await asyncio.sleep(0.1)
    assert await waited(clock, 0.03, 0.01) == "ended"
    clock.close()


async def test_a_cancellation_by_another_is_passed_on() -> None:
    """It is not taken for the clock's."""
    clock = Clock()
    task = asyncio.create_task(waited(clock, 5))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    clock.close()


async def test_a_cancellation_in_the_same_moment_wins() -> None:
    """Where the clock and another cancel at once, the other one's cancellation is not swallowed."""
    clock = Clock()
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(waited(clock, 0.05))
    await asyncio.sleep(0)
    at = loop.time() + 0.06
    loop.call_at(at, task.cancel)
    while loop.time() < at:  # both are due before either has run
        pass
    with pytest.raises(asyncio.CancelledError):
        await task
    clock.close()


@pytest.mark.parametrize("limit_s", [5, 0.02], ids=["before", "at once"])
async def test_a_time_limit_around_the_wait_is_kept(limit_s: float) -> None:
    """`asyncio.timeout` of whoever consumes raises its own TimeoutError, before the clock rings and when it does."""
    clock = Clock()

    async def consumed() -> None:
        async with asyncio.timeout(0.02):
            await waited(clock, limit_s)
            await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        await consumed()
    clock.close()


async def test_the_waiting_task_may_change() -> None:
    """The task that waits is the one that is cancelled, not the one that waited before."""
    clock = Clock()
    assert await asyncio.create_task(waited(clock, 0.02, 0.001)) == "ended"
    assert await asyncio.create_task(waited(clock, 0.02)) == "rang"
    clock.close()
