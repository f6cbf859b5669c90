"""Items whose preparation, work and writing overlap: order, errors, bounds."""

import contextlib
import threading
import time

import pytest

from nnunet_core.runtime.overlap import overlapped


def outcomes(items, prepare=lambda n: n, work=lambda n: n, write=lambda _, n: n):
    """Return [(item, result or error)]."""
    found = []
    for item, outcome in overlapped(items, prepare, work, write):
        error = outcome.exception()
        found.append((item, outcome.result() if error is None else str(error)))
    return found


def fails(number):
    def run(*arguments):
        if arguments[0] == number:
            raise ValueError(f"{number} fails")
        return arguments[-1]

    return run


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_item_goes_through_all_three_in_order(count):
    found = outcomes(list(range(count)), lambda n: n + 10, lambda n: n * 2, lambda i, n: (i, n))
    assert found == [(n, (n, (n + 10) * 2)) for n in range(count)]


@pytest.mark.parametrize("place", ["prepare", "work", "write"])
@pytest.mark.parametrize("number", [0, 2, 4])
def test_what_fails_is_the_outcome_of_its_item_alone(place, number):
    found = outcomes(list(range(5)), **{place: fails(number)})
    assert found == [(n, f"{n} fails" if n == number else n) for n in range(5)]


def test_all_three_run_at_once():
    """A barrier of three parties: each of them waits for the other two."""
    barrier = threading.Barrier(3, timeout=10)

    def meet(number, wanted):
        if number == wanted:
            barrier.wait()
        return number

    found = outcomes([0, 1, 2], lambda n: meet(n, 2), lambda n: meet(n, 1), lambda i, _: meet(i, 0))
    assert found == [(0, 0), (1, 1), (2, 2)]


def test_no_more_than_one_is_prepared_ahead_and_one_is_written_behind():
    held, most, lock = set(), [0], threading.Lock()

    def prepare(number):
        with lock:
            held.add(number)
            most[0] = max(most[0], len(held))
        return number

    def write(number, _):
        time.sleep(0.01)
        with lock:
            held.remove(number)

    outcomes(list(range(12)), prepare=prepare, write=write)
    assert not held
    assert most[0] <= 3


def test_what_was_begun_is_finished_when_the_work_is_interrupted():
    written, prepared = [], []

    def work(number):
        if number == 2:
            raise KeyboardInterrupt
        return number

    steps = overlapped(
        list(range(6)),
        lambda n: prepared.append(n) or n,
        work,
        lambda n, _: time.sleep(0.02) or written.append(n),
    )
    with contextlib.closing(steps), pytest.raises(KeyboardInterrupt):
        for _ in steps:
            pass
    assert written == [0, 1]
    assert max(prepared) <= 3
    assert not [t for t in threading.enumerate() if t.name.startswith(("prepare", "write"))]
