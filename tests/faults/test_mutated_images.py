"""Hundreds of damaged files over all formats, read in one process with limits: an error that names
the file, or an image that is whole; never a crash, a hang, a traceback or invented data.
"""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SEEDS = int(os.environ.get("NNUNET_MUTATIONS", "4"))
#: Formats whose voxels have a checksum: not one bit of them may differ.
CHECKED = (".nii.gz", ".gipl.gz", ".png", "packed_volume.nrrd", "packed_volume.mha")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutations")
    paths = os.pathsep.join([str(HERE.parent / "builders"), *sys.path])
    done = subprocess.run(
        [sys.executable, str(HERE / "read_mutations.py"), str(folder), str(SEEDS)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]
    assert done.returncode == 0, (lines[-1:], done.returncode, done.stderr[-2000:])
    return list(zip(lines[::2], lines[1::2], strict=True))


def test_there_are_five_hundred_of_them(results):
    assert len(results) >= 500
    kinds = collections.Counter("error" in outcome for _, outcome in results)
    assert min(kinds.values()) > 50  # neither refuses everything, nor reads everything


def test_none_is_a_traceback_and_each_error_names_its_file_in_one_line(results):
    for what, outcome in results:
        assert "unexpected" not in outcome, (what, outcome)
        if text := outcome.get("error"):
            stem = what["file"].rpartition(".")[0]  # or the file with its voxels
            assert stem.removesuffix(".nii") in text, (what, text)
            assert "\n" not in text


def test_what_was_cut_is_never_read_as_whole(results):
    wrong = [
        (what, outcome)
        for what, outcome in results
        if what["kind"] == "cut" and "error" not in outcome and not outcome["same"]
    ]
    assert wrong == []


def test_geometry_is_finite_and_no_voxel_is_invented(results):
    for what, outcome in results:
        if "error" in outcome:
            continue
        assert outcome["finite"], (what, outcome)
        assert outcome["bytes"] < 1 << 20, (what, outcome)
        if what["file"].endswith(CHECKED):
            assert outcome["same"], (what, outcome)
