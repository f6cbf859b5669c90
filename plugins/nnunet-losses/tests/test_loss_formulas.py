"""The losses against the formulas of their papers, by hand, at their limits, and as a trainer uses
them.
"""

import losses_in_numpy as plain
import numpy as np
import pytest
import torch

from nnunet_builtin.losses.dice_ce import DiceCE, region_maps
from nnunet_losses.boundary import Boundary
from nnunet_losses.skeleton_recall import SkeletonRecall
from nnunet_losses.unified_focal import UnifiedFocal

SIZE, IGNORE = (4, 3, 5), 9
REGIONS = [(1, 2), (2,)]
LOSSES = {
    "skeleton_recall": SkeletonRecall(),
    "boundary": Boundary(weight=0.3),
    "boundary_increase": Boundary(schedule="increase", weight=0.3),
    "unified_focal": UnifiedFocal(),
    "unified_focal_symmetric": UnifiedFocal(symmetric=True, gamma=0.2, delta=0.7, weight=0.4),
}


class Batch:
    """Logits (B, 3, *SIZE) of three classes, or (B, 2, *SIZE) of two regions, with everything that
    losses may need.
    """

    def __init__(self, regions=False, ignored=0.0, samples=2, seed=0):
        rng = np.random.default_rng(seed)
        self.label = rng.integers(0, 3, (samples, *SIZE))
        self.seen = rng.random(self.label.shape) >= ignored
        self.outside = ~self.seen
        self.ignore = IGNORE if ignored else None
        self.regions = regions
        self.logits = 2 * rng.normal(size=(samples, 2 if regions else 3, *SIZE))
        self.masks = np.stack(
            [np.isin(self.label, region) for region in (REGIONS if regions else [(1,), (2,)])], 1
        )
        self.tubes = self.masks & (rng.random(self.masks.shape) < 0.4)
        self.distances = 5 * rng.normal(size=self.masks.shape)

    @property
    def target(self):
        label = np.where(self.outside, IGNORE, self.label) if self.ignore else self.label
        label = torch.from_numpy(label)[:, None]
        return region_maps(label, REGIONS, self.ignore) if self.regions else label

    @property
    def arrays(self):
        tubes = self.tubes.astype(np.int16)
        if not self.regions:
            tubes = (tubes * np.array([1, 2]).reshape(1, 2, 1, 1, 1)).sum(1, keepdims=True)
        return {"skeleton": torch.from_numpy(tubes), "distance": torch.from_numpy(self.distances)}

    def value(self, builder, batch_dice=True, logits=None):
        loss = builder.build(batch_dice=batch_dice, ignore_label=self.ignore, regions=self.regions)
        logits = torch.from_numpy(self.logits) if logits is None else logits
        more = (self.arrays,) if hasattr(builder, "arrays") else ()
        return loss(logits, self.target, *more)


def usual(batch, batch_dice):
    """The value of the default loss."""
    if not batch.regions:
        p = plain.softmax(batch.logits)
        return plain.dice_ce(p, batch.label, batch.seen, batch_dice, 1e-5)
    return float(batch.value(DiceCE(labels="regions", smooth=0.0), batch_dice))


def expected(name, batch, batch_dice):
    """The value of a loss by its paper."""
    builder = LOSSES[name]
    p = plain.softmax(batch.logits)[:, 1:]
    if batch.regions:
        p = np.stack([plain.two_classes(batch.logits[:, r])[:, 1] for r in range(2)], axis=1)
    if name == "skeleton_recall":
        recall = plain.skeleton_recall(p, batch.tubes, batch.seen, batch_dice, builder.smooth)
        return usual(batch, batch_dice) - recall
    if name.startswith("boundary"):
        kept = 0.7 if builder.schedule == "rebalance" else 1
        distance = plain.boundary(p, batch.distances, batch.seen)
        return kept * usual(batch, batch_dice) + 0.3 * distance
    settings = (builder.symmetric, builder.weight, builder.delta, builder.gamma, builder.smooth)
    if not batch.regions:
        whole = plain.softmax(batch.logits)
        return plain.unified_focal(whole, batch.label, batch.seen, batch_dice, *settings)
    each = [
        plain.unified_focal(
            plain.two_classes(batch.logits[:, r]),
            batch.masks[:, r].astype(int),
            batch.seen,
            batch_dice,
            *settings,
        )
        for r in range(2)
    ]
    return np.mean(each)


EVERY = pytest.mark.parametrize("name", LOSSES)
KINDS = pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])


