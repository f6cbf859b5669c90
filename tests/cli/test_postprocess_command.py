"""`nnunet postprocess`: fits on folders, applies what was decided, never writes half."""

import json

import numpy as np
import pytest
from commands import nnunet
from finished_run import one_error

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry
from nnunet_core.runtime import files

GRID = Geometry((1, 1, 12), (1.0, 1.0, 2.0), (3.0, 4.0, 5.0))


def row(*values):
    return np.array(values, np.uint8).reshape(1, 1, -1)


PREDICTION = row(1, 1, 1, 0, 1, 0, 2, 2, 0, 2, 0, 0)
REFERENCE = row(1, 1, 1, 0, 0, 0, 2, 2, 0, 2, 0, 0)


@pytest.fixture
def folders(tmp_path):
    for name, array in (("predictions", PREDICTION), ("references", REFERENCE)):
        for case in "ab":
            SimpleItkFormat().write(tmp_path / name / f"{case}.nii.gz", array, GRID)
    labels = {"background": 0, "liver": 1, "tumour": 2}
    document = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(document))
    return tmp_path


def postprocess(folders, output, *more):
    return nnunet("postprocess", folders / "predictions", folders / output, *more)


def declared(folders):
    return ("--dataset", folders / "dataset.json")


def cleaned(folders, output, case="a"):
    image = SimpleItkFormat().read(folders / output / f"{case}.nii.gz")
    assert image.geometry == GRID
    return image.array[0]


@pytest.mark.parametrize("name", ["largest_component", "minimum_size"])
def test_what_is_fitted_on_references_can_be_applied_later(folders, name):
    fit = ("--references", folders / "references", *declared(folders), "--postprocessor", name)
    done = postprocess(folders, "fitted", *fit, "--json")
    assert done.returncode == 0, done.stderr
    dice = json.loads(done.stdout)["dice"]
    assert dice["liver"] == {"before": pytest.approx(6 / 7), "after": 1}
    assert dice["tumour"] == {"before": 1, "after": 1}
    for case in "ab":
        np.testing.assert_array_equal(cleaned(folders, "fitted", case), REFERENCE)
    file = folders / "fitted" / "postprocessing.json"
    done = postprocess(folders, "applied", "--postprocessing", file)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(cleaned(folders, "applied"), REFERENCE)
    assert not (folders / "applied" / "postprocessing.json").exists()


@pytest.mark.parametrize(
    ("name", "setting", "expected"),
    [
        ("largest_component", "labels=[[1,2]]", row(1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
        ("minimum_size", "size=5", row(1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
        ("minimum_size", "size.2=3", row(1, 1, 1, 0, 1, 0, 2, 2, 0, 0, 0, 0)),
        ("fill_holes", "labels=[1]", PREDICTION),
    ],
)
def test_settings_decide_where_there_is_no_reference(folders, name, setting, expected):
    chosen = ("--postprocessor", name, "--set", f"postprocessor.{setting}")
    done = postprocess(folders, "out", *chosen, *declared(folders))
    assert done.returncode == 0, done.stderr
    if name != "fill_holes":
        np.testing.assert_array_equal(cleaned(folders, "out"), expected)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--dataset", "{}/dataset.json"], 2, "--references"),
        ([], 2, "Nothing says what the labels mean"),
        (["--set", "trainer.epochs=3", "--dataset", "{}/dataset.json"], 2, "field of the trainer"),
        (["--postprocessing", "{}/dataset.json", "--postprocessor", "none"], 2, "leave out"),
        (["--references", "{}/none", "--dataset", "{}/dataset.json"], 2, "does not exist"),
        (["--postprocessor", "largest", "--dataset", "{}/dataset.json"], 2, "largest_component"),
    ],
)
def test_wrong_requests_are_one_message_and_write_nothing(folders, options, code, message):
    done = postprocess(folders, "out", *(option.format(folders) for option in options))
    assert message in one_error(done, code)
    assert not (folders / "out").exists()


def test_no_file_is_replaced_unless_asked(folders):
    state = folders / "state.json"
    state.write_text(json.dumps({"for_which_classes": [1]}))
    apply = ("--postprocessing", state)
    assert postprocess(folders, "out", *apply).returncode == 0
    assert "--overwrite" in one_error(postprocess(folders, "out", *apply), 2)
    assert postprocess(folders, "out", *apply, "--overwrite").returncode == 0
    assert "where they come from" in one_error(postprocess(folders, "predictions", *apply), 2)
    np.testing.assert_array_equal(cleaned(folders, "predictions"), PREDICTION)


def test_a_damaged_label_map_does_not_stop_the_others(folders):
    (folders / "predictions" / "a.nii.gz").write_bytes(b"no image")
    state = folders / "state.json"
    state.write_text(json.dumps({"for_which_classes": [1]}))
    message = one_error(postprocess(folders, "out", "--postprocessing", state))
    assert "1 of 2 label maps failed" in message
    assert cleaned(folders, "out", "b").any()


@pytest.mark.shared
def test_golden_decisions_and_maps_come_out_of_the_command(golden, tmp_path):
    entry = next(e for e in files.read_json(golden / "postprocessing.json") if e["name"] == "mixed")
    stored = np.load(golden / "postprocessing.npz", allow_pickle=False)
    arrays = {w: stored[f"mixed__{w}"] for w in ("prediction", "reference", "postprocessed")}
    geometry = Geometry(arrays["prediction"].shape[1:], tuple(entry["spacing_xyz"][::-1]))
    for what in ("prediction", "reference"):
        for number, array in enumerate(arrays[what]):
            path = tmp_path / what / f"case_{number}.nii.gz"
            SimpleItkFormat().write(path, array.astype(np.uint8), geometry)
    labels = {"background": 0, "a": 1, "b": 2}
    document = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(document))
    arguments = ("--references", tmp_path / "reference", "--dataset", tmp_path / "dataset.json")
    done = nnunet("postprocess", tmp_path / "prediction", tmp_path / "out", *arguments)
    assert done.returncode == 0, done.stderr
    state = files.read_json(tmp_path / "out" / "postprocessing.json")["state"]
    assert state["for_which_classes"] == entry["for_which_classes"]
    for number, expected in enumerate(arrays["postprocessed"]):
        found = SimpleItkFormat().read(tmp_path / "out" / f"case_{number}.nii.gz").array[0]
        np.testing.assert_array_equal(found, expected)
