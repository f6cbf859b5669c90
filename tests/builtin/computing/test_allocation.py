"""Memory that is freed inside the block is used again there, and given back after it."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from nnunet_builtin.computing.allocation import freed_memory_kept, give_freed_memory_back
from nnunet_builtin.computing.scratch import resident

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
with freed_memory_kept():
    faults()
    kept = faults()
    large, above = np.ones(10_000_000), np.ones(100_000)
    del large
    before = resident()
    give_freed_memory_back()
    returned = before - resident()
    del above
print(usual, kept, faults(), returned)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the setting is one of glibc's malloc"
)
def test_pages_are_not_mapped_anew_inside_the_block_unless_they_are_given_back():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    usual, kept, afterwards, returned = map(int, done.stdout.split())
    assert kept < usual / 20
    assert afterwards > usual / 2
    assert returned > 70e6
