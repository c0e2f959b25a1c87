"""When a provider is left alone, and which call tries it again."""

from __future__ import annotations

import random

import pytest

from app.llm.breaker import Breaker


class Time:
    """A clock that stands still until it is set forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def breaker(time: Time) -> Breaker:
    """Opens after 3 failures, for 10 seconds."""
    return Breaker(3, 10.0, time)


def let_in(breaker: Breaker) -> int:
    """The ticket of a call that must be let through."""
    ticket = breaker.enter()
    assert ticket is not None
    return ticket


def fails(breaker: Breaker, times: int = 1) -> None:
    """So many calls, one after the other, each a failure."""
    for _ in range(times):
        ticket = let_in(breaker)
        breaker.failed(ticket)
        breaker.abandoned(ticket)


def test_b5_so_many_failures_in_a_row_open_it(breaker: Breaker) -> None:
    """Two failures do not, the third does, and then no call goes out."""
    fails(breaker, 2)
    assert (breaker.phase, breaker.refuses) == ("closed", False)
    fails(breaker)
    assert (breaker.phase, breaker.refuses, breaker.opens_in_s) == ("open", True, 10.0)
    assert breaker.enter() is None


def test_b5_a_success_starts_the_count_anew(breaker: Breaker) -> None:
    """Failures that are not in a row never open it."""
    for _ in range(5):
        fails(breaker, 2)
        breaker.succeeded(let_in(breaker))
    assert breaker.phase == "closed"


def test_b5_calls_without_a_verdict_count_for_nothing(breaker: Breaker) -> None:
    """Callers who leave neither open it nor start the count anew."""
    fails(breaker, 2)
    for _ in range(20):
        breaker.abandoned(let_in(breaker))
    assert (breaker.phase, breaker.refuses) == ("closed", False)
    fails(breaker)
    assert breaker.phase == "open"


def test_b5_once_the_time_is_up_exactly_one_call_is_let_through(breaker: Breaker, time: Time) -> None:
    """The probe goes out and 49 others do not; before its time not even one."""
    fails(breaker, 3)
    time.now += 9.99
    assert breaker.enter() is None
    time.now += 0.01
    assert breaker.phase == "half_open"
    assert [breaker.enter() is not None for _ in range(50)] == [True] + [False] * 49


def test_b5_a_probe_that_succeeds_closes_it(breaker: Breaker, time: Time) -> None:
    """All calls go through again, and the count is at nought."""
    fails(breaker, 3)
    time.now += 10
    breaker.succeeded(let_in(breaker))
    assert breaker.phase == "closed"
    fails(breaker, 2)
    assert breaker.phase == "closed"


def test_b5_a_probe_that_fails_opens_it_for_as_long_again(breaker: Breaker, time: Time) -> None:
    """One failure is enough, and the time runs from then."""
    fails(breaker, 3)
    time.now += 12
    fails(breaker)
    assert (breaker.phase, breaker.opens_in_s) == ("open", 10.0)


def test_b5_a_probe_whose_caller_leaves_makes_room_for_the_next(breaker: Breaker, time: Time) -> None:
    """Without a verdict it stays half open, and another call may try."""
    fails(breaker, 3)
    time.now += 10
    breaker.abandoned(let_in(breaker))
    assert breaker.phase == "half_open"
    assert breaker.enter() is not None


def test_b5_a_probe_that_begins_to_answer_lets_others_in_on_trial(breaker: Breaker, time: Time) -> None:
    """Its first word is enough, for it may talk for minutes; one more failure opens it again."""
    fails(breaker, 3)
    time.now += 10
    probe = let_in(breaker)
    breaker.began(probe)
    assert (breaker.phase, breaker.refuses) == ("closed", False)
    let_in(breaker)
    breaker.failed(probe)
    assert breaker.phase == "open"


def test_b5_a_first_word_is_no_success_while_it_is_closed(breaker: Breaker) -> None:
    """Answers that begin well and are always cut off open it."""
    for _ in range(3):
        ticket = let_in(breaker)
        breaker.began(ticket)
        breaker.failed(ticket)
    assert breaker.phase == "open"


@pytest.mark.parametrize("verdict", ["succeeded", "failed", "abandoned"])
def test_b5_a_call_from_before_does_not_let_a_second_probe_in(breaker: Breaker, time: Time, verdict: str) -> None:
    """A long answer that began before the breaker opened may end as it likes while the probe is out."""
    old = let_in(breaker)
    fails(breaker, 3)
    time.now += 10
    probe = let_in(breaker)
    getattr(breaker, verdict)(old)
    breaker.abandoned(old)
    assert (breaker.phase, breaker.enter()) == ("half_open", None)
    breaker.succeeded(probe)
    assert breaker.phase == "closed"


def test_b5_stragglers_do_not_keep_it_open(breaker: Breaker, time: Time) -> None:
    """Calls that were out when it opened and fail one by one afterwards do not put off the probe."""
    out = [let_in(breaker) for _ in range(16)]
    for ticket in out:
        breaker.failed(ticket)
        time.now += 1
    assert breaker.phase == "half_open"


def test_b3_the_time_a_provider_asked_for_is_kept(breaker: Breaker, time: Time) -> None:
    """One answer with Retry-After opens it for that long, and a shorter wish does not cut that short."""
    breaker.hold(60)
    breaker.hold(5)
    time.now += 59.9
    assert breaker.enter() is None
    time.now += 0.2
    assert breaker.enter() is not None


def test_b3_an_answer_that_began_before_does_not_end_the_time_asked_for(breaker: Breaker, time: Time) -> None:
    """Of two calls one is told to come back in 60 s, and the other ends well: the provider is left alone all the same."""
    old, told = let_in(breaker), let_in(breaker)
    breaker.failed(told)
    breaker.hold(60)
    breaker.succeeded(old)
    time.now += 59
    assert breaker.enter() is None


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.nightly)], ids=["few", "many"])
def test_b5_whatever_happens_there_is_one_probe_at_a_time(count: int) -> None:
    """Over random calls that overlap: none goes out while it is open, one while it is half open, and it always recovers."""
    seeded = random.Random(4711)
    for _ in range(count):
        time = Time()
        breaker = Breaker(seeded.randint(1, 4), 10.0, time)
        out: list[int] = []
        probes: set[int] = set()
        for _ in range(60):
            phase = breaker.phase
            if out and seeded.random() < 0.5:
                ticket = out.pop(seeded.randrange(len(out)))
                getattr(breaker, seeded.choice(["succeeded", "failed", "abandoned"]))(ticket)
                breaker.abandoned(ticket)
                probes.discard(ticket)
            elif seeded.random() < 0.1:
                time.now += seeded.choice([1.0, 10.0])
            elif (entered := breaker.enter()) is not None:
                assert phase != "open"
                if phase == "half_open":
                    assert not probes
                    probes = {entered}
                out.append(entered)
        for ticket in out:
            breaker.abandoned(ticket)
        time.now += 100
        breaker.succeeded(let_in(breaker))
        assert breaker.phase == "closed"
