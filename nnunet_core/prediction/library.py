"""A trained model in a program of somebody else: arrays, images in memory, and files."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nnunet_core.contracts.abilities import TakesObjects, built
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.cases import Case
from nnunet_core.data.images import SLICE_SPACING_2D, Geometry, Image, check_finite, stack_channels
from nnunet_core.data.splits import fold_names
from nnunet_core.errors import ImageError, PluginError, UsageError, counted, listed
from nnunet_core.prediction.inputs import dataset_of, find_inputs
from nnunet_core.prediction.members import EnsemblePredictor, Selected
from nnunet_core.prediction.model import ModelOptions, ModelPredictor, Parts
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Reporter, Silence
from nnunet_core.stages.case import Keep
from nnunet_core.store.inference import FILE as INFERENCE
from nnunet_core.store.inference import selected
from nnunet_core.store.models import FILE, Model

_NAME = "image"


def load_model(
    path: Path | str,
    device: str = "auto",
    *,
    precision: str = "auto",
    threads: int = 0,
    folds: str | Sequence[str | int] = (),
    predictor: str | None = None,
    settings: Mapping[str, Any] | None = None,
    postprocess: bool = True,
    trust: bool = False,
    report: Reporter | None = None,
) -> LoadedModel:
    """Load a trained model once, to predict with it as often as needed.

        with nnunet_core.load_model("results/Dataset017_Liver/default/3d_fullres") as model:
            label = model.predict(array, spacing=(2.5, 0.8, 0.8))

    Args:
        path: The folder of the model; of a cascade, that of its last stage. Or the inference.json
            of `nnunet find-best`, or the folder that holds it: what it selected, an ensemble too.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, float32, bfloat16 or float16.
        threads: Compute threads on CPU; 0 uses OMP_NUM_THREADS, or every core.
        folds: Whose networks to average, `(0, 1)` or `"0,1"`; empty means every trained numbered
            fold. An inference.json says it itself.
        predictor: Reference; None is the one that the model was validated with.
        settings: Of the predictor: `{"step_size": 0.7, "mirroring": False}`.
        postprocess: Apply what was found useful on the validation cases.
        trust: Run code that the model names and no installed plugin registers.
        report: Hears of warnings; None drops them.

    Raises:
        UsageError: There is no model, a fold is not trained, a setting or the device does not
            exist.
        PluginError: A package that the model needs is missing, or it names code and is not trusted.
        StorageError: A file of the model is damaged.
    """
    registry, report = Registry.discover(), report or Silence()
    options = ModelOptions(
        folds=fold_names(folds),
        predictor=predictor,
        settings=settings or {},
        postprocess=postprocess,
        runtime=Runtime(device, precision, 0, threads),
    )
    place = Path(path)
    if inference := selected(place):
        return _load_selected(inference, options, registry, trust, report)
    return _load_single(_open(place, trust), options, registry, report)


def _load_selected(
    path: Path, options: ModelOptions, registry: Registry, trust: bool, report: Reporter
) -> LoadedModel:
    """Load what an inference.json selects."""
    chosen = Selected.read(path, options, trust)
    if not chosen.is_ensemble:
        return _load_single(*chosen.alone(options), registry, report)
    ensemble = EnsemblePredictor.open(chosen, registry, options, trust, report)
    return LoadedModel(ensemble, chosen.models[0].model, registry)


def _load_single(
    model: Model, options: ModelOptions, registry: Registry, report: Reporter
) -> LoadedModel:
    parts = Parts.find(model, registry, options, report)
    return LoadedModel(ModelPredictor.open(parts, report), model, registry)


def _open(folder: Path, trust: bool) -> Model:
    """Open the folder of a model.

    Raises:
        UsageError: It is none; the message says what is.
    """
    if (folder / FILE).is_file():
        return Model.open(folder, trust)
    reason = "there is no such folder"
    if folder.is_dir():
        reason = f"it has no {FILE} and no {INFERENCE}"
    files = [*folder.glob(f"*/{FILE}"), *folder.glob(f"*/*/{FILE}")]
    found = sorted(str(file.parent) for file in files)
    models = (
        f" Models in it: {listed(found)}; 'nnunet find-best' selects among them." if found else ""
    )
    raise UsageError(
        f"{folder} is not a model: {reason}. Give the path of a model folder, "
        "results/DATASET/VARIANT/CONFIGURATION, or of an inference.json of 'nnunet find-best'."
        f"{models}"
    )


class _Predictor(Protocol):
    """A `ModelPredictor` or an `EnsemblePredictor`."""

    def prepare(self, raw: Case) -> Any: ...

    def segment(self, prepared: Any, keep: Keep | None = None) -> np.ndarray: ...

    def clean(self, segmentation: np.ndarray, geometry: Geometry) -> np.ndarray: ...


class LoadedModel:
    """A model in memory; see `load_model`. Several threads may use it at once.

    It starts no processes and writes no files. Images are read, prepared and cleaned in the thread
    of the caller; the networks take one image at a time.
    """

    def __init__(self, predictor: _Predictor, model: Model, registry: Registry) -> None:
        self._predictor: _Predictor | None = predictor
        dataset = self._dataset = dataset_of(model, model.folder, registry)
        self._registry = registry
        self._networks = threading.Lock()
        #: Names of the channels, in the order in which images have them.
        self.channels: tuple[str, ...] = dataset.channels
        #: {value: name} of the label maps.
        self.labels: Mapping[int, str] = dict(dataset.labels.names)
        #: Whether images are 2D: (Y, X) instead of (Z, Y, X).
        self.planar = SLICE_SPACING_2D in model.document.configuration.spacing

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the networks and their memory."""
        self._predictor = None

    def predict(
        self,
        image: object,
        spacing: Sequence[float] | None = None,
        *,
        probabilities: bool = False,
    ) -> Any:
        """Predict one image.

        Args:
            image: A NumPy array (C, Z, Y, X), or (Z, Y, X) of one channel; of a 2D model (C, Y, X)
                or (Y, X). SimpleITK's GetArrayFromImage returns this order, nibabel's the reverse.
                Or a SimpleITK image, or a list of one per channel; or the path of a file or of a
                folder with a DICOM series, or a list of one per channel.
            spacing: Of an array, mm, in the order of its axes: (z, y, x), or (y, x).
            probabilities: Also return them.

        Returns:
            The label map: of an array, uint8 or uint16 (Z, Y, X), or (Y, X); else a SimpleITK image
            with the geometry of the image. With `probabilities`, (label map, float32 (K, Z, Y, X),
            or (K, Y, X)).

        Raises:
            ImageError: A file cannot be read, channels lie on different grids, a voxel is NaN or
                infinite.
            UsageError: The number of axes or channels is wrong, the spacing is missing, or the
                model is closed.
            NnunetError: The networks fail, see `CasePredictor`.
        """
        predictor = self._predictor
        if predictor is None:
            raise UsageError("The model is closed. Predict inside of the 'with' block, or load it.")
        if isinstance(image, np.ndarray):
            case, taker = self._of_array(image, spacing), None
        elif spacing is not None:
            raise UsageError("The spacing is given with an array; images and files have their own.")
        else:
            case, taker = self._of_images(image)
        prepared = predictor.prepare(case)
        found = None
        if probabilities:
            found = np.zeros((self._dataset.labels.outputs, *case.geometry.shape), np.float32)
        with self._networks:
            label = predictor.segment(prepared, None if found is None else partial(_keep, found))
        label = predictor.clean(label, case.geometry)
        flat = self.planar and taker is None
        result = taker.to_object(label, case.geometry) if taker else label[0] if flat else label
        return result if found is None else (result, found[:, 0] if self.planar else found)

    def _of_array(self, array: np.ndarray, spacing: Sequence[float] | None) -> Case:
        axes, channels = ("y, x" if self.planar else "z, y, x"), len(self.channels)
        count = axes.count(",") + 1
        wanted = f"(C, {axes.upper()})" + (f" or ({axes.upper()})" if channels == 1 else "")
        if array.dtype.kind not in "biuf":
            raise UsageError(f"The array holds {array.dtype} values; an image has real numbers.")
        if array.ndim == count and channels == 1:
            array = array[None]
        if array.ndim != count + 1 or array.shape[0] != channels or 0 in array.shape:
            last = array.ndim == count + 1 and array.shape[-1] == channels
            hint = " Channels are the last axis: np.moveaxis(array, -1, 0)." if last else ""
            raise UsageError(
                f"The array has shape {array.shape}; the model takes {wanted} with C = "
                f"{counted(channels, 'channel')} ({', '.join(self.channels)}).{hint}"
            )
        try:
            sizes = None if spacing is None else tuple(float(size) for size in spacing)
        except (TypeError, ValueError):
            sizes = None
        if sizes is None or len(sizes) != count or not all(0 < s < np.inf for s in sizes):
            raise UsageError(
                f"The spacing is {spacing}; an array needs {count} positive numbers of mm, in the "
                f"order of its axes: ({axes})."
            )
        if self.planar:
            array, sizes = array[:, None], (SLICE_SPACING_2D, *sizes)
        z, y, x = array.shape[1:]
        sz, sy, sx = sizes
        images = array.astype(np.float32)
        check_finite(images, Path("The array"))
        return Case(_NAME, images, None, Geometry((z, y, x), (sz, sy, sx)))

    def _of_images(self, image: object) -> tuple[Case, TakesObjects]:
        """Return a case, and what makes images of its label map."""
        given = list(image) if isinstance(image, list | tuple) else [image]
        if given and all(isinstance(one, str | Path) for one in given):
            places = [Path(str(one)) for one in given]
            dataset, cases = find_inputs(places, self._dataset, self._registry)
            if len(cases) > 1:
                raise UsageError(f"{counted(len(cases), 'case')} are given; predict one by one.")
            return dataset.load(cases[0]), next(iter(self._takers()))
        for taker in self._takers():
            found = [taker.from_object(one, f"image {n}") for n, one in enumerate(given)]
            images = [one for one in found if one is not None]
            if images and len(images) == len(given):
                return self._joined(images), taker
        kinds = ", ".join(sorted({type(one).__name__ for one in given})) or "an empty list"
        raise UsageError(
            f"An image is a NumPy array, SimpleITK images or paths, one per channel; got {kinds}."
        )

    def _joined(self, images: Sequence[Image]) -> Case:
        names = [Path(f"image {number}") for number in range(len(images))]
        joined = stack_channels(images, names)
        if len(joined.array) != len(self.channels):
            raise UsageError(
                f"{counted(len(joined.array), 'channel')} are given; the model takes "
                f"{len(self.channels)}: {', '.join(self.channels)}."
            )
        check_finite(joined.array, names[0])
        if (joined.geometry.spacing[0] == SLICE_SPACING_2D) != self.planar:
            raise ImageError(f"The model takes {'2D images' if self.planar else 'volumes'}.")
        return Case(_NAME, joined.array, None, joined.geometry)

    def _takers(self) -> list[TakesObjects]:
        formats = [built(r) for r in self._registry.components("image_format") if r.is_own]
        takers = [each for each in formats if isinstance(each, TakesObjects)]
        if not takers:
            raise PluginError(
                "No image format knows images in memory: the plugin 'formats' is blocked. Give "
                "arrays."
            )
        return takers


def _keep(whole: np.ndarray, start: int, slab: np.ndarray) -> None:
    whole[:, start : start + slab.shape[1]] = slab
