"""The page on extra data: its code, written down as a user would, trains and predicts with `nnunet
run`.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import strangers

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core import read_probabilities
from nnunet_core.store.prepared import PreparedStore

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs/how-to/extra-data.md"
BRIEF = (
    *("trainer.epochs=1", "trainer.iterations_per_epoch=2", "trainer.validation_iterations=1"),
    "planner.max_batch_size=2",
)


@pytest.fixture
def nnunet(tmp_path):
    """Return a function that runs a command with the modules of the page on the path, and returns
    its error output.
    """
    modules = tmp_path / "modules"
    modules.mkdir()
    blocks = re.findall(r'```python title="(\w+\.py)"\n(.*?)```', PAGE.read_text(), re.DOTALL)
    for name in {name for name, _ in blocks}:
        code = "\n\n".join(code for module, code in blocks if module == name)
        (modules / name).write_text(code)

    def run(*arguments, code=0):
        return strangers.nnunet(modules, *arguments, code=code).stderr

    return run


@pytest.fixture
def run(nnunet, tiny):
    """Return a function that trains one fold of `tiny` briefly, and returns the workspace."""
    workspace = tiny.parent.parent

    def run(*options):
        settings = [part for setting in BRIEF for part in ("--set", setting)]
        common = ("--workspace", workspace, "--folds", "0", "--workers", "0")
        nnunet("run", tiny, *common, *settings, *options)
        return workspace

    return run


def stores(workspace):
    return [PreparedStore(folder) for folder in workspace.glob("preprocessed/*/prepared/*")]


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_a_boundary_loss_trains_with_a_distance_map_per_case(run, configuration):
    workspace = run(
        *("--configuration", configuration),
        *("--preprocessor", "boundary:WithDistance", "--loss", "boundary:BoundaryLoss"),
        *("--planner", "boundary:Telling", "--trainer", "boundary:NearBoundary"),
    )
    (record,) = workspace.glob("results/**/run.json")
    assert json.loads(record.read_text())["status"] == "finished"
    model = json.loads((record.parents[1] / "model.json").read_text())["configuration"]
    assert len(model["network"]["pool_kernels"]) > 1  # several heads
    assert model["extra"] == {"largest_distance": 20.0}
    (store,) = stores(workspace)
    case = store.open("case_0", verify=True)
    distance, label = case.arrays["distance"][0].astype(float), case.label[:]
    assert case.like == {"distance": "image"}
    assert (distance[label == 1] < 0).all()
    assert (distance[label != 1] > 0).all()
    assert distance.min() < -1
    assert distance.max() <= 20


def test_restore_uses_what_the_dataset_says_of_a_case(nnunet, run, tiny, tmp_path):
    document = json.loads((tiny / "dataset.json").read_text())
    document["cases"] = {"case_1": {"scanner": "B"}, "case_2": {"scanner": "A"}}
    (tiny / "dataset.json").write_text(json.dumps(document))
    source, output, image_format = tmp_path / "images", tmp_path / "predicted", SimpleItkFormat()
    image = image_format.read(tiny / "imagesTr" / "case_1_0000.nii.gz")
    for name, voxels in (("a", image.array[0]), ("b", image.array[0, ::-1])):
        image_format.write(source / f"{name}_0000.nii.gz", voxels.copy(), image.geometry)
    (source / "cases.json").write_text('{"cases": {"b": {"scanner": "B"}}}')

    workspace = run(
        *("--configuration", "3d_fullres", "--preprocessor", "scanners:Upright"),
        *("--augmentation", "none"),
    )
    (record,) = workspace.glob("results/**/run.json")
    model = record.parents[1]
    nnunet(
        "predict", model, source, output, "--no-postprocessing", "--save-probabilities", "--trust"
    )
    (store,) = stores(workspace)
    assert store.open("case_1").geometry.metadata == {"scanner": "B"}
    assert store.open("case_0").geometry.metadata == {}
    upright, turned = (read_probabilities(output / f"{name}.b2nd") for name in "ab")
    np.testing.assert_array_equal(turned[:, ::-1], upright)
    assert upright[1].std() > 0
    label = image_format.read(tiny / "labelsTr" / "case_1.nii.gz").array[0]
    flipped = label[::-1] != store.open("case_1").label[:]
    assert flipped.mean() < 0.02, "the case was prepared upright"


def test_a_loss_without_its_array_does_not_start(nnunet, tiny):
    workspace = ("--workspace", tiny.parent.parent, "--configuration", "3d_fullres")
    said = nnunet("run", tiny, *workspace, "--loss", "boundary:BoundaryLoss", code=2)
    message = " ".join(said.split())
    assert "needs the extra array 'distance'" in message
    assert "It has: none" in message
