"""Checks of losses: numbers, gradients, and what they mean, for classes and for regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nnunet_core.contracts.abilities import ChangesWithEpochs, UsesArrays, ability
from nnunet_core.data.cases import Case
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.errors import UsageError
from nnunet_core.testing.check import CheckError, Subject, check, require, skip

if TYPE_CHECKING:
    import torch

_CLASSES, _REGIONS, _IGNORE = 3, 2, 3
_SURE = 8.0  # logit of a confident network
_PLANE, _VOLUME = (8, 7), (4, 6, 5)


@dataclass(frozen=True)
class _Labels:
    """What the labels of a batch are: classes or regions, with an ignore label or without."""

    regions: bool = False
    ignore: bool = False

    @property
    def outputs(self) -> int:
        return _REGIONS if self.regions else _CLASSES

    def meaning(self) -> Labels:
        """Return what a dataset says of them."""
        names: dict[str, object] = {"background": 0, "one": 1, "two": 2}
        if self.regions:
            names = {"background": 0, "whole": [1, 2], "core": [2]}
        if self.ignore:
            names["ignore"] = _IGNORE
        return Labels.from_names(names, [1, 2] if self.regions else None)

    def __str__(self) -> str:
        what = "regions" if self.regions else "classes"
        return f"{what} with an ignore label" if self.ignore else what


_ALL = tuple(_Labels(regions, ignore) for regions in (False, True) for ignore in (False, True))


@check("loss")
def loss_is_a_finite_number(subject: Subject) -> None:
    """The loss of a batch is one finite floating-point number, in 2D and 3D, for every kind of
    labels that it takes.
    """
    import torch

    for labels, loss in _losses(subject):
        for spatial in (_PLANE, _VOLUME):
            value = loss(_random(labels, spatial), _truth(labels, spatial))
            shape = (2, labels.outputs, *spatial)
            require(
                isinstance(value, torch.Tensor) and value.ndim == 0 and value.is_floating_point(),
                f"The loss of {labels}, logits {shape}, is {_told(value)}; it must be a scalar of "
                "floating point.",
            )
            require(
                torch.isfinite(value).item(),
                f"The loss of random logits {shape} of {labels} is {float(value)}; it must be "
                "finite.",
            )


@check("loss")
def loss_is_finite_for_certain_logits(subject: Subject) -> None:
    """Loss and gradient are finite where the network is certain, right or wrong (logits of 200)."""
    for labels, loss in _losses(subject):
        truth = _truth(labels, _VOLUME)
        for sign in (1, -1):
            logits = _perfect(labels, truth) / _SURE * 200 * sign
            _require_finite(loss, logits, truth, f"certain logits of {labels}")


@check("loss")
def loss_is_finite_in_bfloat16(subject: Subject) -> None:
    """Loss and gradient of bfloat16 logits are finite, under autocast as in a training in mixed
    precision.
    """
    import torch

    for labels, loss in _losses(subject):
        logits, truth = _random(labels, _VOLUME).bfloat16(), _truth(labels, _VOLUME)
        with torch.autocast("cpu", torch.bfloat16):
            _require_finite(loss, logits, truth, f"bfloat16 logits of {labels}")


@check("loss")
def loss_copes_with_absent_labels(subject: Subject) -> None:
    """Loss and gradient are finite for a batch of background alone, and for one of ignored voxels
    alone.
    """
    for labels, loss in _losses(subject):
        _require_finite(
            loss,
            _random(labels, _VOLUME),
            _constant(labels, _VOLUME, ignored=False),
            f"a batch of background alone ({labels})",
        )
        if labels.ignore:
            _require_finite(
                loss,
                _random(labels, _VOLUME),
                _constant(labels, _VOLUME, ignored=True),
                "a batch in which every voxel is ignored",
            )


@check("loss")
def loss_takes_coarse_resolutions(subject: Subject) -> None:
    """Loss and gradient are finite at the coarsest resolutions of a network, down to one voxel
    along an axis.
    """
    for labels, loss in _losses(subject):
        for spatial in ((1, 2), (1, 2, 2), (1, 1, 1)):
            what = f"{labels} at a resolution of {spatial} voxels"
            _require_finite(loss, _random(labels, spatial), _truth(labels, spatial), what)


@check("loss")
def loss_prefers_better_predictions(subject: Subject) -> None:
    """The loss of a right prediction is lower than that of a random one, and this lower than that
    of a wrong one, for classes.
    """
    _require_order(subject, _Labels())


@check("loss")
def loss_prefers_better_regions(subject: Subject) -> None:
    """For regions, the loss of a right prediction is lower than that of a random one, and this
    lower than that of a wrong one.
    """
    _require_order(subject, _Labels(regions=True))


@check("loss")
def loss_falls_along_its_gradient(subject: Subject) -> None:
    """A small step against the gradient lowers the loss."""
    import torch

    for labels, loss in _losses(subject):
        truth = _truth(labels, _VOLUME)
        logits = _random(labels, _VOLUME)
        value, gradient = _gradient(loss, logits, truth)
        size = float(gradient.norm())
        require(
            size > 0, f"The gradient of {labels} is 0 for random logits; nothing would be learnt."
        )
        with torch.no_grad():
            after = loss(logits - 0.1 * gradient / size, truth)
        require(
            float(after) < float(value),
            f"A small step against the gradient takes the loss of {labels} from {float(value):.6g} "
            f"to {float(after):.6g}; it must fall.",
        )


@check("loss")
def loss_has_no_gradient_where_ignored(subject: Subject) -> None:
    """Voxels with the ignore label have no gradient and do not change the loss."""
    import torch

    found = [(labels, loss) for labels, loss in _losses(subject) if labels.ignore]
    if not found:
        skip("It refuses an ignore label.")
    for labels, loss in found:
        logits, truth = _random(labels, _VOLUME), _truth(labels, _VOLUME)
        ignored = (truth[:, -1:] if labels.regions else truth == _IGNORE).bool()
        value, gradient = _gradient(loss, logits, truth)
        there = gradient.masked_select(ignored)
        require(
            not there.any().item(),
            f"Ignored voxels have gradients of up to {float(there.abs().max()):.3g} ({labels}); "
            "they must be 0.",
        )
        with torch.no_grad():
            after = loss(torch.where(ignored, -logits, logits), truth)
        require(
            abs(float(after - value)) <= 1e-5 * max(1.0, abs(float(value))),
            f"The loss of {labels} goes from {float(value):.6g} to {float(after):.6g} when only "
            "logits of ignored voxels change; it must stay.",
        )


@check("loss")
def loss_of_one_sample_knows_no_batch(subject: Subject) -> None:
    """For a batch of one sample, `batch_dice` makes no difference."""
    for labels, one in _losses(subject, batch_dice=False):
        joined = _build(subject, labels, batch_dice=True)
        if joined is None:
            skip("It refuses batch_dice.")
        logits, truth = _random(labels, _VOLUME)[:1], _truth(labels, _VOLUME)[:1]
        alone, together = float(one(logits, truth)), float(joined(logits, truth))
        require(
            abs(alone - together) <= 1e-4 * max(1.0, abs(alone)),
            f"The loss of one sample ({labels}) is {alone:.6g} with batch_dice=False and "
            f"{together:.6g} with batch_dice=True; they must be equal: batch_dice joins samples.",
        )


@check("loss")
def loss_leaves_its_input(subject: Subject) -> None:
    """Logits and target are the same after the loss as before it."""
    for labels, loss in _losses(subject, careful=False):
        logits, truth = _random(labels, _VOLUME), _truth(labels, _VOLUME)
        before = logits.clone(), truth.clone()
        loss(logits, truth)
        for name, old, new in zip(("logits", "target"), before, (logits, truth), strict=True):
            require(
                old.equal(new),
                f"The loss changes the {name} of {labels} in place; other resolutions and metrics "
                "use them. Work on a copy.",
            )


_Loss = Callable[..., "torch.Tensor"]


def _losses(
    subject: Subject, batch_dice: bool = True, careful: bool = True
) -> Iterator[tuple[_Labels, _Loss]]:
    """Yield the loss of each kind of labels that the builder takes.

    Args:
        subject: The builder.
        batch_dice: Passed on.
        careful: Give each call copies of its arguments, so that one fault is found once.
    """
    found = False
    for labels in _ALL:
        loss = _build(subject, labels, batch_dice, careful)
        if loss is not None:
            found = True
            yield labels, loss
    require(found, "The loss refuses classes as well as regions; it must take one of them.")


def _build(
    subject: Subject, labels: _Labels, batch_dice: bool, careful: bool = True
) -> _Loss | None:
    """Return the loss for labels, before its first epoch; None where the builder refuses them."""
    builder = subject.build()
    ignore_label = _IGNORE if labels.ignore else None
    try:
        loss = builder.build(
            batch_dice=batch_dice, ignore_label=ignore_label, regions=labels.regions
        )
    except UsageError:
        return None
    changing = ability(loss, ChangesWithEpochs)
    if changing is not None:
        changing.set_epoch(0)
    using = ability(builder, UsesArrays)

    def compute(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        more = [] if using is None else [_arrays(subject, using.arrays, labels, target)]
        given = (logits.clone(), target.clone()) if careful else (logits, target)
        try:
            return loss(*given, *more)
        except Exception as error:
            raise CheckError(
                f"The loss of {labels} raises {type(error).__name__}: {error} (logits "
                f"{logits.dtype} {tuple(logits.shape)}). Where it is not for {labels}, `build` "
                "refuses them with UsageError."
            ) from error

    return compute


def _arrays(
    subject: Subject, names: Sequence[str], labels: _Labels, target: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the extra arrays {name: (B, K, *spatial)} that the partner of a loss prepares for a
    target.
    """
    import torch

    preprocessor, spatial = subject.other("preprocessor"), tuple(target.shape[2:])
    volume = tuple(_label_map(labels, target).shape[1:])
    plans = subject.toys.configuration("2d" if len(spatial) == 2 else "3d", spacing=(1, 1, 1))
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for label in _label_map(labels, target):
        images, meaning = np.ones((1, *volume), np.float32), labels.meaning()
        case = Case("sample", images, label, Geometry(volume), labels=meaning)
        prepared = preprocessor.prepare(case, plans, tuple(range(1, _CLASSES)))
        for name in names:
            if name not in prepared.arrays:
                skip(
                    f"It needs the extra array '{name}', which the preprocessor does not make. "
                    "Name one that does as its partner: --with preprocessor=..."
                )
            extra = prepared.arrays[name]
            array = extra.array.astype(np.float32 if extra.like == "image" else np.int16)
            found[name].append(torch.from_numpy(array).reshape(-1, *spatial))
    return {name: torch.stack(arrays) for name, arrays in found.items()}


