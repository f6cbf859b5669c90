"""What is predicted from where to where: files, parts of a prediction, what lies beside."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import small_training as small
from commands import nnunet
from finished_run import QUICK, one_error
from listening import Listener
from safetensors.numpy import load_file, save_file
from tiny_model import make_tiny_model

import nnunet_core
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.images import Geometry
from nnunet_core.errors import DatasetError, NnunetError, StorageError, UsageError
from nnunet_core.prediction import model as stages_model
from nnunet_core.prediction import predict as prediction
from nnunet_core.prediction.predict import PredictionOptions, predict_file, predict_folder
from nnunet_core.prediction.uncertainty import entropy
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import FoldRecord
from nnunet_core.runtime import locks
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.models import Model, ModelDocument, weights_record
from nnunet_core.store.predictions import Part

FORMAT = SimpleItkFormat()
SHAPE = (9, 12, 10)
GRID = Geometry(SHAPE, (1.5, 1.0, 0.8), (5.0, -7.0, 11.0), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
CASES = [f"case_{number}" for number in range(1, 8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("m") / "3d_fullres"
    return make_tiny_model(place, predictor="bright:Bright", folds=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    place = tmp_path_factory.mktemp("images")
    for seed, name in enumerate(CASES):
        array = np.random.default_rng(seed).normal(100, 20, SHAPE).astype(np.float32)
        FORMAT.write(place / f"{name}_0000.nii.gz", array, GRID)
    return place


def predict(folder, source, output, report=None, one=False, **options):
    runtime = Runtime("cpu", "float32", 0, 1)
    chosen = PredictionOptions(runtime=runtime, **{"postprocess": False, **options})
    function = predict_file if one else predict_folder
    model = Model.open(folder, trusted=True)
    return function(model, source, output, Registry.discover(), chosen, report)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def label(path):
    return FORMAT.read(path).array[0]


# ------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize(
    ("count", "items"), [(1, 7), (2, 7), (4, 7), (4, 4), (4, 2), (9, 7)], ids=str
)
def test_parts_are_disjoint_and_complete(count, items):
    cases = list(range(items))
    found = [list(Part(number, count).of(cases)) for number in range(1, count + 1)]
    assert sorted(case for part in found for case in part) == cases
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "1/4/2", "-1/4", "", "1.5/4"])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="--part got"):
        Part.parse(text)


def test_four_parts_at_once_make_what_one_prediction_makes(folder, images, tmp_path):
    predict(folder, images, tmp_path / "whole")
    errors = []

    def run(number):
        try:
            predict(folder, images, tmp_path / "parts", part=Part(number, 4))
        except NnunetError as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[number]) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert names(tmp_path / "parts") == names(tmp_path / "whole")
    for name in names(tmp_path / "whole"):
        whole, parts = (tmp_path / place / name for place in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes(), name


@pytest.mark.slow
def test_parts_replace_another_prediction_together(folder, images, tmp_path):
    out = tmp_path / "out"
    predict(folder, images, out, settings={"low": -5.0})
    with pytest.raises(UsageError, match="--overwrite"):
        predict(folder, images, out, part=Part(1, 2))
    predict(folder, images, out, part=Part(1, 2), overwrite=True)
    record = json.loads((out / "predictions.json").read_text())
    assert sorted(record["replaced"]) == ["case_2.nii.gz", "case_4.nii.gz", "case_6.nii.gz"]
    predict(folder, images, out, part=Part(2, 2), overwrite=True)
    assert json.loads((out / "predictions.json").read_text())["replaced"] == {}
    predict(folder, images, tmp_path / "fresh")
    for name in names(tmp_path / "fresh"):
        assert (out / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


@pytest.mark.parametrize(
    ("running", "asked", "options", "allowed"),
    [
        (".part_1_of_4.lock", Part(2, 4), {}, True),
        (".part_1_of_4.lock", Part(1, 4), {}, False),
        (".part_1_of_4.lock", Part(1, 2), {}, False),
        (".part_1_of_4.lock", Part(), {}, False),
        (".part_1_of_4.lock", Part(2, 4), {"settings": {"low": 0.1}, "overwrite": True}, False),
        (".lock", Part(2, 4), {}, False),
    ],
)
def test_only_other_parts_of_the_same_prediction_run_at_once(
    folder, images, tmp_path, running, asked, options, allowed
):
    out = tmp_path / "out"
    predict(folder, images, out, part=Part(1, 4))
    before = names(out)
    with locks.held(out / running, "predictions", Silence()):
        if allowed:
            predict(folder, images, out, part=asked, **options)
            return
        with pytest.raises(StorageError, match="busy with predictions"):
            predict(folder, images, out, part=asked, **options)
    assert names(out) == before


def test_a_part_that_is_done_loads_no_network(folder, images, tmp_path, monkeypatch):
    predict(folder, images, tmp_path / "out", part=Part(1, 2))
    monkeypatch.setattr(stages_model.CasePredictor, "open", None)
    paths = predict(folder, images, tmp_path / "out", part=Part(1, 2))
    assert [path.name for path in paths] == [f"case_{n}.nii.gz" for n in (1, 3, 5, 7)]


# ------------------------------------------------------------------------ what is given and made


@pytest.mark.slow
def test_one_file_in_one_file_out_in_any_format(folder, images, tmp_path):
    predict(folder, images, tmp_path / "out")
    for name in ("one.nii.gz", "deeper/one.nrrd", "one.mha"):
        source = images / "case_1_0000.nii.gz"
        assert predict(folder, source, tmp_path / name, one=True) == tmp_path / name
        found = FORMAT.read(tmp_path / name)
        assert not found.geometry.differences(GRID)
        assert np.array_equal(found.array[0], label(tmp_path / "out/case_1.nii.gz"))
    predict(folder, source, tmp_path / "one.mha", one=True, overwrite=True)
    with pytest.raises(UsageError, match="7 cases"):
        predict(folder, images, tmp_path / "all.nii.gz", one=True)
    with pytest.raises(UsageError, match="replace its image"):
        predict(folder, source, source, one=True, overwrite=True)


def test_a_rerun_leaves_the_same_file_and_refuses_any_other(folder, images, tmp_path, monkeypatch):
    first, second, *_ = sorted(images.iterdir())
    out = tmp_path / "one.nii.gz"
    predict(folder, first, out, one=True)
    monkeypatch.setattr(stages_model.CasePredictor, "open", None)  # no network is loaded again
    assert predict(folder, first, out, one=True) == out
    others = [(first, {"postprocess": True}), (second, {}), (first, {"save_probabilities": True})]
    for source, options in others:
        with pytest.raises(UsageError, match="exists already"):
            predict(folder, source, out, one=True, **options)
    out.write_bytes(b"drawn by hand")
    with pytest.raises(UsageError, match="exists already"):
        predict(folder, first, out, one=True)
    assert out.read_bytes() == b"drawn by hand"


@pytest.mark.slow
def test_images_may_be_of_another_format_than_those_of_the_training(folder, images, tmp_path):
    predict(folder, images, tmp_path / "out")
    others = tmp_path / "others"
    for name in CASES[:2]:
        FORMAT.write(
            others / f"{name}.nrrd", FORMAT.read(images / f"{name}_0000.nii.gz").array[0], GRID
        )
    predict(folder, others, tmp_path / "nrrd")
    assert names(tmp_path / "nrrd") == ["case_1.nii.gz", "case_2.nii.gz", "predictions.json"]
    for name in ("case_1.nii.gz", "case_2.nii.gz"):
        assert np.array_equal(label(tmp_path / "nrrd" / name), label(tmp_path / "out" / name))


@pytest.mark.slow
def test_several_files_are_several_cases_or_the_channels_of_one(folder, images, tmp_path):
    first, second, *_ = sorted(images.iterdir())
    paths = predict(folder, [first, second], tmp_path / "cases")
    assert [path.name for path in paths] == ["case_1.nii.gz", "case_2.nii.gz"]
    two = make_tiny_model(tmp_path / "two", channels=("T1", "T2"), predictor="bright:Bright")
    for name in ("a_0000", "a_0001", "b_0000", "b_0001", "t1", "t2"):
        shutil.copy(first, tmp_path / f"{name}.nii.gz")
    numbered = [tmp_path / f"{n}.nii.gz" for n in ("b_0001", "a_0000", "a_0001", "b_0000")]
    paths = predict(two, numbered, tmp_path / "numbered")
    assert [path.name for path in paths] == ["a.nii.gz", "b.nii.gz"]
    (path,) = predict(two, [tmp_path / "t1.nii.gz", tmp_path / "t2.nii.gz"], tmp_path / "named")
    assert path.name == "t1.nii.gz"
    for given, words in (
        (["t1"], "1 channel of the 2"),
        (["t1", "t2", "a_0000"], "3 channels of the 2"),
        (["a_0000", "b_0000"], "Case a has the channels 0000; 0000 to 0001"),
    ):
        with pytest.raises(DatasetError, match=words):
            predict(two, [tmp_path / f"{name}.nii.gz" for name in given], tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (["missing.nii.gz"], DatasetError, "does not exist"),
        (["a.nii.gz", "a.nrrd"], UsageError, "have one ending"),
        (["a.xyz"], DatasetError, "nor in another known ending"),
        (["a.nii.gz", "sub"], UsageError, "one folder of cases"),
        (["a.nii.gz", "sub/a.nii.gz"], UsageError, "two images of one name"),
    ],
)
def test_images_that_cannot_be_meant_are_refused(folder, images, tmp_path, given, kind, words):
    (tmp_path / "sub").mkdir()
    for name in ("a.nii.gz", "a.nrrd", "a.xyz", "sub/a.nii.gz"):
        shutil.copy(images / "case_1_0000.nii.gz", tmp_path / name)
    with pytest.raises(kind, match=words):
        predict(folder, [tmp_path / name for name in given], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_images_are_listed_at_the_end_and_messages_keep_their_order(
    folder, images, tmp_path, monkeypatch
):
    here = shutil.copytree(images, tmp_path / "images")
    (here / "case_2_0000.nii.gz").write_bytes(b"no image")
    FORMAT.write(here / "case_4_0000.nii.gz", np.zeros(SHAPE, np.float32), GRID)
    noted = Geometry(SHAPE, notes=("doubtful",))
    whole = prediction._Work.write
    monkeypatch.setattr(prediction._Work, "write", lambda *a: whole(*a) and noted)
    listener = Listener()
    with pytest.raises(NnunetError, match=r"(?s)2 of 7 cases failed:\ncase_2: .*\ncase_4: "):
        predict(folder, here, tmp_path / "out", report=listener)
    assert listener.warnings[1:] == ["doubtful"] * 5
    made = [f"case_{n}.nii.gz" for n in (1, 3, 5, 6, 7)]
    assert names(tmp_path / "out") == [*made, "predictions.json"]
    predict(folder, images, tmp_path / "out")
    assert len(names(tmp_path / "out")) == 8


def test_a_spacing_that_no_case_of_the_training_had_is_said(tmp_path):
    planned = {"spacing": (0.8, 1.5, 1.0), "transpose_forward": (2, 0, 1)}
    model = make_tiny_model(tmp_path / "m", predictor="bright:Bright", folds=1, **planned)
    array = np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)
    (tmp_path / "images").mkdir()
    for name, spacing in {"usual": (1.5, 1.0, 0.8), "thick": (20.0, 1.0, 0.8)}.items():
        image = tmp_path / "images" / f"{name}_0000.nii.gz"
        FORMAT.write(image, array, Geometry(SHAPE, spacing))
    listener = Listener()
    predict(model, tmp_path / "images", tmp_path / "out", report=listener)
    assert listener.warnings[1:] == [  # after the one on --trust
        "Case thick has a spacing of 20 x 1 x 0.8 mm (z, y, x), the model was planned for "
        "1.5 x 1 x 0.8 mm. Is its header right?"
    ]


@pytest.mark.parametrize("by_name", [False, True], ids=["folder", "files"])
def test_a_case_that_lacks_a_channel_does_not_stop_the_others(images, tmp_path, by_name):
    two = make_tiny_model(tmp_path / "two", channels=("T1", "T2"), predictor="bright:Bright")
    here = tmp_path / "images"
    here.mkdir()
    for name in ("a_0000", "b_0001", "c_0000", "c_0001"):
        shutil.copy(images / "case_1_0000.nii.gz", here / f"{name}.nii.gz")
    source, out = (sorted(here.iterdir()) if by_name else here), tmp_path / "out"
    with pytest.raises(NnunetError, match=r"(?s)2 of 3 cases failed:\na: .*0001.*\nb: .*0000"):
        predict(two, source, out)
    assert names(out) == ["c.nii.gz", "predictions.json"]
    with pytest.raises(NnunetError, match=r"(?s)1 of 2 cases failed:\na: "):
        predict(two, source, tmp_path / "part", part=Part(1, 2))
    shutil.copy(here / "a_0000.nii.gz", here / "a_0001.nii.gz")
    shutil.copy(here / "b_0001.nii.gz", here / "b_0000.nii.gz")
    predict(two, sorted(here.iterdir()) if by_name else here, out)
    assert len(names(out)) == 4
    (here / "c_0000.nii.gz").unlink()
    (here / "a_0000.nii.gz").unlink()
    (here / "b_0000.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"lacks 3 channel files|Case a has the channels 0001"):
        predict(two, sorted(here.iterdir()) if by_name else here, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_one_unreadable_picture_among_colour_pictures_fails_alone(tmp_path):
    folder = make_tiny_model(
        tmp_path / "m", channels=("R", "G", "B"), predictor="bright:Bright", ending=".png"
    )
    here = tmp_path / "images"
    for name in ("a", "b"):
        array = np.random.default_rng(0).integers(0, 255, (12, 10, 3)).astype(np.uint8)
        here.mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), here / f"{name}_0000.png")
    (here / "a_0000.png").write_bytes(b"no picture")
    with pytest.raises(NnunetError, match=r"a: The image .*\nb: Case b is a 2D image"):
        predict(folder, here, tmp_path / "out")


def test_an_empty_folder_and_an_image_given_twice_are_said(folder, images, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty holds no images\. It is empty\.$"):
        predict(folder, tmp_path / "empty", tmp_path / "out")
    one = images / "case_1_0000.nii.gz"
    with pytest.raises(UsageError, match=r"case_1_0000\.nii\.gz is given twice"):
        predict(folder, [one, one], tmp_path / "out")
    shutil.copy(one, tmp_path / "case_1.nii.gz")
    with pytest.raises(UsageError, match="two images of one name"):
        predict(folder, [one, tmp_path / "case_1.nii.gz"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_time_per_case_and_time_left_are_told(folder, images, tmp_path):
    told = []

    class Tracking(Silence):
        def advance(self, steps=1, detail=None):
            told.append((steps, detail))

    predict(folder, images, tmp_path / "out", report=Tracking())
    assert [detail.split("  ")[0] for _, detail in told] == CASES
    assert all(detail.endswith("s per case") for _, detail in told)


# ----------------------------------------------------------------------------- what lies beside


def test_entropy_is_0_where_sure_and_1_where_all_are_alike():
    sure, alike = np.array([1.0, 0, 0]), np.full(3, 1 / 3)
    classes = np.stack([sure, alike, np.zeros(3), [0.5, 0.5, 0]], axis=1)
    found = entropy(classes, regions=False)
    np.testing.assert_allclose(found, [0, 1, 0, np.log(2) / np.log(3)], atol=1e-6)
    regions = np.array([[0.0, 0.5, 1.0, 0.5], [1.0, 0.5, 0.0, 1.0]])
    np.testing.assert_allclose(entropy(regions, regions=True), [0, 1, 0, 0.5], atol=1e-6)


def test_entropy_and_probabilities_are_of_the_same_prediction(folder, images, tmp_path):
    predict(folder, images, tmp_path / "out", save_probabilities=True, entropy=True)
    for name in CASES:
        stored = nnunet_core.read_probabilities(tmp_path / "out" / f"{name}.b2nd")
        written = FORMAT.read(tmp_path / "out" / "entropy" / f"{name}.nii.gz")
        assert written.array.dtype == np.float32
        assert not written.geometry.differences(GRID)
        np.testing.assert_allclose(
            written.array[0], entropy(stored.astype(np.float32), False), atol=2e-3
        )
    (tmp_path / "out" / "entropy" / "case_3.nii.gz").unlink()
    before = (tmp_path / "out" / "case_2.nii.gz").stat().st_mtime_ns
    predict(folder, images, tmp_path / "out", entropy=True)
    assert (tmp_path / "out" / "entropy" / "case_3.nii.gz").is_file()
    assert (tmp_path / "out" / "case_2.nii.gz").stat().st_mtime_ns == before
    predict(folder, images, tmp_path / "out", settings={"low": 0.0}, overwrite=True)
    assert not list((tmp_path / "out").rglob("*.b2nd"))
    assert not list((tmp_path / "out" / "entropy").iterdir()), "it is of the former prediction"


@pytest.mark.parametrize("damage", ["garbage", "cut off", "empty", "whole"])
def test_probabilities_that_are_damaged_do_not_count_as_done(folder, images, tmp_path, damage):
    source, out = images / "case_1_0000.nii.gz", tmp_path / "out"
    predict(folder, source, out, save_probabilities=True)
    path = out / "case_1.b2nd"
    whole = path.read_bytes()
    contents = {"garbage": b"garbage" * 1000, "cut off": whole[:-50], "empty": b"", "whole": whole}
    path.write_bytes(contents[damage])
    before = path.stat().st_mtime_ns
    predict(folder, source, out)  # they are not asked for
    assert path.stat().st_mtime_ns == before
    predict(folder, source, out, save_probabilities=True)
    assert (path.stat().st_mtime_ns == before) == (damage == "whole")
    assert nnunet_core.read_probabilities(path).shape == (3, *SHAPE)


@pytest.mark.parametrize("made", ["trained", "imported", "installed"])
@pytest.mark.parametrize("damage", ["other", "short", "not finite"])
def test_advice_on_damaged_weights_is_of_where_the_model_comes_from(images, tmp_path, made, damage):
    place = make_tiny_model(tmp_path / "3d_fullres", folds=1)
    weights = place / "fold_0" / "weights.safetensors"
    if damage == "not finite":
        save_file({n: np.full_like(t, np.inf) for n, t in load_file(weights).items()}, weights)
    else:
        content = weights.read_bytes()
        weights.write_bytes(content[:-1] + b"x" * (damage == "other"))
    if made == "imported":
        document = ModelDocument.read(place / "model.json").model_copy(update={"origin": "v1"})
        document.write(place / "model.json")
    if made == "installed":
        (place / "manifest.json").write_text("{}")
    record = FoldRecord.read(place / "fold_0" / "run.json")
    if damage == "not finite":
        record.model_copy(update={"weights": weights_record(place / "fold_0")}).write(
            place / "fold_0" / "run.json"
        )
    with pytest.raises(StorageError) as caught:
        predict(place, images, tmp_path / "out")
    message = str(caught.value)
    assert ("models import" in message) == (made != "trained")
    assert ("nnunet train" in message) == (made == "trained")


@pytest.mark.slow
def test_disagreement_is_the_share_of_folds_with_another_label(images, tmp_path):
    folder = make_tiny_model(
        tmp_path / "m", folds=3, settings={"mirroring": False}, network=small.CONFIGURATION.network
    )
    source = images / "case_1_0000.nii.gz"
    predict(folder, source, tmp_path / "out", disagreement=True)
    found = FORMAT.read(tmp_path / "out/disagreement/case_1.nii.gz").array[0]
    joint = label(tmp_path / "out/case_1.nii.gz")
    expected = np.zeros(SHAPE)
    for fold in "012":
        predict(folder, source, tmp_path / fold, folds=(fold,))
        expected += label(tmp_path / fold / "case_1.nii.gz") != joint
    np.testing.assert_allclose(found, expected / 3, atol=1e-6)
    assert found.max() > 0, "the folds have other weights"
    with pytest.raises(UsageError, match="--disagreement is that of several folds"):
        predict(folder, source, tmp_path / "one", folds=("0",), disagreement=True)


# ------------------------------------------------------------------------------- nnunet predict


def command(folder, *words):
    return nnunet("predict", folder, *words, "--trust", "--no-postprocessing", *QUICK)


@pytest.mark.slow
def test_the_command_takes_files_parts_and_one_output(folder, images, tmp_path):
    one, two = images / "case_1_0000.nii.gz", images / "case_2_0000.nii.gz"
    assert command(folder, one, tmp_path / "x.nii.gz").stdout == f"{tmp_path / 'x.nii.gz'}\n"
    done = command(folder, one, two, tmp_path / "out")
    assert done.stdout == f"2 cases in {tmp_path / 'out'}\n", done.stderr
    done = command(folder, images, tmp_path / "part", "--part", "2/4", "--entropy")
    assert done.stdout == f"2 cases in {tmp_path / 'part'}\n", done.stderr
    assert names(tmp_path / "part" / "entropy") == ["case_2.nii.gz", "case_6.nii.gz"]
    assert "takes MODEL IMAGES OUTPUT" in one_error(command(folder, one), code=2)
    assert "--part got '3/2'" in one_error(command(folder, one, two, "--part", "3/2"), code=2)
    message = one_error(command(folder, one, two, tmp_path / "y.nii.gz"), code=2)
    assert "2 cases" in message


def test_components_are_found_once(folder, images, tmp_path, monkeypatch):
    found, whole = [], Model.component
    monkeypatch.setattr(Model, "component", lambda self, *a: found.append(a[1]) or whole(self, *a))
    predict(folder, images, tmp_path / "out")
    assert sorted(found) == ["network", "predictor", "preprocessor"]
    assert Path(tmp_path / "out" / "predictions.json").is_file()
