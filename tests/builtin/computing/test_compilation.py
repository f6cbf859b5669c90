"""Compilation of networks: a machine without a compiler trains as it is, and says so."""

import os
import subprocess
import sys

import pytest

#: A process of its own: this one may have found its compiler before.
COMPILES = """
import contextlib
import torch
from nnunet_builtin.computing.compilation import compile_in_place
from nnunet_core.runtime.reporting import Silence

class Printing(Silence):
    def warning(self, text):
        print("warning:", text)

network = torch.nn.Conv2d(1, 2, 3)
here = torch.device("cpu")
compile_in_place(network, (1, 1, 8, 8), here, contextlib.nullcontext, Printing())
print("output:", tuple(network(torch.zeros(1, 1, 8, 8)).shape))
"""


@pytest.mark.slow
def test_a_compiler_that_is_not_there_is_one_warning(tmp_path):
    missing = {"CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILES],
        env={**os.environ, **missing},
        capture_output=True,
        text=True,
        check=False,
    )
    warning, output = done.stdout.splitlines()
    assert warning.startswith("warning: the network cannot be compiled, it runs as it is: ")
    assert output == "output: (1, 2, 6, 6)"