def _label_map(labels: _Labels, target: torch.Tensor) -> np.ndarray:
    """Return the label maps (B, Z, Y, X) that a target was made of."""
    label = target[:, 0]
    if labels.regions:
        label = target[:, :_REGIONS].sum(dim=1)
        if labels.ignore:
            label = label.masked_fill(target[:, -1], _IGNORE)
    spatial = target.shape[2:]
    return label.reshape(len(label), *(1,) * (3 - len(spatial)), *spatial).numpy().astype(np.uint8)


def _truth(labels: _Labels, spatial: tuple[int, ...]) -> torch.Tensor:
    """Return a target of two samples: random labels, a quarter of them ignored if they may be."""
    import torch

    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, _CLASSES, (2, 1, *spatial), generator=generator)
    if labels.ignore:
        label[torch.rand(label.shape, generator=generator) < 0.25] = _IGNORE
    return _as_target(labels, label)


def _constant(labels: _Labels, spatial: tuple[int, ...], ignored: bool) -> torch.Tensor:
    """Return a target of background, or of ignored voxels."""
    import torch

    return _as_target(labels, torch.full((2, 1, *spatial), _IGNORE if ignored else 0))


def _as_target(labels: _Labels, label: torch.Tensor) -> torch.Tensor:
    """Return a label map (B, 1, *spatial) as the target of a loss: regions are {1, 2} and {2}."""
    import torch

    if not labels.regions:
        return label
    maps = [(label == 1) | (label == 2), label == 2]
    return torch.cat([*maps, label == _IGNORE] if labels.ignore else maps, dim=1)


