"""An augmentation: an ordered tuple of steps, which settings extend and reorder."""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nnunet_builtin.augmentation.cascade import foreground_classes, one_hot
from nnunet_builtin.augmentation.references import StepEntry, built, name_of
from nnunet_core.contracts.augmentation import Sample, Step
from nnunet_core.errors import SettingsError, UsageError, nearest

if TYPE_CHECKING:
    from nnunet_core.data.plans import Configuration

#: The place before the first step, for `extra_steps`.
START = "start"


@dataclass(frozen=True)
class Pipeline(ABC):
    """Steps that are drawn and applied one after the other, each sample with one random generator.

    Args:
        steps: Their order, by short name or as `package.module:Class`, with settings
            `{"package.module:Class": {...}}`; null is the default order.
        extra_steps: Further steps after a step of that name, or at the `start`: `{"noise":
            ["package.module:Class"]}`.
    """

    steps: tuple[StepEntry, ...] | None = field(default=None, kw_only=True)
    extra_steps: dict[str, tuple[StepEntry, ...]] = field(default_factory=dict, kw_only=True)

    @abstractmethod
    def default_steps(self) -> dict[str, Step]:
        """Return the steps by their short names, in their default order."""

    @functools.cached_property
    def ordered(self) -> tuple[tuple[str, Step], ...]:
        """Return the steps with their names, in the order of the settings.

        Raises:
            SettingsError: A name that no step has, or a reference that is no step.
        """
        known = self.default_steps()
        entries = tuple(known) if self.steps is None else self.steps
        names = [name_of("steps", entry) for entry in entries]
        for name in self.extra_steps:
            if name not in (START, *names):
                raise SettingsError(
                    f"augmentation.extra_steps has steps after '{name}', which is none of the "
                    f"steps.{nearest(name, names)} Steps: {', '.join(names)}; or '{START}' for the "
                    "first place."
                )
        found = [built("extra_steps", e, known) for e in self.extra_steps.get(START, ())]
        for name, entry in zip(names, entries, strict=True):
            found.append(built("steps", entry, known))
            found += [built("extra_steps", e, known) for e in self.extra_steps.get(name, ())]
        return tuple(found)

    def generator_patch_size(self, configuration: Configuration) -> tuple[int, ...]:
        """Return the patch that the first step needs (contracts.Augmentation)."""
        size = configuration.patch_size
        for _, step in reversed(self.ordered):
            size = step.input_size(size, configuration)
        return size

    def mirrored_axes(self, configuration: Configuration) -> tuple[int, ...]:
        """Return the axes that a step mirrors, and that prediction may average over
        (contracts.Augmentation).

        Raises:
            UsageError: A step mirrors an axis that the patch does not have.
        """
        axes = [axis for _, step in self.ordered for axis in step.mirrored_axes(configuration)]
        return tuple(dict.fromkeys(axes))

    def augment(
        self, batch: dict[str, np.ndarray], configuration: Configuration, seed: int
    ) -> dict[str, np.ndarray]:
        """Return the augmented batch of the network's patch size (contracts.Augmentation); `batch`
        is not changed.

        Raises:
            UsageError: A step mirrors an axis that the patch does not have, the steps leave a patch
                of another size, or the network has no channels for the previous stage.
        """
        keys = ("images", "label", "previous", "arrays")
        tensors = {key: _each(torch.from_numpy, batch[key]) for key in keys if key in batch}
        with one_thread():
            result = self.transform({**batch, **tensors}, configuration, seed)
        rest = {key: value for key, value in batch.items() if key not in keys}
        found = {key: _each(torch.Tensor.numpy, value) for key, value in result.items()}
        return {**rest, **found}

    def transform(
        self, batch: Mapping[str, Any], configuration: Configuration, seed: int
    ) -> dict[str, Any]:
        """Return `images`, `label` and, if there are any, `arrays` of the network's patch size, on
        the device of the batch.

        Args:
            batch: Tensors with the keys of `contracts.Augmentation.augment`.
            configuration: Of the network.
            seed: Of everything random.

        Raises:
            UsageError: See `augment`.
        """
        rng = np.random.default_rng(seed)
        arrays, like = batch.get("arrays") or {}, batch.get("like") or {}
        previous = batch.get("previous")
        finished = []
        for i, (images, label) in enumerate(zip(batch["images"], batch["label"], strict=True)):
            sample = Sample(
                images,
                label,
                configuration,
                None if previous is None else previous[i],
                {name: array[i] for name, array in arrays.items()},
                like,
            )
            finished.append(self._finish(self.run(sample, rng)[0]))
        result: dict[str, Any] = {
            "images": torch.stack([sample.images for sample in finished]),
            "label": torch.stack([sample.label for sample in finished]),
        }
        if arrays:
            stacked = {name: torch.stack([s.arrays[name] for s in finished]) for name in arrays}
            result["arrays"] = stacked
        return result

    def run(self, sample: Sample, rng: np.random.Generator) -> tuple[Sample, list[tuple[str, Any]]]:
        """Draw and apply every step; return the new sample and what was decided, as (name,
        decision).
        """
        decisions = []
        for name, step in self.ordered:
            decision = step.draw(rng, sample)
            decisions.append((name, decision))
            if decision is not None:
                sample = step.apply(sample, decision)
        return sample, decisions

    def replay(self, sample: Sample, decisions: Mapping[str, Any]) -> Sample:
        """Return the sample after steps that were decided, as {name: decision}; others are left
        out.
        """
        for name, step in self.ordered:
            if decisions.get(name) is not None:
                sample = step.apply(sample, decisions[name])
        return self._finish(sample)

    def _finish(self, sample: Sample) -> Sample:
        """Make -1 background, and the previous stage channels of the images."""
        patch, found = sample.configuration.patch_size, tuple(sample.images.shape[1:])
        if found != patch:
            raise UsageError(
                f"The steps {', '.join(name for name, _ in self.ordered)} make patches of "
                f"{list(found)}; the network takes {list(patch)}. In augmentation.steps, one step "
                "has to crop to the network's patch, as 'spatial'."
            )
        images = sample.images
        if sample.previous is not None:
            classes = foreground_classes(len(images), sample.configuration)
            images = torch.cat([images, one_hot(sample.previous[None], classes)[0]])
        return replace(sample, images=images, label=sample.label.clamp(min=0), previous=None)


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to an array, or to each array of a dictionary."""
    if isinstance(value, Mapping):
        return {name: function(array) for name, array in value.items()}
    return function(value)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute in one thread: sums in several would not be the same in every process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
