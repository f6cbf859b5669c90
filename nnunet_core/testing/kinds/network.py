"""Checks of networks: shapes, gradients, weights, and what planners are told."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nnunet_core.contracts.abilities import ChangesGraph, ability
from nnunet_core.contracts.network import DeepSupervision, divisor_of
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import UsageError
from nnunet_core.testing.check import Subject, check, require, skip

if TYPE_CHECKING:
    import torch

_CHANNELS, _CLASSES = 2, 3
_LEAST = 8  # voxels per axis that every patch has at least


@check("network")
def network_returns_logits_of_the_patch(subject: Subject) -> None:
    """The first logits have the shape (B, classes, *patch), further ones that of every n-th voxel;
    in 2D and 3D, in training and in evaluation.
    """
    import torch

    for spec, patch in _cases(subject):
        network = _built(subject, spec)
        for training in (True, False):
            with torch.no_grad():
                heads = _heads(network.train(training)(_images(patch)))
            shapes = [tuple(head.shape) for head in heads]
            full = (2, _CLASSES, *patch)
            require(
                shapes and shapes[0] == full,
                f"For a patch {patch} the network returns logits {shapes or 'of no shape'}; the "
                f"first must be {full}.",
            )
            for shape in shapes:
                require(
                    shape[:2] == full[:2] and _divides(shape[2:], patch),
                    f"For a patch {patch} the network returns logits {shape}; further ones must "
                    f"be {full[:2]} and a resolution of every n-th voxel of the patch.",
                )


@check("network")
def network_has_finite_logits(subject: Subject) -> None:
    """The logits of noise, of zeros and of large intensities are finite; in evaluation, too."""
    import torch

    for spec, patch in _cases(subject):
        network, noise = _built(subject, spec), _images(patch)
        kinds = {"noise": noise, "zeros": noise * 0, "intensities of 1000": noise * 1000}
        for name, images in kinds.items():
            for training in (True, False):
                with torch.no_grad():
                    heads = _heads(network.train(training)(images))
                require(
                    all(torch.isfinite(head).all().item() for head in heads),
                    f"The network returns logits that are not finite for {name}, patch {patch}.",
                )


@check("network")
def network_learns_with_every_parameter(subject: Subject) -> None:
    """Every parameter that requires a gradient gets a finite one."""
    import torch

    for spec, patch in _cases(subject):
        network = _built(subject, spec).train()
        generator = torch.Generator().manual_seed(1)
        heads = _heads(network(_images(patch)))
        weights = [torch.randn(head.shape, generator=generator) for head in heads]
        pairs = zip(heads, weights, strict=True)
        torch.stack([(head * weight).sum() for head, weight in pairs]).sum().backward()
        wanted = {n: p.grad for n, p in network.named_parameters() if p.requires_grad}
        changes = ability(network, ChangesGraph)
        if changes is None or not changes.graph_changes:
            unused = [name for name, gradient in wanted.items() if gradient is None]
            require(
                not unused,
                f"No logit depends on the parameters {_few(unused)}. Remove them; or where other "
                "batches use them, say so with `graph_changes = True`.",
            )
        infinite = [n for n, g in wanted.items() if g is not None and not torch.isfinite(g).all()]
        require(not infinite, f"The gradients of {_few(infinite)} are not finite, patch {patch}.")


@check("network")
def network_sees_every_channel(subject: Subject) -> None:
    """The logits depend on every input channel."""
    import torch

    for spec, patch in _cases(subject):
        network = _built(subject, spec).eval()
        images = _images(patch)
        with torch.no_grad():
            before = _heads(network(images))[0]
            for channel in range(_CHANNELS):
                other = images.clone()
                other[:, channel] = other[:, channel].flip(-1)
                require(
                    not torch.equal(before, _heads(network(other))[0]),
                    f"The logits stay the same whatever is in channel {channel} of "
                    f"{_CHANNELS} channels.",
                )


@check("network")
def network_treats_samples_apart(subject: Subject) -> None:
    """In evaluation, equal images have equal logits, whatever else is in the batch."""
    import torch

    for spec, patch in _cases(subject):
        network = _built(subject, spec).eval()
        images = _images(patch)
        with torch.no_grad():
            both = _heads(network(images))[0][:1]
            for what, found in (
                ("in a batch and alone", _heads(network(images[:1]))[0]),
                ("one time and the next", _heads(network(images))[0][:1]),
            ):
                # instance norms of few voxels make much of rounding, which differs with the batch
                require(
                    torch.allclose(both, found, rtol=1e-2, atol=1e-2),
                    f"In evaluation an image has other logits {what}: they differ by up to "
                    f"{float((both - found).abs().max()):.3g}. Prediction joins images at will.",
                )


@check("network")
def network_follows_the_seed(subject: Subject) -> None:
    """Equal seeds make equal weights, other seeds others."""
    for spec, _ in _cases(subject):
        first, again, other = (_weights(_built(subject, spec, seed)) for seed in (1, 1, 2))
        changed = [name for name in first if not first[name].equal(again[name])]
        require(
            not changed,
            f"Built twice with torch.manual_seed(1), the weights {_few(changed)} differ. Draw them "
            "with PyTorch's generator.",
        )
        require(
            any(not first[name].equal(other[name]) for name in first),
            "The weights are the same after torch.manual_seed(1) and (2): folds would start alike. "
            "Do not seed in `build`.",
        )


@check("network")
def network_is_its_state(subject: Subject) -> None:
    """A network with the stored weights of another one returns what that one returns."""
    import torch
    from safetensors.torch import load_file, save_file

    for spec, patch in _cases(subject):
        one, other = _built(subject, spec, 1), _built(subject, spec, 2)
        with torch.no_grad():
            one.train()(_images(patch))  # so that running averages are no longer at their start
        path = subject.folder / "weights.safetensors"
        stored = {n: t.detach().clone().contiguous() for n, t in one.state_dict().items()}
        save_file(stored, path)
        other.load_state_dict(load_file(path))
        with torch.no_grad():
            wanted, found = (_heads(n.eval()(_images(patch)))[0] for n in (one, other))
        require(
            torch.allclose(wanted, found, rtol=1e-4, atol=1e-5),
            "A network that loads the state dict of another one returns other logits, by up to "
            f"{float((wanted - found).abs().max()):.3g}: something is in no parameter and no "
            "buffer.",
        )


@check("network")
def network_can_leave_out_resolutions(subject: Subject) -> None:
    """With `deep_supervision = False` it returns one tensor, the first of what it returned
    before.
    """
    import torch

    for spec, patch in _cases(subject):
        network = _built(subject, spec).eval()
        able = ability(network, DeepSupervision)
        if able is None:
            skip("It has no `deep_supervision`.")
        with torch.no_grad():
            before = _heads(network(_images(patch)))[0]
            able.deep_supervision = False
            alone = network(_images(patch))
        require(
            isinstance(alone, torch.Tensor) and torch.allclose(before, alone, atol=1e-5),
            "With deep_supervision = False the network must return one tensor, the logits of the "
            f"full resolution; it returns {_described(alone)}.",
        )


@check("network")
def network_keeps_its_divisor(subject: Subject) -> None:
    """`divisor` has a positive whole number for each axis, and patches of odd multiples of it
    work.
    """
    import torch

    for spec, patch in _cases(subject):
        divisor = divisor_of(subject.build(), spec)
        for axis in range(spec.dimensions):
            odd = list(patch)
            odd[axis] = divisor[axis] * _odd(patch[axis] // divisor[axis])
            network = _built(subject, _with_patch(spec, odd)).eval()
            with torch.no_grad():
                shape = tuple(_heads(network(_images(odd)))[0].shape)
            require(
                shape == (2, _CLASSES, *odd),
                f"The divisor is {divisor}, but for a patch {tuple(odd)} the logits are {shape}.",
            )


@check("network")
def network_memory_rises_with_the_patch(subject: Subject) -> None:
    """`memory` is a number of bytes that rises with the patch along every axis, and covers at least
    the patch itself.
    """
    for spec, patch in _cases(subject):
        builder = subject.build()
        memory = builder.memory(spec, patch)
        least = 4 * math.prod(patch) * (_CHANNELS + _CLASSES)  # image and logits in float32
        require(
            isinstance(memory, int | float) and math.isfinite(memory) and memory >= least,
            f"The memory for a patch {patch} is {memory!r}; it must be a number of bytes, at least "
            f"the {least} of images and logits.",
        )
        for axis in range(spec.dimensions):
            larger = list(patch)
            larger[axis] *= 2
            more = builder.memory(_with_patch(spec, larger), larger)
            require(
                more > memory,
                f"The memory for a patch {patch} is {memory:.0f} bytes, and {more:.0f} for "
                f"{tuple(larger)}; it must rise, or planners never stop growing patches.",
            )


def _cases(subject: Subject) -> Iterator[tuple[NetworkSpec, tuple[int, ...]]]:
    """Yield (spec, patch) for 2D and for 3D, of those that the builder takes."""
    refused = ""
    taken = 0
    for dimensions in (2, 3):
        spec = _spec(dimensions)
        try:
            builder = subject.build()
            patch = least_patch(divisor_of(builder, spec))
            spec = _with_patch(spec, patch)
            builder.build(spec)
        except UsageError as error:
            refused = str(error)
            continue
        taken += 1
        yield spec, patch
    require(taken, f"The network can be built neither in 2D nor in 3D: {refused}")


def least_patch(divisor: Sequence[int]) -> tuple[int, ...]:
    """Return a small patch, voxels, that leaves two at the coarsest resolution: norms need them."""
    first = [n * math.ceil(_LEAST / n) for n in divisor[:-1]]
    return *first, divisor[-1] * max(2, math.ceil(_LEAST / divisor[-1]))


@functools.cache
def _spec(dimensions: int) -> NetworkSpec:
    return NetworkSpec(
        dimensions=dimensions,  # type: ignore[arg-type]
        input_channels=_CHANNELS,
        output_channels=_CLASSES,
        pool_kernels=((2,) * dimensions,) * 2,
        conv_kernels=((3,) * dimensions,) * 3,
        base_features=8,
        max_features=16,
    )


def _with_patch(spec: NetworkSpec, patch: Sequence[int]) -> NetworkSpec:
    return spec.model_copy(update={"patch_size": tuple(patch)})


def _built(subject: Subject, spec: NetworkSpec, seed: int = 0) -> torch.nn.Module:
    import torch

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = subject.build().build(spec)
    require(
        isinstance(network, torch.nn.Module),
        f"`build` returns {_described(network)}; it must return a torch.nn.Module.",
    )
    return network


@functools.cache
def _noise(patch: tuple[int, ...]) -> torch.Tensor:
    import torch

    return torch.randn(2, _CHANNELS, *patch, generator=torch.Generator().manual_seed(0))


def _images(patch: Sequence[int]) -> torch.Tensor:
    """Return two images of noise (2, channels, *patch)."""
    return _noise(tuple(patch)).clone()


def _heads(returned: Any) -> list[torch.Tensor]:
    """Return logits as a list, full resolution first."""
    import torch

    heads = list(returned) if isinstance(returned, list | tuple) else [returned]
    require(
        heads and all(isinstance(head, torch.Tensor) for head in heads),
        f"The network returns {_described(returned)}; it must return logits, or a list or tuple of "
        "logits.",
    )
    return heads


def _weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in network.named_parameters()}


def _divides(shape: Sequence[int], patch: Sequence[int]) -> bool:
    return len(shape) == len(patch) and all(
        0 < size <= whole and whole % size == 0 for size, whole in zip(shape, patch, strict=True)
    )


def _odd(count: int) -> int:
    return count + 1 if count % 2 == 0 else count + 2


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _described(value: object) -> str:
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + ("" if shape is None else f" {tuple(shape)}")
