"""`make gpu`: one command that proves and measures everything on a card, and writes a report.

Usage: python tests/gpu/measure.py [--stages a,b,c,d,e,f] [--device cuda|cpu] [--tiny]
       [--output DIR] [--peer PYTHON] [--prepared DIR] [--limit SECONDS]

Every stage is a process with a time limit. After each of them DIR/report.md is written anew from
the results of all stages that are there, so a stopped run loses one stage at most, and other stages
can be added later. DIR/X.log is what stage X printed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from common import HERE, REPOSITORY, SECONDS
from report import ENDED, ENDS, FAILED, STOPPED, TIMED_OUT, End, read_ends, write_report


@dataclass(frozen=True)
class Stage:
    """A part of the run.

    Attributes:
        title: What it is about.
        script: That measures; see `common.Asked` for its arguments.
        limit: Seconds that it may take at full size.
    """

    title: str
    script: Path
    limit: float


#: Together within ten minutes.
STAGES = {
    "a": Stage("tests", HERE / "stage_tests.py", 180),
    "b": Stage("step times", HERE / "stage_steps.py", 95),
    "c": Stage("an epoch with loading", HERE / "stage_epoch.py", 75),
    "d": Stage("prediction", HERE / "stage_prediction.py", 95),
    "e": Stage("a real training", HERE / "stage_training.py", 110),
    "f": Stage("profile", HERE / "stage_profile.py", 35),
}
#: Seconds of every stage at tiny sizes: machines without a card may be slow.
TINY_LIMIT = 900.0
#: Modules that every stage imports. Stage a and the nnunetv2 sides of d and e also want SimpleITK.
NEEDED = (
    *("blosc2", "filelock", "isal", "numpy", "packaging", "pebble", "pluggy", "pydantic", "rich"),
    *("safetensors", "scipy", "threadpoolctl", "torchinfo", "typer"),
)
_GRACE = 5  # seconds in which a stage that is told to end may clear up
_LOG_LINES = 15


@dataclass(frozen=True)
class Wanted:
    """What every stage is run with.

    Attributes:
        device, tiny, peer, prepared: See `common.Asked`.
        output: Folder of results, logs and report.
        limit: Seconds of every stage, in the place of its own; None keeps these.
    """

    device: str
    tiny: bool
    output: Path
    peer: str | None = None
    prepared: Path | None = None
    limit: float | None = None


def measure(stages: Mapping[str, Stage], chosen: Sequence[str], wanted: Wanted) -> int:
    """Run the chosen stages; write the report after each of them.

    Args:
        stages: All that there are, in the order of the report.
        chosen: Letters of those to run.
        wanted: What they are run with.

    Returns:
        0 if all of them ended, otherwise 1.
    """
    wanted.output.mkdir(parents=True, exist_ok=True)
    titles = {letter: stage.title for letter, stage in stages.items()}
    spare = 0.0  # what stages left of their time; the next one may have it
    for letter in chosen:
        stage = stages[letter]
        limit = limit_of(stage, wanted) + spare
        print(f"stage {letter}: {stage.title}, at most {limit:.0f} s", flush=True)
        end = run_stage(letter, stage, wanted, limit)
        spare = 0.0 if wanted.limit else max(0.0, limit - end.seconds)
        _keep(letter, end, wanted.output)
        path = write_report(wanted.output, titles)
        if end.how == STOPPED:
            break
    ends = read_ends(wanted.output)
    print(f"\n{'stage':<30} {'result':<16} seconds")
    for letter in (one for one in titles if one in ends):
        end = ends[letter]
        print(f"{letter}: {titles[letter]:<27} {end.how:<16} {end.seconds:7.1f}")
    print(f"\n{path}")
    fine = all(letter in ends and ends[letter].how == ENDED for letter in chosen)
    return 0 if fine else 1


def limit_of(stage: Stage, wanted: Wanted) -> float:
    """Return the seconds that a stage may take."""
    if wanted.limit is not None:
        return wanted.limit
    return TINY_LIMIT if wanted.tiny else stage.limit


def run_stage(letter: str, stage: Stage, wanted: Wanted, limit: float) -> End:
    """Run a stage to its end, for at most `limit` seconds or to Ctrl-C; return how it ended."""
    folder, started = wanted.output, time.monotonic()
    for ending in ("json", "log"):
        (folder / f"{letter}.{ending}").unlink(missing_ok=True)
    log = folder / f"{letter}.log"
    with log.open("wb") as file, _interruptible():
        process = subprocess.Popen(
            _command(letter, stage, wanted),
            env=_environment(limit),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            how = FAILED if process.wait(limit) else ENDED
        except subprocess.TimeoutExpired:
            how = TIMED_OUT
        except KeyboardInterrupt:
            how = STOPPED
        finally:
            _end(process)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = tuple(line[:300] for line in lines[-_LOG_LINES:]) if how == FAILED else ()
    return End(how, round(time.monotonic() - started, 1), kept)


def _command(letter: str, stage: Stage, wanted: Wanted) -> list[str]:
    words: list[Any] = [sys.executable, stage.script, "--device", wanted.device]
    words += ["--output", wanted.output / f"{letter}.json"]
    words += ["--tiny"] if wanted.tiny else []
    words += ["--peer", wanted.peer] if wanted.peer else []
    words += ["--prepared", wanted.prepared] if wanted.prepared else []
    return [str(word) for word in words]


def _environment(limit: float) -> dict[str, str]:
    """Return the environment of a stage: it finds the packages without their installation."""
    paths = [str(REPOSITORY), str(REPOSITORY / "plugins"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONUNBUFFERED": "1",
        SECONDS: str(limit),
    }


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM interrupt, also where they were ignored, while the block runs."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a stage if it still runs, and whatever it has started."""
    started: list[psutil.Process] = []
    if process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)  # it removes its temporary folders
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in started:  # those with a process group of their own
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def _keep(letter: str, end: End, folder: Path) -> None:
    """Write how a stage ended beside how the others did."""
    ends = {**read_ends(folder), letter: end}
    content = {name: asdict(one) for name, one in ends.items()}
    temporary = (folder / ENDS).with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    temporary.replace(folder / ENDS)


