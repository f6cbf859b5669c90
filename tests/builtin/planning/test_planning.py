"""Planning: v1's plans of 25 fingerprints, worked examples, and rules that hold for any dataset."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from described_datasets import described, stage_as_v1
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_builtin.networks.estimate import BYTES_PER_VALUE, pooling_divisor, unet_memory
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.planning.architecture import topology
from nnunet_builtin.planning.patches import rounded_up
from nnunet_builtin.planning.planner import PlannerV21
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import UsageError
from nnunet_core.registry.discovery import Registry

PLANNERS = {
    "v21": {},
    "v21_11GB": {"gpu_memory_gb": 11},
    "v21_16GB": {"gpu_memory_gb": 16},
    "v21_32GB": {"gpu_memory_gb": 32},
    "v21_2d": {"configurations": ("2d",)},
}
V1_SCHEMES = {"zscore": "nonCT", "none": "noNorm"}


def plan(
    sizes,
    spacings,
    channels,
    classes,
    reductions=None,
    planner=PlannerV21,
    network=None,
    **settings,
):
    dataset, fingerprint = described(sizes, spacings, channels, classes, reductions)
    return planner(**settings).plan(dataset, fingerprint, network or PlainUNet())


@pytest.mark.shared
@pytest.mark.parametrize("planner", PLANNERS)
def test_plans_are_those_of_v1(golden, planner):
    for entry in json.loads((golden / "plans.json").read_text()):
        found, expected = entry["fingerprint"], entry["plans"][planner]
        plans = plan(
            found["sizes"],
            found["spacings"],
            found["modalities"],
            found["num_classes"],
            found["size_reductions"],
            **PLANNERS[planner],
        )
        names = (
            ["2d"]
            if planner == "v21_2d"
            else [n for n in ("3d_lowres", "3d_fullres") if n in plans.configurations]
        )
        assert len(names) == expected["num_stages"], found["name"]
        for stage, name in enumerate(names):
            configuration = plans.configurations[name]
            reference = expected["plans_per_stage"][str(stage)]
            ours = stage_as_v1(configuration)
            assert ours == {key: reference[key] for key in ours}, (found["name"], name)
            np.testing.assert_allclose(
                configuration.spacing, reference["current_spacing"], rtol=1e-6
            )
            assert list(configuration.transpose_forward) == expected["transpose_forward"]
            assert [configuration.transpose_forward.index(axis) for axis in range(3)] == expected[
                "transpose_backward"
            ]
            schemes = [V1_SCHEMES.get(n.scheme, n.scheme) for n in configuration.normalization]
            assert schemes == list(expected["normalization_schemes"].values())
            masks = [n.use_mask for n in configuration.normalization]
            assert masks == list(expected["use_mask_for_norm"].values())


def test_hippocampus_like_example():
    plans = plan([(36, 50, 35)] * 260, [(1, 1, 1)] * 260, ["MRI"], 2)
    full, flat = plans.configurations["3d_fullres"], plans.configurations["2d"]
    assert (full.patch_size, full.batch_size) == ((40, 56, 40), 9)
    assert (flat.patch_size, flat.batch_size) == ((56, 40), 366)
    assert "3d_lowres" in plans.skipped
    assert full.preprocessor == "default"
    assert flat.preprocessor == "planes"


def test_large_images_get_a_low_resolution_stage_and_a_cascade():
    sizes, spacings = [(482, 512, 512)] * 131, [(1, 0.767578, 0.767578)] * 131
    configurations = plan(sizes, spacings, ["CT"], 2).configurations
    assert list(configurations) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    np.testing.assert_allclose(
        configurations["3d_lowres"].spacing, (2.473119, 1.898312, 1.898312), rtol=1e-6
    )
    cascade = configurations["3d_cascade_fullres"]
    assert (cascade.previous, cascade.network.input_channels) == ("3d_lowres", 3)
    batch_dice = {name: c.batch_dice for name, c in configurations.items()}
    assert batch_dice == {
        "2d": True,
        "3d_lowres": False,
        "3d_fullres": True,
        "3d_cascade_fullres": True,
    }


def test_max_batch_size_lowers_only_the_batch():
    arguments = ([(36, 50, 35)] * 260, [(1, 1, 1)] * 260, ["MRI"], 2)
    free, limited = plan(*arguments), plan(*arguments, max_batch_size=2)
    for name, configuration in limited.configurations.items():
        assert configuration.batch_size == 2
        assert configuration.patch_size == free.configurations[name].patch_size
        assert any("max_batch_size" in note for note in configuration.notes)


def test_any_memory_is_allowed_and_more_memory_never_shrinks_the_patch():
    arguments = ([(482, 512, 512)] * 20, [(1, 0.8, 0.8)] * 20, ["CT"], 2)
    volumes = [
        np.prod(
            plan(*arguments, gpu_memory_gb=gb, configurations=("3d_fullres",))
            .configurations["3d_fullres"]
            .patch_size
        )
        for gb in (10, 24, 48)
    ]
    assert volumes == sorted(volumes)
    assert volumes[0] < volumes[-1]


def test_an_unknown_configuration_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="3d_fullres"):
        plan([(36, 50, 35)], [(1, 1, 1)], ["MRI"], 2, configurations=("3d_fulres",))


def spec_of(net, features=32, most=320):
    return NetworkSpec(
        dimensions=len(net.kernels[0]),
        input_channels=1,
        output_channels=3,
        pool_kernels=net.pools,
        conv_kernels=net.kernels,
        base_features=features,
        max_features=most,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.3, 8), min_size=3, max_size=3),
    st.lists(st.integers(8, 320), min_size=3, max_size=3),
)
def test_a_patch_is_padded_to_the_divisor_of_its_network_and_keeps_four_voxels(spacing, patch):
    net = topology(spacing, patch)
    assert net.kernels[-1] == (3, 3, 3)
    assert len(net.kernels) == len(net.pools) + 1
    divisor = pooling_divisor(spec_of(net))
    padded = rounded_up(patch, divisor)
    for axis in range(3):
        assert padded[axis] % divisor[axis] == 0
        assert 0 <= padded[axis] - patch[axis] < divisor[axis]
        assert padded[axis] // divisor[axis] >= 4


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(*[st.integers(20, 400)] * 3), st.tuples(*[st.floats(0.5, 6)] * 3), st.integers(1, 40)
)
def test_plans_are_deterministic_and_valid(size, spacing, cases):
    arguments = ([size] * cases, [spacing] * cases, ["MRI"], 1)
    assert plan(*arguments) == plan(*arguments)


LIVER = ([(482, 512, 512)] * 131, [(1, 0.767578, 0.767578)] * 131, ["CT"], 2)
COLON = ([(95, 512, 512)] * 126, [(5, 0.78125, 0.78125)] * 126, ["CT"], 1)


def variant(name):
    """Return the settings of a built-in planner, as the constructor takes them."""
    registry = Registry.discover()
    return dict(registry.resolve("planner", name).component.settings)


def test_three_convolutions_per_stage_fit_into_the_same_memory():
    plans, usual = plan(*LIVER, **variant("v21_3convs")), plan(*LIVER)
    for name in ("3d_lowres", "3d_fullres", "3d_cascade_fullres"):
        assert plans.configurations[name].network.convs_per_stage == 3
    network = plans.configurations["3d_fullres"]
    assert (
        unet_memory(network.network, network.patch_size) <= BYTES_PER_VALUE * 520_000_000 * 32 / 30
    )
    assert np.prod(network.patch_size) < np.prod(usual.configurations["3d_fullres"].patch_size)
    assert plans.configurations["2d"] == usual.configurations["2d"]


def test_without_resampling_there_is_no_low_resolution_and_cases_keep_their_spacing():
    plans = plan(*LIVER, **variant("v21_no_resampling"))
    assert list(plans.configurations) == ["2d", "3d_fullres"]
    assert "low_resolution" in plans.skipped["3d_lowres"]
    assert plans.configurations["3d_fullres"].preprocessor == "no_resampling"
    assert (
        plans.configurations["3d_fullres"].patch_size
        == plan(*LIVER).configurations["3d_fullres"].patch_size
    )


def test_a_fixed_spacing_is_that_of_every_3d_network_at_full_resolution():
    usual = plan(*COLON, **variant("v21_fixed_spacing"))
    assert usual.configurations["3d_fullres"].spacing == (2.0, 2.0, 2.0)
    assert usual.configurations["3d_fullres"].network.base_features == 30
    chosen = plan(*COLON, target_spacing=(3.0, 1.0, 1.5)).configurations
    assert chosen["3d_fullres"].spacing == (3.0, 1.0, 1.5)
    assert chosen["3d_fullres"].median_shape == (158, 400, 267)
    assert chosen["2d"].spacing == plan(*COLON).configurations["2d"].spacing


def test_isotropic_patches_are_shortened_along_their_longest_axis():
    in_mm = plan(*COLON, **variant("v21_isotropic_mm")).configurations["3d_fullres"]
    edges = np.array(in_mm.patch_size) * in_mm.spacing
    usual = plan(*COLON).configurations["3d_fullres"]
    assert (
        edges.max() / edges.min() < (np.array(usual.patch_size) * usual.spacing).max() / edges.min()
    )
    in_voxels = (
        plan(*LIVER, **variant("v21_isotropic_voxels")).configurations["3d_fullres"].patch_size
    )
    assert max(in_voxels) - min(in_voxels) <= 32


def test_kernels_of_three_everywhere():
    for configuration in plan(*COLON, **variant("v21_all_conv3")).configurations.values():
        assert {size for kernel in configuration.network.conv_kernels for size in kernel} == {3}
    assert plan(*COLON).configurations["3d_fullres"].network.conv_kernels[0] == (1, 3, 3)


def test_schemes_of_channels_and_what_is_said_of_unknown_names():
    channels = ["CT", "noNorm", "T1", "rescale_to_0_1", "rgb_to_0_1", "zscore"]
    arguments = ([(36, 50, 35)] * 20, [(1, 1, 1)] * 20, channels, 2)

    def schemes(**settings):
        return [n.scheme for n in plan(*arguments, **settings).configurations["2d"].normalization]

    assert schemes() == ["CT", "none", "zscore", "rescale_to_0_1", "rgb_to_0_1", "zscore"]
    assert schemes(**variant("v21_ct2")) == ["CT2", *["zscore"] * 5]
    assert schemes(**variant("v21_nonct")) == ["zscore"] * 6
    (note,) = plan(*arguments).notes
    assert "channel 2 'T1'" in note
    assert "preprocessor.normalization.2" in note
    assert "CT" not in note


def test_channels_without_a_scheme_are_one_note_and_only_what_may_be_ct_is_asked_about():
    def notes(*channels):
        return plan([(36, 50, 35)] * 20, [(1, 1, 1)] * 20, channels, 2).notes

    (colours,) = notes("R", "G", "B")
    assert "channels 0 'R', 1 'G', 2 'B'" in colours
    (mr,) = notes("MR")
    assert "CT" not in mr
    for name in ("Ct", "CT ", "CT_abdomen", "Computed Tomography", "HU", "CBCT", "PET-CT"):
        assert "normalization.0=CT" in notes(name)[1]
    assert len(notes("T1 contrast", "FLAIR", "octagon")) == 1


def test_the_share_below_which_a_low_resolution_is_planned_is_a_setting_that_the_note_names():
    usual = plan(*COLON)
    assert "3d_lowres" in usual.configurations
    few = plan(*COLON, low_resolution_coverage=0.01)
    assert "planner.low_resolution_coverage" in few.skipped["3d_lowres"]
    more = plan(*COLON, low_resolution_coverage=0.5).configurations["3d_lowres"]
    patch = np.prod(more.patch_size)
    assert patch >= 0.5 * np.prod(more.median_shape)


@pytest.mark.parametrize(
    ("size", "spacing", "settings"),
    [
        ((1, 1500, 1500), (5.9, 0.6, 0.6), {}),
        ((1, 2000, 2000), (999, 1, 1), {}),
        ((2, 4, 3), (0.351,) * 3, {"target_spacing": (2.0,) * 3}),
    ],
)
def test_axes_that_round_to_no_voxel_keep_one(size, spacing, settings):
    for configuration in plan(
        [size] * 5, [spacing] * 5, ["MRI"], 1, **settings
    ).configurations.values():
        assert min(configuration.median_shape) >= 1


@dataclass
class InBlocks(PlainUNet):
    """A network whose patches are multiples of another number than that of its pooling, as a
    transformer's.
    """

    step: int = 48

    def divisor(self, spec):
        return (self.step,) * spec.dimensions


def test_patches_are_multiples_of_what_the_network_builder_says():
    for arguments in (LIVER, COLON):
        for name, configuration in plan(*arguments, network=InBlocks()).configurations.items():
            assert {size % 48 for size in configuration.patch_size} == {0}, name
            memory = unet_memory(configuration.network, configuration.patch_size)
            assert memory <= PlannerV21().patch_budget(configuration.dimensions)


def test_a_network_that_is_too_large_for_its_smallest_patch_is_refused():
    with pytest.raises(UsageError, match=r"smallest patch \(256, 256, 256\).*gpu_memory_gb"):
        plan(*LIVER, network=InBlocks(step=256), configurations=("3d_fullres",))


@pytest.mark.parametrize(
    ("spacing", "patch"),
    [((1, 1, 1), (32, 32, 32)), ((3.6, 0.6, 0.6), (8, 64, 64)), ((1, 1), (96, 96))],
)
def test_the_estimate_in_bytes_is_what_pytorch_keeps_for_the_gradients(spacing, patch):
    spec = spec_of(topology(spacing, patch))
    network = PlainUNet().build(spec)
    kept = {}

    def keep(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()  # several tensors may share one
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.randn(1, 1, *patch))
    size = sum(storage.nbytes() for storage in kept.values())
    assert size == pytest.approx(unet_memory(spec, patch), rel=0.02)


class TwoSizes(PlannerV21):
    def choose_configurations(self, planned):
        half = planned["3d_fullres"].model_copy(update={"batch_size": 1})
        return {**planned, "3d_single": half}


def test_a_planner_may_have_configurations_of_its_own():
    plans = plan(*COLON, planner=TwoSizes, configurations=("3d_fullres",))
    assert list(plans.configurations) == ["3d_fullres", "3d_single"]
    assert plans.configuration("3d_single").batch_size == 1
    assert plans.planner.endswith(":TwoSizes")
    assert TwoSizes().may_plan() is None  # a benchmark leaves its names to the plans
    assert PlannerV21(configurations=("2d",)).may_plan() == ("2d",)


def test_pictures_get_no_volumes_unless_they_are_asked_for():
    pictures = ([(1, 200, 180)] * 3, [(999, 1, 1)] * 3, {"0": "grey"}, 1)
    plans = plan(*pictures)
    assert list(plans.configurations) == ["2d"]
    assert plans.skipped == dict.fromkeys(
        ("3d_lowres", "3d_fullres", "3d_cascade_fullres"), "every case is a single slice"
    )
    asked = plan(*pictures, configurations=("2d", "3d_fullres"))
    assert list(asked.configurations) == ["2d", "3d_fullres"]
    mixed = plan([(1, 200, 180), (2, 200, 180)], [(5, 1, 1)] * 2, {"0": "grey"}, 1)
    assert "3d_fullres" in mixed.configurations
