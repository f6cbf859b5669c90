"""Losses and deep supervision: v1's numbers, hand-computed examples, ignored voxels, regions,
several processes.
"""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed
from v1_losses import V1

from nnunet_builtin.losses.deep_supervision import DeepSupervisionLoss, targets, weights
from nnunet_builtin.losses.dice_ce import DiceCE, region_maps
from nnunet_builtin.losses.likelihoods import SoftmaxSums
from nnunet_builtin.plugin import nnunet_losses
from nnunet_core.errors import SettingsError, TrainingError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build

LOSSES = {component.name: dict(component.settings) for component in nnunet_losses()}
ODD = {
    "squared": {"labels": "any", "overlap": "squared_dice"},
    "generalised": {"labels": "any", "overlap": "generalised_dice"},
    "mcc": {"labels": "any", "overlap": "mcc", "smooth": 0.0, "ce_weight": 0.0},
    "weighted": {"labels": "any", "class_weights": [0.5, 2.0, 1.0], "background": True},
    "everything": {
        "labels": "any",
        "class_weights": [0.5, 2, 1],
        "focal_gamma": 0.5,
        "focal_alpha": 0.7,
        "top_k": 0.3,
    },
    "smooth_focal": {"labels": "any", "focal_gamma": 1.5, "focal_smooth": 0.01},
}
KINDS = [
    (name, regions)
    for name, chosen in {**LOSSES, **ODD}.items()
    for regions in (False, True)
    if chosen.get("labels", "exclusive") in ("any", "regions" if regions else "exclusive")
]


def made(name, **arguments):
    return DiceCE(**{**LOSSES, **ODD}[name]).build(**arguments)


