import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.observe.phases import Phases


class Clock:
    """Goes on when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def make():
    clock = Clock()
    return clock, Phases(("first", "second"), "idle", clock)


def test_a_moment_counts_for_the_first_phase_that_is_under_way():
    clock, phases = make()
    clock.now += 1
    with phases.during("second"):
        clock.now += 2
        with phases.during("first"):
            clock.now += 4
        clock.now += 8
        with phases.during("second"):
            clock.now += 16
        clock.now += 32
    clock.now += 64
    assert phases.seconds() == {"first": 4, "second": 2 + 8 + 16 + 32, "idle": 1 + 64}


def test_what_is_later_in_the_order_does_not_take_over_when_it_begins():
    clock, phases = make()
    with phases.during("first"), phases.during("second"):
        clock.now += 1
    assert phases.seconds() == {"first": 1, "second": 0, "idle": 0}


def test_rest_is_what_it_was_at_the_time():
    clock, phases = make()
    clock.now += 1
    phases.rest("wire")
    clock.now += 2
    with phases.during("first"):
        phases.rest("idle")
        clock.now += 4
    clock.now += 8
    assert phases.seconds() == {"first": 4, "second": 0, "idle": 1 + 8, "wire": 2}


def test_a_phase_ends_with_what_it_is_for_however_that_ends():
    clock, phases = make()
    with pytest.raises(ZeroDivisionError), phases.during("first"):
        1 / 0  # noqa: B018
    clock.now += 1
    assert phases.seconds()["first"] == 0
    assert phases.seconds()["idle"] == 1


def test_nothing_before_the_beginning_counts():
    clock, phases = make()
    with phases.during("first"):
        clock.now += 5
    assert phases.begin() == clock.now
    clock.now += 1
    assert phases.seconds() == {"first": 0, "second": 0, "idle": 1}


@given(st.lists(st.tuples(st.sampled_from(["first", "second", "rest"]), st.integers(0, 9)), max_size=30))
def test_all_phases_together_are_the_time_that_went_by(moves):
    clock, phases = make()
    opened = []
    for move, seconds in moves:
        if move == "rest":
            phases.rest(f"rest {seconds}")
        else:
            phase = phases.during(move)
            phase.__enter__()
            opened.append(phase)
        clock.now += seconds
        if opened and seconds % 3 == 0:
            opened.pop(0).__exit__(None, None, None)
    assert sum(phases.seconds().values()) == clock.now - 100


def test_threads_lose_no_time_and_no_phase():
    clock, phases = make()

    def work():
        for _ in range(500):
            with phases.during("first"), phases.during("second"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.now += 1
    assert phases.seconds() == {"first": 0, "second": 0, "idle": 1}
