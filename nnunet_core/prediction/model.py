"""A trained model in memory: what it is made of, and how it predicts a case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.contracts.abilities import built
from nnunet_core.contracts.postprocessor import Postprocessor
from nnunet_core.contracts.predictor import TrainedModel
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.cases import Case, PreparedCase
from nnunet_core.data.images import Geometry, doubtful_spacing
from nnunet_core.errors import PluginError
from nnunet_core.registry.discovery import Registry, Resolved
from nnunet_core.registry.provenance import component_record
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.runtime import files
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.stages.cascade import prepared_label
from nnunet_core.stages.case import CasePredictor, Keep
from nnunet_core.stages.prepare import prepare_case
from nnunet_core.store.models import Model, check_weights, weights_digests
from nnunet_core.store.postprocessing import postprocessing_state


@dataclass(frozen=True)
class ModelOptions:
    """How a model predicts a case.

    Attributes:
        folds: Fold names; empty means every trained numbered fold.
        predictor: Reference; None is the one that the model was validated with, with its settings.
        settings: Of the predictor, on top of these.
        postprocess: Apply what was found useful on the validation cases.
        runtime: Device and precision.
    """

    folds: tuple[str, ...] = ()
    predictor: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    postprocess: bool = True
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class Parts:
    """What a model predicts with: its components, found and imported but not built.

    Attributes:
        model: What it is.
        options: How it is used.
        folds: The folders of its networks.
        components: By kind; no postprocessor where none is applied.
        state: What the postprocessor decided on the validation cases of these folds, or None.
        previous: Those of the stage before, in a cascade.
    """

    model: Model
    options: ModelOptions
    folds: tuple[Path, ...]
    components: Mapping[str, Resolved]
    state: Mapping[str, Any] | None
    previous: Parts | None

    @classmethod
    def find(
        cls, model: Model, registry: Registry, options: ModelOptions, report: Reporter
    ) -> Parts:
        """Find the components of a model and of the stages before it.

        Raises:
            PluginError: A package that the model needs is missing, the message says what to
                install; or the model names code that no plugin registers, and is not trusted:
                nothing of it was imported.
            UsageError: A fold is not trained, or a setting does not exist.
        """
        kinds = ["preprocessor", "network", *(["postprocessor"] if options.postprocess else [])]
        named = kinds if options.predictor is not None else [*kinds, "predictor"]
        stages = model.stages()
        for stage in stages:
            stage.check_trusted(named, report)
        found: Parts | None = None
        for stage in stages:
            fitting = options if stage is model else stage_options(stage, options)
            components = {kind: stage.component(registry, kind, report) for kind in kinds}
            components["predictor"] = _predictor(stage, registry, fitting, report)
            folds = stage.folds(fitting.folds)
            state = None
            if options.postprocess:
                state = postprocessing_state(stage, weights_digests(folds))
            found = cls(stage, fitting, folds, components, state, found)
        assert found is not None
        return found

    @property
    def predictor(self) -> ComponentRecord:
        """The record of the predictor."""
        return component_record(self.components["predictor"])

    def identity(self) -> str:
        """Return a digest of everything that a prediction depends on, the stage before included."""
        document = self.model.document.model_dump(
            mode="json",
            exclude={"components": {"predictor"}, "original_values": True, "tolerances": True},
        )
        return files.digest(
            [
                document,
                self.predictor.identity(),
                list(weights_digests(self.folds).values()),
                self.options.postprocess,
                self.state,
                None if self.previous is None else self.previous.identity(),
            ]
        )


@dataclass(frozen=True)
class Prepared:
    """A case that a model can be applied to.

    Attributes:
        geometry: Of the image.
        case: On the grid of the networks.
        previous: For the stage before, in a cascade.
    """

    geometry: Geometry
    case: PreparedCase
    previous: Prepared | None


@dataclass(frozen=True)
class ModelPredictor:
    """A model in memory: raw case in, cleaned label map on the grid of its image out.

    `prepare` and `clean` may run in other threads, also at the same time; `segment` is for one
    thread at a time.

    Attributes:
        model: What it is.
        case: Its networks.
        postprocessor: With what it decided on the validation cases; None leaves label maps as they
            are.
        previous: The stage before, in a cascade.
        members: The networks of each fold alone, where `disagreement` is asked for.
    """

    model: Model
    case: CasePredictor
    postprocessor: tuple[Postprocessor, Mapping[str, Any]] | None
    previous: ModelPredictor | None
    members: tuple[CasePredictor, ...] = ()

    @classmethod
    def open(
        cls, parts: Parts, report: Reporter | None = None, members: bool = False
    ) -> ModelPredictor:
        """Load a model and, in a cascade, the stage before it; also each fold alone, if asked.

        Raises:
            StorageError: Weights are damaged.
            UsageError: The predictor refuses its settings, or there is no such device.
        """
        for fold in parts.folds:
            check_weights(fold)
        document = parts.model.document
        networks = TrainedModel(
            folds=parts.folds,
            configuration=document.configuration,
            labels=document.labels,
            network=built(parts.components["network"]),
            runtime=parts.options.runtime,
            mirror_axes=document.mirror_axes,
        )
        predictor, preprocessor = (
            built(parts.components[kind]) for kind in ("predictor", "preprocessor")
        )
        case = CasePredictor.open(networks, predictor, preprocessor)
        alone = [replace(networks, folds=(fold,)) for fold in parts.folds if members]
        clean = None
        if parts.state is not None:
            clean = built(parts.components["postprocessor"]), parts.state
        elif parts.options.postprocess:
            (report or Silence()).warning(
                "No postprocessing: none was fitted on the validation cases of "
                f"{', '.join(fold.name for fold in parts.folds)} of {parts.model.folder}. 'nnunet "
                "run' with these folds does that."
            )
        previous = None if parts.previous is None else cls.open(parts.previous, report)
        each = tuple(CasePredictor.open(one, predictor, preprocessor) for one in alone)
        return cls(parts.model, case, clean, previous, each)

    def prepare(self, raw: Case) -> Prepared:
        """Take a raw case to the grid of the networks, of every stage of a cascade; its geometry
        notes a spacing that the training cannot have had.

        Raises:
            ImageError: See `contracts.Preprocessor.prepare`.
        """
        previous = None if self.previous is None else self.previous.prepare(raw)
        configuration = self.model.document.configuration
        case = prepare_case(self.case.preprocessor, raw, configuration)
        axes = np.argsort(configuration.transpose_forward)
        usual = [configuration.spacing[axis] for axis in axes]
        note = doubtful_spacing(raw.name, raw.geometry.spacing, usual, "the model was planned for")
        notes = (*raw.geometry.notes, note) if note else raw.geometry.notes
        return Prepared(replace(raw.geometry, notes=notes), case, previous)

    def segment(self, prepared: Prepared, keep: Keep | None = None) -> np.ndarray:
        """Apply the networks, of every stage of a cascade.

        Args:
            prepared: The case.
            keep: Is given the first slice and the probabilities float32 (K, slices, Y, X) of each
                part of the image, in order; what it is not given is 0.

        Returns:
            Label map uint8 or uint16 (Z, Y, X), as yet uncleaned.

        Raises:
            NnunetError: See `CasePredictor`.
        """
        return self._apply(self.case, prepared, self.before(prepared), keep)

    def disagreement(self, prepared: Prepared, segmentation: np.ndarray) -> np.ndarray:
        """Return the share of the members, float32 (Z, Y, X), whose label is another one than that
        of all of them together.
        """
        before, shape = self.before(prepared), segmentation.shape
        others = np.zeros(shape, np.float32)
        for member in self.members:
            others += self._apply(member, prepared, before) != segmentation
        return others / len(self.members)

    def before(self, prepared: Prepared) -> np.ndarray | None:
        """Return the label map of the stage before a cascade on the grid of the networks."""
        if self.previous is None or prepared.previous is None:
            return None
        found = self.previous.segment(prepared.previous)
        found = self.previous.clean(found, prepared.geometry)
        return prepared_label(self.case.preprocessor, found, prepared.case.geometry)

    @staticmethod
    def _apply(
        networks: CasePredictor,
        prepared: Prepared,
        before: np.ndarray | None,
        keep: Keep | None = None,
    ) -> np.ndarray:
        """Predict a case; nothing else calls a `CasePredictor` here."""
        case = prepared.case
        return networks.segment(case.images, case.geometry, before, keep)

    def clean(self, segmentation: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Apply what the postprocessor decided to a label map (Z, Y, X)."""
        if self.postprocessor is None:
            return segmentation
        postprocessor, state = self.postprocessor
        return postprocessor.apply(segmentation, geometry, state)


def stage_options(stage: Model, options: ModelOptions) -> ModelOptions:
    """Return how a stage before a cascade predicts: with the same folds if it has them, else with
    all of its own.
    """
    return options if set(options.folds) <= set(stage.trained()) else replace(options, folds=())


def _predictor(
    model: Model, registry: Registry, options: ModelOptions, report: Reporter
) -> Resolved:
    """Return the predictor that was asked for, or the one that the model was validated with."""
    if options.predictor is not None:
        return registry.resolve("predictor", options.predictor).with_settings(options.settings)
    try:
        validated = model.component(registry, "predictor", report)
    except PluginError as error:
        raise PluginError(
            f"{error} Or choose another one with --predictor; 'nnunet plugins list' shows them."
        ) from error
    return validated.with_settings(options.settings)
