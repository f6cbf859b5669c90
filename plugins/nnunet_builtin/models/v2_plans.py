"""What plans.json and dataset.json of nnU-Net v2 say, read with every doubt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nnunet_core.data.labels import Labels
from nnunet_core.data.limits import STAGES, BatchSize, Millimetres, PatchSize
from nnunet_core.data.metadata import first_problem
from nnunet_core.errors import StorageError, UsageError, nearest
from nnunet_core.runtime import files
from nnunet_core.runtime.names import Ending, PlainName

_LARGEST = 64 << 20  # bytes of a JSON file; plans have some ten thousand
_INTACT = "Get an intact copy of the model."
_Read = TypeVar("_Read", bound=BaseModel)
_LINEAR: dict[str, Any] = {"order": 1, "order_z": 0, "force_separate_z": None}
_Numbers = Annotated[tuple[float, ...], Field(max_length=3)]


class _Part(BaseModel):
    """A JSON object of v2, of which only what predicting needs is read."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Intensities(_Part):
    """Foreground intensities of a channel."""

    mean: float
    std: float
    percentile_00_5: float
    percentile_99_5: float
    median: float | None = None
    min: float | None = None
    max: float | None = None


class NetworkArguments(_Part):
    """What plans say of a network that its weights do not show."""

    strides: int | tuple[int | tuple[int, ...], ...] = ()
    norm_op: str | None = None
    norm_op_kwargs: dict[str, Any] | None = None
    nonlin: str | None = None
    nonlin_kwargs: dict[str, Any] | None = None
    nonlin_first: bool = False


class Architecture(_Part):
    """The network that plans describe; older plans have none."""

    arch_kwargs: NetworkArguments = NetworkArguments()


class V2Configuration(_Part):
    """A configuration, with what it inherits from others."""

    patch_size: Annotated[tuple[PatchSize, ...], Field(min_length=2, max_length=3)]
    spacing: Annotated[tuple[Millimetres, ...], Field(min_length=2, max_length=3)]
    batch_size: BatchSize = 2
    batch_dice: bool = False
    median_image_size_in_voxels: _Numbers = ()
    preprocessor_name: str = "DefaultPreprocessor"
    normalization_schemes: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    resampling_fn_data: str = "resample_data_or_seg_to_shape"
    resampling_fn_data_kwargs: dict[str, Any] = Field(
        default={"order": 3, "order_z": 0, "force_separate_z": None}
    )
    resampling_fn_seg: str = "resample_data_or_seg_to_shape"
    resampling_fn_seg_kwargs: dict[str, Any] = Field(default=_LINEAR)
    resampling_fn_probabilities: str = "resample_data_or_seg_to_shape"
    resampling_fn_probabilities_kwargs: dict[str, Any] = Field(default=_LINEAR)
    architecture: Architecture = Architecture()
    previous_stage: PlainName | None = None


class V2Plans(_Part):
    """plans.json."""

    dataset_name: str = ""
    plans_name: str = "nnUNetPlans"
    image_reader_writer: str = "SimpleITKIO"
    transpose_forward: tuple[int, int, int]
    original_median_spacing_after_transp: _Numbers = ()
    original_median_shape_after_transp: _Numbers = ()
    label_manager: str = "LabelManager"
    configurations: dict[str, dict[str, Any]]
    foreground_intensity_properties_per_channel: dict[str, Intensities] = Field(
        default_factory=dict
    )
    foreground_intensity_properties_by_modality: dict[str, Intensities] = Field(
        default_factory=dict
    )

    def intensities(self, channel: int) -> Intensities | None:
        """Return the intensities of a channel; older plans have them under another name."""
        stored = self.foreground_intensity_properties_per_channel
        return (stored or self.foreground_intensity_properties_by_modality).get(str(channel))

    def configuration(self, name: str, path: Path) -> V2Configuration:
        """Return a configuration with what it inherits.

        Raises:
            UsageError: There is none of this name.
            StorageError: It is not as v2 writes it, inherits from nothing, or in a circle.
        """
        content = self.merged(name, path)
        return checked(V2Configuration, content, f"{path}: configuration '{name}'")

    def merged(self, name: str, path: Path) -> dict[str, Any]:
        """Return the content of a configuration with what it inherits (`inherits_from`).

        Raises:
            UsageError: There is none of this name.
            StorageError: It inherits from nothing, or in a circle.
        """
        if name not in self.configurations:
            raise UsageError(
                f"{path} has no configuration '{name}'.{nearest(name, self.configurations)} It "
                f"has: {', '.join(self.configurations)}. Name one with --configuration."
            )
        chain = [name]
        while (parent := self.configurations[chain[-1]].get("inherits_from")) is not None:
            if parent in chain or parent not in self.configurations or len(chain) > STAGES:
                raise StorageError(
                    f"{path}: configuration '{chain[-1]}' inherits from {parent!r}, which is "
                    f"{'a circle' if parent in chain else 'not there'}. {_INTACT}"
                )
            chain.append(parent)
        merged = {}
        for ancestor in reversed(chain):
            merged.update(self.configurations[ancestor])
        return merged


