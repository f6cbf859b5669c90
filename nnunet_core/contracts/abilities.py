"""What a component may be able to do beyond its contract: declared protocols, looked up here and
nowhere else.

A component has an ability when its class has the methods of the protocol. `built` refuses a class
whose public name is nearly, but not quite, one of its kind: `prepare_lable` would otherwise be a
method that nobody calls.
"""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from nnunet_core.contracts.augmentation import Augmentation
from nnunet_core.contracts.dataset import DatasetMaker, DatasetReader
from nnunet_core.contracts.executor import Executor, Task
from nnunet_core.contracts.loss import LossBuilder
from nnunet_core.contracts.network import NetworkBuilder
from nnunet_core.contracts.planner import Planner
from nnunet_core.contracts.postprocessor import Postprocessor
from nnunet_core.contracts.predictor import Predictor
from nnunet_core.contracts.preprocessor import Preprocessor
from nnunet_core.contracts.trainer import Runtime, Trainer, TrainingTask
from nnunet_core.data.images import ImageFormat
from nnunet_core.errors import PluginError
from nnunet_core.registry import settings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from nnunet_core.contracts.predictor import Slabs
    from nnunet_core.data.cases import PreparedGeometry
    from nnunet_core.data.dataset import DatasetContent
    from nnunet_core.data.fingerprint import Fingerprint
    from nnunet_core.data.images import Geometry, Image
    from nnunet_core.data.labels import Labels
    from nnunet_core.data.meaning import SegmentationMeaning
    from nnunet_core.data.plans import Configuration
    from nnunet_core.registry.discovery import Registry, Resolved

_Ability = TypeVar("_Ability")
_NEARLY = 0.85  # of `difflib`: one letter more, less or other in a word of seven


@runtime_checkable
class ExplainsPlans(Protocol):
    """A planner that can say why plans are as they are."""

    def explain(
        self,
        labels: Labels,
        fingerprint: Fingerprint,
        configuration: Configuration,
        network: NetworkBuilder,
    ) -> Mapping[str, str]:
        """Return {what was decided: by which rule, and from which numbers} of a configuration of
        its plans, in sentences for people.
        """
        ...


@runtime_checkable
class NamesConfigurations(Protocol):
    """A planner that can say which configurations there may be before it plans: a benchmark refuses
    others before any job starts.
    """

    def may_plan(self) -> Sequence[str] | None:
        """Return the names of all configurations that plans of some dataset have with these
        settings; None where it cannot tell.
        """
        ...


@runtime_checkable
class ComputesOnDevice(Protocol):
    """A preprocessor that computes on a GPU if it is asked to."""

    def on(self, device: str) -> Preprocessor:
        """Return a copy that computes on `device` (`cpu`, `cuda`, `auto`, ...)."""
        ...


@runtime_checkable
class PreparesLabels(Protocol):
    """A preprocessor that can be used in a cascade."""

    def prepare_label(self, label: np.ndarray, geometry: PreparedGeometry) -> np.ndarray:
        """Return an integer label map (Z, Y, X) of the file's grid on that of a prepared case,
        (*prepared_shape).
        """
        ...


