"""Rendering: the files of a package from answers and the template."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from nnunet_builtin.authoring.answers import Answers
from nnunet_builtin.authoring.contract_page import contract_of
from nnunet_builtin.authoring.kinds import KINDS, Kind, run_option
from nnunet_core import __version__
from nnunet_core.registry.components import API, RUN_KINDS
from nnunet_core.registry.hooks import component_hook

_TEMPLATE = Path(__file__).with_name("template")
#: {path in the package: file of the template}, of every package.
_ALWAYS = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "CONTRACT.md": "CONTRACT.md",
    ".gitignore": "gitignore",
    ".github/workflows/ci.yml": "ci.yml",
    "src/{module}/__init__.py": "init.py",
    "src/{module}/plugin.py": "plugin.py",
    "tests/test_{module}.py": "test.py",
}


@dataclass(frozen=True)
class _Part:
    """A component as the template sees it: its kind, hook, class and file."""

    name: str
    word: str
    summary: str
    hook: str
    target: str
    file: str


def rendered(answers: Answers) -> dict[str, str]:
    """Return {path in the package: text} of a package; the same for equal answers."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Python and Markdown, no HTML
    )
    paths = dict(_ALWAYS)
    for kind in answers.kinds:
        if (_TEMPLATE / f"{kind}.py.jinja").is_file():
            paths[f"src/{{module}}/{kind}.py"] = f"{kind}.py"
    values = _values(answers)
    return {
        path.format(module=answers.module): environment.get_template(f"{file}.jinja").render(values)
        for path, file in paths.items()
    }


def _values(answers: Answers) -> dict[str, Any]:
    """Return what the template may use."""
    kinds = [KINDS[name] for name in answers.kinds]
    prefix = "".join(word.capitalize() for word in re.split("[-_]", answers.name))
    components = [_part(kind, prefix) for kind in kinds if kind.target]
    imports = ["Component"] * bool(components) + ["Variant"] * ("variant" in answers.kinds)
    return {
        "name": answers.name,
        "module": answers.module,
        "kinds": answers.kinds,
        "parts": kinds,
        "prefix": prefix,
        "summary": f"a plugin of nnunet: {', '.join(kind.word for kind in kinds)}",
        "window": window(__version__),
        "api": API,
        "components": components,
        "chosen": [part for part in components if part.name in RUN_KINDS],
        "imports": [*imports, "hookimpl"],
        "trials": [words for kind in kinds if (words := trial(kind, answers.name))],
        "contract": contract_of(answers.kinds),
    }


def _part(kind: Kind, prefix: str) -> _Part:
    target = kind.target if kind.name == "command" else prefix + kind.target
    hook = component_hook(kind.name)
    return _Part(kind.name, kind.word, kind.summary, hook, target, kind.name)


def trial(kind: Kind, name: str) -> str:
    """Return the arguments of `nnunet` that use a part of a package; empty for what needs none."""
    option = run_option(kind)
    return (f"run demo {option}" if option else kind.try_it).replace("NAME", name)


def window(version: str) -> str:
    """Return the versions of nnunet-core that a package made with `version` works with: the API of
    a release is served by the one after it, too.
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    if major == 0:
        return f">=0.{minor},<0.{minor + 2}"
    return f">={major}.{minor},<{major + 2}"
