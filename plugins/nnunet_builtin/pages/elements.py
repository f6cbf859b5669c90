"""What a page is made of: sections of text, facts, tables, plots, pictures, volumes and files.

Every text may come from outside (names of cases, labels, plugins): the templates escape it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import numpy as np

NOTHING = "–"
Tone = Literal["plain", "lead", "warning", "small"]


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: Of it.
        tone: `lead` is larger, for what a reader should take home; `warning` has a mark; `small`
            explains.
    """

    text: str
    tone: Tone = "plain"
    template: ClassVar = "text"


@dataclass(frozen=True)
class Sentences:
    """A list of sentences, a bullet each.

    Attributes:
        lines: The sentences.
        tone: As of `Text`.
    """

    lines: Sequence[str]
    tone: Tone = "plain"
    template: ClassVar = "sentences"


@dataclass(frozen=True)
class Facts:
    """Names and values, side by side.

    Attributes:
        values: {name: value}.
    """

    values: Mapping[str, object]
    template: ClassVar = "facts"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its head.
        digits: Behind the point of floats.
        help: What it means, shown when the head is pointed at.
    """

    title: str
    digits: int = 4
    help: str = ""


@dataclass(frozen=True)
class Cell:
    """A value that is shown as another text than its own.

    Attributes:
        text: Shown.
        value: Sorted by; None comes last.
        strong: Whether it stands out.
    """

    text: str
    value: float | str | None = None
    strong: bool = False


Value = str | int | float | None | Cell
Head = str | Column


@dataclass(frozen=True)
class Table:
    """A table whose columns sort.

    Attributes:
        columns: Titles, or columns.
        rows: Values, as many as columns; None and NaN are shown as a dash and sort last.
        caption: What it shows, and of what.
    """

    columns: Sequence[Head]
    rows: Sequence[Sequence[Value]]
    caption: str = ""
    template: ClassVar = "table"

    @property
    def heads(self) -> list[Column]:
        """The columns."""
        return [Column(c) if isinstance(c, str) else c for c in self.columns]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers, which stand at the right."""
        return [
            all(_is_number(row[place]) for row in self.rows) for place in range(len(self.columns))
        ]

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, as they are shown."""
        heads = self.heads
        return [
            [_cell(value, head.digits) for value, head in zip(row, heads, strict=True)]
            for row in self.rows
        ]


@dataclass(frozen=True)
class Plot:
    """A figure of Plotly.

    Attributes:
        figure: {"data": [...], "layout": {...}}, JSON values; see `figures`. Colours of the page,
            fonts and margins are added. Texts are shown as they are; only a `markupsafe.Markup` may
            hold tags, such as `<br>`.
        caption: What it shows: also for those who cannot see it.
        height: Pixels.
    """

    figure: Mapping[str, Any]
    caption: str
    height: int = 360
    template: ClassVar = "plot"


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        png: Content of a PNG file.
        caption: What it shows: also for those who cannot see it.
    """

    png: bytes
    caption: str
    template: ClassVar = "picture"


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side.

    Attributes:
        pictures: Of it.
    """

    pictures: Sequence[Picture]
    template: ClassVar = "gallery"


@dataclass(frozen=True, eq=False)
class Volume:
    """An image with label maps, to look through.

    Attributes:
        name: Of the case.
        image: One channel, (Z, Y, X).
        maps: {what it is: integer (Z, Y, X)}: `reference`, `prediction`; the first is shown first.
        labels: {value: name} of the labels that are shown.
        spacing: mm, axis order (z, y, x).
        direction: Row-major 3x3 matrix in SimpleITK order; None means that axes are those of the
            patient.
        caption: What there is to see.
    """

    name: str
    image: np.ndarray
    maps: Mapping[str, np.ndarray]
    labels: Mapping[int, str]
    spacing: tuple[float, float, float]
    direction: Sequence[float] | None = None
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Viewer:
    """Volumes of which one is shown at a time: at most one viewer a page.

    Attributes:
        volumes: To choose from.
    """

    volumes: Sequence[Volume]
    template: ClassVar = "viewer"


@dataclass(frozen=True)
class Attachment:
    """A file inside the page, to save.

    Attributes:
        name: Of the file.
        content: Of it.
        mime: Its type.
    """

    name: str
    content: str
    mime: str = "text/plain"


@dataclass(frozen=True)
class Attachments:
    """Files inside the page.

    Attributes:
        files: Of it.
    """

    files: Sequence[Attachment]
    template: ClassVar = "attachments"


@dataclass(frozen=True)
class Source:
    """Lines as they are: a log, a table in LaTeX.

    Attributes:
        text: Of it.
    """

    text: str
    template: ClassVar = "source"


@dataclass(frozen=True)
class Details:
    """Elements behind a title that opens them.

    Attributes:
        title: Shown.
        elements: Hidden until then; plots are drawn when it opens.
    """

    title: str
    elements: Sequence[Element]
    is_open: bool = False
    template: ClassVar = "details"


Element = (
    Text
    | Sentences
    | Facts
    | Table
    | Plot
    | Picture
    | Gallery
    | Viewer
    | Attachments
    | Source
    | Details
)


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading, which the contents list.

    Attributes:
        title: Its heading.
        elements: In it.
    """

    title: str
    elements: Sequence[Element]


def _is_number(value: Value) -> bool:
    own = value.value if isinstance(value, Cell) else value
    return own is None or (isinstance(own, (int, float)) and not isinstance(own, bool))


def _cell(value: Value, digits: int) -> Cell:
    """Return how a value is shown, and what it sorts by."""
    if isinstance(value, Cell):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Cell(NOTHING)
    if isinstance(value, float):
        shown = f"{value:.{digits}f}" if math.isfinite(value) else "∞" if value > 0 else "−∞"
        return Cell(shown, value)
    return Cell(str(value), value)
