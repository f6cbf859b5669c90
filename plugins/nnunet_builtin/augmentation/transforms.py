"""Transforms of batchgenerators as steps, and v1's whole pipeline made of them (spec: training,
section 5).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nnunet_core.contracts.augmentation import Sample, Step
from nnunet_core.errors import SettingsError, UsageError

if TYPE_CHECKING:
    from nnunet_core.data.plans import Configuration


@dataclass(frozen=True)
class Transform(Step):
    """A transform of batchgenerators. It draws from global generators, which are seeded for it and
    then restored.

    Args:
        make: Makes the transform for a configuration.
        twin: Our step that mirrors patches as the transform does.
    """

    make: Callable[[Configuration], Any]
    twin: Step | None = None

    def draw(self, rng: np.random.Generator, sample: Sample) -> int:  # noqa: ARG002
        """Return the seed."""
        return int(rng.integers(2**32))

    def apply(self, sample: Sample, decision: int) -> Sample:
        """Transform images and label maps, which are `data` and `seg` there.

        Raises:
            UsageError: It moves label maps, and there are further arrays, which it cannot move.
        """
        maps = [sample.label] if sample.previous is None else [sample.label, sample.previous]
        data, seg = (array[None].cpu().numpy() for array in (sample.images, torch.cat(maps)))
        with seeded(decision):
            result = self.make(sample.configuration)(data=data.copy(), seg=seg.copy())
        if sample.arrays and not np.array_equal(seg, result["seg"]):
            raise UsageError(
                f"{type(self.make(sample.configuration)).__name__} of batchgenerators moves label "
                f"maps, but cannot move the arrays {', '.join(sample.arrays)}. Use the built-in "
                "spatial steps."
            )
        images, moved = (
            torch.from_numpy(np.ascontiguousarray(result[key][0], kind)).to(sample.images.device)
            for key, kind in (("data", np.float32), ("seg", seg.dtype))
        )
        previous = None if sample.previous is None else moved[1:]
        return replace(sample, images=images, label=moved[:1], previous=previous)

    def mirrored_axes(self, configuration: Configuration) -> tuple[int, ...]:
        """Return those of the twin."""
        return () if self.twin is None else self.twin.mirrored_axes(configuration)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of NumPy and Python, and restore them afterwards."""
    states = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


def is_transform(target: Any) -> bool:
    """Return whether an object is a transform class of batchgenerators, or a subclass of one."""
    return inspect.isclass(target) and any(
        base.__module__.startswith("batchgenerators.transforms.") for base in target.__mro__
    )


def transform_of(name: str, target: Any, settings: Mapping[str, Any]) -> Transform:
    """Return the step of a transform class with constructor arguments; lists become tuples.

    Raises:
        SettingsError: Arguments that the constructor does not take, or that it needs.
    """
    arguments = {key: _with_tuples(value) for key, value in settings.items()}
    try:
        target(**arguments)
    except Exception as error:
        raise SettingsError(
            f"The augmentation step '{name}' cannot be made with settings {dict(settings)}: "
            f"{error}. Its settings: {inspect.signature(target)}."
        ) from error
    return Transform(functools.partial(_make, target, arguments))


def _make(target: Any, arguments: Mapping[str, Any], configuration: Configuration) -> Any:  # noqa: ARG001
    return target(**arguments)


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
