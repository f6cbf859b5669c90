"""The dataset fingerprint: what planning knows of the images."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from nnunet_core.data.limits import Millimetres, Voxels
from nnunet_core.runtime.files import Document, digest


class IntensityStatistics(BaseModel):
    """Foreground intensities of one channel over all training cases (spec: fingerprint, section
    3).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    mean: float
    sd: float
    median: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


class CaseFingerprint(BaseModel):
    """What planning knows of one case; axis order (z, y, x).

    Attributes:
        name: Case name.
        size: Voxels after cropping to the non-zero region.
        spacing: Millimetres.
        size_reduction: Volume after cropping / volume before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    size: tuple[Voxels, Voxels, Voxels]
    spacing: tuple[Millimetres, Millimetres, Millimetres]
    size_reduction: float


class Fingerprint(Document):
    """The fingerprint of a dataset.

    Attributes:
        dataset_digest: Content digest of the raw dataset that it was computed from.
        channels: Channel names, by channel index.
        foreground: Foreground label values in the order of dataset.json.
        cases: Sorted by name.
        intensities: One per channel; empty when the planner does not look at them.
    """

    dataset_digest: str
    channels: tuple[str, ...]
    foreground: tuple[int, ...]
    cases: tuple[CaseFingerprint, ...]
    intensities: tuple[IntensityStatistics, ...] = ()

    @property
    def digest(self) -> str:
        """Identity of the fingerprint's content."""
        return digest(self.model_dump(mode="json"))
