"""Each check of losses finds the loss that is wrong in its way, and no other check does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional
from wrong_components import failures, outcomes, own_checks

from nnunet_builtin.preprocessing.preprocessor import DefaultPreprocessor
from nnunet_core.data.cases import ExtraArray


class CrossEntropy:
    """A right one, which the wrong ones change."""

    def build(self, *, batch_dice, ignore_label=None, regions=False):
        self.batch_dice, self.ignore_label, self.regions = batch_dice, ignore_label, regions
        return self.loss

    def loss(self, logits, target):
        losses, seen = self.voxels(logits.float(), target)
        return self.mean(losses, seen.to(losses.dtype))

    def voxels(self, logits, target):
        """Return the loss of each voxel, and which of them count."""
        if self.regions:
            maps = target[:, : logits.shape[1]].float()
            ignored = target[:, -1:] if self.ignore_label is not None else target[:, :1] & False
            losses = functional.binary_cross_entropy_with_logits(logits, maps, reduction="none")
            return losses.mean(1), ~ignored[:, 0]
        label = target[:, 0].long()
        seen = label != (-1 if self.ignore_label is None else self.ignore_label)
        return functional.cross_entropy(logits, label * seen, reduction="none"), seen

    def mean(self, losses, seen):
        return (losses * seen).sum() / seen.sum().clamp(min=1)


class AVector(CrossEntropy):
    def mean(self, losses, seen):
        return super().mean(losses, seen).reshape(1)


class LogOfSoftmax(CrossEntropy):
    def voxels(self, logits, target):
        if self.regions:
            return super().voxels(logits, target)
        label = target[:, 0].long()
        seen = label != (-1 if self.ignore_label is None else self.ignore_label)
        truth = logits.softmax(1).gather(1, (label * seen)[:, None])[:, 0]
        return -truth.log(), seen


class SumsInFloat32(CrossEntropy):
    def loss(self, logits, target):
        sums = torch.zeros(1).scatter_add(0, torch.zeros(logits.numel(), dtype=int), logits.ravel())
        return super().loss(logits, target) + 0 * sums.sum()


class MeanOfForeground(CrossEntropy):
    def mean(self, losses, seen):
        return super().mean(losses, seen) + self.foreground(losses, seen)

    def foreground(self, losses, seen):
        chosen = losses[self.inside & (seen > 0)]
        return chosen.mean()

    def voxels(self, logits, target):
        self.inside = target[:, 0] > 0
        return super().voxels(logits, target)


class MeanOfDifferences(CrossEntropy):
    def mean(self, losses, seen):
        return super().mean(losses, seen) + 0 * losses.diff(dim=1).mean()


class Negative(CrossEntropy):
    def loss(self, logits, target):
        return super().loss(-logits, target) if not self.regions else super().loss(logits, target)


class OtherRegions(CrossEntropy):
    def loss(self, logits, target):
        if not self.regions:
            return super().loss(logits, target)
        maps = torch.cat([~target[:, :2], target[:, 2:]], dim=1)
        return super().loss(logits, maps)


class Detached(CrossEntropy):
    def loss(self, logits, target):
        return super().loss(logits.detach(), target) + 0 * logits.sum()


class IgnoredIsBackground(CrossEntropy):
    def voxels(self, logits, target):
        losses, seen = super().voxels(logits, target)
        return losses, torch.ones_like(seen)


class BatchIsSummed(CrossEntropy):
    def mean(self, losses, seen):
        return super().mean(losses, seen) * (losses[0].numel() if self.batch_dice else 1)


class ClearsIgnored(CrossEntropy):
    def voxels(self, logits, target):
        losses, seen = super().voxels(logits, target)
        if self.ignore_label is not None and not self.regions:
            target[target == self.ignore_label] = 0
        return losses, seen


class WithTruth(DefaultPreprocessor):
    """Its arrays are the label map, and where nothing is ignored."""

    def prepare(self, case, configuration, foreground=()):
        prepared = super().prepare(case, configuration, foreground)
        truth = ExtraArray(prepared.label[None].astype(np.int16), "label")
        seen = ExtraArray((prepared.label != 3)[None].astype(np.float32), "image")
        maps = [np.isin(prepared.label, values) for values in case.labels.regions or [(1, 2)]]
        regions = ExtraArray(np.stack(maps).astype(np.int16), "label")
        assert case.labels.ignore == 3 or case.label.max() < 3
        return replace(prepared, arrays={"truth": truth, "seen": seen, "regions": regions})


class ComparesWithArrays(CrossEntropy):
    """A right one that knows the truth from its arrays."""

    arrays = ("truth", "seen", "regions")

    def loss(self, logits, target, arrays):
        truth = arrays["truth"]
        given = [(truth == 1) | (truth == 2), truth == 2, truth == 3][: target.shape[1]]
        assert target.equal(torch.cat(given, 1) if self.regions else truth.to(target.dtype))
        assert arrays["seen"].dtype == torch.float32
        if self.regions:
            assert arrays["regions"].bool().equal(target[:, :2])
        return super().loss(logits, target)


WRONG = {
    AVector: "loss_is_a_finite_number",
    LogOfSoftmax: "loss_is_finite_for_certain_logits",
    SumsInFloat32: "loss_is_finite_in_bfloat16",
    MeanOfForeground: "loss_copes_with_absent_labels",
    MeanOfDifferences: "loss_takes_coarse_resolutions",
    Negative: "loss_prefers_better_predictions",
    OtherRegions: "loss_prefers_better_regions",
    Detached: "loss_falls_along_its_gradient",
    IgnoredIsBackground: "loss_has_no_gradient_where_ignored",
    BatchIsSummed: "loss_of_one_sample_knows_no_batch",
    ClearsIgnored: "loss_leaves_its_input",
}


def test_a_right_loss_passes_every_check():
    assert failures("loss", CrossEntropy) == {}


def test_a_loss_gets_the_arrays_of_the_preprocessor_that_is_its_partner():
    partner = f"{__name__}:WithTruth"
    assert failures("loss", ComparesWithArrays, preprocessor=partner) == {}


def test_a_loss_without_its_arrays_is_not_judged():
    row = outcomes("loss", ComparesWithArrays)["loss_is_a_finite_number"]
    assert (row.outcome, "'truth'" in row.message) == ("skipped", True)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_loss_fails_the_check_that_names_its_fault(wrong):
    assert set(failures("loss", wrong)) == {WRONG[wrong]}


def test_every_check_of_losses_has_a_loss_that_fails_it():
    assert own_checks("loss") == set(WRONG.values())
