"""Datasets without files, as planners see them: sizes and spacings; and stages of plans in the
words of v1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.fingerprint import CaseFingerprint, Fingerprint, IntensityStatistics
from nnunet_core.data.labels import Labels
from nnunet_core.data.plans import Configuration

STATISTICS = IntensityStatistics(
    mean=0, sd=1, median=0, minimum=-1, maximum=1, percentile_00_5=-1, percentile_99_5=1
)


def described(
    sizes: Sequence[Sequence[int]],
    spacings: Sequence[Sequence[float]],
    channels: Sequence[str],
    classes: int,
    reductions: Sequence[float] | None = None,
) -> tuple[Dataset, Fingerprint]:
    """Return a dataset and its fingerprint: voxels and mm (z, y, x) and the share that cropping
    leaves, of each case.
    """
    rows = zip(sizes, spacings, reductions or [1.0] * len(sizes), strict=True)
    cases = [
        CaseFingerprint(name=f"case_{i:04d}", size=size, spacing=spacing, size_reduction=reduction)
        for i, (size, spacing, reduction) in enumerate(rows)
    ]
    foreground = tuple(range(1, classes + 1))
    fingerprint = Fingerprint(
        dataset_digest="x",
        channels=tuple(channels),
        foreground=foreground,
        cases=tuple(cases),
        intensities=(STATISTICS,) * len(channels) if {"CT", "ct"} & set(channels) else (),
    )
    image_format = SimpleItkFormat()
    dataset = Dataset(
        folder=Path("Dataset001_Test"),
        name="Dataset001_Test",
        channels=tuple(channels),
        labels=Labels(names={v: str(v) for v in (0, *foreground)}, foreground=foreground),
        ending=".nii.gz",
        image_format=image_format,
        label_ending=".nii.gz",
        label_format=image_format,
        training=(),
        document={},
    )
    return dataset, fingerprint


def stage_as_v1(configuration: Configuration) -> dict[str, Any]:
    """Return a configuration in the words of v1's plans file."""
    network = configuration.network
    pools = [list(kernel) for kernel in network.pool_kernels]
    return {
        "batch_size": configuration.batch_size,
        "num_pool_per_axis": [
            sum(pool[axis] > 1 for pool in pools) for axis in range(network.dimensions)
        ],
        "patch_size": list(configuration.patch_size),
        "median_patient_size_in_voxels": list(configuration.median_shape),
        "do_dummy_2D_data_aug": configuration.dummy_2d_augmentation,
        "pool_op_kernel_sizes": pools,
        "conv_kernel_sizes": [list(kernel) for kernel in network.conv_kernels],
    }
