"""What trains folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from nnunet_core.contracts.augmentation import Augmentation
    from nnunet_core.contracts.loss import LossBuilder
    from nnunet_core.contracts.network import NetworkBuilder
    from nnunet_core.data.labels import Labels
    from nnunet_core.data.plans import Configuration
    from nnunet_core.data.weights import InitialWeights
    from nnunet_core.runtime.reporting import Reporter
    from nnunet_core.store.prepared import LabelStore, PreparedStore


@dataclass(frozen=True)
class Runtime:
    """How to compute; no part of a run's identity, but recorded.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes the best that exists.
        precision: `float32`, `bfloat16`, `float16`; `auto` takes what the device is fast in.
        workers: Loader processes; 0 loads in the training process.
        threads: Compute threads of the training process on CPU; 0 uses OMP_NUM_THREADS, or every
            core.
        memory_gb: Memory in GB that a prediction may fill; None is 10, or what is free if that is
            less. What does not fit lies in a temporary file.
    """

    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    threads: int = 0
    memory_gb: float | None = None


@dataclass(frozen=True)
class TrainingTask:
    """Everything that a trainer needs to train one fold.

    Attributes:
        folder: The fold's folder; the trainer writes nowhere else.
        configuration, labels: What to train.
        training, validation: Case names.
        store: Prepared cases.
        network, loss, augmentation: Built components.
        runtime: Device and precision.
        seed: Of everything random.
        report: Where progress goes.
        previous: Label maps of the previous stage, in a cascade.
        initial: Weights of another model to start from, and what of them stays; None starts from
            random ones. Only a trainer with `abilities.StartsFromWeights` gets them.
        epoch_finished: Call with each line of metrics.jsonl; observers hear of it.
    """

    folder: Path
    configuration: Configuration
    labels: Labels
    training: tuple[str, ...]
    validation: tuple[str, ...]
    store: PreparedStore
    network: NetworkBuilder
    loss: LossBuilder
    augmentation: Augmentation
    runtime: Runtime
    seed: int
    report: Reporter
    epoch_finished: Callable[[Mapping[str, object]], None]
    previous: LabelStore | None = None
    initial: InitialWeights | None = None


class Trainer(Protocol):
    """Trains folds.

    Optional: `abilities.ChecksRuntime`, `abilities.StartsFromWeights`, `abilities.TriesRates`.
    """

    def train(self, task: TrainingTask) -> Mapping[str, str]:
        """Train one fold, or go on from its last checkpoint; end with `weights.safetensors` in the
        fold's folder.

        Returns:
            `device`, `precision` and `threads` as they were resolved, for the run record; empty
            when there was nothing to do.

        Raises:
            TrainingError: The training cannot go on (a loader died, the loss is not finite).
        """
        ...
