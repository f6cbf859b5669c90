"""A page with one of every element, of which every text tries to break out."""

import io

import numpy as np
from PIL import Image

from nnunet_builtin.pages import figures
from nnunet_builtin.pages.elements import (
    Attachment,
    Attachments,
    Cell,
    Column,
    Details,
    Facts,
    Gallery,
    Picture,
    Plot,
    Section,
    Sentences,
    Source,
    Table,
    Text,
    Viewer,
    Volume,
)
from nnunet_builtin.pages.writing import Page

#: Runs if one place forgets to escape, and is a link in Plotly if that one does.
HOSTILE = (
    "</script><script>document.title='broken'</script>"
    "<img src=x onerror=\"document.title='broken'\">"
    "\"'><a href='http://example.invalid/'>x</a>&amp;\u2028{{ 7 * 7 }}"
)
ROWS = [["b10", 0.5, 3], ["b9", 0.25, None], ["a", float("nan"), 10], ["c", 0.75, 1]]


def volume(name="case", caption="Dice 0.50"):
    """Return a ball of two labels: the prediction misses the inner one."""
    z, y, x = np.mgrid[:24, :32, :28]
    away = ((z - 12) / 9) ** 2 + ((y - 16) / 11) ** 2 + ((x - 14) / 10) ** 2
    reference = (away < 1).astype(np.int16) + (away < 0.3)
    prediction = (away < 1).astype(np.int16)
    image = np.where(away < 1.4, 200.0, 0.0)
    names = {1: "outer", 2: f"inner {HOSTILE}"}
    maps = {"reference": reference, "prediction": prediction}
    return Volume(name, image, maps, names, (1.5, 1.0, 1.0), None, caption)


def png(width=64, height=32):
    """Return the content of a picture."""
    content = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(content, "PNG")
    return content.getvalue()


def page(text=HOSTILE):
    """Return a page with everything."""
    curve = (list(range(5000)), np.cos(np.arange(5000) / 300).tolist())
    scores = {
        f"many {text}": np.linspace(0.2, 0.9, 40).tolist(),
        "few": [0.1, float("nan"), float("inf")],
    }
    table = Table([f"name {text}", Column("Dice", 2, text), "n"], [*ROWS, [text, 0.1, 2]], text)
    return Page(
        f"Title {text}",
        [
            Section(f"Words {text}", [Text(text, "lead"), Sentences([text], "warning")]),
            Section("Tables", [Facts({text: text}), table]),
            Section(
                "Plots",
                [
                    Plot(figures.distributions(scores, text), f"scores {text}"),
                    Plot(figures.curves({text: curve}, text, "loss"), "curve"),
                    Details("More", [Plot(figures.curves({"a": curve}, "x", "y"), "hidden")]),
                ],
            ),
            Section(
                "Pictures", [Gallery([Picture(png(), text)] * 2), Picture(png(2000, 90), "wide")]
            ),
            Section("Volumes", [Viewer([volume(f"first {text}"), volume("second", "")])]),
            Section(
                "Files",
                [
                    Attachments([Attachment(f"x{text}.csv", text)]),
                    Details(text, [Source("long " * 100), Table(["a"], [[Cell("1", 1, True)]])]),
                ],
            ),
        ],
        text,
    )
