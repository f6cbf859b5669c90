"""Places of the local executor: cards, cores, memory; processes that other drivers started."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from nnunet_builtin.executors import local
from nnunet_builtin.executors.local import LocalExecutor
from nnunet_core.contracts.executor import Resources, Task
from nnunet_core.errors import UsageError

GB = 1_000_000_000
SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


@pytest.fixture
def started():
    """Ends what a test starts."""
    handles = []
    yield handles
    LocalExecutor().stop(handles)


def task(folder, name, command=SLEEP, **resources):
    (folder / name).mkdir()
    return Task(name, command, folder / name, {}, Resources(memory=GB // 10, **resources))


def start(executor, tasks, running, started):
    """Start what there is room for; `running` is as a driver keeps it."""
    by_name = {each.name: each for each in tasks}
    handles = executor.start(tasks, running)
    started += handles.values()
    running.update({handle: by_name[name].resources for name, handle in handles.items()})
    return list(handles)


def test_every_card_has_one_job_and_a_job_without_cards_sees_none(tmp_path, started):
    show = (sys.executable, "-c", "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], "
            "flush=True); time.sleep(60)")  # fmt: skip
    executor = LocalExecutor(gpus=("GPU-a", "GPU-b", "GPU-c"), cpus=10, memory_gb=10)
    names = {"one": 1, "two": 2, "three": 1, "none": 0}
    tasks = [task(tmp_path, name, show, gpus=gpus) for name, gpus in names.items()]
    running = {}
    assert start(executor, tasks, running, started) == ["one", "two", "none"]
    deadline = time.monotonic() + 60
    shown = {}
    while len(shown) < 3 and time.monotonic() < deadline:
        logs = {t.name: t.log.read_text() for t in tasks if t.log.exists()}
        shown = {name: text.strip() for name, text in logs.items() if text.endswith("\n")}
        time.sleep(0.05)
    assert shown == {"one": "GPU-a", "two": "GPU-b,GPU-c", "none": ""}
    first = next(iter(running))
    executor.stop([first])
    del running[first]
    assert start(executor, [tasks[2]], running, started) == ["three"]
    assert json.loads(started[-1])[2] == ["GPU-a"]


def test_cores_and_memory_are_shared_and_a_smaller_job_may_go_first(tmp_path, started):
    executor, running = LocalExecutor(gpus=(), cpus=3, memory_gb=0.25), {}
    tasks = [task(tmp_path, n, cpus=c) for n, c in {"a": 2, "b": 2, "c": 1, "d": 1}.items()]
    assert start(executor, tasks, running, started) == ["a", "c"]
    more = LocalExecutor(gpus=(), cpus=10, memory_gb=0.25)
    assert start(more, tasks[3:], running, started) == []  # memory is full
    assert start(LocalExecutor(gpus=(), cpus=10), tasks[3:], running, started) == ["d"]


def test_memory_that_running_jobs_have_not_taken_yet_is_not_free(tmp_path, started, monkeypatch):
    monkeypatch.setattr(local, "available", lambda: 3 * GB)
    executor = LocalExecutor(gpus=(), cpus=10)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    large = [Task(n, SLEEP, tmp_path / n, {}, Resources(memory=2 * GB)) for n in "ab"]
    assert start(executor, large, {}, started) == ["a"]


def test_alone_a_job_always_has_memory(tmp_path, started):
    executor = LocalExecutor(gpus=(), cpus=1, memory_gb=0.01)
    assert start(executor, [task(tmp_path, "a")], {}, started) == ["a"]


def test_another_driver_finds_the_process_again_and_can_stop_it(tmp_path, started):
    code = (
        "import sys; from pathlib import Path; from nnunet_core.contracts.executor import Task; "
        "from nnunet_builtin.executors.local import LocalExecutor; folder = Path(sys.argv[1]); "
        f"print(LocalExecutor().start([Task('a', {SLEEP!r}, folder)], {{}})['a'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    handle = done.stdout.strip()
    started.append(handle)
    executor = LocalExecutor()
    assert executor.look([handle])[handle].state == "running"
    executor.stop([handle])
    assert executor.look([handle])[handle].state == "ended"


def test_a_number_that_another_process_has_now_is_not_the_job():
    me = psutil.Process()
    handle = json.dumps([me.pid, me.create_time() - 100, []])
    assert LocalExecutor().look([handle])[handle].state == "ended"
    LocalExecutor().stop([handle])  # this test would end here


@pytest.mark.parametrize(
    ("variable", "cards"),
    [("", ()), ("-1", ()), ("2,3", ("2", "3")), ("0,-1,1", ("0",)), ("NoDevFiles", ())],
)
def test_cards_are_those_that_cuda_would_see(monkeypatch, variable, cards):
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", variable)
    local._visible_cards.cache_clear()
    assert LocalExecutor().cards() == cards
    local._visible_cards.cache_clear()


def test_what_no_place_is_large_enough_for_is_refused():
    executor = LocalExecutor(gpus=("0",), cpus=2)
    executor.check([Resources(gpus=1, cpus=2)])
    with pytest.raises(UsageError, match="2 GPUs; this machine has 1"):
        executor.check([Resources(gpus=2)])
    with pytest.raises(UsageError, match="1 GPU; this machine has 0"):
        LocalExecutor(gpus=()).check([Resources(gpus=1)])
    with pytest.raises(UsageError, match="3 cores; this machine has 2"):
        executor.check([Resources(cpus=3)])


@pytest.mark.parametrize("cards", [("0", "0"), ("0,1",), ("",), ("../x",), ("0 1",)])
def test_cards_that_are_none_are_refused_where_a_job_needs_one(cards):
    executor = LocalExecutor(gpus=cards)
    executor.check([Resources(gpus=0)])
    with pytest.raises(UsageError, match="each is one number or name"):
        executor.check([Resources(gpus=1)])
