"""A stranger's package reads another layout of folders; it is the one of
docs/how-to/own-reader.md.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from strangers import install_source, nnunet

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry

PAGE = Path(__file__).parents[2] / "docs/how-to/own-reader.md"
GRID = Geometry((16, 20, 18), (1.5, 1.0, 1.0))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder that pip installed the package of the page into."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for title, block in re.findall(
        r'```\w+ title="([^"]+)"\n(.*?)```', PAGE.read_text(), re.DOTALL
    ):
        (source / title).parent.mkdir(exist_ok=True)
        (source / title).write_text(block)
    return install_source(source, target)


@pytest.fixture
def study(tmp_path):
    """A BIDS folder of three subjects."""
    rng, writer = np.random.default_rng(0), SimpleItkFormat()
    for number in range(1, 4):
        label = np.zeros(GRID.shape, np.uint8)
        label[4:10, 5:12, 3 + number : 10 + number] = 1
        image = (100 + 80 * label + rng.normal(0, 10, GRID.shape)).astype(np.float32)
        name = f"sub-{number:02d}"
        writer.write(tmp_path / "ds1" / name / "anat" / f"{name}_T1w.nii.gz", image, GRID)
        labels = tmp_path / "ds1" / "derivatives" / "labels"
        writer.write(labels / f"{name}_dseg.nii.gz", label, GRID)
    return tmp_path / "ds1"


def done(path, *arguments):
    """Run a command; return what it printed."""
    return nnunet(path, *arguments).stdout


@pytest.mark.slow
def test_the_package_passes_its_checks(package, study):
    rows = json.loads(done(package, "plugins", "check", "bids", "--example", study, "--json"))
    skipped = {row["check"] for row in rows if row["outcome"] == "skipped"}
    # a subject's folder holds its image alone
    assert skipped == {"reader_lists_cases_to_predict"}


@pytest.mark.slow
def test_a_folder_of_another_layout_is_planned_and_prepared(package, study, tmp_path):
    space = ("--workspace", tmp_path / "ws", "--processes", "1")
    plans = json.loads(done(package, "plan", study, *space, "--json"))
    assert plans["dataset"] == "ds1"
    (prepared,) = done(package, "preprocess", study, *space).splitlines()
    assert prepared.startswith("3d_fullres: 3 cases in ")
    report = json.loads(done(package, "dataset", "verify", study, *space, "--json"))
    assert [case["name"] for case in report["cases"]] == ["sub-01", "sub-02", "sub-03"]
    assert (report["errors"], report["warnings"]) == ([], [])
    voxels = report["cases"][0]["voxels"]["1"]
    assert voxels == 6 * 7 * 7
    labels = study / "derivatives" / "labels"
    here = ("--dataset", study, "--output", tmp_path / "summary.json", "--json")
    scores = json.loads(done(package, "evaluate", labels, labels, *here))
    assert (list(scores["labels"]), scores["labels"]["1"]["metrics"]["Dice"]["mean"]) == (["1"], 1)


def test_it_is_converted_to_a_folder_of_nnunet(package, study, tmp_path):
    options = ("--workspace", tmp_path / "ws", "--id", "5", "--name", "Bids", "--processes", "1")
    converted = Path(done(package, "dataset", "convert", study, *options).splitlines()[-1])
    assert converted.name == "Dataset005_Bids"
    document = json.loads((converted / "dataset.json").read_text())
    assert document == {
        "channel_names": {"0": "T1w"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    image = study / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    assert (converted / "imagesTr" / "sub-02_0000.nii.gz").read_bytes() == image.read_bytes()


def test_what_no_reader_fits_names_the_readers_and_what_they_look_for(package, study, tmp_path):
    end = nnunet(package, "plan", study, "--workspace", tmp_path, "--no-plugin", "bids", code=1)
    assert f"No dataset reader fits {study}" in end.stderr
    assert "datasets/nnunet looks for dataset.json" in end.stderr
    assert "blocked or broken: bids" in end.stderr
    (study / "derivatives" / "labels" / "sub-03_dseg.nii.gz").unlink()
    lacking = nnunet(package, "plan", study, "--workspace", tmp_path, code=1)
    assert "lacks SUBJECT_dseg.nii.gz of: sub-03" in lacking.stderr


def test_our_reader_is_asked_first_and_is_never_left_out_by_a_list_of_plugins(package, study, tiny):
    where = ("--workspace", tiny.parents[1])
    (tiny / "sub-01").symlink_to(study / "sub-01")
    (tiny.parent / "ds1").symlink_to(study)
    shown = json.loads(done(package, "dataset", "list", *where, "--json"))
    assert [(row["name"], row["cases"]) for row in shown] == [("Dataset001_Tiny", 6), ("ds1", 3)]
    nnunet(package, "splits", tiny, *where, NNUNET_PLUGINS="bids")
    blocked = nnunet(package, "plan", tiny.parent, *where, "--no-plugin", "datasets", code=1)
    assert "bids/bids looks for sub-*/anat" in blocked.stderr
    assert "blocked or broken: datasets" in blocked.stderr
