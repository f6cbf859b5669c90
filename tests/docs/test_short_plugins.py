"""The page of short plugins: each is under sixty lines, and does what it says."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_core.contracts.augmentation import Sample
from nnunet_core.data.images import Geometry
from nnunet_core.data.meaning import SegmentationMeaning
from nnunet_core.errors import ImageError
from nnunet_core.registry.discovery import PluginInfo, Registry
from nnunet_core.stages.formats import find_format, write_label
from nnunet_core.stages.method import choose
from nnunet_core.testing import check_component

PAGE = Path(__file__).parents[2] / "docs/how-to/short-plugins.md"
MODULES = dict(re.findall(r'```python title="([^"]+)"\n(.*?)```', PAGE.read_text(), re.DOTALL))
PACKAGES = sorted({title.partition("/")[0] for title in MODULES})


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Return a registry with the plugins of the page."""
    folder = tmp_path_factory.mktemp("plugins")
    for title, code in MODULES.items():
        (folder / title).parent.mkdir(exist_ok=True)
        (folder / title).write_text(code)
    sys.path.insert(0, str(folder))
    found = Registry.discover()
    for name in PACKAGES:
        module = __import__(f"{name}.plugin", fromlist=["plugin"])
        found.register(module, PluginInfo(name, f"{name}.plugin", name, "0.1", "active"))
    yield found
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_is_under_sixty_lines(package):
    code = "".join(code for title, code in MODULES.items() if title.startswith(f"{package}/"))
    assert len(code.splitlines()) < 60


def test_settings_alone_make_another_training(registry):
    trainer = choose(registry, "plain250").build("trainer")
    assert (trainer.epochs, trainer.deep_supervision) == (250, False)


def test_another_augmentation(registry):
    augmentation = choose(registry, "darker").build("augmentation")
    names = [name for name, _ in augmentation.ordered]
    assert names[names.index("noise") + 1] == "darker.steps:Darker"
    assert choose(registry, "da5").components["augmentation"].reference == "builtin/da5"


def test_a_step_takes_a_constant_from_images_alone(registry):
    from darker.steps import Darker

    sample = Sample(torch.ones(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.int16), None)
    step = Darker(probability=1.0, most=0.5)
    decision = step.draw(np.random.default_rng(0), sample)
    assert 0 < decision < 0.5
    changed = step.apply(sample, decision)
    torch.testing.assert_close(changed.images, torch.full((1, 2, 2), 1 - decision))
    assert changed.label is sample.label
    assert Darker(probability=0.0).draw(np.random.default_rng(0), sample) is None


def test_a_mask_for_each_structure_in_its_place(registry, tmp_path):
    ours = find_format(".nii.gz", registry, "structures", tmp_path / "dataset.json", "label_format")
    geometry = Geometry((6, 8, 10), (3.0, 2.0, 1.0), (5.0, -7.0, 11.0))
    array = np.zeros(geometry.shape, np.uint8)
    array[2:4, 3:6, 4:9] = 2
    path = tmp_path / "case.nii.gz"
    meaning = SegmentationMeaning((), {1: "spleen", 2: "left / kidney"})
    write_label(ours, path, array, geometry, meaning)
    np.testing.assert_array_equal(ours.read(path).array[0], array)
    (mask,) = (tmp_path / "case.nii.gz.structures").iterdir()
    assert mask.name == "2_left_kidney.nii.gz"
    image = sitk.ReadImage(mask)
    assert sitk.GetArrayFromImage(image).shape == (2, 3, 5)
    assert sitk.GetArrayFromImage(image).all()
    assert image.GetOrigin() == pytest.approx((5 + 4 * 1, -7 + 3 * 2, 11 + 2 * 3))
    write_label(ours, path, array * 0, geometry, meaning)
    assert not list((tmp_path / "case.nii.gz.structures").iterdir())


def test_arrays_with_a_json_file(registry, tmp_path):
    rows = check_component("sidecar/sidecar", "image_format", registry=registry)
    assert [(row.check, row.message) for row in rows if row.outcome == "failed"] == []
    ours = find_format(".npy", registry)
    geometry = Geometry((2, 3, 4), (3.0, 2.0, 1.0), (5.0, -7.0, 11.0))
    path = tmp_path / "case.npy"
    ours.write(path, np.ones(geometry.shape, np.int16), geometry)
    assert ours.read(path).geometry == geometry
    assert ours.parts(path) == (tmp_path / "case.json",)
    facts = json.loads((tmp_path / "case.json").read_bytes())
    for wrong in ({}, {**facts, "spacing": [1, 0, 1]}, {**facts, "origin": [0, 0]}):
        (tmp_path / "case.json").write_text(json.dumps(wrong))
        with pytest.raises(ImageError):
            ours.read(path)
