"""The contract of every kind of component: shapes with axis order, units, errors.

Arrays of images are (C, Z, Y, X) on the grid of the file, and (C, *spatial) with permuted axes once prepared. Spacing is in
mm, patches and shapes in voxels, memory in bytes. A component is a class whose constructor only stores settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nnunet_core.images import Geometry, Header, Image
from nnunet_core.labels import Labels

if TYPE_CHECKING:
    import torch

    from nnunet_core.dataset import Dataset
    from nnunet_core.fingerprint import Fingerprint
    from nnunet_core.parallel import Workers
    from nnunet_core.plans import Configuration, NetworkSpec, Plans
    from nnunet_core.reporting import Reporter
    from nnunet_core.storage import LabelStore, PreparedStore


@dataclass(frozen=True)
class Case:
    """A raw case in memory.

    Attributes:
        name: Case name.
        images: float32 (C, Z, Y, X).
        label: Integer (Z, Y, X), or None for cases to predict.
        geometry: Of every channel and of the label.
    """

    name: str
    images: np.ndarray
    label: np.ndarray | None
    geometry: Geometry


@dataclass(frozen=True)
class PreparedGeometry:
    """How a prepared array lies in its original image: what `Preprocessor.restore` needs.

    Attributes:
        original: Geometry of the file.
        crop_box: ((start, stop), ...) per axis (z, y, x) of the file's grid, voxels.
        transpose_forward: Axis permutation applied after cropping.
        prepared_shape: Spatial shape of the prepared array, permuted axes.
        prepared_spacing: mm, permuted axes.
    """

    original: Geometry
    crop_box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    transpose_forward: tuple[int, int, int]
    prepared_shape: tuple[int, int, int]
    prepared_spacing: tuple[float, float, float]

    @property
    def cropped_shape(self) -> tuple[int, int, int]:
        """Voxels of the crop box, axis order (z, y, x)."""
        (z0, z1), (y0, y1), (x0, x1) = self.crop_box
        return z1 - z0, y1 - y0, x1 - x0


@dataclass(frozen=True)
class PreparedCase:
    """A case that a network can be trained on or applied to.

    Attributes:
        name: Case name.
        images: float32 (C, *prepared_shape), cropped, permuted, resampled, normalised.
        label: int8 or int16 (*prepared_shape), -1 outside the non-zero region; also for cases without a label file, where
            it is 0 inside and -1 outside.
        geometry: The way back.
        class_locations: {foreground value: integer (n, 3) voxel coordinates}, for foreground oversampling; empty for cases
            without a label file.
    """

    name: str
    images: np.ndarray
    label: np.ndarray
    geometry: PreparedGeometry
    class_locations: Mapping[int, np.ndarray] = field(default_factory=dict)


class Planner(Protocol):
    """Decides configurations from a dataset's fingerprint. Deterministic: equal inputs give equal plans."""

    def fingerprint(
        self, dataset: Dataset, workers: Workers, progress: Callable[[str], None] | None = None
    ) -> Fingerprint:
        """Read every training case once and describe it; must not depend on settings.

        The result is kept, for every planner that has or inherits this method, until the file that defines it changes.
        Images are read in the processes of `workers`; `progress` is called with the name of each finished case.
        """
        ...

    def plan(self, dataset: Dataset, fingerprint: Fingerprint, network: NetworkBuilder) -> Plans:
        """Return the plans; the network builder is asked for the memory of candidate architectures."""
        ...


class Preprocessor(Protocol):
    """Takes a raw case to a network's grid and intensities, and probabilities back.

    It may also have `on(device)`, which returns a copy that computes on that device, and for cascades
    `prepare_label(label, geometry)`, which takes a label map (Z, Y, X) of the file's grid to that of a prepared case.
    """

    def prepare(self, case: Case, configuration: Configuration, foreground: Sequence[int] = ()) -> PreparedCase:
        """Crop, permute, resample, normalise one case; locate `foreground` values when it has a label.

        Raises:
            ImageError: The image has no non-zero voxel.
        """
        ...

    def restore(self, probabilities: np.ndarray, geometry: PreparedGeometry) -> np.ndarray:
        """Resample (K, *prepared_shape) probabilities to float32 (K, Z, Y, X) on the original grid.

        Voxels outside the crop box are 0 in every channel, which means background.
        """
        ...


class NetworkBuilder(Protocol):
    """Builds a network, and knows how much memory one takes."""

    def build(self, spec: NetworkSpec) -> torch.nn.Module:
        """Return a network: (B, input_channels, *patch) -> list of logits (B, output_channels, *resolution).

        The list holds the full resolution first. With `module.deep_supervision = False` the network returns the
        full-resolution tensor alone. One that uses other weights from batch to batch has `module.graph_changes = True`:
        several processes that train together look in every batch for those that were used.
        """
        ...

    def memory(self, spec: NetworkSpec, patch_size: Sequence[int]) -> float:
        """Return the memory of training on one patch, in the planner's unit (spec: planning, section 5)."""
        ...


