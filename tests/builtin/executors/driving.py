"""Jobs that cost nothing, and a driver of them that may be killed.

python driving.py SETTINGS FOLDER starts the executor of a JSON file, gives it the jobs of a folder,
and never ends.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_builtin.benchmark import records, work
from nnunet_core.contracts.executor import Resources, Status, Task

SMALL = Resources(gpus=0, cpus=1, memory=500_000_000, seconds=60)


def built(target: str, settings: Mapping[str, Any]) -> Any:
    """Return an executor: `module:Class`."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)(**settings)


def script(folder: Path, name: str, code: str, resources: Resources = SMALL, **variables) -> Task:
    """Return a task that is a few lines of Python; it finds its own folder in `here`."""
    own = folder / name
    own.mkdir(parents=True, exist_ok=True)
    text = f"import os, sys, time, pathlib\nhere = pathlib.Path({str(own)!r})\n{code}"
    return Task(name, (sys.executable, "-c", text), own, variables, resources)


def job(folder: Path, name: str, *words: str, **environment: str) -> Task:
    """Return a job of a benchmark: a command of nnunet."""
    own = folder / name
    document = records.JobFile(
        name=name, identity=name, inputs="", parts={}, words=words, environment=environment
    )
    document.write(own / records.JOB)
    return Task(name, work.command(own), own, {}, SMALL)


def drive(executor: Any, tasks: Sequence[Task], seconds: float = 60) -> dict[str, Status]:
    """Start tasks when there is room; return how each ended."""
    waiting, handles, ended = list(tasks), {}, {}
    needed = {task.name: task.resources for task in tasks}
    end = time.monotonic() + seconds
    while len(ended) < len(tasks):
        running = {handle: needed[name] for name, handle in handles.items()}
        started = executor.start(waiting, running)
        waiting = [task for task in waiting if task.name not in started]
        handles |= started
        statuses = executor.look(list(handles.values()))
        for name, handle in list(handles.items()):
            if statuses[handle].state == "ended":
                ended[name] = statuses[handle]
                del handles[name]
        assert time.monotonic() < end, (statuses, [logged(task) for task in tasks])
        time.sleep(0.05)
    return ended


def until(condition: Callable[[], Any], what: str, seconds: float = 40) -> Any:
    """Wait for something; return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.05)
    return found


def logged(task: Task) -> str:
    return task.log.read_text() if task.log.is_file() else ""


def _main(settings: Path, folder: Path) -> None:
    target, values = json.loads(settings.read_text())
    tasks = [script(folder, name, (folder / f"{name}.py").read_text()) for name in ("a", "b")]
    executor = built(target, values)
    handles = executor.start(tasks, {})
    (folder / "handles.json").write_text(json.dumps(handles))
    time.sleep(600)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
