"""Work on many items: order, errors, memory and dead processes."""

import os
import signal
import time
from pathlib import Path

import pytest
from listening import Listener

from nnunet_core.errors import ImageError, NnunetError
from nnunet_core.runtime.workers import SMALL_WORK, Workers


def _double(number: int) -> int:
    if number == 3:
        raise ImageError("three")
    return 2 * number


def _process(_: int) -> int:
    return os.getpid()


def _die_once(path: Path) -> str:
    if path.suffix == ".die" and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.stem


def _die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGSEGV) if number == 2 else time.sleep(0.05)
    return number


def _overlap(folder: Path) -> int:
    mark = folder / str(os.getpid())
    mark.touch()
    time.sleep(0.2)
    found = len(list(folder.iterdir()))
    mark.unlink()
    return found


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_order_up_to_the_first_error(count: int) -> None:
    with Workers(count) as workers:
        results = workers.each(_double, [5, 1, 2, 3, 4])
        assert [next(results) for _ in range(3)] == [10, 2, 4]
        with pytest.raises(ImageError, match="three"):
            next(results)


def test_processes_are_started_once_and_only_for_work_that_is_worth_it() -> None:
    with Workers(2) as workers:
        assert set(workers.each(_process, range(4), cost=lambda _: SMALL_WORK // 5)) == {
            os.getpid()
        }
        first = set(workers.each(_process, range(6)))
        second = set(workers.each(_process, range(6), cost=lambda _: SMALL_WORK))
    assert os.getpid() not in first | second
    assert len(first | second) <= 2


def test_a_killed_process_is_reported_and_its_item_tried_once_more(tmp_path: Path) -> None:
    listener = Listener()
    items = [tmp_path / name for name in ("a", "b.die", "c", "d")]
    with Workers(2, report=listener) as workers:
        assert list(workers.each(_die_once, items, name=lambda path: f"case {path.stem}")) == [
            "a",
            "b",
            "c",
            "d",
        ]
    (warning,) = listener.warnings
    assert "case b" in warning
    assert "SIGKILL" in warning
    assert "peak memory" in warning


def test_a_process_that_dies_again_is_an_error_and_other_results_before_it_are_kept() -> None:
    with Workers(2) as workers:
        results = workers.each(_die, [1, 2, 3], name=lambda number: f"case {number}")
        assert next(results) == 1
        with pytest.raises(NnunetError, match=r"case 2 died twice.*SIGSEGV"):
            next(results)
        assert list(workers.each(_double, [1, 2])) == [2, 4]


def test_many_items_are_not_estimated_before_the_first_result() -> None:
    estimated = []
    with Workers(2) as workers:
        results = workers.each(abs, range(5000), cost=lambda item: estimated.append(item) or 1)
        assert next(results) == 0
        assert len(estimated) < 1000
        assert list(results) == list(range(1, 5000))
    assert len(estimated) == 5000


def _logged(number: int) -> tuple[int, int]:
    if number == 77:
        raise ImageError("seventy-seven")
    return number, os.getpid()


def test_small_items_are_sent_together_and_keep_their_order_and_errors(monkeypatch) -> None:
    sent = []
    schedule = Workers._schedule
    monkeypatch.setattr(
        Workers, "_schedule", lambda self, *job: sent.append(len(job[1])) or schedule(self, *job)
    )
    with Workers(2) as workers:
        results = workers.each(_logged, range(300))
        assert [next(results)[0] for _ in range(77)] == list(range(77))
        with pytest.raises(ImageError, match="seventy-seven"):
            next(results)
        assert [number for number, _ in workers.each(_logged, range(100, 400))] == [
            *range(100, 400)
        ]
    assert max(sent) > 10
    assert len(sent) < 150


def _dies_of_one(item: tuple[int, Path]) -> int:
    number, mark = item
    if number == 150 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_items_that_were_sent_together_with_a_death_are_tried_one_by_one(tmp_path: Path) -> None:
    listener = Listener()
    with Workers(2, report=listener) as workers:
        items = [(number, tmp_path / "mark") for number in range(300)]
        assert list(workers.each(_dies_of_one, items)) == list(range(300))
    (warning,) = listener.warnings
    assert "more died (signal 9, SIGKILL" in warning
    assert "one by one" in warning


@pytest.mark.parametrize(("cost", "together"), [(SMALL_WORK, 1), (SMALL_WORK // 2, 2)])
def test_items_are_admitted_by_their_memory(tmp_path: Path, cost: int, together: int) -> None:
    with Workers(2, memory=SMALL_WORK + 1) as workers:
        seen = list(workers.each(_overlap, [tmp_path] * 5, cost=lambda _: cost))
    assert max(seen) == together
