"""What the stages of `make gpu` share: their arguments, their results, and a task to train on
without any data.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
#: Environment variable with the seconds that a stage may take.
SECONDS = "NNUNET_STAGE_SECONDS"


@dataclass(frozen=True)
class Asked:
    """The arguments of every stage.

    Attributes:
        device: `cuda`, or `cpu` to try the stage itself.
        tiny: Sizes of seconds on a CPU; the figures mean nothing then.
        output: JSON file of the stage's results.
        peer: Python of an environment with nnunetv2, or None where there is none.
        prepared: Folder of prepared cases of stage e, or None.
    """

    device: str
    tiny: bool
    output: Path
    peer: str | None
    prepared: Path | None


@dataclass
class Table:
    """Rows under named columns.

    Attributes:
        title, columns: Its heading.
        rows: Cells; numbers are shown with three digits.
    """

    title: str
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)


class Results:
    """The tables and notes of a stage; written after every addition, so that a stopped stage keeps
    what it has.
    """

    def __init__(self, title: str, asked: Asked) -> None:
        self.path = asked.output
        self.content: dict[str, Any] = {
            "title": title,
            "machine": machine(asked.device),
            "tables": [],
            "notes": [],
        }
        self.started = time.monotonic()
        self._write(finished=False)

    def table(self, title: str, *columns: str) -> Table:
        """Begin a table; add rows with `row`."""
        table = Table(title, list(columns))
        self.content["tables"].append(table)
        return table

    def row(self, table: Table, *cells: Any) -> None:
        """Add a row to a table."""
        table.rows.append(list(cells))
        print(" | ".join(str(cell) for cell in cells), flush=True)
        self._write(finished=False)

    def fill(self, table: Table, row: int, column: str, value: Any) -> None:
        """Write a cell of a row that is there already."""
        table.rows[row][table.columns.index(column)] = value
        self._write(finished=False)

    def note(self, text: str) -> None:
        """Add a sentence: what was left out, what went wrong."""
        self.content["notes"].append(text)
        print(text, flush=True)
        self._write(finished=False)

    def finish(self) -> None:
        """Say that the stage has ended."""
        self._write(finished=True)

    def _write(self, finished: bool) -> None:
        content = {**self.content, "tables": [asdict(table) for table in self.content["tables"]]}
        content |= {"finished": finished, "seconds": round(time.monotonic() - self.started, 1)}
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, indent=1))
        temporary.replace(self.path)


def asked(description: str) -> Asked:
    """Parse the arguments of a stage."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--peer")
    parser.add_argument("--prepared", type=Path)
    found = parser.parse_args()
    found.output.parent.mkdir(parents=True, exist_ok=True)
    return Asked(**vars(found))


def seconds_left(otherwise: float) -> float:
    """Return how long this stage may still take.

    Args:
        otherwise: Seconds of the whole stage where `measure.py` does not tell.
    """
    whole = float(os.environ.get(SECONDS, otherwise))
    return whole - (time.time() - psutil.Process().create_time())


def machine(device: str) -> dict[str, Any]:
    """Return what a figure depends on."""
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return {
        "card": card,
        "cores": psutil.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device == "cuda" else None,
    }


def find_peer(given: str | None) -> str | None:
    """Return the Python that has nnunetv2: the one given, or this one; None where there is none."""
    if given:
        return given
    return sys.executable if importlib.util.find_spec("nnunetv2") else None


def run_peer(peer: str, script: str, *arguments: object, timeout: float) -> dict[str, Any]:
    """Run a script of this folder in the environment of nnunetv2; return the last line of JSON that
    it prints.

    Raises:
        RuntimeError: It failed, or took too long; the message holds the end of what it printed.
    """
    command = [peer, str(HERE / script), *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{script} took longer than {timeout:.0f} s") from error
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(
            f"{script} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}"
        )
    return dict(json.loads(lines[-1]))


@contextlib.contextmanager
def left_out(results: Results, what: str) -> Iterator[None]:
    """Note what fails in the block and go on: one missing figure does not cost the others."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (whatever it is, the stage goes on)
        lines = str(error).strip().splitlines() or [""]
        results.note(f"{what} left out: {type(error).__name__}: {lines[-1][:300]}")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