def batch(seed, samples, size, regions, ignored=0.0):
    """Return logits (B, 3, *size), and labels with the ignore label 9 or maps of three regions."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, 3, *size, generator=generator, dtype=torch.float64) * 2
    label = torch.randint(0, 3, (samples, 1, *size), generator=generator)
    label[torch.rand(label.shape, generator=generator) < ignored] = 9
    target = (
        region_maps(label, [(1, 2, 9), (2,), (0,)], 9 if ignored else None) if regions else label
    )
    return logits, label, target


def gradient(loss, logits, target):
    """Return the value and the gradient of the logits."""
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    value.backward()
    return value.detach(), logits.grad


@pytest.fixture
def arrays(golden):
    with np.load(golden / "loss.npz") as content:
        return {key: torch.from_numpy(content[key]) for key in content.files}


@pytest.mark.shared
def test_losses_are_those_of_v1(golden, arrays):
    logits, labels = ([arrays[f"{kind}{i}"] for i in range(3)] for kind in ("logits", "target"))
    checked = 0
    for entry in json.loads((golden / "loss.json").read_text()):
        if entry["loss"] == "dice_bce_regions":
            loss = made("dice_bce", batch_dice=entry["batch_dice"], regions=True)
            value = loss(logits[0][:, :3], arrays["region_target"])
        else:
            loss = made(entry["loss"].removesuffix("10"), batch_dice=entry["batch_dice"])
            value = loss(logits[0], labels[0])
        assert value.item() == pytest.approx(entry["single"], abs=1e-5)
        if "deep_supervision" in entry:
            assert weights(3) == pytest.approx(entry["deep_supervision_weights"])
            total = DeepSupervisionLoss(loss)(logits, labels)
            assert total.item() == pytest.approx(entry["deep_supervision"], abs=1e-5)
            checked += 1
    assert checked >= 2


@pytest.mark.parametrize(
    ("trainer", "name", "changes", "of_batch", "of_sample"), V1, ids=[row[0] for row in V1]
)
def test_settings_give_the_losses_of_v1s_trainers(trainer, name, changes, of_batch, of_sample):
    n = np.arange(720)
    logits = torch.from_numpy(3 * np.sin(1.7 * n)).float().view(2, 3, 4, 5, 6)
    label = torch.from_numpy((n**2 // 7 % 3 * ((n < 120) | (n % 5 == 0)))[:240]).view(2, 1, 4, 5, 6)
    maps = torch.from_numpy((n**2 // 5 % 2) * (n % 4 < 2 + 2 * (n < 360))).view(2, 3, 4, 5, 6)
    regions = trainer.startswith("BraTS")
    for batch_dice, expected in ((True, of_batch), (False, of_sample)):
        loss = DiceCE(**{**LOSSES[name], **changes}).build(batch_dice=batch_dice, regions=regions)
        assert loss(logits, maps if regions else label).item() == pytest.approx(expected, abs=1e-5)


def test_worked_example_of_the_spec():
    logits = torch.tensor(
        [
            [[[2, 0, -1], [0.5, 1, 0]], [[0, 1, 3], [0.5, -1, 0]]],
            [[[1, 0, 0], [0, 0, 0]], [[0, 2, 0], [0, 0, 1.0]]],
        ]
    )
    label = torch.tensor([[[[0, 1, 1], [0, 0, 1]]], [[[0, 0, 0], [0, 0, 0]]]])
    for batch_dice, expected in ((True, 0.1760871), (False, 0.2785170)):
        assert DiceCE().build(batch_dice=batch_dice)(logits, label).item() == pytest.approx(
            expected, abs=1e-6
        )
        forced = DiceCE(batch_dice=batch_dice).build(batch_dice=not batch_dice)
        assert forced(logits, label).item() == pytest.approx(expected, abs=1e-6)


# One class against the background with probabilities 0.2, 0.5, 0.8, 0.9 where the truth is 0, 1, 1,
# 1: tp = 2.2, fp = 0.2, fn = 0.8, tn = 0.8, the sum of squares is 1.74, the truth has probabilities
# 0.8, 0.5, 0.8, 0.9.
CE = -(2 * math.log(0.8) + math.log(0.5) + math.log(0.9)) / 4
FOCAL = -(0.04 * math.log(0.8) * 2 + 0.25 * math.log(0.5) + 0.01 * math.log(0.9)) / 4
DICE = 4.4 / 5.4
BY_HAND = [
    ("ce", {}, CE),
    ("dice", {}, -DICE),
    ("dice_ce", {"labels": "any", "dice_weight": 0.5, "ce_weight": 3.0}, 3 * CE - 0.5 * DICE),
    ("topk", {}, math.log(2)),
    ("topk", {"top_k": 0.5}, -(math.log(0.5) + math.log(0.8)) / 2),
    ("dice_topk", {}, math.log(2) - DICE),
    ("focal", {}, FOCAL),
    (
        "focal",
        {"focal_gamma": 0.0, "focal_alpha": 0.25},
        -(0.75 * math.log(0.8) + 0.25 * math.log(0.36)) / 4,
    ),
    ("dice_focal", {}, FOCAL - DICE),
    ("tversky", {}, -4.4 / (4.4 + 0.6 * 0.2 + 1.4 * 0.8)),
    ("dice", {"smooth": 1.0}, -5.4 / 6.4),
    ("dice", {"overlap": "squared_dice"}, -4.4 / 4.74),
    ("dice", {"overlap": "generalised_dice"}, -DICE),
    (
        "dice",
        {"overlap": "mcc", "smooth": 0.0},
        -(2.2 * 0.8 - 0.2 * 0.8) / math.sqrt(2.4 * 3 * 1 * 1.6),
    ),
]


@pytest.mark.parametrize(("name", "changes", "expected"), BY_HAND)
def test_hand_computed_examples(name, changes, expected):
    probability = torch.tensor([0.2, 0.5, 0.8, 0.9], dtype=torch.float64).view(1, 1, 4)
    logits, truth = probability.logit(), torch.tensor([0, 1, 1, 1]).view(1, 1, 4)
    builder = DiceCE(**{**LOSSES[name], **changes})
    classes = builder.build(batch_dice=False)(
        torch.cat([torch.zeros_like(logits), logits], dim=1), truth
    )
    regions = builder.build(batch_dice=False, regions=True)(logits, truth)
    assert classes.item() == pytest.approx(expected, abs=1e-5)
    assert regions.item() == pytest.approx(expected, abs=1e-5)


def test_class_weights_make_a_weighted_mean():
    logits, label, _ = batch(0, 2, (5, 6), regions=False)
    value = DiceCE(dice_weight=0, class_weights=[0.2, 1, 3]).build(batch_dice=True)(logits, label)
    weight = torch.tensor([0.2, 1, 3], dtype=torch.float64)
    assert value.item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, label[:, 0], weight).item()
    )
    with pytest.raises(UsageError, match="2 values; the network has 3 outputs"):
        DiceCE(class_weights=[1, 2]).build(batch_dice=True)(logits, label)


def test_class_weights_of_regions():
    logits, _, maps = batch(0, 2, (5, 6), regions=True)
    builder = DiceCE(labels="any", dice_weight=0, class_weights=[1, 0, 3])
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    expected = (
        entropy(logits[:, 0], maps[:, 0].double()) + 3 * entropy(logits[:, 2], maps[:, 2].double())
    ) / 4
    assert builder.build(batch_dice=True, regions=True)(logits, maps).item() == pytest.approx(
        expected.item()
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.booleans(), st.sampled_from(KINDS))
def test_the_order_of_voxels_and_of_samples_is_irrelevant(seed, samples, batch_dice, kind):
    logits, _, target = batch(seed, samples, (24,), kind[1])
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(samples, generator=generator)
    voxels = torch.randperm(24, generator=generator)
    loss = made(kind[0], batch_dice=batch_dice, regions=kind[1])
    shuffled = loss(logits[order][..., voxels], target[order][..., voxels])
    assert shuffled.item() == pytest.approx(loss(logits, target).item(), abs=1e-9)


@pytest.mark.parametrize(("name", "regions"), KINDS)
def test_batch_dice_sees_the_batch_as_one_volume(name, regions):
    logits, _, target = batch(0, 3, (4, 5, 6), regions)
    as_one = [torch.cat(list(tensor), dim=1)[None] for tensor in (logits, target)]
    of_batch, of_sample = (
        made(name, batch_dice=batch_dice, regions=regions) for batch_dice in (True, False)
    )
    assert of_batch(logits, target).item() == pytest.approx(of_sample(*as_one).item(), abs=1e-9)
    with_overlap = {**LOSSES, **ODD}[name].get("dice_weight", 1)
    assert bool(with_overlap) == (
        abs(of_batch(logits, target) - of_sample(logits, target)).item() > 1e-7
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(KINDS),
    st.floats(0.05, 0.95),
    st.sampled_from([(7,), (3, 4), (2, 3, 2)]),
)
def test_ignored_voxels_have_no_gradient_and_no_influence(seed, kind, share, size):
    logits, label, target = batch(seed, 2, size, kind[1], share)
    for batch_dice in (True, False):
        loss = made(kind[0], batch_dice=batch_dice, ignore_label=9, regions=kind[1])
        value, found = gradient(loss, logits, target)
        ignored = (label == 9).expand(logits.shape)
        assert not found[ignored].any()
        assert torch.isfinite(found).all()
        changed = torch.where(ignored, -logits + 1, logits)
        assert loss(changed, target).item() == pytest.approx(value.item(), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(KINDS), st.floats(0.05, 0.9), st.integers(1, 3))
def test_the_loss_with_an_ignore_label_is_that_of_the_other_voxels(seed, kind, share, samples):
    logits, label, target = batch(seed, samples, (6, 5), kind[1], share)
    seen = (label != 9)[:, 0]
    if not seen.any():
        return
    value, found = gradient(
        made(kind[0], batch_dice=True, ignore_label=9, regions=kind[1]), logits, target
    )
    alone = [tensor.movedim(1, -1)[seen].T[None] for tensor in (logits, target[:, :3])]
    expected, gradient_alone = gradient(made(kind[0], batch_dice=True, regions=kind[1]), *alone)
    assert value.item() == pytest.approx(expected.item(), abs=1e-9)
    assert torch.allclose(found.movedim(1, -1)[seen].T[None], gradient_alone, atol=1e-9)


@pytest.mark.parametrize(("name", "regions"), KINDS)
@pytest.mark.parametrize("batch_dice", [True, False])
def test_a_sample_with_nothing_but_ignored_voxels_does_not_count(name, regions, batch_dice):
    loss = made(name, batch_dice=batch_dice, ignore_label=9, regions=regions)
    logits, _, target = batch(1, 2, (4, 4), regions, 0.3)
    _, _, ignored = batch(2, 2, (4, 4), regions, 1.1)
    value, found = gradient(loss, torch.cat([logits, logits]), torch.cat([target, ignored]))
    alone, gradient_alone = gradient(loss, logits, target)
    assert value.item() == pytest.approx(alone.item(), abs=1e-12)
    assert torch.allclose(found[:2], gradient_alone, atol=1e-12)
    assert not found[2:].any()
    value, found = gradient(loss, logits, ignored)
    assert value.item() == 0
    assert torch.equal(found, torch.zeros_like(found))


@pytest.mark.parametrize(("name", "regions"), KINDS)
@pytest.mark.parametrize(
    ("size", "batch_dice", "ignored"),
    [((5,), True, 0), ((2, 3), False, 0.4), ((2, 2, 2), True, 0.4)],
)
def test_gradients_are_those_of_finite_differences(name, regions, size, batch_dice, ignored):
    logits, _, target = batch(4, 2, size, regions, ignored)
    loss = made(name, batch_dice=batch_dice, ignore_label=9 if ignored else None, regions=regions)
    assert torch.autograd.gradcheck(
        lambda x: loss(x, target), logits.requires_grad_(), fast_mode=True
    )


@pytest.mark.parametrize("squares", [False, True])
@pytest.mark.parametrize("ignored", [0, 0.4])
def test_the_gradient_of_the_softmax_sums_is_written_correctly(squares, ignored):
    logits, label, _ = batch(5, 2, (3, 2), False, ignored)
    seen = label != 9 if ignored else None
    label = label % 9
    assert torch.autograd.gradcheck(
        lambda x: SoftmaxSums.apply(x, label, seen, squares)[:3], logits.requires_grad_()
    )


@pytest.mark.parametrize(("name", "regions"), KINDS)
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_extreme_logits_have_finite_losses_and_gradients(name, regions, size):
    _, label, target = batch(6, 2, (4, 4, 4), regions)
    right, constant = (
        2 * region_maps(x, [(0,), (1,), (2,)]).float() - 1 for x in (label, torch.zeros_like(label))
    )
    for signs in (right, -right, constant, torch.ones_like(right)):
        value, found = gradient(made(name, batch_dice=True, regions=regions), size * signs, target)
        assert torch.isfinite(value)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize(("name", "regions"), KINDS)
@pytest.mark.parametrize("label", [0, 2])
def test_empty_foreground_and_missing_background_are_finite(name, regions, label):
    logits = batch(7, 2, (4, 4), False)[0]
    target = torch.full((2, 1, 4, 4), label)
    target = region_maps(target, [(1, 2), (2,), (0,)]) if regions else target
    for batch_dice in (True, False):
        value, found = gradient(made(name, batch_dice=batch_dice, regions=regions), logits, target)
        assert torch.isfinite(value)
        assert torch.isfinite(found).all()


def test_an_empty_class_costs_its_false_positives():
    logits = torch.full((1, 2, 1000), -20.0)
    label = torch.zeros(1, 1, 1000, dtype=torch.long)
    logits[:, 0] = 20
    assert made("dice", batch_dice=True)(logits, label).item() == pytest.approx(-1, abs=2e-3)
    logits[:, 1, 0] = 21
    assert made("dice", batch_dice=True)(logits, label).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "dice_bce"])
def test_one_class_is_the_foreground_of_its_own(name):
    value, found = gradient(
        made(name, batch_dice=True), torch.randn(2, 1, 5, 5), torch.zeros(2, 1, 5, 5)
    )
    assert value.item() == pytest.approx(-LOSSES[name].get("dice_weight", 1), abs=1e-5)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(("name", "regions"), KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(name, regions, dtype):
    logits, _, target = batch(8, 1, (40, 20, 20), regions)
    logits, loss = logits.to(dtype), made(name, batch_dice=True, regions=regions)
    with torch.autocast("cpu", dtype):
        value, found = gradient(loss, logits, target)
    assert (value.dtype, found.dtype) == (torch.float32, dtype)
    assert value.item() == loss(logits.float(), target).item()


@pytest.mark.parametrize("label_dtype", [torch.uint8, torch.int16, torch.float32])
def test_labels_of_any_type_and_logits_of_any_memory_order(label_dtype):
    logits, label, _ = batch(9, 2, (3, 4, 5), False)
    loss = made("dice_ce", batch_dice=False)
    expected, gradient_expected = gradient(loss, logits, label)
    value, found = gradient(
        loss, logits.to(memory_format=torch.channels_last_3d), label.to(label_dtype)
    )
    assert value.item() == pytest.approx(expected.item())
    assert torch.allclose(found, gradient_expected)


def test_region_maps_are_the_unions_of_their_labels():
    label = torch.tensor([0, 1, 2, 3, 9]).view(1, 1, 5)
    maps = region_maps(label, [(1, 2), (2,)], ignore_label=9)
    assert maps[0].int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert region_maps(label, [(1, 2), (2,)]).shape == (1, 2, 5)


def test_weights_halve_and_the_coarsest_head_is_left_out():
    assert weights(5) == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15, 0])
    assert weights(1) == [1.0]


def test_targets_take_the_middle_sample():
    label = torch.arange(16).view(1, 1, 16, 1).expand(1, 1, 16, 16)
    found = targets(label, [(16, 16), (8, 16), (4, 16), (2, 8)])
    assert [t[0, 0, :, 0].tolist() for t in found[1:3]] == [
        [1, 3, 5, 7, 9, 11, 13, 15],
        [2, 6, 10, 14],
    ]
    assert found[3].shape == (1, 1, 2, 8)


@pytest.mark.parametrize("size", [(5, 16), (32, 16), (16,), (16, 16, 1)])
def test_a_head_whose_voxels_are_not_every_nth_of_the_label_is_refused(size):
    with pytest.raises(TrainingError, match="must be a multiple"):
        targets(torch.zeros(1, 1, 16, 16), [size])


def test_a_loss_of_the_wrong_kind_names_the_right_one():
    with pytest.raises(UsageError, match="dice_bce"):
        made("dice_ce", batch_dice=True, regions=True)
    with pytest.raises(UsageError, match="dice_ce"):
        made("dice_bce", batch_dice=True, regions=False)
    with pytest.raises(UsageError, match="both 0"):
        DiceCE(dice_weight=0, ce_weight=0).build(batch_dice=True)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[
            ("top_k", 0),
            ("top_k", 1.5),
            ("smooth", -1),
            ("focal_gamma", -1),
            ("focal_alpha", 1.1),
            ("ce_weight", -1),
        ],
        *[
            ("class_weights", [1, -1]),
            ("class_weights", []),
            ("overlap", "iou"),
            ("labels", "classes"),
        ],
        *[("tversky_beta", -0.1), ("background", 1), ("batch_dice", "yes")],
    ],
)
def test_settings_out_of_bounds_are_refused(setting, value):
    resolved = Registry.discover().resolve("loss", "dice_ce")
    assert isinstance(build(resolved), DiceCE)
    with pytest.raises(SettingsError, match=setting):
        build(resolved.with_settings({setting: value}))


JOINED = [
    (*kind, batch_dice, ignored)
    for kind, batch_dice, ignored in itertools.product(KINDS, (True, False), (0, 0.5))
    if "top_k" not in {**LOSSES, **ODD}[kind[0]]
]


def scaled_gradient(case, samples):
    """Return the loss of some samples of a batch of 3, and its gradient by 3 scales of the channels
    (a tiny network).
    """
    name, regions, batch_dice, ignored = case
    features, _, target = batch(10, 3, (4, 5), regions, ignored)
    scales = torch.ones(3, 1, 1, dtype=torch.float64, requires_grad=True)
    loss = made(name, batch_dice=batch_dice, ignore_label=9 if ignored else None, regions=regions)
    value = loss(features[samples] * scales, target[samples])
    value.backward()
    return torch.cat([value.detach().view(1), scales.grad.flatten()])


def train_in_process(rank, folder):
    """Average value and gradient of two processes with one and two samples, as
    DistributedDataParallel does.
    """
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    found = torch.stack(
        [scaled_gradient(case, slice(0, 1) if rank == 0 else slice(1, 3)) for case in JOINED]
    )
    distributed.all_reduce(found)
    np.save(f"{folder}/rank{rank}.npy", (found / 2).numpy())
    distributed.destroy_process_group()


@pytest.mark.slow
def test_the_mean_gradient_of_two_processes_is_that_of_the_joined_batch(tmp_path):
    torch.multiprocessing.spawn(train_in_process, (str(tmp_path),), nprocs=2)
    expected = torch.stack([scaled_gradient(case, slice(0, 3)) for case in JOINED]).numpy()
    found = np.load(tmp_path / "rank0.npy", allow_pickle=False)
    assert np.abs(expected[:, 1:]).max(axis=1).min() > 1e-4
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


WEIGHTS = ("ce_weight", "dice_weight")


def test_weights_go_from_one_term_to_the_other_in_the_course_of_a_training():
    """v1 goes from 2 CE to 2 Dice between epochs 500 and 750, one epoch late."""
    settings = {
        "ce_weight": 2,
        "dice_weight": 0,
        "final_ce_weight": 0,
        "final_dice_weight": 2,
        "transition": (500, 750),
    }
    loss = DeepSupervisionLoss(DiceCE(**settings).build(batch_dice=True))
    terms = {
        name: DiceCE(**{name: 1, other: 0}).build(batch_dice=True)
        for name, other in (WEIGHTS, WEIGHTS[::-1])
    }
    logits, label = torch.randn(2, 3, 5, 6), torch.randint(0, 3, (2, 1, 5, 6))
    ce, dice = (term(logits, label) for term in terms.values())
    for epoch, share in ((0, 0), (501, 0), (626, 0.5), (751, 1), (999, 1)):
        loss.set_epoch(epoch)
        torch.testing.assert_close(loss([logits], [label]), 2 * (1 - share) * ce + 2 * share * dice)


def test_a_transition_needs_two_epochs_in_order():
    with pytest.raises(UsageError, match=r"loss\.transition=\[7, 7\]"):
        DiceCE(transition=(7, 7)).build(batch_dice=True)


def test_a_transition_to_nothing_is_refused():
    with pytest.raises(UsageError, match="both 0"):
        DiceCE(transition=(1, 2), final_ce_weight=0, final_dice_weight=0).build(batch_dice=True)
