"""What an inference.json selects, and its models in memory: their probabilities are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nnunet_core.contracts.postprocessor import Postprocessor
from nnunet_core.data.cases import Case
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import label_type
from nnunet_core.errors import StorageError, UsageError
from nnunet_core.prediction.ensemble import opened
from nnunet_core.prediction.model import ModelOptions, ModelPredictor, Parts, Prepared
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.case import Keep, to_segmentation
from nnunet_core.stages.select import Trained
from nnunet_core.store.inference import open_member, read_inference
from nnunet_core.store.models import Model, weights_digests
from nnunet_core.store.postprocessing import Decision, PostprocessingRecord, postprocessing_state

_Options = TypeVar("_Options", bound=ModelOptions)
_SLICES = 16  # of the mean in memory beside the sum


@dataclass(frozen=True)
class Selected:
    """The models that an inference.json names, and what is done to their label maps.

    Attributes:
        models: Of equal labels.
        decided: The postprocessing, or None.
    """

    models: tuple[Trained, ...]
    decided: PostprocessingRecord | None

    @classmethod
    def read(cls, path: Path, options: ModelOptions, trusted: bool) -> Selected:
        """Read an inference.json and the models that it names; nothing is imported.

        Raises:
            UsageError: There is no such file, or its models have different labels; or folds are
                asked for, which the file decides.
            StorageError: A model, or its postprocessing, is another one than when it was written.
        """
        document = read_inference(path)
        if options.folds:
            raise UsageError(
                f"{path} says which folds predict. Leave out --folds (folds=...), or name a model "
                "instead."
            )
        models = [Trained(open_member(r, path, trusted), r.folds) for r in document.members]
        found = cls(tuple(models), document.postprocessing if options.postprocess else None)
        found._check_labels()
        if not found.is_ensemble:
            found._check_postprocessing(path)
        return found

    @property
    def is_ensemble(self) -> bool:
        """Whether there is more than one model."""
        return len(self.models) > 1

    def alone(self, options: _Options) -> tuple[Model, _Options]:
        """Return the only model, and the options that predict with it as the file says."""
        (single,) = self.models
        options = replace(options, folds=single.folds, postprocess=self.decided is not None)
        return single.model, options

    def cleaning(
        self, registry: Registry, trusted: bool
    ) -> tuple[Postprocessor, Mapping[str, Any]] | None:
        """Build the postprocessor of an ensemble; return it with its state, None if there is none.

        Raises:
            UnknownComponentError: See `ensemble.opened`.
        """
        if self.decided is None:
            return None
        component = self.decided.component
        decision = Decision(component.reference, component.settings, self.decided.state)
        return opened(decision, registry, trusted)

    def _check_labels(self) -> None:
        first = self.models[0]
        for other in self.models[1:]:
            if other.model.document.labels != first.model.document.labels:
                raise UsageError(
                    f"{first.title} and {other.title} have different labels, so that their "
                    "probabilities cannot be averaged. Run 'nnunet find-best' again."
                )

    def _check_postprocessing(self, path: Path) -> None:
        """Raise StorageError where the model would be cleaned otherwise than the file says."""
        (single,), decided = self.models, self.decided
        if decided is not None and decided.state != postprocessing_state(
            single.model, trained_weights(single)
        ):
            raise StorageError(
                f"The postprocessing of {single.model.folder} is another one than {path} says. Run "
                "'nnunet find-best' again, or predict without it (--no-postprocessing)."
            )


def trained_weights(trained: Trained) -> dict[str, str]:
    """Return {fold: digest of its weights}."""
    return weights_digests(trained.model.fold_folder(fold) for fold in trained.folds)


@dataclass(frozen=True)
class EnsemblePredictor:
    """Models in memory that predict together; used like a `ModelPredictor`.

    The labels are those of `nnunet predict`, which averages what it has stored in half precision.
    Beside the networks, `segment` holds a float32 for each class and voxel of the image.

    Attributes:
        members: Of equal labels; they clean nothing.
        postprocessor: With what was decided on the validation cases of all of them, or None.
    """

    members: tuple[ModelPredictor, ...]
    postprocessor: tuple[Postprocessor, Mapping[str, Any]] | None

    @classmethod
    def open(
        cls,
        selected: Selected,
        registry: Registry,
        options: ModelOptions,
        trusted: bool,
        report: Reporter,
    ) -> EnsemblePredictor:
        """Load every model.

        Raises:
            NnunetError: See `Parts.find` and `ModelPredictor.open`.
        """
        clean = selected.cleaning(registry, trusted)
        parts = []
        for trained in selected.models:
            own = replace(options, folds=trained.folds, postprocess=False)
            parts.append(Parts.find(trained.model, registry, own, report))
        return cls(tuple(ModelPredictor.open(each, report) for each in parts), clean)

    def prepare(self, raw: Case) -> tuple[Prepared, ...]:
        """Take a raw case to the grid of every model; see `ModelPredictor.prepare`."""
        return tuple(member.prepare(raw) for member in self.members)

    def segment(self, prepared: Sequence[Prepared], keep: Keep | None = None) -> np.ndarray:
        """Apply every model, and average; see `ModelPredictor.segment`."""
        labels = self.members[0].case.labels
        shape = prepared[0].geometry.shape
        total = np.zeros((labels.outputs, *shape), np.float32)
        for member, case in zip(self.members, prepared, strict=True):
            member.segment(case, partial(_add, total))
        label = np.empty(shape, label_type(max(labels.foreground, default=0)))
        for start in range(0, shape[0], _SLICES):
            part = slice(start, start + _SLICES)
            mean = total[:, part] / np.float32(len(self.members))
            label[part] = to_segmentation(mean, labels)
            if keep is not None:
                keep(start, mean)
        return label

    def clean(self, segmentation: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Apply what the postprocessor decided to a label map (Z, Y, X)."""
        if self.postprocessor is None:
            return segmentation
        postprocessor, state = self.postprocessor
        return postprocessor.apply(segmentation, geometry, state)


def _add(total: np.ndarray, start: int, slab: np.ndarray) -> None:
    # half precision, as in the files that 'nnunet predict' averages: the labels have to be the same
    total[:, start : start + slab.shape[1]] += slab.astype(np.float16)
