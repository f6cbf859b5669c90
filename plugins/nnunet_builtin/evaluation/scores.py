"""Every metric of `nnunet evaluate`: what it is called, what it means, what computes it, and which
value a missed or false label has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

#: What may be asked for: `overlap` is v1's, and always there.
GROUPS = ("overlap", "surface", "volume", "lesions")

_OURS, _SURFACES = "nnunet-core", "surface-distance"


@dataclass(frozen=True)
class Metric:
    """One number per case and label.

    Attributes:
        name: In files.
        group: One of GROUPS.
        better: Which values are; `none` tells that it is no score.
        unit: Empty for shares and numbers.
        one_empty: Its value where exactly one of the two maps has the label; None is what its
            formula gives. Where neither has it, every metric is undefined.
        package: Distribution that computes it.
        meaning: One line.
    """

    name: str
    group: str
    better: Literal["higher", "lower", "none"]
    unit: str
    one_empty: float | None
    package: str
    meaning: str

    def described(self) -> dict[str, str]:
        """Return what a file says of it."""
        return {
            "unit": self.unit,
            "better": self.better,
            "implementation": f"{self.package} {version(self.package)}",
            "meaning": self.meaning,
        }


METRICS = (
    Metric("Dice", "overlap", "higher", "", 0.0, _OURS, "2 TP / (2 TP + FP + FN) of voxels"),
    Metric(
        "Surface Dice",
        "surface",
        "higher",
        "",
        0.0,
        _SURFACES,
        "share of both surfaces within the tolerance of the other one, by area",
    ),
    Metric(
        "HD95",
        "surface",
        "lower",
        "mm",
        math.inf,
        _SURFACES,
        "larger one of the 95th percentiles of the distances from each surface to the other, by "
        "area",
    ),
    Metric(
        "ASSD",
        "surface",
        "lower",
        "mm",
        math.inf,
        _SURFACES,
        "mean distance between the surfaces, over both together, by area",
    ),
    Metric(
        "Volume Error",
        "volume",
        "none",
        "mm3",
        None,
        _OURS,
        "predicted volume - reference volume (area in mm2 of single slices)",
    ),
    Metric(
        "Relative Volume Error",
        "volume",
        "none",
        "",
        None,
        _OURS,
        "volume error / reference volume; infinite where the reference is empty",
    ),
    Metric(
        "Lesion F1",
        "lesions",
        "higher",
        "",
        0.0,
        _OURS,
        "2 TP / (2 TP + FP + FN) of connected components, matched one to one",
    ),
    Metric("Lesions Reference", "lesions", "none", "", None, _OURS, "components of the reference"),
    Metric("Lesions Test", "lesions", "none", "", None, _OURS, "components of the prediction"),
    Metric("Lesions Matched", "lesions", "none", "", None, _OURS, "matched components"),
)

#: What cases are ranked by, the first that decides.
_RANKED = ("Dice", "Surface Dice", "HD95", "Lesion F1")


def chosen(groups: Sequence[str]) -> tuple[Metric, ...]:
    """Return the metrics of some groups; those of `overlap` always."""
    return tuple(metric for metric in METRICS if metric.group in {"overlap", *groups})


def status_of(scores: Mapping[str, float | None]) -> str:
    """Return `found` where both maps have a label, `missed` or `false` where only the reference or
    only the prediction has it, `absent` where neither has it; from the overlap metrics.
    """
    true, predicted = scores["Total Positives Reference"], scores["Total Positives Test"]
    if true:
        return "found" if predicted else "missed"
    return "false" if predicted else "absent"


def badness(scores: Mapping[str, float | None]) -> tuple[float, ...]:
    """Return what cases of one label are sorted by, the worst highest: missed and false ones have
    Dice 0 and an infinite HD95.
    """
    better = {metric.name: metric.better for metric in METRICS}
    found = []
    for name in _RANKED:
        value = scores.get(name)
        if value is not None:
            found.append(value if better[name] == "lower" else -value)
    return tuple(found)
