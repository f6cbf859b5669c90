"""Ctrl-C and SIGTERM: what each kind of process does, and that handlers are as before
afterwards.
"""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from nnunet_core.runtime.signals import (
    Stopped,
    leave_interrupts_to_parent,
    stop_requests,
    stopped_by_signals,
)
from nnunet_core.runtime.workers import Workers


def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)
        time.sleep(0.01)  # the handler runs in between


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C may be ignored where tests run in the background."""
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) is signal.default_int_handler
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_is_stopped_where_it_works(number):
    with pytest.raises(Stopped) as stop, stopped_by_signals():
        send(number)
    assert stop.value.number == number


def test_more_signals_of_a_batch_system_do_not_disturb_the_way_out():
    with stopped_by_signals():
        with pytest.raises(Stopped):
            send(signal.SIGTERM)
        send(signal.SIGTERM)


def test_a_request_remembers_the_first_signal():
    with stop_requests() as request:
        assert request.signal is None
        send(signal.SIGTERM, signal.SIGTERM)
        assert request.signal is signal.SIGTERM


def test_the_second_interrupt_does_what_it_does_outside():
    with pytest.raises(KeyboardInterrupt), stop_requests():
        send(signal.SIGINT, signal.SIGINT)
    with pytest.raises(Stopped), stopped_by_signals(), stop_requests():
        send(signal.SIGINT, signal.SIGINT)


def test_in_another_thread_signals_are_left_alone():
    seen = []

    def work():
        with stopped_by_signals(), stop_requests() as request:
            seen.append((request.signal, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, signal.default_int_handler)]


def _ignores_interrupts(_: int) -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_workers_leave_interrupts_to_the_process_that_started_them():
    with Workers(2) as workers:
        assert all(workers.each(_ignores_interrupts, [1, 2]))


def test_a_loader_outlives_a_stop_for_a_while():
    code = f"""
import os, signal, time
from {leave_interrupts_to_parent.__module__} import leave_interrupts_to_parent
leave_interrupts_to_parent(1)
os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGTERM)
print("alive", flush=True)
time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGALRM, "alive\n"), done.stderr


INTERRUPTED = """
import os, signal, sys
import nnunet_cli.app
from nnunet_cli.main import main
from nnunet_core.runtime.signals import stop_requests

signal.signal(signal.SIGINT, signal.default_int_handler)

def command(*_, **__):
    with stop_requests():
        for _ in range({times}):
            os.kill(os.getpid(), {number})
        for _ in range(1000):
            pass
    print("went on", file=sys.stderr)

nnunet_cli.app.build_app = lambda *_: command
main([])
"""


@pytest.mark.parametrize(
    ("number", "times", "code"),
    [(signal.SIGINT, 2, 130), (signal.SIGINT, 1, 0), (signal.SIGTERM, 2, 0)],
)
def test_the_second_interrupt_ends_a_command_with_a_word(number, times, code):
    text = INTERRUPTED.format(number=int(number), times=times)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    said = "the same command goes on where it stopped" if code else "went on"
    assert said in done.stderr
