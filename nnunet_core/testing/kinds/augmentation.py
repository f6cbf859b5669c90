"""Checks of augmentations: what they do to images, labels and whatever else moves with them."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_core.contracts.abilities import AugmentsTensors, Mirrors, ability
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization
from nnunet_core.errors import UsageError
from nnunet_core.testing.check import Subject, check, require, skip

if TYPE_CHECKING:
    from nnunet_core.contracts.augmentation import Augmentation

_CHANNELS = 2
_LABELS = (0, 1, 2)
#: {what a network sees: (patch in voxels, whether only planes are transformed)}.
_PATCHES = {
    "volumes": ((16, 20, 18), False),
    "thick slices": ((6, 24, 20), True),
    "planes": ((28, 24), False),
}
_SEEDS = range(10)
_RELATED = 0.3  # correlation of an image with its label, whatever was done to its intensities
_MOST = 0.8  # share of the patches: some steps may cover an object, or turn it out of the patch

Batch = dict[str, Any]


@check("augmentation")
def augmentation_makes_the_patch_of_the_network(subject: Subject) -> None:
    """Images and label have the network's patch, images are float32 and label maps integers, in
    volumes, thick slices and planes.
    """
    for what, configuration in _configurations():
        component = subject.build()
        size, patch = _generator_size(component, configuration), configuration.patch_size
        require(
            len(size) == len(patch) and all(s >= p for s, p in zip(size, patch, strict=True)),
            f"The patches to cut ({what}) are {size}; the network's patch is {patch}, and no axis "
            "may be shorter.",
        )
        batch = _batch(component, configuration, samples=2)
        found = _augmented(component, batch, configuration, 0)
        shapes = {"images": (2, _CHANNELS, *patch), "label": (2, 1, *patch)}
        for key, shape in shapes.items():
            require(
                key in found and tuple(found[key].shape) == shape,
                f"For a patch {patch} ({what}) `{key}` is {_form(found.get(key))}; it must have "
                f"the shape {shape}.",
            )
        require(
            found["images"].dtype == np.float32 and found["label"].dtype.kind in "iu",
            f"Images are {found['images'].dtype} and labels {found['label'].dtype}; they must be "
            "float32 and integers.",
        )


@check("augmentation")
def augmentation_makes_no_new_labels(subject: Subject) -> None:
    """Every label was there before; -1, outside of the image, became 0. Labels are never
    interpolated.
    """
    for what, configuration in _configurations():
        component = subject.build()
        for seed in _SEEDS:
            batch = _batch(component, configuration)
            label = 2 * (batch["label"] > 0).astype(np.int16)  # no 1, which lies between 0 and 2
            label[..., :3] = -1
            found = _augmented(component, {**batch, "label": label}, configuration, seed)
            values = np.unique(found["label"]).tolist()
            require(
                set(values) <= {0, 2},
                f"Of labels -1, 0 and 2 ({what}, seed {seed}) it makes {values}; only 0 and 2 may "
                "be left.",
            )


@check("augmentation")
def augmentation_moves_labels_with_images(subject: Subject) -> None:
    """An image that equals its label still does after the augmentation, up to its intensities."""
    for what, configuration in _configurations():
        component = subject.build()
        related = []
        for seed in _SEEDS:
            batch = _batch(component, configuration)
            found = _augmented(component, batch, configuration, seed)
            related.append(_correlation(found["images"][0, 0], found["label"][0, 0]))
        _require_related(related, f"images and their labels ({what})", _MOST)


@check("augmentation")
def augmentation_moves_arrays_with_labels(subject: Subject) -> None:
    """Extra arrays move as the label does: like labels, voxel for voxel; like images, interpolated
    and with their intensities as they are.
    """
    for what, configuration in _configurations():
        component = subject.build()
        related = []
        for seed in _SEEDS:
            batch = _batch(component, configuration)
            label = batch["label"]
            given = {"copy": label.copy(), "smooth": label.astype(np.float32)}
            batch |= {"arrays": given, "like": {"copy": "label", "smooth": "image"}}
            try:
                found = _augmented(component, batch, configuration, seed)
            except UsageError as refused:
                skip(f"It refuses extra arrays: {refused}")
            arrays = found.get("arrays") or {}
            require(
                set(arrays) == set(given),
                f"Of the extra arrays {sorted(given)} are left {sorted(arrays)} ({what}); all have "
                "to stay.",
            )
            other = np.mean(arrays["copy"] != found["label"])
            require(
                other == 0,
                f"An extra array like a label, equal to it before, differs in {other:.1%} of the "
                f"voxels afterwards ({what}, seed {seed}).",
            )
            low, high = float(arrays["smooth"].min()), float(arrays["smooth"].max())
            require(
                low >= -1 and high <= 3,
                f"An extra array like an image has values from {low:.3g} to {high:.3g} ({what}, "
                f"seed {seed}); before, they were 0 to 2: only its place may change.",
            )
            related.append(_correlation(arrays["smooth"][0, 0], found["label"][0, 0]))
        _require_related(related, f"extra arrays like images and the labels ({what})", 0.95)


@check("augmentation")
def augmentation_makes_channels_of_the_previous_stage(subject: Subject) -> None:
    """In a cascade, the label map of the previous stage becomes a channel of 0 and 1 for each of
    its classes, that moves with the image.
    """
    for what, plain in _configurations():
        classes = len(_LABELS) - 1
        configuration = _with_channels(plain, _CHANNELS + classes)
        component, related = subject.build(), []
        for seed in _SEEDS:
            batch = _batch(component, configuration)
            batch["previous"] = batch["label"].astype(np.int16)
            found = _augmented(component, batch, configuration, seed)
            shape = (1, _CHANNELS + classes, *configuration.patch_size)
            require(
                tuple(found["images"].shape) == shape,
                f"With a previous stage of {classes} classes the images are "
                f"{_form(found['images'])} ({what}); they must be {shape}.",
            )
            channels = found["images"][0, _CHANNELS:]
            require(
                np.isin(channels, (0, 1)).all(),
                f"The channels of the previous stage have values other than 0 and 1 ({what}).",
            )
            related.append(_correlation(channels[0], found["label"][0, 0] == 1))
        # half of the patches: a previous stage is made wrong on purpose in some
        _require_related(related, f"the previous stage and the labels ({what})", 0.5)


@check("augmentation")
def augmentation_follows_its_seed(subject: Subject) -> None:
    """Equal seeds make equal patches, whatever was drawn before and by whom."""
    for what, configuration in _configurations():
        component = subject.build()
        for seed in _SEEDS[:3]:
            batch = _batch(component, configuration)
            first = _augmented(component, batch, configuration, seed)
            _disturb(seed)
            _augmented(component, batch, configuration, seed + 1)
            again = _augmented(component, batch, configuration, seed)
            other = _augmented(subject.build(), batch, configuration, seed)
            for key in ("images", "label"):
                same = np.array_equal(first[key], again[key]) and np.array_equal(
                    first[key], other[key]
                )
                require(
                    same,
                    f"With the seed {seed} the {key} are others the second time ({what}). Draw "
                    "everything from a generator that is made of the seed, and keep nothing.",
                )


@check("augmentation")
def augmentation_keeps_intensities_bounded(subject: Subject) -> None:
    """Of noise with a deviation of 1, and of constant patches, it makes finite images below 100."""
    for what, configuration in _configurations():
        component = subject.build()
        for seed in _SEEDS[:5]:
            noise = _batch(component, configuration)
            shape = noise["images"].shape
            normal = np.random.default_rng(seed).standard_normal(shape, np.float32)
            for name, images in (
                ("noise", normal),
                ("zeros", normal * 0),
                ("ones", normal * 0 + 1),
            ):
                found = _augmented(component, {**noise, "images": images}, configuration, seed)
                highest = float(np.abs(found["images"]).max())
                require(
                    highest < 100,  # false for NaN
                    f"Of {name} ({what}, seed {seed}) it makes intensities of up to {highest:.3g}; "
                    "they must be finite and below 100.",
                )


@check("augmentation")
def augmentation_mirrors_axes_that_exist(subject: Subject) -> None:
    """The axes that it says it mirrors are axes of the patch, each once."""
    component = subject.build()
    mirrors = ability(component, Mirrors)
    if mirrors is None:
        skip("It has no `mirrored_axes`.")
    for what, configuration in _configurations():
        axes = mirrors.mirrored_axes(configuration)
        possible = range(configuration.dimensions)
        require(
            isinstance(axes, tuple) and len(set(axes)) == len(axes) and set(axes) <= set(possible),
            f"The mirrored axes of {what} are {axes!r}; they must be a tuple of different axes out "
            f"of {tuple(possible)}.",
        )


def _configurations() -> Iterator[tuple[str, Configuration]]:
    for what, (patch, planes_alone) in _PATCHES.items():
        yield what, _configuration(patch, planes_alone)


@functools.cache
def _configuration(patch: tuple[int, ...], planes_alone: bool) -> Configuration:
    dimensions: Any = len(patch)
    return Configuration(
        preprocessor="builtin/default",
        transpose_forward=(0, 1, 2),
        spacing=(1.0, 1.0, 1.0),
        median_shape=(40, 40, 40),
        patch_size=patch,
        batch_size=2,
        network=NetworkSpec(
            dimensions=dimensions,
            input_channels=_CHANNELS,
            output_channels=len(_LABELS),
            pool_kernels=((2,) * dimensions,),
            conv_kernels=((3,) * dimensions,) * 2,
        ),
        dummy_2d_augmentation=planes_alone,
        batch_dice=False,
        normalization=(Normalization(scheme="zscore"),) * _CHANNELS,
    )


def _with_channels(configuration: Configuration, channels: int) -> Configuration:
    network = configuration.network.model_copy(update={"input_channels": channels})
    return configuration.model_copy(update={"network": network, "previous": "3d_lowres"})


def _generator_size(component: Augmentation, configuration: Configuration) -> tuple[int, ...]:
    size = component.generator_patch_size(configuration)
    require(
        isinstance(size, tuple | list) and all(isinstance(n, int | np.integer) for n in size),
        f"generator_patch_size returns {size!r}; it must be a tuple of whole numbers, voxels.",
    )
    return tuple(int(n) for n in size)


def _batch(component: Augmentation, configuration: Configuration, samples: int = 1) -> Batch:
    """Return a batch of the generator's patches whose images equal their label: a box on one side
    of the centre, so that it lies elsewhere when it is mirrored, with another one in it.
    """
    size, patch = _generator_size(component, configuration), configuration.patch_size
    label = np.zeros((samples, 1, *size), np.int16)
    outer: list[Any] = [slice(None), 0]
    inner: list[Any] = [slice(None), 0]
    for whole, part in zip(size, patch, strict=True):
        first = (whole - part) // 2 + part // 12
        outer.append(slice(first, first + part * 3 // 8))
        inner.append(slice(first, first + part * 3 // 16))
    label[tuple(outer)] = 1
    label[tuple(inner)] = 2
    images = np.repeat(label.astype(np.float32), _CHANNELS, axis=1)
    return {"images": images, "label": label}


def _augmented(
    component: Augmentation, batch: Mapping[str, Any], configuration: Configuration, seed: int
) -> Batch:
    """Return the batch after the augmentation, as arrays; what works on tensors gets tensors."""
    given = {key: _each(np.copy, value) if key != "like" else value for key, value in batch.items()}
    on_tensors = ability(component, AugmentsTensors)
    if on_tensors is None:
        return dict(component.augment(given, configuration, seed))
    import torch

    tensors = {k: _each(torch.from_numpy, v) if k != "like" else v for k, v in given.items()}
    found = on_tensors.augment_tensors(tensors, configuration, seed)
    return {k: _each(_as_array, v) for k, v in found.items() if k != "like"}


def _each(function: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: function(array) for name, array in value.items()}
    return function(value)


def _as_array(value: Any) -> Any:
    return value.numpy() if hasattr(value, "numpy") else value


def _disturb(seed: int) -> None:
    """Leave the generators that a process shares in another state."""
    import torch

    random.seed(1000 + seed)
    np.random.seed(1000 + seed)
    torch.manual_seed(1000 + seed)


def _correlation(image: np.ndarray, label: np.ndarray) -> float:
    """Return how much an image is its label, from -1 to 1; 1 where there is nothing to compare."""
    if image.std() < 1e-6 or label.std() < 1e-6:
        return 1.0
    return float(np.corrcoef(image.ravel(), label.ravel())[0, 1])


def _require_related(related: list[float], what: str, least: float) -> None:
    """Raise CheckError unless a share of correlations is high; an inverted image is related,
    too.
    """
    share = float(np.mean(np.abs(related) >= _RELATED))
    require(
        share >= least,
        f"After the augmentation only {share:.0%} of {what} lie at the same place; before, they "
        f"were equal. At least {least:.0%} must: transform both by what was drawn once.",
    )


def _form(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if hasattr(value, "shape") else repr(value)
