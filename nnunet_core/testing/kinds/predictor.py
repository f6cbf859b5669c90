"""Checks of predictors, with networks whose answer is known: single convolutions."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_core.contracts.predictor import Slabs, TrainedModel
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.labels import Labels
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization
from nnunet_core.store.models import WEIGHTS
from nnunet_core.testing.check import Subject, check, require, skip

if TYPE_CHECKING:
    import torch

_PATCHES = {3: (6, 8, 10), 2: (8, 10)}
_IMAGE = (13, 17, 15)  # more than one window along every axis, and no multiple of the patch
_CLASSES = Labels.from_names({"background": 0, "object": 1})
_REGIONS = Labels.from_names({"background": 0, "whole": [1, 2], "core": [2]}, order=[1, 2])
_GAIN = 2.0  # of the networks: a voxel of 1 has logits of -2 and 2


@check("predictor")
def predictor_returns_probabilities(subject: Subject) -> None:
    """Probabilities, or what `Slabs` makes of logits, have the shape of the image and are in [0,
    1]; those of classes add up to 1.
    """
    images = _noise(_IMAGE)
    for dimensions, labels in itertools.product((3, 2), (_CLASSES, _REGIONS)):
        found = _Model(subject, dimensions, labels).predict(images)
        what = f"{dimensions}D, {'regions' if labels.regions else 'classes'}"
        wanted = (labels.outputs, *_IMAGE)
        require(
            found.shape == wanted,
            f"Of an image {images.shape} come probabilities {found.shape} ({what}); they must be "
            f"{wanted}.",
        )
        require(
            bool(np.all((found >= -1e-5) & (found <= 1 + 1e-5))),
            f"Probabilities are from {found.min():.4g} to {found.max():.4g} ({what}); they must "
            "be from 0 to 1. Logits are returned as Slabs(..., values='logits').",
        )
        if not labels.regions:
            total = found.sum(axis=0)
            require(
                bool(np.allclose(total, 1, atol=1e-3)),
                f"The probabilities of the classes of a voxel add up to {total.min():.4f} to "
                f"{total.max():.4f} ({what}); they must add up to 1.",
            )


@check("predictor")
def predictor_covers_every_voxel(subject: Subject) -> None:
    """Every voxel of an image that is bright everywhere is found, whatever its size."""
    for dimensions in (3, 2):
        model = _Model(subject, dimensions)
        for shape in (_IMAGE, (6, 8, 10), (7, 30, 11)):
            found = model.predict(np.ones((1, *shape), np.float32))
            missed = int(np.count_nonzero(~(found[1] > 0.6)))
            require(
                missed == 0,
                f"{missed} of {found[1].size} voxels of an object that fills an image {shape} are "
                f"missed (patch {_PATCHES[dimensions]}).",
            )


@check("predictor")
def predictor_finds_things_where_they_are(subject: Subject) -> None:
    """What is bright within the slices is found there, voxel by voxel."""
    for dimensions in (3, 2):
        plane = np.random.default_rng(0).random(_IMAGE[1:]) < 0.5
        images = _signs(np.broadcast_to(plane, _IMAGE))
        found = _Model(subject, dimensions).predict(images)[1] > 0.5
        inner = (slice(1, -1),) * 3  # whether the border is covered is another check
        wrong = float(np.mean((found != plane)[inner]))
        require(
            wrong == 0,
            f"{wrong:.1%} of the voxels of a pattern within slices are wrong ({dimensions}D): it "
            "is moved, turned or smeared.",
        )


@check("predictor")
def predictor_gives_slices_in_order(subject: Subject) -> None:
    """Slices follow each other as in the image, and all of them; parts of `Slabs` are float32 (K,
    slices, *rest).
    """
    for dimensions in (3, 2):
        bright = np.random.default_rng(1).random(_IMAGE[0]) < 0.5
        images = _signs(np.broadcast_to(bright[:, None, None], _IMAGE))
        returned = _Model(subject, dimensions).apply(images)
        if isinstance(returned, Slabs):
            _require_parts(returned)
        found = _probabilities(returned, regions=False)[1].mean(axis=(1, 2)) > 0.5
        require(
            np.array_equal(found, bright),
            f"Of {_IMAGE[0]} slices, {_shown(bright)} are bright, and {_shown(found)} are found "
            f"({dimensions}D).",
        )


@check("predictor")
def predictor_takes_tiny_images(subject: Subject) -> None:
    """Images that are smaller than the patch along any axis keep their size, down to one voxel."""
    for dimensions in (3, 2):
        model = _Model(subject, dimensions)
        for shape in ((1, 1, 1), (1, 16, 10), (3, 8, 4), (12, 2, 20)):
            found = model.predict(np.ones((1, *shape), np.float32))
            require(
                found.shape == (2, *shape) and bool(np.all(found[1] > 0.5)),
                f"A bright image {shape} is found as {found.shape}, with probabilities from "
                f"{found[1].min(initial=1):.3f} (patch {_PATCHES[dimensions]}); it must be bright "
                "everywhere.",
            )


@check("predictor")
def predictor_gives_mirrored_images_mirrored_answers(subject: Subject) -> None:
    """Along an axis that it mirrors, a mirrored image has the mirrored probabilities."""
    for dimensions in (3, 2):
        images = _noise((1, *_PATCHES[2]) if dimensions == 2 else _PATCHES[3])
        for axis in range(dimensions):
            along = 1 + axis + (3 - dimensions)  # of (C, Z, Y, X)
            model = _Model(subject, dimensions, shifted=(axis,))
            plain, found = model.predict(images), model.mirroring().predict(images)
            if np.allclose(plain, found, atol=1e-4):
                continue  # it need not mirror
            again = np.flip(model.mirroring().predict(np.flip(images, along).copy()), along)
            require(
                np.allclose(found, again, atol=1e-3),
                f"Along axis {axis} of the patch ({dimensions}D) an image and its mirror image "
                f"have probabilities that differ by up to {np.abs(found - again).max():.3g} after "
                "they are mirrored back.",
            )


@check("predictor")
def predictor_mirrors_no_other_axes(subject: Subject) -> None:
    """Where training mirrored no axis, an image of one patch has the probabilities of the
    network.
    """
    import torch

    for dimensions in (3, 2):
        images = _noise((1, *_PATCHES[2]) if dimensions == 2 else _PATCHES[3])
        model = _Model(subject, dimensions, shifted=tuple(range(dimensions)))
        with torch.inference_mode():
            tile = torch.from_numpy(images.reshape(1, 1, *_PATCHES[dimensions]))
            wanted = model.network()(tile).softmax(1)[0].reshape(2, *images.shape[1:]).numpy()
        found = model.predict(images)
        require(
            np.allclose(found, wanted, atol=1e-2),
            f"The probabilities of an image of one patch differ from those of the network by up "
            f"to {np.abs(found - wanted).max():.3g}, although training mirrored no axis.",
        )


@check("predictor")
def predictor_does_the_same_again(subject: Subject) -> None:
    """An image has the same probabilities before another one and after it."""
    apply = _Model(subject).loaded()
    images = _noise(_IMAGE)
    first = _probabilities(apply(images.copy()), False).copy()
    _probabilities(apply(_noise((9, 20, 11), seed=1)), False)
    again = _probabilities(apply(images.copy()), False)
    require(
        np.array_equal(first, again),
        f"The second time an image has other probabilities, by up to "
        f"{np.abs(first - again).max():.3g}: something is left of another image.",
    )


@check("predictor")
def predictor_leaves_its_input(subject: Subject) -> None:
    """The image is the same afterwards."""
    for dimensions in (3, 2):
        images = _noise(_IMAGE)
        before = images.copy()
        _Model(subject, dimensions).predict(images, copied=False)
        require(np.array_equal(before, images), "It changes the image in place. Work on a copy.")


@check("predictor")
def predictor_needs_no_more_memory_than_it_may(subject: Subject) -> None:
    """With a limit that holds nothing it finds the same; and `Slabs` of a long image are never in
    memory as a whole.
    """
    images = _noise((160, 24, 24))
    returned = _Model(subject).apply(images)
    wanted = _probabilities(returned, regions=False)
    limited = _Model(subject, memory_gb=1e-6).predict(images)
    require(
        np.allclose(wanted, limited, atol=1e-4),
        "With memory_gb=1e-6 the probabilities are others, by up to "
        f"{np.abs(wanted - limited).max():.3g}.",
    )
    if not isinstance(returned, Slabs):
        skip("It returns the whole as one array, as it may.")
    most = _most_memory(_Model(subject).loaded(), images)
    require(
        most < wanted.nbytes / 2,
        f"While slabs of {wanted.nbytes} bytes are read one after the other, {most} bytes are in "
        "memory at once; parts that were read must be forgotten, later ones made when they are "
        "asked for.",
    )


@dataclass(frozen=True)
class _Convolution:
    """Builds a network of one convolution."""

    def build(self, spec: NetworkSpec) -> torch.nn.Module:
        import torch

        kind = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[spec.dimensions]
        return kind(spec.input_channels, spec.output_channels, 3, padding=1)

    def memory(self, spec: NetworkSpec, patch_size: Sequence[int]) -> float:
        return 4.0 * (spec.input_channels + spec.output_channels) * float(np.prod(patch_size))

    def divisor(self, spec: NetworkSpec) -> tuple[int, ...]:
        return (1,) * spec.dimensions


@dataclass(frozen=True)
class _Model:
    """A trained model whose network finds what is bright, and the predictor that applies it.

    Attributes:
        subject: The predictor.
        dimensions: 2 or 3.
        labels: One output is bright, the other one dark.
        shifted: Axes along which the network looks at the next voxel, not at the same one.
        memory_gb: Limit of the runtime.
        mirror_axes: Of the model.
    """

    subject: Subject = field(repr=False)
    dimensions: int = 3
    labels: Labels = _CLASSES
    shifted: tuple[int, ...] = ()
    memory_gb: float | None = None
    mirror_axes: tuple[int, ...] = ()

    def mirroring(self) -> _Model:
        """Return the same model, trained with mirroring along all axes."""
        return replace(self, mirror_axes=tuple(range(self.dimensions)))

    def predict(self, images: np.ndarray, copied: bool = True) -> np.ndarray:
        """Return probabilities float32 (K, *spatial)."""
        returned = self.apply(images, copied)
        return _probabilities(returned, bool(self.labels.regions))

    def apply(self, images: np.ndarray, copied: bool = True) -> np.ndarray | Slabs:
        """Return what the predictor returns."""
        return self.loaded()(images.copy() if copied else images)

    def loaded(self) -> Callable[[np.ndarray], np.ndarray | Slabs]:
        """Load the model."""
        return self.subject.build().load(self._trained())

    def network(self) -> torch.nn.Module:
        """Return the network with its weights."""
        network = _Convolution().build(self._spec())
        network.load_state_dict(self._weights())
        return network

    def _weights(self) -> Mapping[str, torch.Tensor]:
        import torch

        weight = torch.zeros(2, 1, *(3,) * self.dimensions)
        at = tuple(2 if axis in self.shifted else 1 for axis in range(self.dimensions))
        weight[(0, 0, *at)], weight[(1, 0, *at)] = -_GAIN, _GAIN
        return {"weight": weight, "bias": torch.zeros(2)}

    def _spec(self) -> NetworkSpec:
        dimensions: Any = self.dimensions
        return NetworkSpec(
            dimensions=dimensions,
            input_channels=1,
            output_channels=2,
            pool_kernels=(),
            conv_kernels=((3,) * dimensions,),
        )

    def _trained(self) -> TrainedModel:
        from safetensors.torch import save_file

        fold: Path = self.subject.folder / "fold_0"
        fold.mkdir(exist_ok=True)
        save_file(dict(self._weights()), fold / WEIGHTS)
        configuration = Configuration(
            preprocessor="builtin/default",
            transpose_forward=(0, 1, 2),
            spacing=(1.0, 1.0, 1.0),
            median_shape=_IMAGE,
            patch_size=_PATCHES[self.dimensions],
            batch_size=2,
            network=self._spec(),
            dummy_2d_augmentation=False,
            batch_dice=False,
            normalization=(Normalization(scheme="zscore"),),
        )
        runtime = Runtime("cpu", "float32", 0, 1, self.memory_gb)
        return TrainedModel(
            (fold,), configuration, self.labels, _Convolution(), runtime, self.mirror_axes
        )


def _probabilities(returned: np.ndarray | Slabs, regions: bool) -> np.ndarray:
    """Return what a predictor returned as probabilities float32 (K, *spatial)."""
    if isinstance(returned, Slabs):
        return returned.probabilities(returned.whole(), regions)
    require(
        isinstance(returned, np.ndarray) and returned.dtype == np.float32,
        f"The predictor returns {_form(returned)}; it must return Slabs or a float32 array.",
    )
    return returned


def _require_parts(slabs: Slabs) -> None:
    """Raise CheckError unless the parts are what `shape` says; they can be read again."""
    parts, shape = list(slabs), tuple(slabs.shape)
    for part in parts:
        fits = (
            isinstance(part, np.ndarray)
            and part.dtype == np.float32
            and (part.shape[0], *part.shape[2:]) == (shape[0], *shape[2:])
        )
        require(
            fits,
            f"A part of Slabs of the shape {shape} is {_form(part)}; it must be float32 "
            f"({shape[0]}, slices, {', '.join(map(str, shape[2:]))}).",
        )
    slices = sum(part.shape[1] for part in parts)
    require(slices == shape[1], f"The parts of Slabs have {slices} of {shape[1]} slices.")
    slabs.parts = parts


def _most_memory(apply: Callable[[np.ndarray], Any], images: np.ndarray) -> int:
    """Return the bytes of arrays that are in memory at once while slabs are made and read."""
    tracemalloc.start()
    try:
        for _ in apply(images):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _noise(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return an image (1, *shape) of noise."""
    return np.random.default_rng(seed).standard_normal((1, *shape), np.float32)


def _signs(bright: np.ndarray) -> np.ndarray:
    """Return an image (1, *shape) of 1 where it is bright, else -1."""
    return np.where(bright, 1, -1).astype(np.float32)[None]


def _shown(slices: np.ndarray) -> str:
    return ", ".join(map(str, np.flatnonzero(slices)))


def _form(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else repr(value)
