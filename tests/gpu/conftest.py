"""Fixtures of the tests on a card.

`make gpu` runs them; without a card they are skipped. NNUNET_GPU_TESTS=any, of `make test`, lets
the CPU take the place of a card that is not there, and NNUNET_GPU_TESTS=cpu that of any card: this
shows that a test works, and nothing about cards.
"""

import importlib.util
import os

import pytest
import torch

from nnunet_builtin.training import loop as training_loop

VARIABLE = "NNUNET_GPU_TESTS"


#: Files whose tests start processes and compilers: what takes longest comes last.
_LAST = ("test_gpu_compilation.py", "test_gpu_command.py")


def pytest_collection_modifyitems(items):
    """Leave the slowest tests to the end: a run that is cut off has proven the numbers by then."""
    items.sort(key=lambda item: item.path.name in _LAST)


@pytest.fixture(scope="session")
def device():
    """The card, or what takes its place."""
    wanted = os.environ.get(VARIABLE, "card")
    if wanted != "cpu" and torch.cuda.is_available():
        return torch.device("cuda:0")
    if wanted == "card":
        pytest.skip("no CUDA device")
    return torch.device("cpu")


@pytest.fixture
def card(device):
    """The card itself, for what a CPU cannot stand in for, or what other tests show of a CPU."""
    if device.type != "cuda":
        pytest.skip("needs a card")
    return device


@pytest.fixture
def exact():
    """Products of float32 numbers without TF32, which keeps only 10 of their 23 bits."""
    sides = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [side.allow_tf32 for side in sides]
    for side in sides:
        side.allow_tf32 = False
    yield
    for side, allowed in zip(sides, before, strict=True):
        side.allow_tf32 = allowed


@pytest.fixture(autouse=True)
def one_thread():
    """The CPU's side of a comparison: its threads would wait for each other at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    """Trainings draw their progress only where Matplotlib is: no number depends on it."""
    if importlib.util.find_spec("matplotlib") is None:
        monkeypatch.setattr(training_loop, "progress_picture", lambda *_: None)