class V2Dataset(_Part):
    """dataset.json."""

    channel_names: dict[str, str] | list[str] | None = None
    modality: dict[str, str] | list[str] | None = None
    labels: dict[str, Any]
    regions_class_order: list[int] | None = None
    file_ending: Ending = ".nii.gz"

    def meaning(self, path: Path) -> Labels:
        """Return what the outputs of the network mean.

        Raises:
            DatasetError: Its labels are none that v2 trains with and that can be predicted here.
        """
        named = dict(self.labels)
        values = [value for value in named.values() if isinstance(value, list)]
        if values and all(len(value) == 1 for value in values):
            # lists of one value make no regions in v2
            named = {k: v[0] if isinstance(v, list) else v for k, v in named.items()}
        return Labels.from_names(named, self.regions_class_order, path)

    def channels(self, path: Path) -> tuple[str, ...]:
        """Return the names of the channels, in order.

        Raises:
            StorageError: There are none, or their numbers are not 0, 1, ...
        """
        named = self.channel_names or self.modality or {}
        if isinstance(named, list):
            named = {str(index): name for index, name in enumerate(named)}
        wanted = [str(index) for index in range(len(named))]
        if not wanted or set(named) != set(wanted):
            raise StorageError(
                f"{path}: 'channel_names' has the numbers {sorted(named)[:10]}; they must be 0, 1, "
                f"... {_INTACT}"
            )
        return tuple(named[index] for index in wanted)


class V2Checkpoint(_Part):
    """What a checkpoint says beside its weights; files of other programs may say nothing."""

    trainer_name: str | None = None
    init_args: dict[str, Any] = Field(default_factory=dict)
    inference_allowed_mirroring_axes: tuple[int, ...] | None = None

    @property
    def configuration(self) -> str | None:
        """Name of the configuration that was trained."""
        name = self.init_args.get("configuration")
        return name if isinstance(name, str) else None


def read_json(kind: type[_Read], path: Path) -> _Read:
    """Read and check a JSON file of v2.

    Raises:
        StorageError: It is missing, very large, no JSON, or not as v2 writes it.
    """
    try:
        files.check_regular(path)
        size = path.stat().st_size
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    if size > _LARGEST:
        raise StorageError(f"{path} has {size} bytes; at most {_LARGEST} are read. {_INTACT}")
    return _valid(kind, files.read_json(path), str(path))


def checked(kind: type[_Read], content: Mapping[str, Any], source: str) -> _Read:
    """Check values that were read from elsewhere. Raises StorageError."""
    return _valid(kind, content, source)


def _valid(kind: type[_Read], content: Any, source: str) -> _Read:
    try:
        return kind.model_validate(content)
    except (ValidationError, RecursionError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else "it is too deep"
        raise StorageError(
            f"{source} is not as nnU-Net v2 writes it: {problem}. {_INTACT}"
        ) from error
