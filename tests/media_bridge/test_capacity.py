"""When a bridge takes one more call, by table: places, calls on their way, and the lag of its event loop."""

from __future__ import annotations

import pytest

from media_bridge.capacity import ARRIVES_WITHIN, FELT_AFTER, WINDOW, Capacity


def after(*lags: float, limit: float = 50) -> Capacity:
    capacity = Capacity(10, limit)
    for lag in lags:
        capacity.measured(lag)
    return capacity


CALM, LATE = [2.0] * WINDOW, [80.0] * WINDOW


@pytest.mark.parametrize(
    ("lags", "overloaded"),
    [
        ([], False),
        (CALM, False),
        (LATE, True),
        (LATE[1:], False),  # too few measurements
        ([*CALM, 10_000], False),  # one moment, however long
        ([*CALM, *LATE[: WINDOW // 3], *CALM], False),
        ([*CALM, *LATE[: WINDOW // 2 + 1]], True),
        ([2.0, 80.0] * WINDOW, False),  # now and then late
        ([*LATE, *[40.0] * WINDOW], True),  # better, but not well
        ([*LATE, *[24.0] * WINDOW], False),
        ([*LATE, *[24.0] * WINDOW, *[40.0] * WINDOW], False),  # the way back has another limit
    ],
)
def test_the_lag_of_the_loop(lags: list[float], overloaded: bool) -> None:
    assert after(*lags).overloaded is overloaded


def test_a_change_is_told_once() -> None:
    capacity = Capacity(10, 50)
    told = [capacity.measured(lag) for lag in (*CALM, *LATE, *LATE, *CALM, *CALM)]
    assert sum(told) == 2


def test_the_lag_may_be_left_out() -> None:
    assert after(*LATE, limit=0).lacking(0, now=0) is None


def test_places() -> None:
    capacity = after(*CALM)
    assert capacity.lacking(9, now=0) is None
    assert capacity.lacking(10, now=0) == "full"
    assert capacity.reason("full") == "no room: all 10 places are taken"


def test_calls_on_their_way_have_a_place() -> None:
    capacity = after(*CALM)
    capacity.expect("CA1", now=0)
    capacity.expect("CA1", now=0)  # a webhook that is repeated
    assert capacity.lacking(8, now=1) is None
    assert capacity.lacking(9, now=1) == "full"
    capacity.arrived("CA1")
    assert capacity.lacking(9, now=1) is None


def test_a_call_that_went_to_another_bridge_gives_its_place_back() -> None:
    capacity = after(*CALM)
    capacity.expect("CA1", now=0)
    assert capacity.lacking(9, now=ARRIVES_WITHIN - 0.1) == "full"
    assert capacity.lacking(9, now=ARRIVES_WITHIN) is None


def test_an_overloaded_bridge_has_no_room_however_few_calls_it_holds() -> None:
    capacity = after(*LATE)
    assert capacity.lacking(1, now=0) == "overloaded"
    assert capacity.reason("overloaded") == "no room: the event loop runs 80 ms late"


def test_near_its_limit_a_bridge_waits_until_it_feels_the_last_call() -> None:
    near = after(*[30.0] * WINDOW)
    assert near.lacking(1, now=0) is None
    near.expect("CA1", now=0)
    assert near.lacking(1, now=FELT_AFTER - 0.1) == "overloaded"
    assert near.lacking(1, now=FELT_AFTER) is None
    calm = after(*CALM)
    calm.expect("CA1", now=0)
    assert calm.lacking(1, now=0.1) is None