@EVERY
@KINDS
@pytest.mark.parametrize("ignored", [0.0, 0.4], ids=["all", "ignored"])
@pytest.mark.parametrize("batch_dice", [True, False], ids=["batch", "sample"])
def test_the_value_is_that_of_the_paper(name, regions, ignored, batch_dice):
    batch = Batch(regions, ignored)
    found = batch.value(LOSSES[name], batch_dice)
    assert found.shape == ()
    assert float(found) == pytest.approx(expected(name, batch, batch_dice), abs=1e-7)


@EVERY
@KINDS
def test_ignored_voxels_have_no_gradient_and_no_influence(name, regions):
    batch = Batch(regions, ignored=0.5)
    logits = torch.from_numpy(batch.logits).requires_grad_()
    batch.value(LOSSES[name], logits=logits).backward()
    outside = np.broadcast_to(batch.outside[:, None], batch.logits.shape)
    assert (logits.grad.numpy()[outside] == 0).all()
    assert (logits.grad.numpy()[~outside] != 0).mean() > 0.5
    before = float(batch.value(LOSSES[name]))
    batch.logits = np.where(outside, 7.0, batch.logits)
    batch.label = np.where(batch.outside, 0, batch.label)
    batch.tubes, batch.distances = batch.tubes | batch.outside[:, None], batch.distances.copy()
    batch.distances[np.broadcast_to(batch.outside[:, None], batch.distances.shape)] = 1e4
    assert float(batch.value(LOSSES[name])) == pytest.approx(before, abs=1e-9)


def certain(batch, right=True):
    """Logits of a network that is sure of the truth, or of its opposite."""
    sign = 1 if right else -1
    if batch.regions:
        return torch.from_numpy(np.where(batch.masks, 60.0, -60.0) * sign)
    return torch.from_numpy(plain.one_hot(batch.label, 3) * 60.0 * sign)


@EVERY
@KINDS
@pytest.mark.parametrize("kind", ["right", "wrong", "no foreground", "all ignored"])
def test_gradients_are_finite_at_the_extremes(name, regions, kind):
    batch = Batch(regions, ignored=1.1 if kind == "all ignored" else 0.0)
    if kind == "no foreground":
        batch.label[:], batch.masks[:], batch.tubes[:] = 0, False, False
    logits = certain(batch, right=kind != "wrong").float().requires_grad_()
    value = batch.value(LOSSES[name], logits=logits)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@EVERY
@KINDS
def test_the_truth_is_better_than_a_guess_and_its_opposite_worse(name, regions):
    batch = Batch(regions)
    batch.tubes = batch.masks
    batch.distances = np.where(batch.masks, -1.0, 1.0)
    values = [float(batch.value(LOSSES[name], logits=certain(batch, r))) for r in (True, False)]
    assert values[0] < float(batch.value(LOSSES[name])) < values[1]


@EVERY
def test_half_precision_and_autocast_change_the_value_by_rounding_alone(name):
    batch = Batch()
    exact = float(batch.value(LOSSES[name]))
    half = torch.from_numpy(batch.logits).to(torch.bfloat16)
    rounded = float(batch.value(LOSSES[name], logits=half.double()))
    with torch.autocast("cpu", torch.bfloat16):
        found = batch.value(LOSSES[name], logits=half)
    assert found.dtype in (torch.float32, torch.float64)
    assert float(found) == pytest.approx(rounded, abs=1e-5)
    assert rounded == pytest.approx(exact, abs=0.05)


def test_the_recall_of_a_tube_by_hand():
    """Four voxels, a tube of two, with probabilities 0.5 and 0.8: recall 0.65."""
    logits = torch.tensor([0.0, np.log(4.0), 3.0, -3.0], dtype=torch.float64)
    logits = torch.stack([torch.zeros(4, dtype=torch.float64), logits])[None, :, :, None, None]
    label = torch.tensor([1, 1, 1, 0]).view(1, 1, 4, 1, 1)
    tube = torch.tensor([1, 1, 0, 0], dtype=torch.int16).view(1, 1, 4, 1, 1)
    given = {"batch_dice": False}
    whole = SkeletonRecall(smooth=0.0).build(**given)(logits, label, {"skeleton": tube})
    alone = DiceCE().build(**given)(logits, label)
    assert float(alone - whole) == pytest.approx((0.5 + 0.8) / 2)


