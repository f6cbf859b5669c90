"""Pictures: predictions over images, contact sheets of datasets; PNG files, written atomically.

Matplotlib is imported on first use and only through figure objects: no window, no global state.
When the direction of the image is given, slices are shown the way radiologists read them: patient
left on the right side, front up, head up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from nnunet_builtin.pages.volumes import COLOURS
from nnunet_core.data.images import SLICE_SPACING_2D
from nnunet_core.runtime.files import atomic_path
from nnunet_core.stages.evaluate import evaluate_case

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nnunet_core.data.cases import Case
    from nnunet_core.data.labels import Labels

IGNORED = "#9a9a9a"

#: A slice axis this much coarser than the others is the axis that people look along.
_ANISOTROPIC = 3.0
#: Inches of a case on a contact sheet.
_THUMBNAIL = 1.7
_DARK, _LIGHT = "#101214", "#e8e8e8"
#: (top, bottom), (left, right) of slices along z, y, x.
_BORDERS = ((("A", "P"), ("R", "L")), (("S", "I"), ("R", "L")), (("S", "I"), ("A", "P")))


def overlay_picture(
    image: np.ndarray,
    reference: np.ndarray | None,
    prediction: np.ndarray | None,
    title: str,
    path: Path,
    spacing: tuple[float, float, float],
    labels: Labels,
    direction: Sequence[float] | None = None,
    focus: Sequence[int] = (),
) -> None:
    """Draw an image, its reference and its prediction side by side, through the slices that show
    most labels.

    Isotropic volumes are cut along the three axes, anisotropic ones three times across their coarse
    axis, single slices are shown as they are. Lengths are in mm on both axes. The outline of the
    reference is white on the prediction.

    Args:
        image: One channel (Z, Y, X).
        reference: Integer (Z, Y, X), or None.
        prediction: Integer (Z, Y, X), or None.
        title: Above the picture.
        path: PNG to write.
        spacing: mm, axis order (z, y, x).
        labels: For names and Dice.
        direction: Row-major 3x3 matrix in SimpleITK order, to show the patient upright; None shows
            the array as it is.
        focus: Values of labels that slices are chosen by; all of them if it is empty.
    """
    maps = {"reference": reference, "prediction": prediction}
    known = {name: array for name, array in maps.items() if array is not None}
    volume = _Volume.upright(image, list(known.values()), spacing, direction, tuple(focus))
    views = _views(volume)
    legend = _Legend.of(labels, reference, prediction)
    figure, grid = _panels([volume.size_mm(axis) for axis, _ in views], 1 + len(known), legend)
    window = _window(image)
    for row, (axis, index) in zip(grid, views, strict=True):
        for column, axes in enumerate(row):
            _draw_view(axes, volume, axis, index, window, column - 1, labels)
    for axes, name in zip(grid[0], ("image", *known), strict=True):
        axes.set_title(name, color=_LIGHT, fontsize=10)
    figure.suptitle(title, color=_LIGHT, fontsize=12)
    legend.draw(figure)
    _save(figure, path)


def contact_sheet(
    cases: Iterable[Case], path: Path, labels: Labels, columns: int | None = None
) -> None:
    """Draw every case small, through the slice with most foreground, with its labels in colour and
    its name.

    Args:
        cases: Read one after the other; only one slice of each is kept.
        path: PNG to write.
        labels: For colours and names.
        columns: Cases per row; None makes the sheet about as wide as high.
    """
    thumbnails = [_thumbnail(case, labels) for case in cases]
    columns = columns or max(1, min(len(thumbnails), math.ceil(math.sqrt(1.3 * len(thumbnails)))))
    rows = max(1, math.ceil(len(thumbnails) / columns))
    width, legend = max(columns * _THUMBNAIL, 4.0), _Legend.of(labels)
    figure = _figure(width, rows * _THUMBNAIL + legend.height(width), _DARK)
    axes = figure.subplots()
    for number, (name, picture, (height, width)) in enumerate(thumbnails):
        x, y = number % columns + 0.5, rows - 1 - number // columns + 0.54
        scale = 0.44 / max(height, width)
        box = (x - width * scale, x + width * scale, y - height * scale, y + height * scale)
        axes.imshow(picture, extent=box, interpolation="nearest")
        axes.text(x, y - 0.5, _shortened(name), color=_LIGHT, fontsize=7, ha="center", va="center")
    axes.set(xlim=(0, columns), ylim=(0, rows), aspect="equal")
    axes.set_axis_off()
    legend.draw(figure)
    _save(figure, path)


@dataclass(frozen=True)
class _Volume:
    """Arrays (Z, Y, X): z from feet to head, y from front to back, x from right to left, as far as
    that is known.
    """

    image: np.ndarray
    maps: tuple[np.ndarray, ...]
    spacing: tuple[float, float, float]
    oriented: bool
    focus: tuple[int, ...] = ()

    @classmethod
    def upright(
        cls,
        image: np.ndarray,
        maps: Sequence[np.ndarray],
        spacing: Sequence[float],
        direction: Sequence[float] | None,
        focus: tuple[int, ...] = (),
    ) -> _Volume:
        matrix = np.eye(3) if direction is None else np.reshape(direction, (3, 3))
        matrix = matrix[::-1, ::-1]  # rows: world z, y, x; columns: array axes z, y, x
        _, order = linear_sum_assignment(-np.abs(matrix))
        backwards = tuple(int(world) for world in range(3) if matrix[world, order[world]] < 0)
        turned = [np.flip(array.transpose(order), backwards) for array in (image, *maps)]
        z, y, x = (float(spacing[axis]) for axis in order)
        planar = image.shape[0] == 1 and spacing[0] == SLICE_SPACING_2D
        oriented = direction is not None and not planar
        return cls(turned[0], tuple(turned[1:]), (z, y, x), oriented, focus)

    def size_mm(self, axis: int) -> tuple[float, float]:
        """Return height and width of the slices along an axis."""
        lengths = [
            voxels * spacing for voxels, spacing in zip(self.image.shape, self.spacing, strict=True)
        ]
        del lengths[axis]
        return lengths[0], lengths[1]

    def cut(self, array: np.ndarray, axis: int, index: int) -> np.ndarray:
        """Return a slice as it is shown: first row on top."""
        plane = np.take(array, index, axis)
        return plane if axis == 0 else plane[::-1]

    def foreground(self, axis: int) -> np.ndarray:
        """Return how much each slice along an axis shows: the sum over maps and labels (those of
        the focus) of area / largest area.
        """
        shown = np.zeros(self.image.shape[axis])
        for array in self.maps:
            highest = int(array.max(initial=0))
            planes = np.moveaxis(array, axis, 0)
            counts = np.stack(
                [np.bincount(plane.ravel(), minlength=highest + 1) for plane in planes]
            )[:, [v for v in self.focus or range(1, highest + 1) if v <= highest]]
            shown += (counts / np.maximum(counts.max(axis=0), 1)).sum(axis=1)
        return shown


def _views(volume: _Volume) -> list[tuple[int, int]]:
    """Choose what is shown: (axis to look along, slice index) per row."""
    axis = _main_axis(volume)
    if volume.image.shape[axis] == 1:
        return [(axis, 0)]
    if axis == 0 and not _is_anisotropic(volume):
        return [(axis, _fullest(volume, axis)) for axis in range(3)]
    occupied = np.flatnonzero(volume.foreground(axis))
    if len(occupied) == 0:
        return [(axis, volume.image.shape[axis] // 2)]
    quarter, three_quarters = (
        int(occupied[int(part * (len(occupied) - 1))]) for part in (0.25, 0.75)
    )
    return [
        (axis, index)
        for index in sorted({quarter, _fullest(volume, axis), three_quarters}, reverse=True)
    ]


def _main_axis(volume: _Volume) -> int:
    """Return the axis of a single slice, else the coarse axis, else z."""
    if 1 in volume.image.shape:
        return volume.image.shape.index(1)
    return int(np.argmax(volume.spacing)) if _is_anisotropic(volume) else 0


def _is_anisotropic(volume: _Volume) -> bool:
    return max(volume.spacing) / min(volume.spacing) > _ANISOTROPIC


def _panels(
    sizes_mm: Sequence[tuple[float, float]], columns: int, legend: _Legend
) -> tuple[Figure, np.ndarray]:
    """Return a figure with a row of axes per (height, width), all of one scale."""
    widest, total = max(width for _, width in sizes_mm), sum(height for height, _ in sizes_mm)
    inches = min(3.4 / widest, 8.5 / total)
    width = max(columns * inches * widest + 0.3, 5.5)
    figure = _figure(
        width, total * inches + 0.08 * len(sizes_mm) + 0.6 + legend.height(width), _DARK
    )
    heights = [max(height, 0.02 * width) for height, width in sizes_mm]
    return figure, figure.subplots(len(sizes_mm), columns, squeeze=False, height_ratios=heights)


def _fullest(volume: _Volume, axis: int) -> int:
    counts = volume.foreground(axis)
    return int(np.argmax(counts)) if counts.any() else volume.image.shape[axis] // 2


def _draw_view(
    axes: Axes,
    volume: _Volume,
    axis: int,
    index: int,
    window: tuple[float, float],
    shown: int,
    labels: Labels,
) -> None:
    """Draw one slice of the image, with the label map number `shown` when that is not -1."""
    rows, columns = (s for i, s in enumerate(volume.spacing) if i != axis)
    plane = volume.cut(volume.image, axis, index)
    axes.imshow(
        plane,
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        aspect=rows / columns,
        interpolation="bilinear",
    )
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    if shown >= 0:
        segmentation = volume.cut(volume.maps[shown], axis, index)
        axes.imshow(
            _painted(segmentation, labels, 0.33), aspect=rows / columns, interpolation="nearest"
        )
        for value in (*labels.foreground, *_ignored(labels)):
            _outline(axes, segmentation == value, _colour(value, labels), 1.3)
    if shown == 1:
        _outline(axes, volume.cut(volume.maps[0], axis, index) > 0, "white", 0.7)
    if shown < 0:
        _annotate(axes, volume, axis, index)


def _outline(axes: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    """Draw the border of a mask; the frame of the picture counts as border."""
    if mask.any():
        rows, columns = (np.arange(-1, n + 1) for n in mask.shape)
        axes.contour(
            columns,
            rows,
            np.pad(mask, 1).astype(float),
            levels=[0.5],
            colors=[colour],
            linewidths=width,
        )


def _annotate(axes: Axes, volume: _Volume, axis: int, index: int) -> None:
    """Write on a view the anatomical directions and the number of the slice, from feet, front or
    right.
    """
    from matplotlib.patheffects import withStroke

    notes = []
    if volume.oriented:
        (top, bottom), (left, right) = _BORDERS[axis]
        notes += [(0.5, 0.98, top), (0.5, 0.02, bottom), (0.02, 0.5, left), (0.98, 0.5, right)]
    if volume.image.shape[axis] > 1:
        notes.append((0.02, 0.02, f"{index + 1}/{volume.image.shape[axis]}"))
    for x, y, text in notes:
        horizontal = {0.02: "left", 0.5: "center", 0.98: "right"}[x]
        vertical = {0.02: "bottom", 0.5: "center", 0.98: "top"}[y]
        written = axes.text(
            x,
            y,
            text,
            ha=horizontal,
            va=vertical,
            color=_LIGHT,
            fontsize=9,
            transform=axes.transAxes,
        )
        written.set_path_effects([withStroke(linewidth=2, foreground="black")])


@dataclass(frozen=True)
class _Legend:
    """What is written below a picture: (colour, or None for an outline; text) per entry, and a line
    of text above.
    """

    entries: tuple[tuple[str | None, str], ...]
    line: str = ""

    @classmethod
    def of(
        cls,
        labels: Labels,
        reference: np.ndarray | None = None,
        prediction: np.ndarray | None = None,
    ) -> _Legend:
        """Name the labels that occur, with the Dice of the whole volume where both maps are
        known.
        """
        maps = [array for array in (reference, prediction) if array is not None]
        present = (
            np.unique(np.concatenate([np.unique(array) for array in maps]))
            if maps
            else labels.foreground
        )
        both = reference is not None and prediction is not None
        scores = evaluate_case(prediction, reference, labels) if both else {}  # type: ignore[arg-type]
        dice = {
            key: "undefined" if m["Dice"] is None else f"{m['Dice']:.3f}"
            for key, m in scores.items()
        }
        entries: list[tuple[str | None, str]] = []
        for value in labels.foreground:
            if value in present:
                name, score = labels.names.get(value, f"label {value}"), dice.get(str(value))
                entries.append(
                    (_colour(value, labels), name if score is None else f"{name}, Dice {score}")
                )
        entries += [(IGNORED, "ignored") for value in _ignored(labels) if value in present]
        entries += [(None, "outline of the reference")] if both else []
        regions = [f"{name} {dice[name]}" for name in labels.region_names if name in dice]
        return cls(tuple(entries), f"Dice: {', '.join(regions)}" if regions else "")

    def columns(self, width: float) -> int:
        """Return how many entries fit side by side into `width` inches."""
        longest = max([len(text) for _, text in self.entries], default=1)
        return max(1, min(len(self.entries), int(width / (0.55 + 0.075 * longest))))

    def height(self, width: float) -> float:
        """Return the inches that it takes."""
        return 0.2 * (math.ceil(len(self.entries) / self.columns(width)) + bool(self.line)) + 0.15

    def draw(self, figure: Figure) -> None:
        """Draw it at the lower border."""
        from matplotlib.patches import Patch

        legend = figure.legend(
            handles=[
                Patch(facecolor=c or "none", edgecolor=c or "white", label=text)
                for c, text in self.entries
            ],
            loc="outside lower center",
            ncols=self.columns(figure.get_figwidth()),
            frameon=False,
            labelcolor=_LIGHT,
            fontsize=9,
            title=self.line or None,
            title_fontsize=9,
        )
        legend.get_title().set_color(_LIGHT)


def _thumbnail(case: Case, labels: Labels) -> tuple[str, np.ndarray, tuple[float, float]]:
    """Return name, picture (rows, columns, 3) and (height, width) in mm of a case."""
    maps = [] if case.label is None else [case.label]
    volume = _Volume.upright(case.images[0], maps, case.geometry.spacing, case.geometry.direction)
    axis = _main_axis(volume)
    index = _fullest(volume, axis)
    low, high = _window(case.images[0])
    grey = np.clip((volume.cut(volume.image, axis, index) - low) / (high - low), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for array in volume.maps:
        paint = _painted(volume.cut(array, axis, index), labels, 0.45)
        picture = picture * (1 - paint[..., 3:]) + paint[..., :3] * paint[..., 3:]
    return case.name, picture, volume.size_mm(axis)


def _painted(segmentation: np.ndarray, labels: Labels, opacity: float) -> np.ndarray:
    """Return RGBA (rows, columns, 4) of a slice of a label map."""
    from matplotlib.colors import to_rgba

    picture = np.zeros((*segmentation.shape, 4), np.float32)
    for value in (*labels.foreground, *_ignored(labels)):
        picture[segmentation == value] = to_rgba(_colour(value, labels), opacity)
    return picture


def _colour(value: int, labels: Labels) -> str:
    return IGNORED if value == labels.ignore else COLOURS[(value - 1) % len(COLOURS)]


def _ignored(labels: Labels) -> tuple[int, ...]:
    return () if labels.ignore is None else (labels.ignore,)


def _window(image: np.ndarray) -> tuple[float, float]:
    """Return the intensities that become black and white, from what is brighter than the image's
    background.
    """
    step = max(1, int((image.size / 1e6) ** (1 / 3)))
    sample = image[::step, ::step, ::step]
    body = sample[sample > sample.min()]
    if body.size == 0:
        return float(sample.min()), float(sample.min()) + 1.0
    low, high = np.percentile(body, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6 * max(1.0, abs(low))))


def _shortened(name: str, length: int = 24) -> str:
    return name if len(name) <= length else f"{name[: length // 2]}…{name[1 - length // 2 :]}"


def _figure(width: float, height: float, background: str) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, facecolor=background, layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
