"""Locks: one holder at a time; the dead are found out, the living are named."""

import os
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


def test_a_lock_names_its_holder_and_the_file_to_delete(tmp_path, holder):
    expected = rf"process {holder.pid} on .* is busy with fold 0.*delete .*\.lock"
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
    (tmp_path / locks.NAME).unlink()  # what the message advises
    thread.join(20)
    assert entered.is_set()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / locks.NAME).exists()
    with locks.held(tmp_path / locks.NAME, "preprocessing", Silence(), wait=False):
        pass
    assert not (tmp_path / locks.NAME).exists()
