"""What a fresh process does that imports and constructs components under watch: `probe` starts it.

It is run with the path of a JSON file of jobs and that of a file for its findings, a line of JSON
each. What a component does to network, files and processes is recorded and refused.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

_NETWORK = (
    "socket.connect",
    "socket.getaddrinfo",
    "socket.bind",
    "socket.sendto",
    "socket.gethost",
)
_PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn")
_CHANGES = (
    *("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "shutil."),
)
_ENVIRONMENT = ("os.putenv", "os.unsetenv", "os.chdir")
_LISTS = ("os.listdir", "os.scandir", "glob.glob")
_EVENTS = {
    "network": _NETWORK,
    "process": _PROCESSES,
    "write": _CHANGES,
    "environment": _ENVIRONMENT,
    "read": _LISTS,
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Records what happens, and refuses what a component may not do when it is imported.

    Attributes:
        seen: [(what: `network`, `process`, `write`, `read`, ..., a sentence)].
        own: Top-level package of the component.
    """

    def __init__(self) -> None:
        self.on, self.own = False, ""
        self.seen: list[tuple[str, str]] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        self.on = False  # what follows may cause events itself
        try:
            what = _what(event, arguments)
            frame = sys._getframe(1)
            asks = what == "network" and event != "socket.bind"  # libraries try which ones they can
            if asks or (what and not _is_of_library(frame, self.own)):
                if what == "read" and _is_import(frame):
                    return
                sentence = f"{event} {' '.join(repr(a) for a in arguments[:2])}"
                self.seen.append((what, f"{sentence} ({_place(frame)})"))
                if what not in {"read", "environment"}:
                    raise PermissionError(f"{event} is refused while components are checked")
        finally:
            self.on = True

    @contextlib.contextmanager
    def watching(self, own: str, state: bool = False) -> Iterator[list[tuple[str, str]]]:
        """Watch what is done in a `with` block; with `state`, whether it changes what everybody
        shares in the process.
        """
        self.seen, self.own = [], own
        before, printed = _state() if state else {}, io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            self.on = True
            try:
                yield self.seen
            finally:
                self.on = False
        if text := printed.getvalue():
            self.seen.append(("print", f"prints {text[:80]!r}"))
        after = _state() if state else {}
        changed = [name for name in before if after[name] != before[name]]
        self.seen.extend((name, f"changes {name}") for name in changed)


def _what(event: str, arguments: tuple[Any, ...]) -> str:
    """Return what an audit event is about; empty where nobody minds."""
    for what, events in _EVENTS.items():
        if event.startswith(events):
            return what
    if event != "open" or str(arguments[0]).startswith("/dev/") or isinstance(arguments[0], int):
        return ""
    mode, flags = arguments[1] or "", arguments[2] or 0
    return "write" if set(mode) & set("wax+") or flags & _WRITING else "read"


def _is_of_library(frame: FrameType | None, own: str) -> bool:
    """Return whether the import of somebody else's library causes an event: its caches are its own
    affair.
    """
    while frame is not None:
        top = str(frame.f_globals.get("__name__")).partition(".")[0]
        if top == own:
            return False
        if frame.f_code.co_name == "<module>" and top not in sys.stdlib_module_names:
            return top != __name__.partition(".")[0]
        frame = frame.f_back
    return False


def _is_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _place(frame: FrameType | None) -> str:
    """Return the innermost place outside the standard library."""
    while frame is not None:
        top = str(frame.f_globals.get("__name__")).partition(".")[0]
        if top not in sys.stdlib_module_names:
            return f"{frame.f_code.co_filename}, line {frame.f_lineno}"
        frame = frame.f_back
    return "unknown place"


def _state() -> dict[str, Any]:
    """Return what everybody shares in a process; of a library, once it is loaded."""
    state: dict[str, Any] = {
        "the threads of the process": threading.active_count(),
        "the random state": random.getstate(),
    }
    # a library that is imported in between was not loaded before: then there is nothing to compare
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        state["NumPy's random state"] = str(numpy.random.get_state())
    if torch is not None and hasattr(torch, "random"):
        state["torch's random state"] = torch.random.get_rng_state().tolist()
        state["the GPU"] = torch.cuda.is_initialized()
    return state


def examine_hooks(module: str) -> dict[str, Any]:
    """Import a hook module; return the seconds, and the modules that came with it."""
    import nnunet_core  # noqa: F401 - every hook module needs it

    before, start = set(sys.modules), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module(module)
    return {
        "seconds": time.perf_counter() - start,
        "modules": sorted({name.partition(".")[0] for name in set(sys.modules) - before}),
    }


def examine(job: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    """Import the target of a component, construct it where it is a class; return what happened."""
    from nnunet_core.registry.components import Component
    from nnunet_core.registry.discovery import Resolved
    from nnunet_core.registry.settings import validate

    module, _, attribute = job["target"].partition(":")
    own = module.partition(".")[0]
    found: dict[str, Any] = {"import": [], "constructor": [], "error": ""}
    component = Component(attribute, job["target"], settings=job["settings"])
    resolved = Resolved(job["kind"], job["reference"], component)
    try:
        with watch.watching(own) as found["import"]:
            importlib.import_module(module)
        target = resolved.load()
        if job["kind"] != "command":
            values = validate(resolved, target)
            with watch.watching(own, state=True) as found["constructor"]:
                target(**values)
    except Exception as error:  # noqa: BLE001 - a stranger's code; the check that builds it says why
        found["error"] = f"{type(error).__name__}: {error}"
    return found


def _say(file: TextIO, **values: object) -> None:
    file.write(json.dumps(values) + "\n")
    file.flush()


def main(jobs: str, findings: str) -> None:
    """Do the jobs of a file, one after the other; write down each that begins and ends."""
    import pydantic  # noqa: F401 - what every component's settings need, before it is watched

    watch = Watch()
    with Path(findings).open("w", encoding="utf-8") as file:
        for job in json.loads(Path(jobs).read_text(encoding="utf-8")):
            _say(file, begun=job["number"])
            done = examine_hooks(job["hooks"]) if "hooks" in job else examine(job, watch)
            _say(file, ended=job["number"], found=done)


if __name__ == "__main__":
    main(*sys.argv[1:])
