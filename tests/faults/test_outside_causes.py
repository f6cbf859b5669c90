"""What the machine, the disk, the memory and the user's rights do is said as what it is."""

import errno
import io
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_streams import drawn_store, stream
from commands import nnunet
from finished_run import one_error
from rich.console import Console

import nnunet_cli.app
from nnunet_builtin.computing.devices import resolve
from nnunet_builtin.training import loading
from nnunet_builtin.training.checkpoint import CHECKPOINT, write_checkpoint
from nnunet_cli.main import main
from nnunet_cli.reporter import BarReporter, PlainReporter, make_reporter, out
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.errors import NnunetError, StorageError, TrainingError, UsageError
from nnunet_core.runtime import files, groups, memory
from nnunet_core.runtime.workers import Workers, usable_cores

LONG = "x" * 300


def raised(kind, *arguments, cause=None):
    error = kind(*arguments)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a"), "/a: No space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/a"), "Free some"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "/a: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "/a"), "mount it for writing"),
        (OSError(errno.ENAMETOOLONG, "File name too long", LONG), "shorter names"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a"), "/a: No such file"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.EIO, "Input/output error", "/a"), "/a: Input/output error"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory is full"),
        (MemoryError(), "memory is full"),
        (MemoryError("Unable to allocate 21.0 TiB for an array"), "21.0 TiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory is full"),
        (RuntimeError("std::bad_alloc"), "memory is full"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("unable to open shared memory object </torch_1_2>"), "--workers 0"),
        (OSError(errno.ENOSPC, "No space left on device", "/dev/shm/x"), "--shm-size"),
        (raised(RuntimeError, "failed", cause=PermissionError(13, "", "/b")), "/b: Permission"),
    ],
    ids=str,
)
def test_an_outside_cause_is_no_defect_of_the_software(monkeypatch, error, said):
    def command(*_, **__):
        raise error

    monkeypatch.setattr(nnunet_cli.app, "build_app", lambda *_: command)
    assert said in one_error(nnunet())


def test_a_defect_is_still_called_one(monkeypatch):
    def command(*_, **__):
        raise KeyError("patch")

    monkeypatch.setattr(nnunet_cli.app, "build_app", lambda *_: command)
    assert "unexpected KeyError" in nnunet().stderr


@pytest.mark.parametrize("command", [["plan", LONG], ["predict", LONG, LONG, LONG]])
def test_names_that_are_too_long_are_one_message(tmp_path, command):
    done = nnunet(*command, "--workspace", tmp_path)
    assert done.returncode in (1, 2)
    assert "unexpected" not in done.stderr


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_disk_that_is_full_while_pytorch_saves(tmp_path, share):
    content = {"network": {str(n): torch.rand(100, 100) for n in range(5)}}
    write_checkpoint(tmp_path, content)
    before = (tmp_path / CHECKPOINT).read_bytes()
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(len(before) * share), old[1][1]))
    try:
        with pytest.raises(StorageError, match=r"No space left while writing .*checkpoint\.pt"):
            write_checkpoint(tmp_path, content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old[1])
        signal.signal(signal.SIGXFSZ, old[0])
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize("written", [0, 1, 1000, 100_000])
def test_an_error_of_the_system_that_pytorch_hides_is_found(tmp_path, written):
    class Full(io.RawIOBase):
        size = 0

        def write(self, content):
            self.size += len(content)
            if self.size > written:
                raise OSError(errno.ENOSPC, "No space left on device")
            return len(content)

    with pytest.raises(StorageError, match="No space left"), files.atomic_path(tmp_path / "a"):
        torch.save({"a": torch.rand(100, 1000)}, Full())


@pytest.mark.parametrize(
    ("value", "threads"), [("4", 4), ("4,2", 4), (" 3 , 1 ", 3), ("", None), ("1", 1)]
)
def test_what_openmp_allows_is_understood(monkeypatch, value, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads is None or resolve(Runtime("cpu", "float32")).threads == threads


@pytest.mark.parametrize("value", ["abc", "0", "-1", "4;2", ",4"])
def test_what_openmp_does_not_allow_is_one_message(monkeypatch, value):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with pytest.raises(UsageError, match="OMP_NUM_THREADS is"):
        resolve(Runtime("cpu", "float32"))


def test_arrays_are_read_under_a_list_of_threads():
    code = "import nnunet_core.store.arrays"
    environment = {**os.environ, "OMP_NUM_THREADS": "4,2"}
    environment.pop("NUMEXPR_NUM_THREADS", None)
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )


NAMES = ["y[/b]", "[red]a", ":smile:", "a[bold]b[/]", "\\[x]"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(capsys, name):
    out().print(f"in {name}", soft_wrap=True)
    make_reporter().message(f"to {name}")
    make_reporter().warning(f"of {name}")
    told = capsys.readouterr()
    assert f"in {name}" in told.out
    assert f"to {name}" in told.err
    assert f"of {name}" in told.err


@pytest.mark.parametrize("name", NAMES)
def test_bars_show_names_as_they_are(name):
    text = io.StringIO()
    reporter = BarReporter(Console(file=text, force_terminal=True, width=200, color_system=None))
    with reporter.track(f"train {name}", 2) as tracker:
        tracker.advance(2, f"case {name}")
    assert f"train {name}" in text.getvalue()
    assert f"case {name}" in text.getvalue()


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, _):
        raise OSError(errno.EIO, "Input/output error")


