"""The page of a dataset, and what the page of a run says of its dataset."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Sequence

import numpy as np

from nnunet_builtin.pages.elements import (
    Cell,
    Column,
    Details,
    Element,
    Facts,
    Picture,
    Section,
    Sentences,
    Table,
    Text,
    Value,
)
from nnunet_builtin.pages.writing import Page
from nnunet_builtin.reports.content import CaseLine, Sheet
from nnunet_builtin.reports.sheets import shares, verify_command
from nnunet_builtin.reports.trained import names_of
from nnunet_core.data.images import SLICE_SPACING_2D
from nnunet_core.errors import counted

_STATISTICS = {
    "mean": "mean",
    "sd": "standard deviation",
    "minimum": "lowest",
    "percentile_00_5": "0.5 %",
    "median": "median",
    "percentile_99_5": "99.5 %",
    "maximum": "highest",
}


def dataset_page(sheet: Sheet, pictures: Sequence[Picture], problems: Sequence[str]) -> Page:
    """Return the page of a dataset."""
    summary: list[Element] = [Text(_in_words(sheet), "lead")]
    if problems:
        summary.append(Text(f"{counted(len(problems), 'case')} cannot be used:", "warning"))
        summary.append(Sentences(problems))
    sections = [
        Section("Summary", [*summary, *_findings(sheet)]),
        Section("Labels", [label_table(sheet)]),
        Section("Images", image_elements(sheet)),
    ]
    if pictures:
        sections.append(Section("Pictures", list(pictures)))
    sections.append(Section("Cases", [case_table(sheet)]))
    return Page(sheet.name, sections, "Dataset")


def dataset_section(sheet: Sheet) -> Section:
    """Return what the page of a run says of its dataset."""
    elements: list[Element] = [Text(_in_words(sheet))]
    if sheet.cases:
        elements += [label_table(sheet), *image_elements(sheet), *_findings(sheet)]
        title = f"{counted(len(sheet.cases), 'case')} of the dataset"
        elements.append(Details(title, [case_table(sheet)]))
    return Section("Dataset", elements)


def _in_words(sheet: Sheet) -> str:
    labels = list(names_of(sheet.labels).values())
    kind = "regions" if sheet.labels.regions else "labels"
    cases = counted(sheet.total, "training case") if sheet.total else "Its cases are not known here"
    tests = "" if sheet.tests is None else f" and {counted(sheet.tests, 'test case')}"
    text = (
        f"{cases}{tests}; "
        f"{counted(len(sheet.channels), 'channel')} ({', '.join(sheet.channels)}); "
        f"{len(labels)} {kind if len(labels) != 1 else kind[:-1]} ({', '.join(labels)})."
    )
    if sheet.cases:
        spacing = " × ".join(f"{value:.4g}" for value in _column(sheet.cases, "spacing")[1])
        shape = " × ".join(f"{value:.4g}" for value in _column(sheet.cases, "shape")[1])
        unit = "" if _is_flat(sheet) else f" at {spacing} mm (z, y, x)"
        text += f" The median case has {shape} voxels{unit}."
    return text


def _is_flat(sheet: Sheet) -> bool:
    return all(case.spacing[0] == SLICE_SPACING_2D for case in sheet.cases)


def _findings(sheet: Sheet) -> list[Element]:
    """Return what `dataset verify` found."""
    if sheet.errors is None or sheet.warnings is None:
        return [Text(f"Not verified in this state: {verify_command(sheet)} checks every file.")]
    found: list[Element] = []
    if sheet.errors:
        found += [Text("To be corrected:", "warning"), Sentences(sheet.errors)]
    if sheet.warnings:
        found += [Text("To be looked at:"), Sentences(sheet.warnings)]
    return found or [Text("Verified: every file was checked, and nothing is wrong.")]


def label_table(sheet: Sheet) -> Table:
    """Return a row for each label or region."""
    rows: list[list[Value]] = [
        [
            each.name,
            Cell(f"{each.cases} of {each.known}", each.cases),
            int(each.voxels),
            _percent(each.share),
            _percent(each.of_foreground),
            each.volume,
        ]
        for each in shares(sheet)
    ]
    columns: list[str | Column] = [
        "label",
        Column("cases", help="that hold it, of those that were counted"),
        "voxels",
        Column("of all", help="share of all voxels"),
        Column("of foreground", help="share of the voxels that are not background"),
        Column("median ml", 3, "median volume over the cases that hold it"),
    ]
    return Table(columns, rows, sheet.source)


def _percent(share: float | None) -> Cell | None:
    return (
        None if share is None else Cell(f"{share:.3%}" if share < 0.01 else f"{share:.1%}", share)
    )


def image_elements(sheet: Sheet) -> list[Element]:
    """Return shapes, spacings, orientations and intensities."""
    if not sheet.cases:
        return [Text("No case could be read.")]
    rows: list[list[Value]] = []
    for name, field in (("voxels", "shape"), ("spacing, mm", "spacing")):
        values_of = zip(*_column(sheet.cases, field), strict=True)
        for axis, values in list(zip("zyx", values_of, strict=True))[_is_flat(sheet) :]:
            rows.append([f"{name}, {axis}", *(Cell(f"{v:.4g}", float(v)) for v in values)])
    elements: list[Element] = [
        Table(["axis", "lowest", "median", "highest"], rows, "Shapes and spacings")
    ]
    flat = _is_flat(sheet)
    letters = collections.Counter(
        case.orientation for case in sheet.cases if case.orientation and not flat
    )
    if letters:
        shown = {f"orientation {name}": counted(n, "case") for name, n in letters.most_common()}
        elements.append(Facts(shown))
    if sheet.foreground:
        elements.append(_foreground_table(sheet))
    if read := [case for case in sheet.cases if case.intensities]:
        elements.append(_intensity_table(sheet, read))
    return elements


def _column(cases: Iterable[CaseLine], field: str) -> np.ndarray:
    """Return lowest, median and highest per axis, (3, 3)."""
    values = np.array([getattr(case, field) for case in cases], float)
    return np.stack([values.min(axis=0), np.median(values, axis=0), values.max(axis=0)])


def _foreground_table(sheet: Sheet) -> Table:
    rows = [
        [channel, *(_rounded(numbers.get(key)) for key in _STATISTICS)]
        for channel, numbers in sheet.foreground
    ]
    caption = "Intensities inside labels, over all training cases (fingerprint)"
    return Table(["channel", *_STATISTICS.values()], rows, caption)


def _intensity_table(sheet: Sheet, cases: Sequence[CaseLine]) -> Table:
    rows: list[list[Value]] = []
    for place, channel in enumerate(sheet.channels):
        own = np.array([case.intensities[place] for case in cases])
        low, mean, high = own[:, 0], own[:, 1], own[:, 2]
        numbers = (low.min(), np.median(low), np.median(mean), np.median(high), high.max())
        rows.append([channel, *map(_rounded, numbers)])
    columns = ["channel", "lowest", "median lowest", "median mean", "median highest", "highest"]
    return Table(columns, rows, "Intensities of whole images, over cases")


def _rounded(value: float | None) -> Cell | None:
    if value is None or math.isnan(value):
        return None
    return Cell(_shown(value), float(value))


def _spacing(case: CaseLine) -> str:
    """Return a spacing; a picture has none along z."""
    flat = case.spacing[0] == SLICE_SPACING_2D
    return " × ".join(f"{value:.4g}" for value in case.spacing[flat:])


def _shown(value: float) -> str:
    """Return five digits, without a power of ten where a number can be read without it."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.5g}"


