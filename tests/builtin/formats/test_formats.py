"""Every image format, also with labels of another one: from files to prepared cases and
predictions' file names.
"""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_builtin.datasets.reading import find_label_ending
from nnunet_builtin.datasets.verification import verify
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry
from nnunet_core.errors import DatasetError, ImageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Silence
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages import prepare as stage
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.stages.method import choose
from nnunet_core.stages.plan import make_plans
from nnunet_core.store.workspace import Workspace

VOLUMES = [
    (".nii", ".nii"),
    (".nrrd", ".nrrd"),
    (".mha", ".nii.gz"),
    (".mhd", ".mha"),
    (".gipl", ".gipl"),
]
VOLUMES += [(".gipl.gz", ".nrrd"), (".tif", ".tif"), (".tiff", ".nii.gz")]
PICTURES = [
    (".png", ".png"),
    (".jpg", ".png"),
    (".jpeg", ".bmp"),
    (".bmp", ".bmp"),
    (".tif", ".png"),
]


def make(folder, endings, shape, pixel=np.uint8, colours=1, cases=3):
    """Write a dataset of bright squares, its images by ITK itself; return its folder."""
    images, labels = endings
    random = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in range(cases):
        label = np.zeros(shape, np.uint8)
        label[..., 8:20, 10 + case : 22] = 1
        image = (random.integers(10, 60, shape) + 150 * label).astype(pixel) * (
            np.iinfo(pixel).max // 255
        )
        pixels = image if colours == 1 else np.stack([image] * colours, axis=-1)
        name = folder / "imagesTr" / f"c{case}_0000{images}"
        sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=colours > 1), str(name))
        sitk.WriteImage(
            sitk.GetImageFromArray(label), str(folder / "labelsTr" / f"c{case}{labels}")
        )
    channels = {str(index): "zscore" for index in range(colours)}
    document = {
        "channel_names": channels,
        "labels": {"background": 0, "square": 1},
        "file_ending": images,
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def prepare(folder, configuration):
    registry, space = Registry.discover(), Workspace(*[folder.parent] * 3)
    dataset = open_dataset(str(folder), folder.parent, registry)
    assert verify(dataset).errors == ()
    method = choose(registry, "default", {}, {})
    with Workers() as workers:
        plans, _ = make_plans(dataset, method, space, workers, Silence())
        chosen = plans.configuration(configuration)
        return dataset, stage.prepare(dataset, chosen, method, space, workers, Silence())


@pytest.mark.parametrize("endings", VOLUMES, ids="-".join)
def test_volumes(tmp_path, endings):
    dataset, store = prepare(
        make(tmp_path / "Dataset001_Volumes", endings, (16, 24, 28)), "3d_fullres"
    )
    assert dataset.label_ending == endings[1]
    assert sorted(store.open("c1").spatial_shape) == [16, 24, 28]
    assert (store.open("c1").label[:] == 1).sum() == 16 * 12 * 11


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("endings", PICTURES, ids="-".join)
def test_pictures(tmp_path, endings, colours):
    dataset, store = prepare(
        make(tmp_path / "Dataset002_Pictures", endings, (32, 40), colours=colours), "2d"
    )
    assert dataset.label_ending == endings[1]
    case = store.open("c2")
    assert case.images.shape == (colours, 1, 32, 40)
    assert (case.label[:] == 1).sum() == 12 * 10


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_pictures_of_16_bits_keep_their_values(tmp_path, ending):
    folder = make(tmp_path / "Dataset003_Deep", (ending, ".png"), (32, 40), np.uint16)
    dataset, _ = prepare(folder, "2d")
    assert dataset.load(dataset.training[0]).images.max() > 40_000


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".nrrd", ".gipl"])
def test_label_maps_are_written_in_every_format_that_keeps_them(tmp_path, ending):
    label = np.arange(5 * 40, dtype=np.int16).reshape(1, 5, 40)
    path = tmp_path / f"a{ending}"
    SimpleItkFormat((ending,)).write(path, label, Geometry(label.shape, (999.0, 1.0, 1.0)))
    np.testing.assert_array_equal(SimpleItkFormat((ending,)).read(path).array[0], label)


def test_a_lossy_format_takes_no_labels(tmp_path):
    with pytest.raises(ImageError, match=r"lose exact values.*\.png"):
        SimpleItkFormat((".jpg",)).write(
            tmp_path / "a.jpg", np.zeros((1, 4, 4), np.uint8), Geometry((1, 4, 4))
        )


@pytest.mark.parametrize(
    ("images", "labels"), [(".jpg", ".png"), (".dcm", ".nii.gz"), (".mha", ".mha")]
)
def test_without_label_files_predictions_get_an_ending_that_can_hold_them(tmp_path, images, labels):
    assert find_label_ending(tmp_path, {"file_ending": images}, Registry.discover()) == labels
    assert (
        find_label_ending(
            tmp_path, {"file_ending": images, "label_ending": ".nrrd"}, Registry.discover()
        )
        == ".nrrd"
    )


def test_label_files_of_several_endings_are_an_error(tmp_path):
    folder = make(tmp_path / "Dataset001_Mixed", (".mha", ".nrrd"), (16, 24, 28))
    (folder / "labelsTr" / "c0.nrrd").rename(folder / "labelsTr" / "c0.nii.gz")
    with pytest.raises(DatasetError, match=r"several endings: \.nii\.gz, \.nrrd.*label_ending"):
        open_dataset(str(folder), tmp_path, Registry.discover())