@runtime_checkable
class RestoresSlabs(Protocol):
    """A preprocessor that takes what networks find back to the grid of the file while they find it;
    without it the whole is in memory.

    A subclass that has a `restore` of its own lacks the ability until it has these methods, too
    (`restores_slabs`).
    """

    def restore_labels(
        self, slabs: Slabs, geometry: PreparedGeometry, labels: Labels
    ) -> np.ndarray:
        """Return the label map (Z, Y, X), equal to `to_segmentation` of what `restore` returns."""
        ...

    def restore_slabs(
        self, slabs: Slabs, geometry: PreparedGeometry
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield what `restore` returns, part by part along axis Z, in any order: first slice,
        float32 (K, slices, Y, X).
        """
        ...


@runtime_checkable
class Mirrors(Protocol):
    """An augmentation that does not mirror every axis; without it prediction may average over all
    of them.
    """

    def mirrored_axes(self, configuration: Configuration) -> tuple[int, ...]:
        """Return the axes of the patch that training mirrors."""
        ...


@runtime_checkable
class AugmentsTensors(Protocol):
    """An augmentation that works on tensors, in the training process and on its device; `augment`
    is not called then.
    """

    def augment_tensors(
        self, batch: Mapping[str, Any], configuration: Configuration, seed: int
    ) -> Mapping[str, Any]:
        """Return what `Augmentation.augment` does, with tensors on the device of the batch in the
        place of arrays.
        """
        ...


@runtime_checkable
class UsesArrays(Protocol):
    """A loss builder that needs extra arrays of the prepared cases (docs: how-to/extra-data).

    Its loss gets {name: (B, K, *spatial)} of all arrays that the cases have, on the logits' device
    and at their resolution: float32 averages of arrays like images, int16 samples of arrays like
    labels, 0 outside the volume.

    Attributes:
        arrays: Names that must be there, such as `arrays = ("distance",)` in the class; a training
            whose cases lack one does not start.
    """

    arrays: tuple[str, ...]


@runtime_checkable
class ChecksRuntime(Protocol):
    """A trainer or predictor that can refuse before any case is prepared."""

    def check(self, runtime: Runtime) -> None:
        """Raise UsageError where settings contradict each other, or the device or precision does
        not exist.
        """
        ...


@runtime_checkable
class StartsFromWeights(Protocol):
    """A trainer that can start from the weights of another model (`TrainingTask.initial`)."""

    def find_weights(self, path: Path) -> Path:
        """Return the weights file that a path of the user stands for: a file, or the folder of a
        fold or model.

        Raises:
            UsageError: There are none, or the file is of another kind.
        """
        ...


@runtime_checkable
class TriesRates(Protocol):
    """A trainer that can show how the loss answers to a learning rate that rises: a range test."""

    def try_rates(self, task: TrainingTask, rates: Sequence[float]) -> Generator[float, None, None]:
        """Begin a training, take one batch with each learning rate in turn, and yield its loss,
        which may be infinite or NaN.

        What it writes, in `task.folder`, is thrown away. It is closed early where the loss
        diverges.

        Raises:
            UsageError, TrainingError: See `Trainer.train`.
        """
        ...


@runtime_checkable
class ChangesWithEpochs(Protocol):
    """A built loss that is another one late in a training than early."""

    def set_epoch(self, epoch: int) -> None:
        """Hear of each epoch, counted from 0, before it begins."""
        ...


@runtime_checkable
class ChangesGraph(Protocol):
    """A built network that uses other weights from batch to batch.

    Attributes:
        graph_changes: Whether several processes that train together look in every batch for the
            weights that were used.
    """

    graph_changes: bool


@runtime_checkable
class FindsSeries(Protocol):
    """An image format whose images are recognised by their content, not by their names."""

    def find_series(self, folder: Path) -> Mapping[str, Path]:
        """Return {name: image} of a folder that holds images or is one; empty without any.

        Raises:
            DatasetError: It is ambiguous.
        """
        ...


@runtime_checkable
class WritesSegmentations(Protocol):
    """An image format whose label maps say what their values mean, and of which image they are;
    `ImageFormat.write` is not called for predictions then.
    """

    def write_segmentation(
        self, path: Path, array: np.ndarray, geometry: Geometry, meaning: SegmentationMeaning
    ) -> None:
        """Write a label map (Z, Y, X) atomically.

        Raises:
            ImageError: It belongs to an image that such a file cannot refer to.
            StorageError: The disk is full, or the folder cannot be written.
        """
        ...


@runtime_checkable
class TakesObjects(Protocol):
    """An image format that knows the images of a library as they are in memory."""

    def from_object(self, value: object, name: str) -> Image | None:
        """Return an image of a library as ours, None where it is something else.

        Args:
            value: What a program gave.
            name: What it is called, for messages.

        Raises:
            ImageError: It cannot be used, see `ImageFormat.read`.
        """
        ...

    def to_object(self, array: np.ndarray, geometry: Geometry) -> object:
        """Return a label map (Z, Y, X) as an image of the library."""
        ...


@runtime_checkable
class DescribesLabels(Protocol):
    """A dataset reader that knows the labels of a dataset whose cases are not there."""

    def describe(self, source: Path, registry: Registry) -> DatasetContent:
        """Return what a dataset says of its label files, without its cases.

        Args:
            source: Its folder, or the JSON file that describes it.
            registry: Finds image formats.

        Raises:
            DatasetError: The description is missing or invalid.
        """
        ...


@runtime_checkable
class ShowsScripts(Protocol):
    """An executor that hands scripts to a batch system."""

    def scripts(self, tasks: Sequence[Task]) -> list[str]:
        """Return the scripts that `start` would hand over for these; nothing is written."""
        ...


@runtime_checkable
class SeesCards(Protocol):
    """An executor that knows the cards of its machine: a benchmark says where none is used."""

    def cards(self) -> Sequence[str]:
        """Return the names or numbers of the cards that jobs may use."""
        ...


#: {kind: its contract, and the abilities that a component of it may have}.
CONTRACTS: dict[str, tuple[type, ...]] = {
    "planner": (Planner, ExplainsPlans, NamesConfigurations),
    "preprocessor": (Preprocessor, ComputesOnDevice, PreparesLabels, RestoresSlabs),
    "network": (NetworkBuilder,),
    "loss": (LossBuilder, UsesArrays),
    "augmentation": (Augmentation, Mirrors, AugmentsTensors),
    "trainer": (Trainer, ChecksRuntime, StartsFromWeights, TriesRates),
    "predictor": (Predictor, ChecksRuntime),
    "postprocessor": (Postprocessor,),
    "dataset_reader": (DatasetReader, DescribesLabels),
    "dataset": (DatasetMaker,),
    "executor": (Executor, ShowsScripts, SeesCards),
    "image_format": (ImageFormat, FindsSeries, WritesSegmentations, TakesObjects),
}


def ability(component: object, protocol: type[_Ability]) -> _Ability | None:
    """Return the component, if it has an ability, as something that has it; else None.

    Raises:
        PluginError: It has something of nearly that name.
    """
    if isinstance(component, protocol):
        return component
    _refuse_nearly(component, _public(protocol), f"{type(component).__qualname__}")
    return None


def restores_slabs(preprocessor: Preprocessor) -> RestoresSlabs | None:
    """Return the preprocessor if it does slab by slab what its own `restore` does, else None."""
    able = ability(preprocessor, RestoresSlabs)
    if able is None:
        return None
    classes = type(preprocessor).__mro__

    def definer(name: str) -> int:
        return next((i for i, cls in enumerate(classes) if name in vars(cls)), len(classes))

    # a `restore` that a subclass changed would be passed over by the inherited methods
    latest = max(definer(name) for name in _public(RestoresSlabs))
    return able if latest <= definer("restore") else None


def built(resolved: Resolved) -> Any:
    """Import and construct a component (see `settings.build`), and check that it is one of its
    kind: its methods before it is constructed, since a constructor may do anything.

    Raises:
        PluginError: It lacks a method of its contract, or has one whose name is nearly that of an
            ability.
        SettingsError: A setting that does not exist, or a value of the wrong type.
    """
    contract, *abilities = CONTRACTS[resolved.kind]
    who = f"The {resolved.kind} '{resolved.reference}'"
    target, methods = resolved.load(), [n for n in _public(contract) if hasattr(contract, n)]
    if inspect.isclass(target):
        _check_complete(target, methods, resolved)
    component = settings.build(resolved)
    _check_complete(component, _public(contract), resolved)
    known = [name for protocol in (contract, *abilities) for name in _public(protocol)]
    _refuse_nearly(component, known, who, _inherited(component))
    for protocol in (contract, *abilities):
        _check_arguments(component, protocol, who)
    return component


def _check_complete(owner: object, names: Sequence[str], resolved: Resolved) -> None:
    contract, *_ = CONTRACTS[resolved.kind]
    if lacking := [name for name in names if not hasattr(owner, name)]:
        raise PluginError(
            f"The {resolved.kind} '{resolved.reference}' lacks {', '.join(lacking)}; a "
            f"{resolved.kind} has {', '.join(_public(contract))} (see "
            f"{contract.__module__}.{contract.__name__})."
        )


def _check_arguments(component: object, protocol: type, who: str) -> None:
    """Raise PluginError where a method cannot be called as its protocol is: before the work that
    leads to the call.
    """
    for name in _public(protocol):
        method, wanted = getattr(component, name, None), getattr(protocol, name, None)
        if not inspect.ismethod(method) or not callable(wanted):
            continue
        parameters = list(inspect.signature(wanted).parameters.values())[1:]  # without self
        named = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
        try:
            inspect.signature(method).bind(*[None] * (len(parameters) - len(named)), **named)
        except TypeError as error:
            arguments = ", ".join(p.name for p in parameters)
            raise PluginError(
                f"{who} has {name}{inspect.signature(method)}; it is called as "
                f"{name}({arguments}): {error}."
            ) from error


def _inherited(component: object) -> list[str]:
    """Return the methods that a component's class may override: the steps of a planner, the seams
    of a trainer.
    """
    bases = type(component).__mro__[1:-1]
    names = {name for base in bases for name, value in vars(base).items() if callable(value)}
    return sorted(name for name in names if not name.startswith("_"))


def _refuse_nearly(
    component: object, known: Sequence[str], who: str, inherited: Sequence[str] = ()
) -> None:
    """Raise PluginError where a component has a public name, no setting, that nearly is a known or
    inherited one.
    """
    cls = type(component)
    for name in dir(component):
        if name.startswith("_") or name in known:
            continue
        candidates = known if name in inherited else [*known, *inherited]
        meant = difflib.get_close_matches(name, candidates, n=1, cutoff=_NEARLY)
        if meant and name not in inspect.signature(cls).parameters:
            raise PluginError(
                f"{who} has '{name}', which nobody calls. Did you mean '{meant[0]}'? Otherwise "
                "give it a name that differs more, or that starts with '_'."
            )


def _public(protocol: type) -> list[str]:
    """Return the methods and attributes that a protocol names."""
    names = {**vars(protocol), **vars(protocol).get("__annotations__", {})}
    return sorted(name for name in names if not name.startswith("_"))
