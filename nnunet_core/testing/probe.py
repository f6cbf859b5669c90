"""Components imported and constructed in fresh processes, where it is seen what they do besides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CHILD = "nnunet_core.testing.probe_child"
_POLL_SECONDS = 0.05
#: Folders that libraries keep caches in; a fresh process has empty ones.
_HOMES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR")


@dataclass(frozen=True)
class Found:
    """What a component did.

    Attributes:
        imported, constructed: (what: `network`, `process`, `write`, `read`, ..., a sentence) of
            each thing that it did.
        error: Why one of the two failed, or hung; empty otherwise.
    """

    imported: tuple[tuple[str, str], ...] = ()
    constructed: tuple[tuple[str, str], ...] = ()
    error: str = ""


@dataclass
class Probe:
    """Examines components in as few processes as possible: the first question examines all that
    were announced.

    Attributes:
        patience: Seconds that one component may take.
    """

    patience: float = 120.0
    _announced: list[tuple[str, str, str, str]] = field(default_factory=list)
    _found: dict[tuple[str, str, str, str], Found] = field(default_factory=dict)
    _hooks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def announce(self, kind: str, reference: str, target: str, settings: Mapping[str, Any]) -> None:
        """Say that a component will be asked for."""
        self._announced.append((kind, reference, target, json.dumps(dict(settings))))

    def of(self, kind: str, reference: str, target: str, settings: Mapping[str, Any]) -> Found:
        """Return what a component did when it was imported and constructed."""
        key = (kind, reference, target, json.dumps(dict(settings)))
        if key not in self._found:
            wanted = list(dict.fromkeys((*self._announced, key)))
            self._examine([each for each in wanted if each not in self._found])
        return self._found[key]

    def hooks(self, module: str) -> dict[str, Any]:
        """Return the `seconds` that importing a hook module took, and the top-level `modules` that
        came with it; or `error`.
        """
        if module not in self._hooks:
            answer = self._run([{"hooks": module, "number": 0}])[0]
            self._hooks[module] = answer
        return self._hooks[module]

    def _examine(self, keys: Sequence[tuple[str, str, str, str]]) -> None:
        jobs = []
        for number, (kind, reference, target, settings) in enumerate(keys):
            named = {"kind": kind, "reference": reference, "target": target}
            jobs.append({**named, "settings": json.loads(settings), "number": number})
        while jobs:
            answers = self._run(jobs)
            for number, answer in answers.items():
                self._found[keys[number]] = Found(
                    _events(answer, "import"), _events(answer, "constructor"), answer["error"]
                )
            # one that hung or died took the later ones with it
            jobs = [job for job in jobs if job["number"] not in answers]

    def _run(self, jobs: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
        """Do jobs in one process; return {number: answer} of those that ended, and of the one that
        ended the process.
        """
        with tempfile.TemporaryDirectory(prefix="nnunet-probe-") as name:
            folder = Path(name)
            answers, errors = folder / "answers.jsonl", folder / "errors.txt"
            (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
            command = [sys.executable, "-m", _CHILD, str(folder / "jobs.json"), str(answers)]
            (folder / "empty").mkdir()
            with errors.open("wb") as error:
                process = subprocess.Popen(
                    command,
                    cwd=folder / "empty",
                    env=_environment(folder),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=error,
                )
                hung = self._wait(process, answers)
            done, begun = _read(answers)
            if begun is not None and begun not in done:
                last = errors.read_text(errors="replace").strip().splitlines()[-1:]
                ended = f"it ends the process with code {process.returncode}"
                why = f"it hangs: nothing for {self.patience:g} s" if hung else ended
                done[begun] = {"error": " ".join([why, *last])}
            if not done:
                text = errors.read_text(errors="replace")
                raise RuntimeError(f"The process that examines components failed: {text}")
        return done

    def _wait(self, process: subprocess.Popen[bytes], answers: Path) -> bool:
        """Wait for a process; return whether it had to be killed since it made no progress."""
        size, since = -1, time.monotonic()
        while process.poll() is None:
            now = answers.stat().st_size if answers.exists() else -1
            if now != size:
                size, since = now, time.monotonic()
            if time.monotonic() - since > self.patience:
                process.kill()
                process.wait()
                return True
            time.sleep(_POLL_SECONDS)
        return False


def _events(answer: Mapping[str, Any], name: str) -> tuple[tuple[str, str], ...]:
    return tuple((what, sentence) for what, sentence in answer.get(name, ()))


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of a fresh process that finds what this one finds."""
    path = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    homes = dict.fromkeys(_HOMES, str(folder / "home"))
    return {**os.environ, **homes, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def _read(answers: Path) -> tuple[dict[int, dict[str, Any]], int | None]:
    """Return {number: answer}, and the number of the job that began last."""
    done: dict[int, dict[str, Any]] = {}
    begun = None
    text = answers.read_text(encoding="utf-8") if answers.exists() else ""
    for line in text.splitlines():
        said = json.loads(line)
        begun = said.get("begun", begun)
        if "ended" in said:
            done[said["ended"]] = said["found"]
    return done, begun
