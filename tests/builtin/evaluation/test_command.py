"""`nnunet evaluate` on folders: the files that it leaves, tolerances, pictures, wrong options."""

import csv
import json
import shutil
from importlib.metadata import version

import numpy as np
import pytest
from commands import nnunet
from listening import Listener
from matplotlib.figure import Figure

from nnunet_builtin.evaluation.plots import _draw_box, _set_limits
from nnunet_builtin.evaluation.statistics import Row
from nnunet_builtin.evaluation.worst import Gallery, images_beside
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core import hookimpl
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.hooks import Hooks
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.store.predictions import PredictionRecord

FORMAT = SimpleItkFormat()
BOXES = "boxplots.png"


@pytest.fixture
def predicted(tiny, tmp_path):
    """Predictions of `tiny`: the cube one voxel (1 mm) aside; of case_3 nothing; in case_5, whose
    reference is empty, a cube.
    """
    folder = tmp_path / "predicted"
    for path in sorted((tiny / "labelsTr").iterdir()):
        label = FORMAT.read(path)
        moved = np.roll(label.array[0], 1, 2)
        FORMAT.write(folder / path.name, moved * (path.name != "case_3.nii.gz"), label.geometry)
        if path.name == "case_5.nii.gz":
            FORMAT.write(path, 0 * moved, label.geometry)
    return folder


def evaluate(tiny, predicted, *options, code=0):
    """Evaluate the folders; return what was printed."""
    here = ("--dataset", tiny, "--processes", "1", *options)
    done = nnunet("evaluate", predicted, tiny / "labelsTr", *here)
    assert done.returncode == code, done.stderr
    return done


def test_predictions_of_a_model_bring_its_labels_and_tolerances(tiny, predicted):
    done = nnunet("evaluate", predicted, tiny / "labelsTr", "--processes", "1")
    assert done.returncode == 2
    assert "--dataset" in done.stderr
    record = PredictionRecord(
        model="m",
        folds=("0",),
        identity="d",
        predictor=None,
        postprocess=False,
        labels=Labels.from_names({"background": 0, "cube": 1}),
        label_ending=".nii.gz",
        tolerances={"cube": 2.5},
    )
    record.write(predicted / "predictions.json")

    def tolerance(*options):
        quick = ("--processes", "1", "--no-pictures", "--json", *options)
        done = nnunet("evaluate", predicted, tiny / "labelsTr", *quick)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["settings"]["surface_tolerance_mm"]

    assert tolerance() == tolerance("--dataset", tiny) == {"cube": 2.5}
    assert tolerance("--tolerance", "cube=4") == {"cube": 4.0}
    path = tiny / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "surface_tolerance_mm": 3}))
    assert tolerance("--dataset", tiny) == {"cube": 3.0}


def test_the_files_say_what_was_measured_by_what_and_at_which_tolerance(tiny, predicted):
    printed = evaluate(tiny, predicted, "--json", "--no-pictures").stdout
    folder = predicted / "evaluation"
    document = json.loads((folder / "evaluation.json").read_text(), parse_constant=pytest.fail)
    shown = json.loads(printed, parse_constant=pytest.fail)
    assert shown == {k: v for k, v in document.items() if k not in {"cases", "pictures"}}
    by = f"surface-distance {version('surface-distance')}"
    assert {document["metrics"][m]["implementation"] for m in ("HD95", "Surface Dice")} == {by}
    assert document["settings"]["surface_tolerance_mm"] == {"cube": 1.0}
    cube = document["labels"]["1"]
    counts = {status: cube[f"n_{status}"] for status in ("found", "missed", "false", "absent")}
    assert counts == {"found": 4, "missed": 1, "false": 1, "absent": 0}
    surface, far = cube["metrics"]["Surface Dice"], cube["metrics"]["HD95"]
    assert (surface["mean"], surface["n"]) == (pytest.approx(4 / 6), 6)
    assert surface["interval"][0] < 4 / 6 < surface["interval"][1]
    assert (far["mean"], far["median"], far["n_infinite"]) == ("Infinity", 1.0, 2)
    assert (far["interval"], far["no_interval"]) == (None, "infinite in some cases")
    assert cube["worst"][:2] == ["case_3", "case_5"]
    rows = {row["case"]: row for row in csv.DictReader((folder / "metrics.csv").open())}
    assert {case: row["status"] for case, row in rows.items() if row["status"] != "found"} == {
        "case_3": "missed",
        "case_5": "false",
    }
    assert float(rows["case_3"]["HD95 (mm)"]) == np.inf
    assert (rows["case_0"]["HD95 (mm)"], rows["case_0"]["surface_tolerance_mm"]) == ("1.0", "1.0")
    assert rows["case_3"]["Volume Error (mm3)"] == str(-6 * 7 * 7 * 1.5)
    assert by in rows["case_0"]["implementation"]


