"""Reasons of plans: the rules give what the plans have, and the sentences name the numbers."""

import json

import numpy as np
import pytest
from described_datasets import described

from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.planning.planner import PlannerV21

CHANGED = "The plans have another one"
THICK = ([(10, 320, 320)] * 20, [(5.0, 0.6, 0.6)] * 20, ["MRI"], 2)


def explained(sizes, spacings, channels, classes, reductions=None, planner=None, edit=None):
    """Return {configuration: its reasons}."""
    planner = planner or PlannerV21()
    dataset, fingerprint = described(sizes, spacings, channels, classes, reductions)
    plans = planner.plan(dataset, fingerprint, PlainUNet())
    return {
        name: planner.explain(
            dataset.labels, fingerprint, configuration.model_copy(update=edit or {}), PlainUNet()
        )
        for name, configuration in plans.configurations.items()
    }


@pytest.mark.shared
@pytest.mark.parametrize("memory", [8, 11])
def test_reasons_agree_with_the_plans_of_v1(golden, memory):
    for entry in json.loads((golden / "plans.json").read_text()):
        found = entry["fingerprint"]
        reasons = explained(
            found["sizes"],
            found["spacings"],
            found["modalities"],
            found["num_classes"],
            found["size_reductions"],
            PlannerV21(gpu_memory_gb=memory),
        )
        assert CHANGED not in str(reasons), found["name"]


def test_hippocampus_like_numbers():
    reasons = explained([(36, 50, 35)] * 260, [(1, 1, 1)] * 260, ["MRI"], 2)["3d_fullres"]
    patch, batch = reasons["patch size"], reasons["batch size"]
    assert "multiples of 8 × 8 × 8, 40 × 56 × 40 needs 0.154 GB" in patch
    assert "of the 4.44 GB allowed" in patch
    assert patch.endswith("It fits.")
    # 0.05 * 260 * 36 * 50 * 35 / (40 * 56 * 40)
    assert "5% of the dataset's voxels are 9.1 patches" in batch
    assert batch.endswith("at least 2: 9.")
    assert "3 × 3 × 3 times" in reasons["pooling and kernels"]


def test_an_anisotropic_axis_is_explained():
    reasons = explained(*THICK)["3d_fullres"]
    assert "axis z has 5 mm beside 0.6 mm and 10 voxels beside 320" in reasons["target spacing"]
    assert "takes the 10th percentile" in reasons["target spacing"]
    assert "but 1 at " in reasons["pooling and kernels"]
    assert "rotated in plane only" in reasons["augmentation"]


def test_a_low_resolution_is_explained():
    cases = ([(400, 500, 500)] * 10, [(1.0, 0.8, 0.8)] * 10, ["CT"], 2)
    reasons = explained(*cases)
    assert "covers less than 25% of the median case" in reasons["3d_lowres"]["target spacing"]
    assert "is made shorter until it fits" in reasons["3d_fullres"]["patch size"]
    assert "grows by 1 %" not in reasons["3d_fullres"]["target spacing"]
    assert CHANGED not in str(reasons)


@pytest.mark.parametrize(
    ("edit", "what"),
    [({"patch_size": (32, 32, 32)}, "patch size"), ({"batch_size": 4}, "batch size")],
)
def test_edited_plans_are_noticed(edit, what):
    reasons = explained(
        [(36, 50, 35)] * 60,
        [(1, 1, 1)] * 60,
        ["MRI"],
        2,
        planner=PlannerV21(configurations=("3d_fullres",)),
        edit=edit,
    )["3d_fullres"]
    assert {name for name, text in reasons.items() if CHANGED in text} == {what}


class Isotropic(PlannerV21):
    """A planner with a rule of its own."""

    def choose_spacing(self, fingerprint, dimensions):
        return np.array([2.0, 2.0, 2.0]), "fixed"


def test_a_rule_of_a_subclass_is_not_taken_for_ours():
    reasons = explained(*THICK, planner=Isotropic())["3d_fullres"]
    assert reasons["target spacing"].startswith("By the rule of its own of Isotropic")
    assert "percentile" not in reasons["target spacing"]
    assert CHANGED not in str(reasons)
