"""A configuration of nnU-Net v2's plans as one of ours, and the preprocessor that it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from nnunet_builtin.models.v2_plans import Intensities, V2Configuration, V2Plans
from nnunet_core.data.fingerprint import IntensityStatistics
from nnunet_core.data.metadata import first_problem
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization
from nnunet_core.errors import StorageError

PREPROCESSOR = "builtin/v2"
_SCHEMES = {
    "CTNormalization": "CT",
    "ZScoreNormalization": "zscore",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale_to_0_1",
    "RGBTo01Normalization": "rgb_to_0_1",
}
#: Readers of images: does the network want the axes of the body?
_REORIENTS = {
    "SimpleITKIO": False,
    "NibabelIO": False,
    "NaturalImage2DIO": False,
    "Tiff3DIO": False,
    "NibabelIOWithReorient": True,
    "SimpleITKIOWithReorient": True,
}
_SPLINES, _TORCH, _NO_RESAMPLING = (
    "resample_data_or_seg_to_shape",
    "resample_torch_fornnunet",
    "no_resampling_hack",
)
_SHARED = ("resample", "separate_z")
_FIXED = {
    "separate_z_anisotropy_threshold": 3,
    "mode": "linear",
    "aniso_axis_mode": "nearest-exact",
}
_WITHOUT_EFFECT = ("is_seg", "num_threads", "device", "memefficient_seg_resampling")
_OWN_TIFF = ("NaturalImage2DIO", "Tiff3DIO")  # they take no spacing from the files


def configuration_of(
    plans: V2Plans, found: V2Configuration, spec: NetworkSpec, source: str
) -> Configuration:
    """Return a configuration with the network of its weights.

    Raises:
        StorageError: It asks for a normalisation that is not known here, or for sizes that no
            machine has.
    """
    try:
        return Configuration(
            preprocessor=PREPROCESSOR,
            transpose_forward=plans.transpose_forward,
            spacing=_volume(found.spacing, plans.original_median_spacing_after_transp),
            median_shape=_whole(
                _volume(found.median_image_size_in_voxels, plans.original_median_shape_after_transp)
            ),
            patch_size=found.patch_size,
            batch_size=found.batch_size,
            network=spec,
            dummy_2d_augmentation=False,
            batch_dice=found.batch_dice,
            normalization=_normalization(plans, found),
            previous=found.previous_stage,
        )
    except (ValidationError, ValueError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise StorageError(f"{source}: {problem}. It cannot be imported.") from error


def preparation(
    plans: V2Plans, found: V2Configuration, source: str
) -> tuple[str, Mapping[str, Any]]:
    """Return reference and settings of the preprocessor that prepares as v2 does.

    Raises:
        StorageError: The plans name a preprocessor, reader or way of resampling that has no equal
            here.
    """
    try:
        settings = {**_resampling(found), **_orientation(plans)}
    except ValueError as error:
        raise StorageError(f"{source} names {error}. It cannot be predicted as v2 does.") from error
    if len(found.patch_size) == 2 and settings.get("resample") is None:
        settings["resample"] = "in_plane"
    return PREPROCESSOR, settings


def image_format(plans: V2Plans, ending: str) -> str | None:
    """Return the component that reads images as v2's reader does; None goes by their ending."""
    own = plans.image_reader_writer in _OWN_TIFF and ending.lower() in (".tif", ".tiff")
    return "formats/tiff_sidecar" if own else None


def _orientation(plans: V2Plans) -> dict[str, Any]:
    if plans.image_reader_writer not in _REORIENTS:
        raise ValueError(
            f"the reader {plans.image_reader_writer}; known are {', '.join(_REORIENTS)}"
        )
    return {"orientation": "RAS"} if _REORIENTS[plans.image_reader_writer] else {}


def _resampling(found: V2Configuration) -> dict[str, Any]:
    """Return the settings of resampling: of v2's own functions, where they have an equal here."""
    if found.preprocessor_name != "DefaultPreprocessor":
        raise ValueError(f"the preprocessor {found.preprocessor_name}; known: DefaultPreprocessor")
    images = _way(found.resampling_fn_data, found.resampling_fn_data_kwargs)
    back = _way(found.resampling_fn_probabilities, found.resampling_fn_probabilities_kwargs)
    ways = [images, back]
    if found.previous_stage is not None:
        if found.resampling_fn_seg == _TORCH:
            raise ValueError(f"{_TORCH} for the label maps of a cascade")
        ways.append(_way(found.resampling_fn_seg, found.resampling_fn_seg_kwargs))
    for way in ways[1:]:
        if {key: way.get(key) for key in _SHARED} != {key: images.get(key) for key in _SHARED}:
            raise ValueError("other ways of resampling for images than for what networks return")
        if way.get("order", 1) != 1 or way.get("order_z", 0) != 0:
            raise ValueError(f"resampling of what networks return by splines: {way}")
    return images


def _way(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of one function of resampling.

    Raises:
        ValueError: It has no equal here.
    """
    if name == _NO_RESAMPLING:
        return {"resample": "none"}
    # what a function does without being told is that of v2's sources
    given = {"force_separate_z": None if name == _TORCH else False, **arguments}
    separate = given.pop("force_separate_z")
    orders = (1, 0) if name == _TORCH else (given.pop("order", 3), given.pop("order_z", 0))
    odd = {k: v for k, v in given.items() if k not in _WITHOUT_EFFECT and _FIXED.get(k) != v}
    fits = name in (_SPLINES, _TORCH) and not odd and orders[0] in (1, 3) and orders[1] in (0, 1, 3)
    if not fits or separate not in (None, False):
        raise ValueError(f"resampling by {name} with {dict(arguments)}")
    apart = {} if separate is None else {"separate_z": False}
    return {"order": orders[0], "order_z": orders[1], **apart}


def _normalization(plans: V2Plans, found: V2Configuration) -> tuple[Normalization, ...]:
    if len(found.use_mask_for_norm) != len(found.normalization_schemes):
        raise ValueError("use_mask_for_norm has not one entry for each channel")
    made = []
    for channel, name in enumerate(found.normalization_schemes):
        if name not in _SCHEMES:
            raise ValueError(f"the normalisation {name}; known are {', '.join(_SCHEMES)}")
        scheme, statistics = _SCHEMES[name], None
        if scheme == "CT":
            statistics = _statistics(plans.intensities(channel), channel)
        # of the others v2 takes no notice of the mask
        masked = scheme == "zscore" and found.use_mask_for_norm[channel]
        made.append(Normalization(scheme=scheme, use_mask=masked, statistics=statistics))
    return tuple(made)


def _statistics(found: Intensities | None, channel: int) -> IntensityStatistics:
    if found is None:
        raise ValueError(f"CTNormalization without intensities of channel {channel}")
    middle = found.mean if found.median is None else found.median
    return IntensityStatistics(
        mean=found.mean,
        sd=found.std,
        median=middle,
        minimum=found.percentile_00_5 if found.min is None else found.min,
        maximum=found.percentile_99_5 if found.max is None else found.max,
        percentile_00_5=found.percentile_00_5,
        percentile_99_5=found.percentile_99_5,
    )


def _volume(values: Sequence[float], medians: Sequence[float]) -> tuple[float, float, float]:
    """Return three numbers for two of a 2D configuration, or none: those of the median case."""
    rest = tuple(medians[: 3 - len(values)])
    first, second, third = (*rest, *(1.0,) * (3 - len(rest) - len(values)), *values)
    return first, second, third


def _whole(shape: Sequence[float]) -> tuple[int, int, int]:
    first, second, third = (max(1, round(size)) for size in shape)
    return first, second, third
