"""Plans are those of nnU-Net v2's planners ResEncM, L and XL, value by value.

The plans of v2 are those that tests/parity/planning_v2.py writes (`--v2-python PYTHON --write`).
"""

import json
import math
from pathlib import Path

import pytest
from resenc_datasets import as_v2, differences, planned

from nnunet_builtin.networks.weights import shapes_of
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build
from nnunet_core.stages.method import choose
from nnunet_resenc.network import ResEncUNet

ROWS = {}
for line in Path(__file__).with_name("plans_v2.jsonl").read_text().splitlines():
    ROWS.update(json.loads(line))
SIZES = ("resenc_m", "resenc_l", "resenc_xl")
#: Patches of a batch on Hippocampus, of 260 cases, without the cap of the variants.
FITTING = {"resenc_m": 58, "resenc_l": 178, "resenc_xl": 187}
HIPPOCAMPUS = ROWS["hippocampus"]["dataset"]


@pytest.mark.parametrize("planner", SIZES)
@pytest.mark.parametrize("name", ROWS)
def test_plans_are_those_of_v2(name, planner):
    row = ROWS[name]
    assert differences(as_v2(planned(row["dataset"], planner)), row["plans"][planner]) == []


@pytest.mark.parametrize("name", ROWS)
def test_networks_have_as_many_parameters_as_v2s(name):
    found = planned(ROWS[name]["dataset"], "resenc_xl").configurations
    for key, theirs in ROWS[name]["plans"]["resenc_xl"]["configurations"].items():
        if key != "3d_cascade_fullres":  # v2 takes over the network of 3d_fullres
            shapes = shapes_of(ResEncUNet(), found[key].network)
            assert sum(map(math.prod, shapes.values())) == theirs["parameters"]


@pytest.mark.parametrize("name", ROWS)
def test_a_share_of_the_dataset_is_that_of_v2s_base_class(name):
    row = ROWS[name]
    found = as_v2(planned(row["dataset"], "resenc_l", dataset_share=0.05))
    assert differences(found, row["plans"]["resenc_l 0.05"]) == []


@pytest.mark.parametrize("size", SIZES)
def test_variants_have_small_batches_for_small_datasets(size):
    method = choose(Registry.discover(), size)
    planner = build(method.components["planner"])
    full, capped = (
        planned(HIPPOCAMPUS, size, dataset_share=share).configurations["3d_fullres"]
        for share in (1.0, planner.dataset_share)
    )
    assert capped.patch_size == full.patch_size
    assert (capped.batch_size, full.batch_size) == (9, FITTING[size])
    note = "5 % of the dataset's voxels (planner.dataset_share) limit the batch size"
    assert note in capped.notes


def test_variants_choose_the_parts_of_the_package():
    method = choose(Registry.discover(), "resenc_xl")
    references = {kind: found.reference for kind, found in method.components.items()}
    assert references["planner"] == "resenc/resenc_xl"
    assert references["network"] == "resenc/resenc_unet"
    assert references["predictor"] == "builtin/sliding_window_logits"


def test_memory_scales_the_reference():
    """A card of 12 GB takes half the patch of one with 24."""
    liver = ROWS["liver"]["dataset"]
    whole, half = (
        math.prod(
            planned(liver, "resenc_l", gpu_memory_gb=size).configurations["3d_fullres"].patch_size
        )
        for size in (24, 12)
    )
    assert 0.3 * whole < half < 0.7 * whole


def test_settings_of_v21_hold_here_too():
    liver = ROWS["liver"]["dataset"]
    without = planned(liver, "resenc_m", low_resolution=False)
    assert "planner.low_resolution is false" in without.skipped["3d_lowres"]
    heart = planned(ROWS["heart"]["dataset"], "resenc_m", all_conv3=True)
    assert set(heart.configurations["3d_fullres"].network.conv_kernels) == {(3, 3, 3)}
    small = planned(HIPPOCAMPUS, "resenc_l", max_batch_size=7, base_features=16)
    assert small.configurations["3d_fullres"].batch_size == 7
    assert small.configurations["2d"].network.features(0) == 16


def test_slices_are_prepared_as_in_v2():
    heart = planned(ROWS["heart"]["dataset"], "resenc_m").configurations
    names = {key: configuration.preprocessor for key, configuration in heart.items()}
    assert names == {"2d": "resenc/v2_planes", "3d_fullres": "builtin/v2"}
    found = build(Registry.discover().resolve("preprocessor", names["2d"]))
    assert (found.steps, found.resample) == ("v2", "in_plane")
