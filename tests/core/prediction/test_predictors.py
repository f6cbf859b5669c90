"""Another predictor, or another setting of it, trains nothing: it validates anew what is
trained.
"""

import json

import numpy as np
import pytest
from listening import Listener
from tiny_dataset import make_tiny

from nnunet_builtin.datasets.reading import read_labels
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_builtin.preprocessing.preprocessor import DefaultPreprocessor
from nnunet_core import Component, hookimpl
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.cases import PreparedGeometry
from nnunet_core.data.images import Geometry
from nnunet_core.errors import NnunetError, PluginError, SettingsError, StorageError, UsageError
from nnunet_core.prediction.predict import PredictionOptions, predict_folder
from nnunet_core.registry.discovery import PluginInfo, Registry
from nnunet_core.registry.records import FoldRecord
from nnunet_core.run import Request, run
from nnunet_core.stages.case import CasePredictor
from nnunet_core.stages.experiment import is_finished
from nnunet_core.store.models import Model, ModelDocument
from nnunet_core.store.workspace import Workspace

RUNTIME = Runtime("cpu", "float32", 0, 1)
BRIEF = {
    "trainer": {"epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1},
    "planner": {"max_batch_size": 2},
}


class Everywhere:
    """Finds the label in the first `slices` slices, whatever the image is."""

    def __init__(self, slices: int = 1000) -> None:
        self.slices = slices

    def load(self, model):
        def apply(images):
            found = np.zeros((model.labels.outputs, *images.shape[1:]), np.float32)
            found[0, self.slices :], found[1, : self.slices] = 1, 1
            return found

        return apply


class FailsAtTheSecondCase(Everywhere):
    def load(self, model):
        apply, seen = super().load(model), []

        def failing(images):
            seen.append(images)
            if len(seen) == 2:
                raise NnunetError("as planned")
            return apply(images)

        return failing


class Plugin:
    """Registers the predictors, and counts trainings."""

    def __init__(self):
        self.trainings = 0

    @hookimpl
    def nnunet_predictors(self):
        return [
            Component("everywhere", "test_predictors:Everywhere"),
            Component("failing", "test_predictors:FailsAtTheSecondCase"),
        ]

    @hookimpl
    def nnunet_run_started(self):
        self.trainings += 1


def installed(plugin, version):
    """Return a registry that holds a package in some version."""
    registry = Registry.discover()
    info = PluginInfo("otherpkg", "otherpkg.plugin", "otherpkg", version, "active")
    registry.register(plugin, info)
    return registry


class Trained:
    """A fold that was trained once and may be validated by many."""

    def __init__(self, folder):
        self.dataset = make_tiny(folder / "ws" / "raw" / "Dataset001_Tiny")
        self.plugin = Plugin()
        self.registry = installed(self.plugin, "1.2")

    def run(self, predictor=None, report=None, **settings):
        request = Request(
            dataset=str(self.dataset),
            choices={} if predictor is None else {"predictor": predictor},
            settings={**BRIEF, "predictor": settings},
            folds=("0",),
            runtime=RUNTIME,
            processes=1,
        )
        workspace = Workspace.find(self.dataset.parents[1])
        return run(request, self.registry, workspace, report).best

    def predict(self, output, registry=None, report=None, **options):
        model = Model.open(self.folder)
        chosen = PredictionOptions(runtime=RUNTIME, **options)
        images = self.dataset / "imagesTr"
        return predict_folder(model, images, output, registry or self.registry, chosen, report)

    @property
    def folder(self):
        (document,) = self.dataset.parents[1].rglob("model.json")
        return document.parent

    def record(self):
        return FoldRecord.read(self.folder / "fold_0" / "run.json")

    def validation(self):
        paths = sorted((self.folder / "fold_0" / "validation").glob("*.nii.gz"))
        return [SimpleItkFormat().read(path).array[0] for path in paths]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    found = Trained(tmp_path_factory.mktemp("predictors"))
    found.run()
    return found


def covered(label_map):
    return [bool(part.all()) for part in label_map]


def test_another_predictor_validates_anew_and_trains_nothing(trained):
    weights = trained.folder / "fold_0" / "weights.safetensors"
    before, first = (trained.folder, weights.stat().st_mtime_ns), trained.validation()
    (fitted,) = (trained.folder / "postprocessing").glob("*.json")
    inputs = json.loads(fitted.read_text())["inputs"]
    listener = Listener()
    best = trained.run("everywhere", listener)
    assert (best.folder, weights.stat().st_mtime_ns, trained.plugin.trainings) == (*before, 1)
    assert any("fold 0 is validated anew" in text for text in listener.messages)
    assert all(covered(label) == [True] * 16 for label in trained.validation())
    assert json.loads(fitted.read_text())["inputs"] != inputs
    record, document = trained.record(), ModelDocument.read(trained.folder / "model.json")
    assert record.status == "finished"
    for components in (record.components, document.components):
        predictor = components["predictor"]
        assert (predictor.reference, predictor.version) == ("otherpkg/everywhere", "1.2")

    summary = trained.folder / "fold_0" / "validation" / "summary.json"
    kept = summary.stat().st_mtime_ns
    trained.run("everywhere")
    assert summary.stat().st_mtime_ns == kept
    trained.run("everywhere", slices=3)
    assert all(covered(label) == [True] * 3 + [False] * 13 for label in trained.validation())
    trained.run()
    for label, expected in zip(trained.validation(), first, strict=True):
        np.testing.assert_array_equal(label, expected)
    assert trained.plugin.trainings == 1


def test_a_validation_that_was_stopped_half_way_counts_for_nobody(trained):
    trained.run()
    with pytest.raises(NnunetError, match="as planned"):
        trained.run("failing")
    record = trained.record()
    assert (record.status, record.components["predictor"].reference) == (
        "trained",
        "otherpkg/failing",
    )
    trained.run("everywhere")
    assert all(covered(label) == [True] * 16 for label in trained.validation())
    assert trained.plugin.trainings == 1


def test_prediction_takes_the_predictor_of_the_validation_unless_another_is_named(
    trained, tmp_path
):
    trained.run("everywhere", slices=3)
    read = SimpleItkFormat().read
    found = trained.predict(tmp_path / "out")
    assert covered(read(found[0]).array[0]) == [True] * 3 + [False] * 13
    with pytest.raises(UsageError, match="--overwrite"):
        trained.predict(tmp_path / "out", settings={"slices": 5})
    found = trained.predict(tmp_path / "out", settings={"slices": 5}, overwrite=True)
    assert covered(read(found[0]).array[0]) == [True] * 5 + [False] * 11
    found = trained.predict(tmp_path / "own", predictor="sliding_window")
    assert not covered(read(found[0]).array[0])[0]
    with pytest.raises(SettingsError, match="has no setting 'step_size'"):
        trained.predict(tmp_path / "wrong", settings={"step_size": 0.5})
    assert not (tmp_path / "wrong").exists()


def test_a_predictor_whose_package_is_missing_says_what_to_install_and_can_be_replaced(
    trained, tmp_path
):
    trained.run("everywhere")
    without = Registry.discover()
    with pytest.raises(PluginError, match=r"pip install 'otherpkg==1\.2'.*--predictor"):
        trained.predict(tmp_path / "out", without)
    assert not (tmp_path / "out").exists()
    found = trained.predict(tmp_path / "out", without, predictor="sliding_window")
    assert len(found) == 6


def test_a_stage_that_another_predictor_validated_is_not_finished(trained):
    """A cascade is trained on its validation."""
    trained.run("everywhere")
    record, fold = trained.record(), trained.folder / "fold_0"
    own = record.components["predictor"]
    assert is_finished(fold, record.inputs_digest, own)
    other = own.model_copy(update={"settings": {"slices": 2}})
    assert not is_finished(fold, record.inputs_digest, other)


def test_another_version_of_the_predictor_is_a_warning(trained, tmp_path):
    trained.run("everywhere")
    listener = Listener()
    trained.predict(tmp_path / "out", installed(Plugin(), "2.0"), listener)
    (warning,) = listener.warnings
    assert "installed in version 2.0; the model was trained with 1.2" in warning


def test_a_wrong_setting_is_said_before_a_case_is_prepared(tmp_path):
    fresh = Trained(tmp_path)
    with pytest.raises(UsageError, match=r"step size is 1\.5"):
        fresh.run(step_size=1.5)
    with pytest.raises(SettingsError, match="has no setting 'slice'"):
        fresh.run("everywhere", slice=3)
    assert not list(tmp_path.rglob("*.b2nd"))


def test_probabilities_of_another_shape_are_the_predictors_fault():
    labels = read_labels({"labels": {"background": 0, "a": 1}}, "test")
    images = np.zeros((1, 4, 5, 6), np.float32)
    grid = Geometry((4, 5, 6))
    box = ((0, 4), (0, 5), (0, 6))
    place = PreparedGeometry(grid, box, (0, 1, 2), grid.shape, grid.spacing)
    case = CasePredictor(lambda images: images, DefaultPreprocessor(), labels)
    with pytest.raises(PluginError, match=r"\(1, 4, 5, 6\).*must return \(2, 4, 5, 6\)"):
        case(images, place)


def test_a_model_of_another_version_is_one_message(trained, tmp_path):
    document = json.loads((trained.folder / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**document, "schema_version": 1}))
    with pytest.raises(StorageError, match=r"model\.json has format 1; .* reads format 3"):
        Model.open(tmp_path)