def test_an_output_is_a_json_file_or_a_folder(tiny, predicted, tmp_path):
    fast = ("--metrics", "overlap", "--no-pictures", "--output")
    evaluate(tiny, predicted, *fast, tmp_path / "judged")
    assert {"summary.json", "evaluation"} == {p.name for p in (tmp_path / "judged").iterdir()}
    evaluate(tiny, predicted, *fast, tmp_path / "mine.json")
    assert (tmp_path / "mine_evaluation" / "metrics.csv").exists()
    (tmp_path / "table.csv").write_text("")
    refused = evaluate(tiny, predicted, *fast, tmp_path / "table.csv", code=2).stderr
    assert "Name a .json file or a folder" in refused


def test_infinite_values_are_the_largest_of_a_box():
    axes = Figure().subplots()
    _draw_box(axes, 0, np.array([1.0, 2.0, np.inf, np.inf, np.inf]))
    _set_limits(axes, np.array([1.0, 2.0, np.inf]))
    left, right = axes.get_xlim()
    assert (left < 0, 2 < right < 3) == (True, True)
    middle = [line.get_xdata()[0] for line in axes.lines if line.get_linewidth() == 1.6]
    assert middle > [1e6]  # the median is infinite: outside of the panel
    assert [text.get_text() for text in axes.texts] == ["3 × ∞"]


def test_a_tolerance_is_that_of_the_command_else_of_the_dataset(tiny, predicted):
    path = tiny / "dataset.json"
    before, registry = json.loads(path.read_text()), Registry.discover()
    digest = open_dataset(str(tiny), tiny, registry).digest

    def surface_dice(*options):
        out = evaluate(tiny, predicted, "--no-pictures", "--json", *options).stdout
        label = json.loads(out)["labels"]["1"]
        return label["surface_tolerance_mm"], label["metrics"]["Surface Dice"]["maximum"]

    assert surface_dice() == (1.0, 1.0)
    assert surface_dice("--tolerance", "0.5")[1] < 0.9
    path.write_text(json.dumps({**before, "surface_tolerance_mm": {"cube": 0.5}}))
    assert surface_dice()[0] == 0.5
    assert surface_dice("--tolerance", "cube=2") == (2.0, 1.0)
    path.write_text(json.dumps({**before, "surface_tolerance_mm": 3}))
    assert surface_dice()[0] == 3.0
    # what was trained on the dataset stays what it is
    assert open_dataset(str(tiny), tiny, registry).digest == digest


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"cub": 1}, "names cub, which is no label. Did you mean 'cube'?"),
        ({"cube": 0}, "of cube is 0; it must be a positive number"),
        ({"cube": "2"}, "'2'"),
        ({"cube": float("inf")}, "inf"),
        (True, "True"),
    ],
)
def test_a_wrong_tolerance_in_the_dataset_is_an_error(tiny, predicted, value, words):
    path = tiny / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "surface_tolerance_mm": value}))
    assert words in evaluate(tiny, predicted, code=1).stderr
    assert not (predicted / "summary.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tolerance", "0"], "it takes millimetres above 0, or LABEL=MM, for example cube=2"),
        (["--tolerance", "cub=2"], "there is no label 'cub'. Did you mean 'cube'?"),
        (["--metrics", "overlap,surfaces"], "Did you mean 'surface'?"),
        (["--lesion-connectivity", "8"], "it takes 6, 18 or 26"),
        (["--lesion-overlap", "0"], "must be above 0"),
        (["--images", "nowhere"], "nowhere does not exist"),
        (["--original-values"], "were not renumbered"),
    ],
)
def test_wrong_options_are_named_before_any_case_is_read(tiny, predicted, options, words):
    assert words in evaluate(tiny, predicted, *options, code=2).stderr
    assert not (predicted / "summary.json").exists()