def case_table(sheet: Sheet) -> Table:
    """Return a row for each case: shape, spacing, and voxels of each label as far as known."""
    named = names_of(sheet.labels)
    counts = not sheet.labels.regions and any(case.voxels is not None for case in sheet.cases)
    columns = ["case", "voxels (z, y, x)", "spacing, mm"]
    columns += [*named.values()] if counts else []
    columns += ["mean intensity"] if any(case.intensities for case in sheet.cases) else []
    rows = [_case_row(case, named if counts else {}, columns) for case in sheet.cases]
    caption = "Training cases; of labels, the number of voxels" if counts else "Training cases"
    return Table(columns, rows, caption)


def _case_row(case: CaseLine, named: dict[str, str], columns: Sequence[str]) -> list[Value]:
    row: list[Value] = [
        case.name,
        Cell(" × ".join(map(str, case.shape)), math.prod(case.shape)),
        Cell(_spacing(case), math.prod(case.spacing)),
    ]
    voxels = case.voxels
    row += [None if voxels is None else int(voxels.get(target, 0)) for target in named]
    if columns[-1] == "mean intensity":
        means = [mean for _, mean, _ in case.intensities]
        shown = Cell(", ".join(map(_shown, means)), means[0] if means else None)
        row.append(shown if means else None)
    return row
