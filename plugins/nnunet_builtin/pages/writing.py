"""A page as one HTML file, which opens without network and runs no code but its own."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from nnunet_builtin.pages import bundling
from nnunet_builtin.pages.elements import Details, Element, Plot, Section, Viewer
from nnunet_core import __version__
from nnunet_core.errors import StorageError
from nnunet_core.runtime import files

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: What it is about.
        sections: Its parts.
        subtitle: Below the title.
    """

    title: str
    sections: Sequence[Section]
    subtitle: str = ""

    def write(self, path: Path) -> None:
        """Write the page; it is there whole or not at all.

        Raises:
            StorageError: The file cannot be written; or there are plots or volumes, and what draws
                them has not been fetched.
        """
        files.write_text(path, self.html())

    def html(self) -> str:
        """Return the page as text.

        Raises:
            StorageError: See `write`.
        """
        styles, own = _asset("style.css"), _asset("page.js")
        scripts = [*(_bundle(name) for name in self._bundles), own]
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            undefined=jinja2.StrictUndefined,
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"json": embedded, "base64": _base64, "figure": _figure}
        environment.filters |= {"volumes": _volumes, "without_pictures": _without_pictures}
        environment.filters["tied"] = _tied
        return environment.get_template("page.html.jinja").render(
            page=self,
            anchors=_anchors(self.sections),
            policy=_policy(scripts),
            styles=Markup(styles),
            scripts=[Markup(script) for script in scripts],
            licenses=_asset_of_bundles() if self._bundles else "",
            version=__version__,
            written=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        )

    @cached_property
    def _bundles(self) -> list[str]:
        """Names of the bundles that the page needs.

        Raises:
            ValueError: There are two viewers.
        """
        kinds = [type(element) for each in self.sections for element in _all(each.elements)]
        if kinds.count(Viewer) > 1:
            raise ValueError("a page has at most one viewer: browsers allow few WebGL contexts")
        wanted = {bundling.PLOTLY: Plot, bundling.NIIVUE: Viewer}
        return [name for name, kind in wanted.items() if kind in kinds]


def embedded(value: Any) -> Markup:
    """Return JSON that may stand inside a <script>: whatever it says cannot end it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def plain(value: Any) -> Any:
    """Return a figure whose texts Plotly shows as they are: it reads tags in them, links included.
    Texts that are `Markup` keep theirs.
    """
    if isinstance(value, Markup):
        return str(value)
    if isinstance(value, str):
        return value.replace("&", "&amp;").replace("<", "&lt;")
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def _all(elements: Sequence[Element]) -> Iterator[Element]:
    for element in elements:
        yield element
        if isinstance(element, Details):
            yield from _all(element.elements)


def _anchors(sections: Sequence[Section]) -> list[str]:
    """Return an identifier of each section, for links: its title in letters and digits."""
    found: list[str] = []
    for number, section in enumerate(sections, start=1):
        words = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
        name = f"{words or 'section'}"
        found.append(name if name not in found else f"{name}-{number}")
    return found


def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _bundle(name: str) -> str:
    """Return a program as it may stand inside a <script>.

    Raises:
        StorageError: It has not been fetched.
    """
    path = bundling.BUNDLES / name
    if not path.is_file():
        raise StorageError(
            f"The page needs {name} to draw, which is not in {bundling.BUNDLES}. Fetch it with: "
            f"{bundling.COMMAND}"
        )
    # a line end of its own would change the digest that the browser compares
    return path.read_text(encoding="utf-8").replace("\r\n", "\n").replace("\r", "\n")


def _asset_of_bundles() -> str:
    return (bundling.BUNDLES / bundling.LICENSES).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """Return the Content-Security-Policy: no network, and no code but these scripts."""
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
    )


def _base64(content: bytes | str) -> str:
    return base64.b64encode(content.encode() if isinstance(content, str) else content).decode()


def _figure(figure: Mapping[str, Any]) -> Markup:
    return embedded(plain(figure))


def _volumes(viewer: Viewer) -> list[dict[str, Any]]:
    from nnunet_builtin.pages.volumes import encoded

    return [encoded(volume) for volume in viewer.volumes]


def _without_pictures(volumes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the viewer reads; the pictures stand beside it."""
    return [{k: v for k, v in each.items() if k != "picture"} for each in volumes]


def _tied(text: str) -> str:
    """Keep a percent sign on the line of its number."""
    return text.replace(" %", "\u00a0%")
