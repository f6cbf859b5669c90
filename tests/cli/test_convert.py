"""`nnunet dataset convert` as it is typed: what it prints, where the result goes, options that do
not go together.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_cli.main import main
from nnunet_core.data.images import Geometry

GEOMETRY = Geometry((3, 4, 5))


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images and labels of one case, values 0, 3, in the working folder."""
    label = np.zeros(GEOMETRY.shape, np.uint8)
    label[1, 1] = 3
    SimpleItkFormat((".nrrd",)).write(tmp_path / "images" / "a.nrrd", label * 10, GEOMETRY)
    SimpleItkFormat((".nrrd",)).write(tmp_path / "labels" / "a.nrrd", label, GEOMETRY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNUNET_WORKSPACE", str(tmp_path / "ws"))
    return tmp_path


def _main(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["dataset", "convert", *arguments])
    return int(stop.value.code or 0)


def test_folders_become_a_dataset_of_the_workspace(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--images",
        "images",
        "--labels",
        "labels",
        "--channel",
        "MRI",
        "--id",
        "7",
        "--name",
        "Cubes",
    ]
    assert _main(*options) == 1
    assert "--renumber" in capsys.readouterr().err
    assert _main(*options, "--renumber", "--label", "cube=3", "--processes", "1") == 0
    output = capsys.readouterr()
    assert (
        "folders of images and labels: 1 training case; channels: MRI; labels: cube" in output.err
    )
    made = folders / "ws" / "raw" / "Dataset007_Cubes"
    assert output.out.strip() == str(made)
    assert json.loads((made / "dataset.json").read_text())["labels"] == {"background": 0, "cube": 1}
    assert _main(str(made), "--to", "v1") == 0
    assert (folders / "ws" / "raw" / "Task007_Cubes" / "labelsTr" / "a.nii.gz").is_file()


def test_renumbering_a_dataset_folder_keeps_its_names_and_original_values_are_evaluated(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folders / "Dataset005_Gap"
    (source / "imagesTr").mkdir(parents=True)
    (folders / "images" / "a.nrrd").rename(source / "imagesTr" / "a_0000.nrrd")
    (folders / "labels").rename(source / "labelsTr")
    labels = {"background": 0, "cube": 3}
    document = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nrrd"}
    (source / "dataset.json").write_text(json.dumps(document))
    assert _main(str(source)) == 1
    assert _main(str(source), "--renumber", "--processes", "1") == 0
    made = folders / "ws" / "raw" / source.name / "dataset.json"
    assert json.loads(made.read_text())["labels"] == {"background": 0, "cube": 1}
    assert json.loads(made.read_text())["renumbered"] == {"0": 0, "3": 1}
    folder = str(source / "labelsTr")
    evaluate = [
        "evaluate",
        folder,
        folder,
        "--dataset",
        str(made),
        "--output",
        "x.json",
        "--no-pictures",
    ]
    with pytest.raises(SystemExit, match="1"):
        main(evaluate)
    assert "holds the values [3]" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main([*evaluate, "--original-values"])
    assert "mean foreground Dice 1.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either a dataset folder"),
        (["images", "--images", "images", "--labels", "labels"], "either a dataset folder"),
        (["--images", "images"], "either a dataset folder"),
        (["images", "--label", "x=1"], "go with --images"),
        (["--images", "images", "--labels", "labels"], "dataset id"),
        (["--images", "images", "--labels", "labels", "--id", "1"], "--name"),
        (
            ["--images", "images", "--labels", "labels", "--id", "1", "--name", "A", "--to", "v3"],
            "no layout 'v3'",
        ),
        (
            [
                "--images",
                "images",
                "--labels",
                "labels",
                "--id",
                "1",
                "--name",
                "A",
                "--label",
                "x",
            ],
            "NAME=VALUE",
        ),
    ],
)
def test_requests_that_cannot_be_right_exit_with_2(
    folders: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert _main(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_folder_of_no_layout_names_the_options(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main("images") == 1
    assert "--images DIR --labels DIR" in capsys.readouterr().err
