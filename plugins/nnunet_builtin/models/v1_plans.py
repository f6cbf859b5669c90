"""Plans of nnU-Net v1, checked, and what of them is needed to predict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from nnunet_core.data.fingerprint import IntensityStatistics
from nnunet_core.data.limits import BatchSize, Channels, PatchSize
from nnunet_core.data.metadata import first_problem
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization, Triple
from nnunet_core.errors import StorageError


def _printable(name: str) -> str:
    if not name.isprintable():  # it is shown on terminals
        raise ValueError("must be printable")
    return name


_Kind = TypeVar("_Kind", bound="V1Plans")
Axes = tuple[int, int, int]
Name = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
_SCHEMES = {"CT": "CT", "CT2": "CT2", "nonCT": "zscore", "noNorm": "none"}
_STATISTICS = {
    "mean": "mean",
    "sd": "sd",
    "median": "median",
    "minimum": "mn",
    "maximum": "mx",
    "percentile_00_5": "percentile_00_5",
    "percentile_99_5": "percentile_99_5",
}
#: Preprocessors of v1, and ours.
PREPROCESSORS = {
    "GenericPreprocessor": "builtin/default",
    "PreprocessorFor2D": "builtin/planes",
    "GenericPreprocessor_linearResampling": "builtin/linear",
    "PreprocessorFor3D_LeaveOriginalZSpacing": "builtin/leave_z",
    "PreprocessorFor3D_NoResampling": "builtin/no_resampling",
}


class _Part(BaseModel):
    """A part of the plans; what predicting does not need is left out, names of cases among it."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Stage(_Part):
    """A stage of the plans, axes permuted by `transpose_forward`: sizes in voxels, spacing in
    mm.
    """

    patch_size: Annotated[tuple[PatchSize, ...], Field(min_length=2, max_length=3)]
    batch_size: BatchSize
    current_spacing: Triple
    median_patient_size_in_voxels: tuple[float, float, float]
    dummy_2d: Annotated[bool, Field(alias="do_dummy_2D_data_aug")] = False


class _Properties(_Part):
    intensityproperties: dict[int, dict[str, Any]] | None = None


