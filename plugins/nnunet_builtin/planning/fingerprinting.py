"""Read every training case once and describe it for planning (spec: fingerprint, sections 1 to
3).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from nnunet_builtin.preprocessing.cropping import crop
from nnunet_core.data.dataset import CaseFiles, Dataset
from nnunet_core.data.fingerprint import CaseFingerprint, Fingerprint, IntensityStatistics
from nnunet_core.runtime.workers import Workers

#: Channels of these names, exactly, have intensities in Hounsfield units.
CT_NAMES = frozenset({"CT", "ct"})
_EVERY = 10
#: Per case, where v1 takes no intensities: they serve schemes that a user sets.
_MOST_SAMPLES = 20_000


class Fingerprinting:
    """The first half of a planner. It stands in this file because a fingerprint is made anew when
    its file changes.
    """

    def fingerprint(
        self, dataset: Dataset, workers: Workers, progress: Callable[[str], None] | None = None
    ) -> Fingerprint:
        """Read every training case once and describe it (contracts.Planner; spec: fingerprint,
        section 3).

        Args:
            dataset: Its cases are read, checked and cropped one by one.
            workers: Processes to read cases in.
            progress: Called with the name of each case when it is described.

        Raises:
            NnunetError: A case cannot be used, or a process died.
        """
        most = None if any(name in CT_NAMES for name in dataset.channels) else _MOST_SAMPLES
        work = functools.partial(_describe, dataset.slim(), most)
        cases, samples = [], []
        for case, sample in workers.each(
            work, dataset.training, dataset.memory, name=lambda files: f"case {files.name}"
        ):
            cases.append(case)
            samples.append(sample)
            if progress is not None:
                progress(case.name)
        intensities = []
        for channel in range(len(dataset.channels)):
            values = np.concatenate([sample[channel] for sample in samples])
            intensities.append(statistics(values))
        return Fingerprint(
            dataset_digest=dataset.digest,
            channels=dataset.channels,
            foreground=dataset.labels.foreground,
            cases=tuple(cases),
            intensities=tuple(intensities),
        )


def statistics(values: np.ndarray) -> IntensityStatistics:
    """Describe the foreground intensities of one channel, float32 (n,); NaN throughout when there
    are none (section 3).
    """
    if values.size == 0:
        names = IntensityStatistics.model_fields
        return IntensityStatistics(**dict.fromkeys(names, math.nan))
    low, high = np.percentile(values, [0.5, 99.5])
    return IntensityStatistics(
        mean=float(values.mean()),
        sd=float(values.std()),
        median=float(np.median(values)),
        minimum=float(values.min()),
        maximum=float(values.max()),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )


def _describe(
    dataset: Dataset, most: int | None, files: CaseFiles
) -> tuple[CaseFingerprint, list[np.ndarray]]:
    """Return a case's fingerprint and, per channel, every tenth foreground intensity in C order, or
    `most` of them.
    """
    case = dataset.load(files)
    images, label, box = crop(case)
    sizes = tuple(stop - start for start, stop in box)
    described = CaseFingerprint(
        name=case.name,
        size=(sizes[0], sizes[1], sizes[2]),
        spacing=case.geometry.spacing,
        size_reduction=math.prod(sizes) / math.prod(case.geometry.shape),
    )
    foreground = label > 0
    step = _EVERY
    if most is not None:
        step = max(step, math.ceil(np.count_nonzero(foreground) / most))
    return described, [image[foreground][::step] for image in images]
