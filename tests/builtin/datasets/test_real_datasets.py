"""Every real dataset and every file of formats/: converted, verified, planned and preprocessed
through the command line.
"""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.shared, pytest.mark.slow]

SOURCES = {
    "Task004_Hippocampus": ["{data}/Task004_Hippocampus"],
    "Task104_HippocampusThick": ["{data}/Task104_HippocampusThick", "--to", "v2"],
    "Task90_Lesions4D": ["{data}/Task90_Lesions4D", "--to", "v1"],
    "Dataset120_Nuclei": ["{data}/Dataset120_Nuclei", "--to", "v1"],
    "breast": [
        "--images",
        "{tmp}/breast/images",
        "--labels",
        "{tmp}/breast/labels",
        "--channel",
        "MRI",
    ],
    "phantom": [
        "--images",
        "{tmp}/phantom/images",
        "--labels",
        "{tmp}/phantom/labels",
        "--channel",
        "MRI",
        "--renumber",
    ],
    "dicom": ["--images", "{data}/formats/ct_3slice_dicom", "--labels", "{data}/formats/liver.dcm"],
}
PAIRS = {
    "breast": ("breast1_image.nrrd", "breast1_label.nrrd"),
    "phantom": ("prostate_phantom_subvolume.nrrd", "prostate_phantom_subvolume-label.nrrd"),
}


def nnunet(tmp_path, *arguments):
    command = [sys.executable, "-m", "nnunet_cli", *arguments, "--workspace", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.parametrize("name", SOURCES)
def test_it_converts_verifies_and_preprocesses(data, tmp_path, name):
    for part, file in zip(("images", "labels"), PAIRS.get(name, ()), strict=False):
        (tmp_path / name / part).mkdir(parents=True)
        (tmp_path / name / part / "one.nrrd").symlink_to(data / "formats" / file)
    source = [part.format(data=data, tmp=tmp_path) for part in SOURCES[name]]
    identity = [] if "--images" not in source else ["--id", "7", "--name", name]
    nnunet(tmp_path, "dataset", "convert", *source, *identity)
    (converted,) = (tmp_path / "raw").iterdir()
    report = json.loads(nnunet(tmp_path, "dataset", "verify", converted.name, "--json"))
    assert report["errors"] == []
    assert all(sum(case["voxels"].values()) for case in report["cases"])
    assert f"{len(report['cases'])} case" in nnunet(tmp_path, "preprocess", converted.name)
    assert f"{len(report['cases'])} case" in nnunet(
        tmp_path, "preprocess", converted.name, "-c", "2d"
    )
