"""How many calls to a provider run and wait, in which order, and what is said to those who find no place."""

from __future__ import annotations

import asyncio
import random

import pytest

from app.llm.places import TYPICAL_S, Places
from corpus.errors import Overloaded

pytestmark = pytest.mark.anyio


async def test_b1_more_than_run_and_wait_are_refused_at_once() -> None:
    """With 2 places and a queue of 3, the sixth is told how many there are, and when to come back."""
    places = Places(2, 3)
    for _ in range(2):
        await places.take("it", 1)
    waiting = [asyncio.create_task(places.take("it", 5)) for _ in range(3)]
    await asyncio.sleep(0)
    assert (places.running, places.waiting, places.total) == (2, 3, 5)
    with pytest.raises(Overloaded, match="it has 2 calls running and 3 waiting; ask again in 10 s") as caught:
        await places.take("it", 5)
    assert caught.value.retry_after_s == TYPICAL_S * 4 / 2
    for _ in range(5):
        places.give(1)
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert (places.running, places.waiting) == (0, 0)


async def test_b1_without_a_queue_nobody_waits() -> None:
    """A queue of length nought refuses whoever finds no place, and takes the next once one is free."""
    places = Places(1, 0)
    await places.take("it", 1)
    with pytest.raises(Overloaded):
        await places.take("it", 1)
    places.give(0.1)
    await places.take("it", 1)
    assert places.running == 1


async def test_b1_who_came_first_is_served_first() -> None:
    """Places go in the order of asking."""
    places = Places(1, 10)
    await places.take("it", 1)
    served: list[int] = []

    async def ask(number: int) -> None:
        await places.take("it", 5)
        served.append(number)
        places.give(0.0)

    tasks = [asyncio.create_task(ask(number)) for number in range(10)]
    await asyncio.sleep(0)
    places.give(0.0)
    await asyncio.gather(*tasks)
    assert served == list(range(10))


async def test_b6_the_queue_has_its_own_limit() -> None:
    """Who waits too long is told so, and leaves neither a place taken nor a place in the queue."""
    places = Places(1, 5)
    await places.take("it", 1)
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await places.take("it", 0.05)
    assert asyncio.get_running_loop().time() - began < 0.5
    assert (places.running, places.waiting) == (1, 0)
    places.give(0.05)
    await places.take("it", 0.05)


async def test_b6_a_free_place_needs_no_time() -> None:
    """Even a caller with no time left gets a place that is free."""
    places = Places(1, 0)
    await places.take("it", 0.0)
    assert places.running == 1


async def test_b1_the_wait_that_is_told_follows_what_calls_took() -> None:
    """Never under a second, and longer where calls are slow or many wait."""
    places = Places(4, 8)
    await places.take("it", 1)
    for _ in range(100):
        places.give(0.01)
        await places.take("it", 1)
    assert places.wait_s == 1.0
    for _ in range(100):
        places.give(40.0)
        await places.take("it", 1)
    assert places.wait_s == 10.0
    places.waiting = 7
    assert places.wait_s == 80.0


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.nightly)], ids=["few", "many"])
async def test_b2_places_come_back_however_callers_end(count: int) -> None:
    """Callers that are served, leave while they wait, leave while they are served or run out of time: no place is lost."""
    seeded = random.Random(count)
    places = Places(3, 20)
    most = 0

    async def ask() -> None:
        nonlocal most
        await places.take("it", seeded.choice([0.001, 5.0]))
        try:
            most = max(most, places.running)
            await asyncio.sleep(seeded.choice([0.0, 0.001]))
        finally:
            places.give(0.001)

    tasks: list[asyncio.Task[None]] = []
    for _ in range(count):
        tasks.append(asyncio.create_task(ask()))
        if seeded.random() < 0.3:
            seeded.choice(tasks).cancel()
        if seeded.random() < 0.5:
            await asyncio.sleep(0)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ended} <= {type(None), Overloaded, TimeoutError, asyncio.CancelledError}
    assert sum(end is None for end in ended) > count / 20
    assert (places.running, places.waiting, most) == (0, 0, 3)
    for _ in range(3):
        await places.take("it", 0.01)
    assert places.running == 3