def test_the_boundary_loss_by_hand():
    """A segment [2, 4) against the truth [1, 3): the voxel too much is 1 mm away, the missing one
    on the boundary.
    """
    p = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0])
    logits = torch.stack([200 * (0.5 - p), 200 * (p - 0.5)])[None, :, :, None, None]
    label = torch.tensor([0, 1, 1, 0, 0]).view(1, 1, 5, 1, 1)
    distance = torch.tensor([1.0, 0.0, 0.0, 1.0, 2.0]).view(1, 1, 5, 1, 1)
    loss = Boundary(schedule="rebalance", weight=1.0, largest=1.0).build(batch_dice=True)
    assert float(loss(logits, label, {"distance": distance})) == pytest.approx(1 / 5)


def test_unified_focal_by_hand():
    """One voxel of background with p = 0.9, one of foreground with p = 0.4."""
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4]], dtype=torch.float64)
    logits = p.log().T[None, :, :, None, None]
    label = torch.tensor([0, 1]).view(1, 1, 2, 1, 1)
    found = UnifiedFocal(smooth=0.0).build(batch_dice=True)(logits, label)
    focal = (0.6 * -np.log(0.4) + 0.4 * 0.1**0.5 * -np.log(0.9)) / 2
    background = 1 - 0.9 / (0.9 + 0.6 * 0.1 + 0.4 * 0.6)
    foreground = 1 - 0.4 / (0.4 + 0.6 * 0.6 + 0.4 * 0.1)
    overlap = (background + foreground**0.5) / 2
    assert float(found) == pytest.approx((focal + overlap) / 2)


@KINDS
@pytest.mark.parametrize("batch_dice", [True, False])
def test_unified_focal_without_gamma_is_half_the_cross_entropy_and_dice(regions, batch_dice):
    batch = Batch(regions, ignored=0.3)
    found = batch.value(UnifiedFocal(gamma=0.0, delta=0.5), batch_dice)
    if regions:  # a region has a background of its own, which the Dice loss does not count
        only = batch.value(UnifiedFocal(gamma=0.0, delta=0.5, weight=1.0), batch_dice)
        entropy = batch.value(DiceCE(labels="any", dice_weight=0))
        assert float(only) == pytest.approx(float(entropy) / 2)
        return
    usual = {"labels": "any", "background": True}
    entropy = batch.value(DiceCE(dice_weight=0, **usual))
    dice = batch.value(DiceCE(ce_weight=0, **usual), batch_dice)
    assert float(found) == pytest.approx(float(entropy / 2 + 1 + dice) / 2, abs=1e-6)


def test_unified_focal_of_one_region_is_that_of_two_classes():
    batch = Batch(seed=3)
    region = torch.from_numpy(batch.logits[:, 1:2] - batch.logits[:, :1])
    two = torch.from_numpy(batch.logits[:, :2])
    label = torch.from_numpy(batch.label == 1).long()[:, None]
    build = UnifiedFocal().build
    one = build(batch_dice=False, regions=True)(region, label.bool())
    assert float(one) == pytest.approx(float(build(batch_dice=False)(two, label)))


@pytest.mark.parametrize("regions", [False, True])
def test_weights_of_nothing_leave_the_default_loss(regions):
    batch = Batch(regions, ignored=0.2)
    default = usual(batch, batch_dice=True)
    for builder in (
        Boundary(weight=0.0),
        Boundary(schedule="increase", weight=0.0),
        SkeletonRecall(weight=1e-12),
    ):
        assert float(batch.value(builder)) == pytest.approx(default, abs=1e-8)


@pytest.mark.parametrize(
    ("schedule", "alphas"),
    [
        ("rebalance", {0: 0.01, 1: 0.02, 50: 0.51, 98: 0.99, 99: 0.99, 900: 0.99}),
        ("increase", {0: 0.01, 50: 0.51, 900: 0.99}),
        ("constant", {0: 0.01, 50: 0.01, 900: 0.01}),
    ],
)
def test_the_weight_of_the_boundary_follows_its_schedule(schedule, alphas):
    batch = Batch()
    builder = Boundary(schedule=schedule)
    loss = builder.build(batch_dice=True)
    p = plain.softmax(batch.logits)[:, 1:]
    far, near = plain.boundary(p, batch.distances, batch.seen), usual(batch, batch_dice=True)
    for epoch, alpha in alphas.items():
        loss.set_epoch(epoch)
        found = float(loss(torch.from_numpy(batch.logits), batch.target, batch.arrays))
        kept = 1 - alpha if schedule == "rebalance" else 1
        assert found == pytest.approx(kept * near + alpha * far, abs=1e-7)