def missing_packages() -> list[str]:
    """Return what every stage needs and this Python does not have."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def chosen_stages(text: str) -> list[str]:
    """Return the letters of stages in the order of the run.

    Raises:
        ValueError: There is no such stage; the message lists those that there are.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    wrong = [word for word in words if word not in STAGES]
    if wrong or not words:
        known = ", ".join(f"{letter} ({stage.title})" for letter, stage in STAGES.items())
        missing = f"There is no stage {wrong[0]!r}." if wrong else "No stage is chosen."
        raise ValueError(f"{missing} Stages are {known}; give some of them, as in --stages a,b.")
    return [letter for letter in STAGES if letter in words]


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--stages", default=",".join(STAGES), help="letters between commas")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="try the command itself")
    parser.add_argument("--output", type=Path, default=Path("gpu_report"), help="folder to write")
    parser.add_argument("--peer", help="python of an environment with nnunetv2")
    parser.add_argument("--prepared", type=Path, help="folder of prepared cases, for stage e")
    parser.add_argument("--limit", type=float, help="seconds of every stage")
    given = vars(parser.parse_args(words))
    try:
        chosen = chosen_stages(given.pop("stages"))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if given["device"] == "cuda" and not torch.cuda.is_available():
        print(
            "There is no CUDA device here. Try the command without one: --device cpu --tiny.",
            file=sys.stderr,
        )
        return 2
    if missing := missing_packages():
        print(f"Missing here: pip install {' '.join(missing)}", file=sys.stderr)
        return 2
    given["output"] = given["output"].absolute()
    given["prepared"] = given["prepared"] and given["prepared"].absolute()
    return measure(STAGES, chosen, Wanted(**given))


if __name__ == "__main__":
    sys.exit(main())
