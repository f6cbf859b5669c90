"""What applies trained networks to prepared images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

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


#: What the values of a predictor are, and so the last step that makes probabilities of them on the
#: grid of the file: none, or softmax (sigmoid for regions).
Values = Literal["probabilities", "logits"]


@dataclass
class Slabs:
    """What networks find in a case, slab by slab, so that the whole need not be in memory.

    It is read once, part by part; or whole: then it stays in memory, and `np.asarray(slabs)` is an
    array like any other.

    Attributes:
        shape: (K, *spatial) of the whole.
        parts: float32 (K, slices, *rest), which follow each other along the first spatial axis.
        values: What they are. Logits are taken to the grid of the file as they are, and become
            probabilities there.
    """

    shape: tuple[int, ...]
    parts: Iterable[np.ndarray]
    values: Values = "probabilities"

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.parts)

    def whole(self) -> np.ndarray:
        """Return all parts as one array (K, *spatial)."""
        import numpy as np

        whole, start = np.empty(self.shape, np.float32), 0
        for part in self.parts:
            whole[:, start : start + part.shape[1]] = part
            start += part.shape[1]
        if start != self.shape[1]:
            raise ValueError(
                f"{start} of {self.shape[1]} slices are left of these slabs; they are read once."
            )
        self.parts = [whole]
        return whole

    def probabilities(self, values: np.ndarray, regions: bool) -> np.ndarray:
        """Take the last step to probabilities, in float32: values (K, ...) on the grid of the file
        to probabilities of K classes, or of regions.
        """
        if self.values == "probabilities":
            return values
        import numpy as np

        if regions:
            return (np.tanh(values / 2) + 1) / 2  # the sigmoid; it cannot overflow
        odds = np.exp(values - values.max(axis=0))
        odds /= odds.sum(axis=0)
        return odds

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.whole() if dtype is None else self.whole().astype(dtype)


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
    each other. It is called before any case is prepared.
    """

    def load(self, model: TrainedModel) -> Callable[[np.ndarray], np.ndarray | Slabs]:
        """Load the weights once; return a function that is called for each case.

        Returns:
            Function of images float32 (C, *spatial), prepared, with the channels of the previous
            stage in a cascade: to probabilities float32 (K, *spatial) of K classes that add up to
            1, or of K regions, each in [0, 1]. As one array; or as `Slabs`, where the whole may
            not fit in memory, or where they are logits.

        Raises:
            UsageError: Settings contradict each other, or the device or precision does not exist.
            TrainingError: The device has too little memory; the returned function raises it, too.
        """
        ...