def _random(labels: _Labels, spatial: tuple[int, ...]) -> torch.Tensor:
    """Return random logits of two samples."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, labels.outputs, *spatial, generator=generator)


def _perfect(labels: _Labels, truth: torch.Tensor) -> torch.Tensor:
    """Return the logits of a network that is right and sure of it."""
    import torch

    if labels.regions:
        return torch.where(truth[:, :_REGIONS], _SURE, -_SURE)
    values = torch.arange(_CLASSES).reshape(1, -1, *(1,) * (truth.ndim - 2))
    return torch.where(truth == values, _SURE, -_SURE)


def _gradient(
    loss: _Loss, logits: torch.Tensor, truth: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss, and its gradient for the logits; 0 where they do not matter."""
    import torch

    given = logits.clone().requires_grad_()
    value = loss(given, truth)
    if not value.requires_grad:
        return value, torch.zeros_like(logits)
    (gradient,) = torch.autograd.grad(value, given, allow_unused=True)
    return value.detach(), torch.zeros_like(logits) if gradient is None else gradient


def _told(value: object) -> str:
    """Return what a loss gave, in a few words."""
    import torch

    if not isinstance(value, torch.Tensor):
        return f"of type {type(value).__name__}"
    return f"a tensor of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"


def _require_finite(loss: _Loss, logits: torch.Tensor, truth: torch.Tensor, what: str) -> None:
    import torch

    value, gradient = _gradient(loss, logits, truth)
    require(
        torch.isfinite(value).all().item(),
        f"The loss of {what} is {value.tolist()}; it must be finite.",
    )
    require(
        torch.isfinite(gradient).all().item(),
        f"The gradient of {what} is not finite in {int((~torch.isfinite(gradient)).sum())} of "
        f"{gradient.numel()} places; it must be finite everywhere.",
    )


def _require_order(subject: Subject, labels: _Labels) -> None:
    """Raise CheckError unless right < random < wrong."""
    for batch_dice in (False, True):
        loss = _build(subject, labels, batch_dice)
        if loss is None:
            skip(f"It is not for {labels}.")
        truth = _truth(labels, _VOLUME)
        perfect = _perfect(labels, truth)
        values = [
            float(loss(logits, truth)) for logits in (perfect, _random(labels, _VOLUME), -perfect)
        ]
        require(
            values[0] < values[1] < values[2],
            f"The loss of {labels} is {values[0]:.4g} for a right prediction, {values[1]:.4g} for "
            f"a random one and {values[2]:.4g} for a wrong one (batch_dice={batch_dice}); they "
            "must rise.",
        )