class LossBuilder(Protocol):
    """Builds the loss of one resolution; the trainer weights the resolutions."""

    def build(
        self, *, batch_dice: bool, ignore_label: int | None = None, regions: bool = False
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return loss(logits, target) -> scalar.

        logits: (B, K, *spatial). target: (B, 1, *spatial) integers, or for R regions (B, R, *spatial) bool maps. Regions
        with an ignore label have one map more, the last one: (B, R + 1, *spatial), true where voxels do not count (they
        may be of any region, so that their own maps cannot say it). Voxels with the ignore label have zero gradient.
        A loss that changes in the course of a training has `set_epoch(epoch)`, which is called before each epoch, counted
        from 0.
        """
        ...


class Augmentation(Protocol):
    """Random transforms of training patches, seeded per sample: equal seeds give equal patches in any process.

    It may also have `mirrored_axes(configuration)`, the axes of the patch that it mirrors and prediction may average over
    (all, without it), and `augment_tensors(images, label, configuration, seed, previous)`, which does the work of `augment`
    on tensors in the training process.
    """

    def generator_patch_size(self, configuration: Configuration) -> tuple[int, ...]:
        """Return the size of the patches to cut, voxels: larger than the network's patch so that rotation has no border."""
        ...

    def augment(self, batch: dict[str, np.ndarray], configuration: Configuration, seed: int) -> dict[str, np.ndarray]:
        """Return the training batch of the network's patch size.

        `batch` holds `images` float32 (B, C, *generator patch) and `label` integer (B, 1, *generator patch), with -1
        outside the non-zero region; in a cascade also `previous` int16 (B, 1, *generator patch), the label map of the
        previous stage. The result has the same keys, cut to the network's patch; labels are >= 0. `previous` becomes one
        more channel of `images` for each of its foreground classes.
        """
        ...


@dataclass(frozen=True)
class Runtime:
    """How to compute; no part of a run's identity, but recorded.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes the best that exists.
        precision: `float32`, `bfloat16`, `float16`; `auto` takes what the device is fast in.
        workers: Loader processes; 0 loads in the training process.
        threads: Compute threads of the training process on CPU; 0 uses every core.
    """

    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    threads: int = 0


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


@dataclass(frozen=True)
class TrainedModel:
    """The networks of one or more folds that predict together.

    Attributes:
        folds: Fold folders, each with `weights.safetensors`.
        configuration, labels: What they were trained for.
        network: Built network builder.
        runtime: Device and precision.
        mirroring: Average over mirrored inputs.
        mirror_axes: Axes of the patch that training mirrored; None is all.
        step_size: Sliding-window step as a fraction of the patch.
    """

    folds: tuple[Path, ...]
    configuration: Configuration
    labels: Labels
    network: NetworkBuilder
    runtime: Runtime
    mirroring: bool = True
    step_size: float = 0.5
    mirror_axes: tuple[int, ...] | None = None


class Trainer(Protocol):
    """Trains folds, and applies what it trained.

    A trainer may have `check(runtime)`, which raises UsageError where its settings contradict each other, or the device or
    precision does not exist. It is called before any case is prepared.
    """

    def train(self, task: TrainingTask) -> Mapping[str, str]:
        """Train one fold, or go on from its last checkpoint; end with `weights.safetensors` in the fold's folder.

        Returns:
            `device` and `precision` as they were resolved, for the run record; empty when there was nothing to do.

        Raises:
            TrainingError: The training cannot go on (a loader died, the loss is not finite).
        """
        ...

    def predictor(self, model: TrainedModel) -> Callable[[np.ndarray], np.ndarray]:
        """Load the weights once and return a function: images float32 (C, *spatial) -> probabilities (K, *spatial)."""
        ...


class Postprocessor(Protocol):
    """Cleans label maps in a way that was found useful on the validation cases. Never invents labels."""

    def fit(
        self, pairs: Callable[[], Iterator[tuple[np.ndarray, np.ndarray, Geometry]]], labels: Labels
    ) -> dict[str, Any]:
        """Decide from (prediction, reference, geometry) of every validation case; return a JSON state.

        `pairs` may be called more than once; arrays are integer (Z, Y, X).
        """
        ...

    def apply(self, segmentation: np.ndarray, geometry: Geometry, state: Mapping[str, Any]) -> np.ndarray:
        """Return the cleaned copy of an integer (Z, Y, X) label map."""
        ...


class ImageFormat(Protocol):
    """Reads and writes one family of image files."""

    endings: tuple[str, ...]

    def header(self, path: Path) -> Header:
        """Read size and spacing of one file without its voxels. Raises ImageError."""
        ...

    def read(self, path: Path) -> Image:
        """Read one file to (C, Z, Y, X). Raises ImageError."""
        ...

    def write(self, path: Path, array: np.ndarray, geometry: Geometry) -> None:
        """Write an array (Z, Y, X) atomically. Raises ImageError or StorageError."""
        ...


class Executor(Protocol):
    """Runs the jobs of a benchmark somewhere."""

    def submit(self, command: Sequence[str], log: Path) -> str:
        """Start one command; return an identifier."""
        ...

    def status(self, identifier: str) -> str:
        """Return `waiting`, `running`, `done` or `failed`."""
        ...
