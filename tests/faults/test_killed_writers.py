"""What a process that was killed leaves: nothing for ever, and nothing that is missing."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from listening import Listener

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry
from nnunet_core.errors import NnunetError
from nnunet_core.runtime import files
from nnunet_core.runtime.workers import Workers

WRITER = """
import sys, time
from pathlib import Path
from nnunet_core.runtime import files
context = files.atomic_folder if sys.argv[2] == "folder" else files.atomic_path
with context(Path(sys.argv[1]), *([True] if sys.argv[2] == "folder" else [])) as temporary:
    print(temporary, flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["file", "folder"])
def writer(request, tmp_path):
    """A process that writes a file or a folder, and what it writes."""
    target = tmp_path / "case.json"
    command = [sys.executable, "-c", WRITER, str(target), request.param]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()


def test_what_a_living_process_writes_stays_and_what_a_dead_one_left_goes(tmp_path, writer):
    process, temporary = writer
    files.remove_leftovers(tmp_path)
    assert temporary.exists()
    process.kill()
    process.wait()
    assert temporary.exists()
    files.remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_leftovers_in_preprocessed_are_removed_by_the_next_run(tiny):
    space = tiny.parent.parent / "preprocessed" / tiny.name
    prepared = space / "prepared" / "default-12345678"
    leftovers = [
        space / ".digests.json.0.tmp",
        space / "fingerprints" / ".a.json.0.tmp",
        space / "plans" / ".a.json.0.tmp",
    ]
    from commands import nnunet

    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    command = ("preprocess", tiny, "--workspace", tiny.parent.parent, "--processes", 1)
    assert nnunet(*command).returncode == 0
    (prepared,) = (space / "prepared").iterdir()
    half = prepared / ".case_0.images.b2nd.0.tmp"
    half.write_bytes(b"half")
    (prepared / "case_1.json").unlink()
    assert nnunet(*command).returncode == 0
    assert not list(space.rglob("*.tmp"))


def test_a_dataset_that_is_replaced_is_there_at_every_moment(tmp_path):
    folder = tmp_path / "dataset"
    (folder / "old").mkdir(parents=True)
    missing, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            if not folder.exists():
                missing.append(1)

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(50):
        with files.atomic_folder(folder, overwrite=True) as temporary:
            (temporary / str(number)).mkdir()
    stop.set()
    thread.join()
    assert not missing
    assert [path.name for path in folder.iterdir()] == ["49"]
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_without_an_exchange_of_the_system_folders_change_places_all_the_same(
    tmp_path, monkeypatch
):
    def none(*_, **__):
        raise OSError("no library here")

    monkeypatch.setattr("ctypes.CDLL", none)
    folder = tmp_path / "dataset"
    for number in range(2):
        with files.atomic_folder(folder, overwrite=True) as temporary:
            (temporary / str(number)).mkdir()
    assert [path.name for path in folder.iterdir()] == ["1"]
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def _slow(number):
    time.sleep(0.2)
    return number


def test_children_that_are_killed_as_they_start_are_started_again():
    listener = Listener()
    with Workers(2, report=listener) as workers:
        killer = threading.Thread(target=_kill_first_children, args=[1])
        killer.start()
        assert list(workers.each(_slow, range(4))) == list(range(4))
        killer.join()


def test_children_that_are_always_killed_as_they_start_are_one_message():
    stop = threading.Event()
    killer = threading.Thread(target=_kill_first_children, args=[1000, stop])
    killer.start()
    try:
        with Workers(2) as workers, pytest.raises(NnunetError, match="died twice"):
            list(workers.each(_slow, range(4)))
    finally:
        stop.set()
        killer.join()


def _kill_first_children(count, stop=None):
    import multiprocessing

    killed, until = 0, time.monotonic() + 30
    while killed < count and time.monotonic() < until and not (stop and stop.is_set()):
        for child in multiprocessing.active_children():
            child.kill()
            killed += 1
        time.sleep(0.01)


TWICE = """
import os, signal, sys, time
import nnunet_cli.app
from nnunet_cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)

def command(*_, **__):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    finally:
        {cleaning}

nnunet_cli.app.build_app = lambda *_: command
main([])
"""


@pytest.mark.parametrize(
    "cleaning",
    [
        "os.kill(os.getpid(), signal.SIGINT)",
        "os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGINT)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "sys.stderr.write = lambda *_: os.kill(os.getpid(), signal.SIGINT)",
    ],
    ids=["once", "twice", "SIGTERM", "as it says so"],
)
def test_a_second_interrupt_while_it_cleans_up_has_the_code_of_the_first(cleaning):
    code = TWICE.format(cleaning=cleaning)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "stopped" in done.stderr


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif"])
def test_an_image_that_is_being_written_is_no_leftover(tmp_path, monkeypatch, ending):
    """Other parts of a prediction remove leftovers at any time, also before the last rename."""
    whole = os.fsync
    monkeypatch.setattr(files.os, "fsync", lambda fd: (files.remove_leftovers(tmp_path), whole(fd)))
    shape = (1, 5, 6) if ending == ".png" else (4, 5, 6)
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path, image_format = tmp_path / f"case{ending}", SimpleItkFormat()
    image_format.write(path, array, Geometry(shape))
    np.testing.assert_array_equal(image_format.read(path).array[0], array)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
