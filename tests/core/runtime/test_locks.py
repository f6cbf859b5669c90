"""Locks: one holder at a time; the dead are found out, the living are named."""

import errno
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest
from listening import Listener

from nnunet_core.errors import StorageError
from nnunet_core.runtime import locks
from nnunet_core.runtime.reporting import Silence

HOLDER = """
import sys, time
from pathlib import Path
from nnunet_core.runtime import locks
from nnunet_core.runtime.reporting import Silence
with locks.held(Path(sys.argv[1]) / locks.NAME, "preprocessing", Silence()):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_lock_names_its_holder_and_what_is_done_there(tmp_path, holder):
    expected = rf"process {holder.pid} on .* is busy with fold 0.*Let it finish, or stop it"
    with (
        pytest.raises(StorageError, match=expected),
        locks.held(tmp_path / locks.NAME, "fold 0", Silence(), wait=False),
    ):
        pass


def test_who_waits_goes_on_when_the_lock_is_free(tmp_path, holder):
    listener, entered = Listener(), threading.Event()

    def wait() -> None:
        with locks.held(tmp_path / locks.NAME, "preprocessing", listener):
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(1.5)
    assert not entered.is_set()
    assert str(holder.pid) in listener.messages[0]
    holder.terminate()
    thread.join(20)
    assert entered.is_set()


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / locks.NAME).exists()
    with locks.held(tmp_path / locks.NAME, "preprocessing", Silence(), wait=False):
        pass
    assert not (tmp_path / locks.NAME).exists()


@pytest.mark.parametrize(
    "content",
    ["", "half", f"{os.getppid()}\n{platform.node()}\n", "1\nanother-host\n", "\0" * 100],
    ids=["empty", "cut", "number of another process", "another host", "zeros"],
)
def test_what_is_in_a_file_that_nobody_holds_locks_nothing(tmp_path, content):
    (tmp_path / locks.NAME).write_text(content)
    with locks.held(tmp_path / locks.NAME, "preprocessing", Silence(), wait=False):
        assert (tmp_path / locks.NAME).read_text().startswith(f"{os.getpid()}\n")


def test_an_empty_file_does_not_free_a_lock_that_is_held(tmp_path, holder):
    (tmp_path / locks.NAME).write_text("")
    with (
        pytest.raises(StorageError, match="another process is busy"),
        locks.held(tmp_path / locks.NAME, "fold 0", Silence(), wait=False),
    ):
        pass


def test_a_file_system_without_locks_is_said_and_the_work_goes_on(tmp_path, monkeypatch):
    def missing(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", missing)
    listener, worked = Listener(), False
    with locks.held(tmp_path / locks.NAME, "preprocessing", listener):
        worked = True
    assert worked
    assert "has no locks" in listener.warnings[0]


def test_many_threads_hold_it_one_after_another(tmp_path):
    inside, most = [], []

    def work():
        with locks.held(tmp_path / locks.NAME, "counting", Silence()):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