def test_work_goes_on_when_the_terminal_is_gone(monkeypatch):
    monkeypatch.setattr("sys.stderr", Gone())
    reporter = make_reporter()
    assert isinstance(reporter, PlainReporter)
    with reporter.track("train", 1) as tracker:
        reporter.message("still here")
        tracker.advance(1)


STREAMS = """
import os, sys
for number in {closed}:
    os.close(number)
os.execv(sys.executable, [sys.executable, "-m", "nnunet_cli", "plugins", "list"])
"""


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)], ids=str)
def test_closed_streams_are_no_error(closed):
    done = subprocess.run([sys.executable, "-c", STREAMS.format(closed=closed)], check=False)
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_standard_output_is_one_message():
    command = [sys.executable, "-m", "nnunet_cli", "plugins", "list"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert "standard output cannot be written: No space left" in one_error(done)


@pytest.mark.parametrize(("count", "problem"), [(1, "No space left"), (30, "Read-only")])
def test_processes_that_cannot_be_started_are_one_message(monkeypatch, count, problem):
    number = errno.EROFS if count == 30 else errno.ENOSPC

    def failing(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("_multiprocessing.SemLock", failing)
    with Workers(2) as workers, pytest.raises(NnunetError, match=rf"{problem}.*--processes 1"):
        list(workers.each(str, [1, 2, 3]))


def test_too_little_shared_memory_for_loaders_is_said_before_they_start(tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(loading.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(TrainingError, match=r"shared memory, /dev/shm has 0\.0 MB.*--workers 0"):
        next(stream(drawn_store(tmp_path), 2))


def write_group(folder, **content):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        (folder / name.replace("__", ".")).write_text(value)


@pytest.mark.parametrize(
    ("membership", "limits", "free"),
    [
        ("0::/", {"": ("v2", 100, 60, 10)}, 50),
        ("0::/job/step", {"job": ("v2", 100, 60, 0), "job/step": ("v2", 90, 20, 0)}, 40),
        ("0::/job", {"job": ("v2", "max", 60, 0)}, None),
        ("0::/not/here", {"": ("v2", 70, 60, 0)}, 10),
        ("4:memory:/job\n0::/", {"memory/job": ("v1", 100, 60, 5)}, 45),
        ("3:cpu:/job", {"job": ("v2", 100, 60, 0)}, None),
        ("", {}, None),
    ],
)
def test_memory_of_control_groups_counts(tmp_path, monkeypatch, membership, limits, free):
    for folder, (version, most, used, cache) in limits.items():
        if version == "v2":
            names = {"memory__max": f"{most}", "memory__current": f"{used}"}
            names["memory__stat"] = f"anon 1\ninactive_file {cache}\n"
        else:
            names = {"memory__limit_in_bytes": f"{most}", "memory__usage_in_bytes": f"{used}"}
            names["memory__stat"] = f"rss 1\ntotal_inactive_file {cache}\n"
        write_group(tmp_path / "cgroup" / folder, **names)
    (tmp_path / "membership").write_text(membership)
    monkeypatch.setattr(groups, "_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(groups, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(memory, "_process_free", list)
    assert (memory.available() == free) if free is not None else memory.available() > 1000


@pytest.mark.parametrize(
    ("membership", "limits", "cores"),
    [
        ("0::/", {"": {"cpu__max": "250000 100000"}}, 3),
        ("0::/job/step", {"job": {"cpu__max": "max 100000"}}, 8),
        ("0::/job/step", {"job": {"cpu__max": "1000 100000"}, "job/step": {}}, 1),
        (
            "2:cpu,cpuacct:/job",
            {"cpu,cpuacct/job": {"cpu__cfs_quota_us": "400000", "cpu__cfs_period_us": "100000"}},
            4,
        ),
        (
            "2:cpu,cpuacct:/",
            {"cpu,cpuacct": {"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"}},
            8,
        ),
        ("0::/", {"": {"cpu__max": "9900000 100000"}}, 8),
        ("0::/", {"": {"cpu__max": "100000 0"}}, 8),
        ("", {}, 8),
    ],
)
def test_cores_of_control_groups_count(tmp_path, monkeypatch, membership, limits, cores):
    for folder, content in limits.items():
        write_group(tmp_path / "cgroup" / folder, **content)
    (tmp_path / "cgroup" / "job" / "step").mkdir(parents=True, exist_ok=True)
    (tmp_path / "membership").write_text(membership)
    monkeypatch.setattr(groups, "_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(groups, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores() == cores


def test_the_limit_of_the_address_space_counts():
    code = """
import resource, psutil
from nnunet_core.runtime.memory import available
used = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (used + 10**8, -1))
assert 0 < available() <= 10**8, available()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_full_memory_is_one_message(monkeypatch):
    def command(*_, **__):
        np.zeros(1 << 60, np.uint8)

    monkeypatch.setattr(nnunet_cli.app, "build_app", lambda *_: command)
    assert "memory is full" in one_error(nnunet())


def test_a_name_that_the_terminal_cannot_show_is_shown_in_another_way(monkeypatch):
    text = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", text)
    with pytest.raises(SystemExit):
        main(["--version"])
    print("Bücher", file=text, flush=True)
