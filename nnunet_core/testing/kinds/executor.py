"""Checks of executors: tasks run once, as they were given, and are found again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints
from unittest import mock

from nnunet_core.contracts.executor import Executor, Resources, Status, Task
from nnunet_core.errors import UsageError
from nnunet_core.testing.check import Subject, check, require, skip

_Found = TypeVar("_Found")
_SMALL = Resources(gpus=0, cpus=1, memory=500_000_000, seconds=600)
_SECONDS = 60.0
_STATES = get_args(get_type_hints(Status)["state"])
_ODD = "a 'b' \"c\" $HOME `x`; \\ * ü"
#: Goes on until the test says so.
_UNTIL_TOLD = "while not (here / 'go').exists(): time.sleep(0.05)\n"
#: Of a driver that dies: it starts a task and tells its handle.
_DRIVER = """
import importlib, json, os, signal, sys
from pathlib import Path
from nnunet_core.contracts.executor import Resources, Task
module, name, settings, folder, *words = json.loads(sys.argv[1])
executor = importlib.import_module(module)
for part in name.split("."):
    executor = getattr(executor, part)
task = Task("job", tuple(words), Path(folder), {}, Resources(0, 1, 500_000_000, 600))
print(json.dumps(executor(**settings).start([task], {})), flush=True)
os.killpg(0, signal.SIGKILL)
"""


@check("executor")
def executor_runs_all_tasks_once(subject: Subject) -> None:
    """Several tasks all run, each once, however many are started at a time; `start` returns a
    handle, a text, for each that it started.
    """
    executor = _ready(subject)
    code = "with (here / 'times').open('a') as file: file.write('x')"
    tasks = [_task(subject, name, code) for name in ("one", "two", "three")]
    _drive(executor, tasks)
    for task in tasks:
        times = len(_text(task.folder / "times"))
        require(times == 1, f"The task {task.name} ran {times} times.")


@check("executor")
def executor_brings_back_what_is_printed(subject: Subject) -> None:
    """What a task prints, to standard output and error, is appended to its log."""
    executor = _ready(subject)
    task = _task(subject, "job", "print('to output'); print('to error', file=sys.stderr)")
    task.log.write_text("from before\n")
    _drive(executor, [task])
    for wanted in ("from before", "to output", "to error"):
        require(wanted in _text(task.log), f"The log lacks '{wanted}': {_text(task.log)!r}")


@check("executor")
def executor_passes_words_and_variables(subject: Subject) -> None:
    """Words of the command and the variables of the task arrive as they are, and so do those of the
    driver that configure nnU-Net (`NNUNET_...`).
    """
    executor = _ready(subject)
    code = "names = ('ODD', 'NNUNET_KIT')\nprint([os.environ.get(n) for n in names], sys.argv[1:])"
    task = _task(subject, "job", code, (_ODD, ""), ODD=_ODD)
    with mock.patch.dict(os.environ, NNUNET_KIT="of the driver", PYTHONIOENCODING="utf-8"):
        _drive(executor, [task])
    wanted = str([_ODD, "of the driver"]) + f" {[_ODD, '']}"
    require(wanted in _text(task.log), f"Wanted {wanted}; the log is {_text(task.log)!r}")


@check("executor")
def executor_hides_cards(subject: Subject) -> None:
    """A task that asks for no card finds `CUDA_VISIBLE_DEVICES` empty."""
    executor = _ready(subject)
    task = _task(subject, "job", "print('cards', repr(os.environ.get('CUDA_VISIBLE_DEVICES')))")
    with mock.patch.dict(os.environ, CUDA_VISIBLE_DEVICES="0"):
        _drive(executor, [task])
    require("cards ''" in _text(task.log), f"The task without a card sees {_text(task.log)!r}")


@check("executor")
def executor_sees_a_failure_end(subject: Subject) -> None:
    """A command that fails has ended, and is not said to be lost through no fault of its own."""
    executor = _ready(subject)
    (status,) = _drive(executor, [_task(subject, "job", "sys.exit(3)")])
    require(not status.is_lost, "A task that failed is_lost: it would be started again for ever.")


@check("executor")
def executor_finds_tasks_of_a_driver_that_died(subject: Subject) -> None:
    """A task goes on when its driver is killed; another executor finds it by its handle, and sees
    its end.
    """
    _ready(subject)
    task = _task(subject, "job", f"(here / 'began').touch()\n{_UNTIL_TOLD}(here / 'end').touch()")
    with _let_go([task]):
        handle = _of_a_dead_driver(subject, task)
        executor = subject.build()
        _until((task.folder / "began").exists, "The task of a killed driver did not begin", task)
        state = _look(executor, [handle])[handle].state
        require(state == "running", f"A task that runs, of a driver that died, is '{state}'.")
    _until(lambda: _has_ended(executor, handle), "The end of the task was not seen", task)
    require((task.folder / "end").exists(), "The task died with its driver, or before its end.")


@check("executor")
def executor_stops_tasks_gently(subject: Subject) -> None:
    """`stop` sends SIGTERM, returns when the task has saved its work, and does no harm to what has
    ended.
    """
    executor = _ready(subject)
    code = (
        "import signal\ndef save(*_):\n    time.sleep(0.5); (here / 'saved').touch(); sys.exit(1)\n"
        f"signal.signal(signal.SIGTERM, save)\n(here / 'began').touch()\n{_UNTIL_TOLD}"
    )
    task = _task(subject, "job", code)
    with _let_go([task]):
        (handle,) = _started(executor, [task]).values()
        _until((task.folder / "began").exists, "The task did not begin", task)
        executor.stop([handle])
        require((task.folder / "saved").exists(), "stop returned before the task had saved.")
    _until(lambda: _has_ended(executor, handle), "A stopped task did not end", task)
    executor.stop([handle])


def _ready(subject: Subject) -> Executor:
    """Return the executor; skip the check where there is nothing to run on."""
    executor: Executor = subject.build()
    try:
        executor.check([_SMALL])
    except UsageError as error:
        skip(f"It cannot run anything here: {error}")
    return executor


def _task(
    subject: Subject, name: str, code: str, words: Sequence[str] = (), **variables: str
) -> Task:
    folder = subject.folder / name
    folder.mkdir()
    text = f"import os, sys, time, pathlib\nhere = pathlib.Path({str(folder)!r})\n{code}"
    return Task(name, (sys.executable, "-c", text, *words), folder, variables, _SMALL)


def _drive(executor: Executor, tasks: Sequence[Task]) -> list[Status]:
    """Start tasks as there is room; return how they ended."""
    waiting, running, ended = list(tasks), dict[str, str](), dict[str, Status]()

    def step() -> bool:
        nonlocal waiting
        started = _started(executor, waiting, running) if waiting else {}
        waiting = [task for task in waiting if task.name not in started]
        running.update(started)
        statuses = _look(executor, list(running.values()))
        for name in [n for n, h in running.items() if statuses[h].state == "ended"]:
            ended[name] = statuses[running.pop(name)]
        return len(ended) == len(tasks)

    _until(step, f"{len(tasks)} tasks did not all end", tasks[0])
    return [ended[task.name] for task in tasks]


def _started(
    executor: Executor, tasks: Sequence[Task], running: dict[str, str] | None = None
) -> dict[str, str]:
    handles = executor.start(tasks, dict.fromkeys((running or {}).values(), _SMALL))
    names = {task.name for task in tasks}
    wrong = not isinstance(handles, dict) or not names.issuperset(handles)
    texts = not wrong and all(isinstance(handle, str) for handle in handles.values())
    require(texts, f"start returns {handles!r}, not {{name of task: handle, a text}}.")
    return handles


def _look(executor: Executor, handles: Sequence[str]) -> dict[str, Status]:
    found = executor.look(handles)
    missing = [handle for handle in handles if handle not in found]
    require(not missing, f"look says nothing of {missing}.")
    states = {status.state for status in found.values()}
    wrong = states.difference(_STATES)
    require(not wrong, f"look returns the state {wrong}; allowed are {', '.join(_STATES)}.")
    return found


def _has_ended(executor: Executor, handle: str) -> bool:
    return _look(executor, [handle])[handle].state == "ended"


def _of_a_dead_driver(subject: Subject, task: Task) -> str:
    """Return the handle of a task whose driver was killed after it had started it."""
    component = subject.component.component
    module, _, name = component.target.partition(":")
    settings: dict[str, Any] = dict(component.settings)
    order = json.dumps([module, name, settings, str(task.folder), *task.command])
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, order],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        start_new_session=True,
        check=False,
    )
    require(done.returncode == -signal.SIGKILL, f"A driver in a process fails: {done.stderr}")
    handle: str = json.loads(done.stdout.splitlines()[-1])["job"]
    return handle


def _until(condition: Callable[[], _Found], what: str, task: Task) -> _Found:
    end = time.monotonic() + _SECONDS
    while not (found := condition()):
        if time.monotonic() > end:
            require(False, f"{what} within {_SECONDS:g} s; its log: {_text(task.log)!r}")
        time.sleep(0.05)
    return found


@contextmanager
def _let_go(tasks: Sequence[Task]) -> Iterator[None]:
    """Let tasks end, whatever happens."""
    try:
        yield
    finally:
        for task in tasks:
            (task.folder / "go").touch()


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
