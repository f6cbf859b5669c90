"""What applies trained networks to prepared images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from nnunet_core.contracts.network import NetworkBuilder
    from nnunet_core.contracts.trainer import Runtime
    from nnunet_core.data.labels import Labels
    from nnunet_core.data.plans import Configuration


@dataclass(frozen=True)
class TrainedModel:
    """The networks of one or more folds that predict together.

    Attributes:
        folds: Fold folders, each with `weights.safetensors`.
        configuration, labels: What they were trained for.
        network: Built network builder.
        runtime: Device and precision.
        mirror_axes: Axes of the patch that training mirrored, and prediction may average over: (0,
            1, 2), or () for none.
    """

    folds: tuple[Path, ...]
    configuration: Configuration
    labels: Labels
    network: NetworkBuilder
    runtime: Runtime
    mirror_axes: tuple[int, ...]


class Predictor(Protocol):
    """Applies the networks of a trained model; validation and prediction use the same one.

    It is no part of what a network depends on: a run with another predictor validates its folds
    anew and trains none. The smallest change wraps another predictor, because what it works on is
    data:

        @dataclass
        class MirroredOnce:
            axis: int = 2

            def load(self, model):
                axes = tuple(axis for axis in model.mirror_axes if axis == self.axis)
                return SlidingWindow().load(replace(model, mirror_axes=axes))

    A predictor may have `check(runtime)`, which raises UsageError where its settings contradict
    each other. It is called before any case is prepared. One that has `returns_logits = True`
    returns logits in the place of probabilities (`abilities.PredictsLogits`).
    """

    def load(self, model: TrainedModel) -> Callable[[np.ndarray], np.ndarray]:
        """Load the weights once; return a function that is called for each case.

        Returns:
            Function of images float32 (C, *spatial), prepared, with the channels of the previous
            stage in a cascade: to probabilities float32 (K, *spatial) of K classes that add up to
            1, or of K regions, each in [0, 1].

        Raises:
            UsageError: Settings contradict each other, or the device or precision does not exist.
            TrainingError: The device has too little memory; the returned function raises it, too.
        """
        ...
