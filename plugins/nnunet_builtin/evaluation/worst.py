"""Pictures of the worst cases: the images are looked for, the plugins that draw are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_builtin.evaluation.statistics import Row
from nnunet_core.data.folders import without_ending
from nnunet_core.data.images import Image, ImageFormat
from nnunet_core.data.labels import Labels
from nnunet_core.data.orientation import turned_like
from nnunet_core.errors import NnunetError, listed
from nnunet_core.registry.hooks import Hooks
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.evaluate import read_label_image, targets


@dataclass(frozen=True)
class Gallery:
    """Where the files of cases lie, and what reads them.

    Attributes:
        pairs: (prediction, reference) of every case.
        labels: What their values mean.
        label_format, label_ending: Of these files.
        images: Folder of images CASE_0000.ext or CASE.ext, or None.
        image_format, image_ending: Of these files.
    """

    pairs: Sequence[tuple[Path, Path]]
    labels: Labels
    label_format: ImageFormat
    label_ending: str
    images: Path | None
    image_format: ImageFormat
    image_ending: str

    def draw(
        self, titles: Mapping[Row, str], folder: Path, hooks: Hooks, report: Reporter
    ) -> list[str]:
        """Let the plugins draw {worst row of a case: title} to `worst_1_CASE.png` and so on; return
        the names of the files that are there then.
        """
        found = {without_ending(pair[0].name, self.label_ending): pair for pair in self.pairs}
        drawn, without_image = [], []
        for number, (row, title) in enumerate(titles.items(), start=1):
            case, values = row.case, targets(self.labels)[row.target]
            path = folder / f"worst_{number}_{case}.png"
            path.unlink(missing_ok=True)
            predicted, true = (read_label_image(side, self.label_format) for side in found[case])
            image = self._image(case, true, report)
            if image is None:
                without_image.append(case)
                image = Image(np.zeros_like(true.array, np.float32), true.geometry)
            maps = true.array[0], turned_like(predicted, true.geometry).array[0]
            for warning in hooks.worst_case_found(image, *maps, self.labels, values, title, path):
                report.warning(warning)
            drawn += [path.name] if path.is_file() else []
        if without_image and drawn:
            where = "--images names a folder of images" if self.images is None else self.images
            report.message(f"drawn without their images: {listed(without_image)} ({where})")
        return drawn

    def _image(self, case: str, like: Image, report: Reporter) -> Image | None:
        """Return the first channel of a case on the grid of its reference, if there is one."""
        if self.images is None:
            return None
        names = (f"{case}_0000{self.image_ending}", f"{case}{self.image_ending}")
        path = next((self.images / n for n in names if (self.images / n).exists()), None)
        if path is None:
            return None
        try:
            image = turned_like(self.image_format.read(path), like.geometry)
        except NnunetError as error:
            report.warning(f"{case} is drawn without its image: {error}")
            return None
        if like.geometry.contrast(image.geometry, "reference", "image"):
            report.warning(f"{case} is drawn without its image: {path} lies on another grid")
            return None
        return replace(image, array=image.array[:1])


def images_beside(references: Path) -> Path | None:
    """Return the folder `imagesX` beside a folder `labelsX`, if it is there."""
    folder = references.resolve()
    images = folder.with_name(folder.name.replace("labels", "images", 1))
    return images if images != folder and images.is_dir() else None
