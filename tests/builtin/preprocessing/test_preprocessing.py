"""The default preprocessor against v1's numbers, in both directions, and on real data."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_builtin.preprocessing.preprocessor import DefaultPreprocessor, class_locations
from nnunet_core.contracts.predictor import Slabs
from nnunet_core.data.cases import Case, PreparedGeometry
from nnunet_core.data.fingerprint import IntensityStatistics
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization
from nnunet_core.errors import ImageError, UsageError

SCHEMES = {"CT": "CT", "CT2": "CT2", "nonCT": "zscore", "noNorm": "none"}
ZSCORE = (Normalization(scheme="zscore"),)


def configuration(spacing, axes=(0, 1, 2), normalization=ZSCORE) -> Configuration:
    network = NetworkSpec(
        dimensions=3,
        input_channels=len(normalization),
        output_channels=2,
        pool_kernels=((2, 2, 2),),
        conv_kernels=((3, 3, 3), (3, 3, 3)),
    )
    return Configuration(
        preprocessor="builtin/default",
        transpose_forward=axes,
        spacing=spacing,
        median_shape=(16, 16, 16),
        patch_size=(16, 16, 16),
        batch_size=2,
        network=network,
        dummy_2d_augmentation=False,
        batch_dice=False,
        normalization=normalization,
    )


def make_case(shape=(12, 14, 10), spacing=(1.0, 1.0, 1.0), seed=0, channels=1) -> Case:
    random = np.random.default_rng(seed)
    images = random.normal(size=(channels, *shape)).astype(np.float32) + 5
    return Case(
        "case", images, random.integers(0, 3, shape).astype(np.int16), Geometry(shape, spacing)
    )


def golden_statistics(values) -> IntensityStatistics:
    renamed = {"minimum": values["mn"], "maximum": values["mx"]}
    return IntensityStatistics(
        **renamed, **{key: values[key] for key in values if key not in ("mn", "mx")}
    )


@pytest.mark.shared
def test_golden_preparation(golden):
    data = np.load(golden / "preprocessing.npz")
    for case in json.loads((golden / "preprocessing.json").read_text()):
        name = case["name"]
        images, label = data[f"{name}__data"], data[f"{name}__seg"][0].astype(np.int16)
        normalization = tuple(
            Normalization(
                scheme=SCHEMES[scheme],
                use_mask=mask,
                statistics=golden_statistics(case["intensity_properties"]),
            )
            for scheme, mask in zip(
                case["normalization_schemes"], case["use_mask_for_norm"], strict=True
            )
        )
        planned = configuration(
            tuple(case["target_spacing_transposed"]),
            tuple(case["transpose_forward"]),
            normalization,
        )
        preprocessor = DefaultPreprocessor("all" if case["preprocessor"] == "3d" else "in_plane")
        raw = Case(name, images, label, Geometry(label.shape, tuple(case["original_spacing"])))
        prepared = preprocessor.prepare(raw, planned)
        assert [list(side) for side in prepared.geometry.crop_box] == case["crop_bbox"], name
        np.testing.assert_allclose(
            prepared.images, data[f"{name}__data_out"], atol=1e-3, err_msg=name
        )
        np.testing.assert_array_equal(prepared.label, data[f"{name}__seg_out"][0], err_msg=name)


@pytest.mark.shared
def test_golden_restoration(golden):
    data = np.load(golden / "export.npz")
    for case in json.loads((golden / "export.json").read_text()):
        name, box = case["name"], tuple(tuple(side) for side in case["crop_bbox"])
        probabilities = data[f"{name}__softmax"]
        original = Geometry(tuple(case["raw_shape"]), tuple(case["original_spacing"]))
        spacing = tuple(case["spacing_after_resampling"])
        geometry = PreparedGeometry(original, box, (0, 1, 2), probabilities.shape[1:], spacing)
        restored = DefaultPreprocessor().restore(probabilities, geometry)
        inside = (slice(None), *(slice(*side) for side in box))
        np.testing.assert_allclose(restored[inside], data[f"{name}__softmax_resampled"], atol=1e-3)
        np.testing.assert_array_equal(restored.argmax(axis=0), data[f"{name}__seg"])
        slabs = Slabs(probabilities.shape, np.array_split(probabilities, 3, axis=1))
        labels = Labels.from_names(
            {"background": 0, **{f"{i}": i for i in range(1, len(restored))}}
        )
        found = DefaultPreprocessor().restore_labels(slabs, geometry, labels)
        np.testing.assert_array_equal(found, data[f"{name}__seg"])


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("target", [(1.3, 0.8, 1.1), (4.0, 1.2, 0.9)])
@pytest.mark.parametrize("spacing", [(1.0, 0.9, 1.1), (1.0, 5.0, 1.1)])
def test_permuting_axes_changes_nothing_else(axes, target, spacing):
    case = make_case(spacing=spacing)
    permuted = Case(
        "case",
        case.images.transpose(0, *(a + 1 for a in axes)),
        case.label.transpose(axes),
        Geometry(tuple(case.label.shape[a] for a in axes), tuple(spacing[a] for a in axes)),
    )
    preprocessor = DefaultPreprocessor()
    mine = preprocessor.prepare(case, configuration(target, axes))
    plain = preprocessor.prepare(permuted, configuration(target))
    np.testing.assert_allclose(mine.images, plain.images, atol=1e-4)
    np.testing.assert_array_equal(mine.label, plain.label)
    probabilities = np.stack([mine.label == value for value in range(3)]).astype(np.float32)
    back = preprocessor.restore(probabilities, plain.geometry)
    restored = preprocessor.restore(probabilities, mine.geometry)
    np.testing.assert_allclose(restored.transpose(0, *(a + 1 for a in axes)), back, atol=1e-6)


def test_an_axis_of_low_target_resolution_is_restored_by_nearest_neighbour():
    """The spacing is put into the order of the file's axes first; v1 took another axis here (quirk
    29).
    """
    geometry = PreparedGeometry(
        Geometry((8, 8, 8)), ((0, 8),) * 3, (2, 0, 1), (2, 8, 8), (4.0, 1.0, 1.0)
    )
    probabilities = np.zeros((1, 2, 8, 8), np.float32)
    probabilities[0, 1] = 1
    restored = DefaultPreprocessor().restore(probabilities, geometry)
    np.testing.assert_array_equal(restored[0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.shared
@pytest.mark.parametrize(
    ("task", "target", "axes", "resample"),
    [
        ("Task004_Hippocampus", (1.4, 1.2, 0.8), (1, 2, 0), "all"),
        ("Task104_HippocampusThick", (3.0, 0.9, 0.9), (0, 1, 2), "all"),
        ("Task104_HippocampusThick", (1.0, 1.2, 1.2), (0, 1, 2), "in_plane"),
    ],
)
def test_real_labels_survive_the_way_there_and_back(data, task, target, axes, resample):
    reader = SimpleItkFormat()
    path = sorted((data / task / "imagesTr").glob("*.nii.gz"))[0]
    image = reader.read(path)
    label = (
        reader.read(data / task / "labelsTr" / path.name.replace("_0000", ""))
        .array[0]
        .astype(np.int16)
    )
    padded = [(0, 0), (2, 1), (3, 0), (0, 4)]
    images = np.pad(image.array.astype(np.float32) + 1, padded)
    label = np.pad(label, padded[1:])
    case = Case(path.name, images, label, replace(image.geometry, shape=label.shape))
    preprocessor = DefaultPreprocessor(resample)
    prepared = preprocessor.prepare(case, configuration(target, axes), (1, 2))
    assert prepared.geometry.crop_box == tuple(
        (a, n - b) for (a, b), n in zip(padded[1:], label.shape, strict=True)
    )
    restored = preprocessor.restore(
        np.stack([prepared.label == value for value in range(3)]).astype(np.float32),
        prepared.geometry,
    )
    assert restored.shape == (3, *label.shape)
    assert restored.dtype == np.float32
    segmentation = restored.argmax(axis=0)
    for value in (1, 2):
        overlap = np.count_nonzero((segmentation == value) & (label == value))
        assert (
            2
            * overlap
            / (np.count_nonzero(segmentation == value) + np.count_nonzero(label == value))
            > 0.88
        )
    outside = np.pad(
        np.zeros([stop - start for start, stop in prepared.geometry.crop_box], bool),
        padded[1:],
        constant_values=True,
    )
    assert not restored[:, outside].any()


def test_planes_keep_every_slice():
    case = make_case((9, 20, 20), (2.5, 1.0, 1.0))
    prepared = DefaultPreprocessor("in_plane").prepare(case, configuration((7.0, 2.0, 2.0)))
    assert prepared.geometry.prepared_shape == (9, 10, 10)
    assert prepared.geometry.prepared_spacing == (2.5, 2.0, 2.0)


def test_a_case_without_label_is_zero_inside_and_minus_one_outside():
    case = make_case()
    case.images[:, :3, :, :4] = 0
    prepared = DefaultPreprocessor().prepare(
        replace(case, label=None), configuration((1.0, 1.0, 1.0)), (1, 2)
    )
    assert prepared.class_locations == {}
    np.testing.assert_array_equal(prepared.label == -1, case.images[0] == 0)
    assert prepared.label.max() == 0


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("scheme", ["zscore", "none"])
def test_the_raw_case_is_not_changed(axes, scheme):
    case, copy = make_case(), make_case()
    prepared = DefaultPreprocessor().prepare(
        case, configuration((1.0, 1.0, 1.0), axes, (Normalization(scheme=scheme),)), (1,)
    )
    np.testing.assert_array_equal(case.images, copy.images)
    np.testing.assert_array_equal(case.label, copy.label)
    assert not np.may_share_memory(prepared.images, case.images)
    assert prepared.images.flags["C_CONTIGUOUS"]


def test_class_locations_follow_the_random_numbers_of_v1():
    label = (
        np.random.default_rng(0)
        .choice(5, (150, 200, 250), p=[0.6, 0.002, 0.398, 0, 0])
        .astype(np.int8)
    )
    label[0, 0, :3] = 4
    found = class_locations(label, (4, 3, 2, 1))
    random = np.random.RandomState(1234)
    for value in (4, 3, 2, 1):
        voxels = np.argwhere(label == value)
        if len(voxels):
            count = max(min(10_000, len(voxels)), math.ceil(0.01 * len(voxels)))
            voxels = voxels[random.choice(len(voxels), count, replace=False)]
        np.testing.assert_array_equal(found[value], voxels)
    assert [len(found[value]) for value in (4, 3)] == [3, 0]
    assert len(found[2]) > 10_000 == len(found[1])


def test_large_label_values_are_kept():
    case = make_case()
    case.label[case.label == 2] = 300
    prepared = DefaultPreprocessor().prepare(case, configuration((1.0, 1.0, 1.0)), (1, 300))
    np.testing.assert_array_equal(prepared.label, case.label)


def test_wrong_configurations_are_refused_before_the_work():
    with pytest.raises(UsageError, match="2 image channels"):
        DefaultPreprocessor().prepare(make_case(channels=2), configuration((1.0, 1.0, 1.0)))
    with pytest.raises(UsageError, match="Schemes"):
        DefaultPreprocessor().prepare(
            make_case(), configuration((1.0, 1.0, 1.0), (0, 1, 2), (Normalization(scheme="x"),))
        )


def test_probabilities_of_another_grid_are_refused():
    prepared = DefaultPreprocessor().prepare(make_case(), configuration((1.0, 1.0, 1.0)))
    with pytest.raises(ImageError, match="prepared case"):
        DefaultPreprocessor().restore(np.zeros((2, 3, 3, 3), np.float32), prepared.geometry)


def test_a_case_that_would_fill_the_memory_is_refused_by_name_before_it_is_resampled():
    case = make_case(spacing=(1000.0, 1000.0, 1000.0))
    with pytest.raises(ImageError, match=r"Case case would have 12000 x 14000 x 10000 voxels"):
        DefaultPreprocessor().prepare(case, configuration((1.0, 1.0, 1.0)))


@pytest.mark.parametrize(
    ("shape", "spacing", "target", "message"),
    [
        ((1, 14, 10), 999.0, 1.0, "is a 2D image, the configuration was planned for volumes"),
        ((12, 14, 10), 2.0, 999.0, "is a volume, the configuration was planned for 2D images"),
    ],
)
def test_pictures_and_volumes_are_not_made_of_each_other(shape, spacing, target, message):
    with pytest.raises(ImageError, match=message):
        DefaultPreprocessor().prepare(
            make_case(shape, (spacing, 1.0, 1.0)), configuration((target, 1.0, 1.0))
        )