class V1Plans(_Part):
    """What predicting needs of plans.pkl. Old plans lack some of it; their defaults are v1's.

    Sizes of kernels and of features are not read: the weights have them.
    """

    num_modalities: Channels
    modalities: dict[int, Name]
    normalization_schemes: dict[int, str]
    dataset_properties: _Properties = _Properties()
    num_classes: Channels
    all_classes: tuple[int, ...]
    use_mask_for_norm: dict[int, bool] | None = None
    transpose_forward: Axes | None = None
    transpose_backward: Axes | None = None
    plans_per_stage: Annotated[dict[int, Stage], Field(min_length=1, max_length=8)]
    preprocessor_name: str | None = None
    segmentation_export_params: dict[str, Any] | None = None

    @classmethod
    def of(cls: type[_Kind], content: Any, source: Path) -> _Kind:
        """Return the plans in a dict of plain values and arrays.

        Raises:
            StorageError: They are none, or ask for more than a machine has.
        """
        try:
            plans = cls.model_validate(_listed(content))
        except (ValidationError, RecursionError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise _unfit(source, problem) from error
        for names in (plans.modalities, plans.normalization_schemes):
            if sorted(names) != list(range(plans.num_modalities)):
                raise _unfit(source, f"{plans.num_modalities} channels, but names of {len(names)}")
        if list(plans.all_classes) != list(range(1, plans.num_classes + 1)):
            raise _unfit(source, f"all_classes is not 1 to {plans.num_classes}")
        return plans

    def stage(self, configuration: str) -> Stage:
        """Return the stage of a configuration: the first for low resolution, else the last."""
        stages = [self.plans_per_stage[number] for number in sorted(self.plans_per_stage)]
        return stages[0 if configuration == "3d_lowres" else -1]

    def preprocessor(self, dimensions: int) -> str:
        """Return v1's name of the preprocessor; old plans leave it open."""
        usual = "PreprocessorFor2D" if dimensions == 2 else "GenericPreprocessor"
        return self.preprocessor_name or usual

    def channels(self) -> tuple[str, ...]:
        """Return the names of the channels in the order of the files."""
        return tuple(self.modalities[index] for index in range(self.num_modalities))

    def configuration(
        self, name: str, network: NetworkSpec, batch_dice: bool, source: Path
    ) -> Configuration:
        """Return the configuration of a name in our words.

        Args:
            name: `2d`, `3d_lowres`, `3d_fullres`, `3d_cascade_fullres`.
            network: What the weights say of it.
            batch_dice: How it was trained.
            source: File, for messages.

        Raises:
            StorageError: Plans and weights do not fit together, or a value is out of its range.
        """
        stage = self.stage(name)
        preprocessor = PREPROCESSORS.get(self.preprocessor(network.dimensions))
        if preprocessor is None:
            raise _unfit(source, f"the preprocessor {self.preprocessor_name!r:.100} is not v1's")
        if len(stage.patch_size) != network.dimensions:
            raise _unfit(
                source,
                f"a patch of {len(stage.patch_size)} axes, weights of {network.dimensions}",
            )
        median: Any = tuple(max(1, round(size)) for size in stage.median_patient_size_in_voxels)
        try:
            return Configuration(
                preprocessor=preprocessor,
                transpose_forward=self._transpose(source),
                spacing=stage.current_spacing,
                median_shape=median,
                patch_size=stage.patch_size,
                batch_size=stage.batch_size,
                network=network,
                dummy_2d_augmentation=stage.dummy_2d,
                batch_dice=batch_dice,
                normalization=tuple(self._normalizations(source)),
                previous="3d_lowres" if name == "3d_cascade_fullres" else None,
            )
        except ValidationError as error:
            raise _unfit(source, first_problem(error)) from error

    def _transpose(self, source: Path) -> Axes:
        forward, backward = self.transpose_forward, self.transpose_backward
        if forward is None or backward is None:  # as v1: one of them alone means nothing
            return (0, 1, 2)
        if sorted(forward) != [0, 1, 2] or any(backward[forward[i]] != i for i in range(3)):
            raise _unfit(source, f"axes {forward} and {backward}, which do not undo each other")
        return forward

    def _normalizations(self, source: Path) -> list[Normalization]:
        found = []
        for index in range(self.num_modalities):
            scheme = _SCHEMES.get(self.normalization_schemes[index])
            if scheme is None:
                raise _unfit(
                    source, f"the normalisation {self.normalization_schemes[index]!r:.100}"
                )
            statistics = self._statistics(index) if scheme.startswith("CT") else None
            mask = (self.use_mask_for_norm or {}).get(index, False)
            found.append(Normalization(scheme=scheme, use_mask=mask, statistics=statistics))
        return found

    def _statistics(self, index: int) -> IntensityStatistics:
        properties = (self.dataset_properties.intensityproperties or {}).get(index, {})
        values = {name: properties.get(theirs) for name, theirs in _STATISTICS.items()}
        return IntensityStatistics.model_validate(values)


def check_patch(configuration: Configuration, source: Path) -> None:
    """Raise StorageError where a network cannot halve its patch as often as it must."""
    pools = np.prod(np.array(configuration.network.pool_kernels), axis=0)
    if any(size % pool for size, pool in zip(configuration.patch_size, pools, strict=True)):
        raise _unfit(
            source,
            f"the patch {configuration.patch_size} is no multiple of {tuple(map(int, pools))}, "
            "which the weights need",
        )


def _unfit(source: Path, problem: str) -> StorageError:
    return StorageError(
        f"{source} holds no usable plans of nnU-Net v1: {problem}. Get an intact copy of the model."
    )


def _listed(value: Any) -> Any:
    """Return dicts, lists and scalars with arrays as lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _listed(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(part) for part in value]
    return value