def test_only_what_is_asked_for_is_measured(tiny, predicted):
    out = evaluate(tiny, predicted, "--metrics", "overlap", "--no-pictures").stdout
    assert "Dice" in out
    assert "HD95" not in out
    folder = predicted / "evaluation"
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.json", "metrics.csv"]
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert ("Jaccard" in header, "HD95 (mm)" in header) == (True, False)
    summary = (predicted / "summary.json").read_bytes()
    evaluate(tiny, predicted, "--no-pictures")
    full = json.loads((predicted / "summary.json").read_text())["results"]
    assert full == json.loads(summary)["results"]


@pytest.mark.pictures
def test_the_worst_cases_are_drawn_and_earlier_pictures_removed_but_no_others(tiny, predicted):
    folder = predicted / "evaluation"
    quickly = ("--metrics", "overlap", "--worst")
    out = evaluate(tiny, predicted, *quickly, "2").stdout
    assert "worst cases: case_3 (cube missed); case_5 (cube false)" in out
    drawn = {path.name for path in folder.glob("*.png")}
    assert drawn == {BOXES, "worst_1_case_3.png", "worst_2_case_5.png"}
    (folder / "worst_9_mine.png").touch()
    evaluate(tiny, predicted, *quickly, "1")
    left = {path.name for path in folder.glob("*.png")}
    assert left == {BOXES, "worst_1_case_3.png", "worst_9_mine.png"}


class Observer:
    """A plugin that keeps what it is told, or fails."""

    def __init__(self):
        self.told = []

    @hookimpl
    def nnunet_worst_case_found(self, image, title, values):
        """Keep it."""
        self.told.append((image, title, values))
        if title == "broken":
            raise ValueError("no pencil")


def test_plugins_get_the_image_on_the_grid_of_the_reference(tiny, predicted, tmp_path):
    observer, hooks, report = Observer(), Hooks(), Listener()
    hooks.register(observer, "observer")
    labels = Labels(names={0: "background", 1: "cube"}, foreground=(1,))
    path = tiny / "imagesTr" / "case_2_0000.nii.gz"
    image = FORMAT.read(path)
    backwards = Geometry(
        (16, 20, 18), (1.5, 1.0, 1.0), (17.0, 0, 0), (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
    )
    FORMAT.write(path, image.array[0, :, :, ::-1], backwards)
    pairs = [(p, tiny / "labelsTr" / p.name) for p in sorted(predicted.iterdir())]
    images = images_beside(tiny / "labelsTr")
    gallery = Gallery(pairs, labels, FORMAT, ".nii.gz", images, FORMAT, ".nii.gz")
    row = Row("case_2", "1", "found", {})
    assert gallery.draw({row: "second"}, tmp_path, hooks, report) == []
    ((seen, title, values),) = observer.told
    assert np.array_equal(seen.array, image.array)
    assert (title, values, report.warnings) == ("second", (1,), [])
    gallery.draw({row: "broken"}, tmp_path, hooks, report)
    assert "no pencil" in report.warnings[0]


@pytest.mark.pictures
def test_cases_without_images_are_drawn_and_named(tiny, predicted, tmp_path):
    shutil.move(tiny / "labelsTr", tmp_path / "references")
    here = ("--dataset", tiny / "dataset.json", "--worst", "1", "--metrics", "overlap")
    done = nnunet("evaluate", predicted, tmp_path / "references", *here)
    assert done.returncode == 0, done.stderr
    assert "drawn without their images: case_3 (--images names a folder of images)" in done.stderr
    assert (predicted / "evaluation" / "worst_1_case_3.png").is_file()
    done = nnunet(
        "evaluate", predicted, tmp_path / "references", *here, "--images", tiny / "imagesTr"
    )
    assert "without" not in done.stderr
