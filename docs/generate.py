"""Write the reference pages that are read off the code: commands, hooks, components. Run: python
docs/generate.py.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tomllib
import typer

from nnunet_cli.app import commands as all_commands
from nnunet_core.registry import hookspecs
from nnunet_core.registry.components import KINDS
from nnunet_core.registry.discovery import OWN, Registry
from nnunet_core.registry.settings import full_settings
from nnunet_core.testing.check import Check
from nnunet_core.testing.doors import all_checks, checks_of
from nnunet_core.testing.references import CHECKED

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
CATALOGUE = ROOT / "docs" / "plugins.toml"
PACKAGES = [ROOT / "nnunet_core", ROOT / "nnunet_cli", ROOT / "plugins" / "nnunet_builtin"]


def commands() -> str:
    """Return the page of all commands with their arguments and options."""
    parts = [
        "# Commands\n\nEvery command takes `--no-plugin NAME` (block a plugin), `--debug` (show "
        "tracebacks) and `--help`.\n"
    ]
    for name, (target, line) in all_commands(Registry.discover()).items():
        module, _, attribute = target.partition(":")
        function = getattr(importlib.import_module(module), attribute)
        app = typer.Typer(add_completion=False)
        app.command(name)(function)
        command = typer.main.get_command(app)
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        named = [p.metavar or str(p.name).upper() for p in arguments]
        usage = " ".join([f"nnunet {name}", *named, "[OPTIONS]"])
        parts.append(
            f"## nnunet {name}\n\n{inspect.getdoc(function) or line}\n\n```\n{usage}\n```\n"
        )
        rows = [f"| `{n}` | {p.help} | |" for n, p in zip(named, arguments, strict=True)]
        rows += [
            _option(p) for p in command.params if p.param_type_name == "option" and p.name != "help"
        ]
        parts.append("\n".join(["| | | default |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def hooks() -> str:
    """Return the page of all hooks, in life-cycle order."""
    parts = [
        "# Hooks\n\nA plugin is a module that an entry point of the group `nnunet_plugins` names. "
        "It implements any of these with `@hookimpl`. What a component of each kind has to do is "
        "in [Contracts](contracts.md).\n"
    ]
    for name, function in vars(hookspecs).items():
        if name.startswith("nnunet_"):
            signature = str(inspect.signature(function)).replace("'", "")
            parts.append(
                f"## {name}\n\n```python\n{name}{signature}\n```\n\n{inspect.getdoc(function)}\n"
            )
    return "\n".join(parts)


def components() -> str:
    """Return the page of the built-in components with their settings."""
    registry = Registry.discover()
    parts = [
        "# Built-in components\n\n`nnunet plugins show NAME --kind KIND` prints one of them, "
        "`--set KIND.NAME=VALUE` changes it.\n"
    ]
    described: set[str] = set()
    for kind in KINDS:
        found = [c for c in registry.components(kind) if c.is_own and kind != "command"]
        if not found:
            continue
        parts.append(f"## {kind}\n")
        for resolved in found:
            target = resolved.component.target
            parts.append(f"### {resolved.name}\n\n{resolved.component.summary} (`{target}`)\n")
            if target not in described:
                described.add(target)
                parts.append(f"```text\n{inspect.getdoc(resolved.load())}\n```\n")
            settings = full_settings(resolved)
            rows = [
                f"| `{kind}.{name}` | `{json.dumps(value)}` |" for name, value in settings.items()
            ]
            parts.append(
                "\n".join(["| setting | value |", "|---|---|", *rows]) + "\n"
                if rows
                else "No settings.\n"
            )
    parts.append("## variant\n")
    for info, variant in registry.variants():
        if info.distribution == OWN:
            chosen = (
                ", ".join(f"{kind} `{name}`" for kind, name in variant.choices().items())
                or "as `default`"
            )
            settings = f" Settings: `{json.dumps(variant.settings)}`." if variant.settings else ""
            parts.append(f"### {variant.name}\n\n{variant.summary}. {chosen}.{settings}\n")
    return "\n".join(parts)


def modules() -> str:
    """Return the page with a line for each file: the first one of its docstring."""
    parts = [
        "# Where things are\n\nA line for each file; a line for each room is in "
        "[Architecture](../explanation/architecture.md).\n"
    ]
    for package in PACKAGES:
        for folder in rooms(package):
            files = [
                path
                for path in sorted(folder.glob("*.py"))
                if path.name not in {"__init__.py", "__main__.py"}
            ]
            if files:
                rows = [f"| `{path.name}` | {_first_line(path)} |" for path in files]
                parts.append(
                    "\n".join([f"## {folder.relative_to(ROOT)}\n", "| | |", "|---|---|", *rows])
                    + "\n"
                )
    return "\n".join(parts)


def rooms(package: Path) -> list[Path]:
    """Return the folders of a package that hold modules, itself first."""
    return sorted({path.parent for path in package.rglob("*.py")})


def _first_line(path: Path) -> str:
    documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    summary = documentation.partition("\n\n")[0]
    return " ".join(summary.split()).replace("|", "\\|")


def contracts() -> str:
    """Return the page of the contracts: the protocols and tasks of each kind, as they stand in the
    code.
    """
    parts = [
        "# Contracts\n\nWhat a component of each kind has to do, and what it may be able to do "
        "beyond that: every class of `nnunet_core.contracts`, with shapes, units and errors. A "
        "component need not inherit from them.\n"
    ]
    for path in sorted((ROOT / "nnunet_core" / "contracts").glob("*.py")):
        if path.name == "__init__.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        code = "\n\n\n".join(_source(path, node) for node in classes)
        about = (ast.get_docstring(tree) or "").replace("\n", " ")
        parts.append(f"## {path.stem}\n\n{about}\n\n```python\n{code}\n```\n")
    return "\n".join(parts)


def _source(path: Path, node: ast.ClassDef) -> str:
    """Return the lines of a class, decorators included."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[first - 1 : node.end_lineno])


def checks() -> str:
    """Return the page of the checks of the conformance kit, kind by kind."""
    parts = [
        "# Checks\n\nWhat `nnunet plugins check` and `nnunet_core.testing` look at, kind by kind; "
        "how to run them: [Test a plugin](../how-to/test-a-plugin.md).\n"
    ]
    shared = [check for check in all_checks() if len(check.kinds) > 1]
    parts.append(f"## Of several kinds\n\n{_table(shared, kinds=True)}\n")
    for kind in CHECKED:
        own = [check for check in checks_of(kind) if check not in shared]
        if own:
            parts.append(f"## {kind}\n\n{_table(own, kinds=False)}\n")
    return "\n".join(parts)


def _table(found: Sequence[Check], kinds: bool) -> str:
    rows = ["| check | of | what holds |", "|---|---|---|"]
    rows = rows if kinds else ["| check | what holds |", "|---|---|"]
    for check in found:
        of = f" {_kinds(check)} |" if kinds else ""
        about = " ".join((check.about or "").split()).replace("|", "\\|")
        rows.append(f"| `{check.name}` |{of} {about} |")
    return "\n".join(rows)


def _kinds(check: Check) -> str:
    left_out = [kind for kind in CHECKED if kind not in check.kinds]
    if len(left_out) > len(check.kinds):
        return ", ".join(check.kinds)
    return f"every kind but {', '.join(left_out)}" if left_out else "every kind"


def plugins() -> str:
    """Return the catalogue of plugin packages, with their kinds and what the kit found."""
    lines = [
        "# Plugins",
        "",
        "Packages that register something, and what the [conformance "
        "kit](../how-to/test-a-plugin.md) found when it was last run on them. To add yours: "
        "`docs/plugins.toml`.",
    ]
    for plugin in tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))["plugin"]:
        lines += ["", f"## {plugin['package']}", "", f"{_sentence(plugin['summary'])}", ""]
        lines.append(f"Version {plugin['version']}, `pip install {_installed_from(plugin)}`.")
        lines += ["", "| kind | names |", "|---|---|"]
        for kind, names in plugin["kinds"].items():
            lines.append(f"| {kind} | {', '.join(f'`{name}`' for name in names)} |")
        found = plugin["checked"]
        counts = [
            f"{found[n]} {n}" for n in ("passed", "failed", "skipped", "expected") if found[n]
        ]
        lines += ["", f"Kit of nnunet-core {found['core']}, {found['date']}: {', '.join(counts)}."]
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def _installed_from(plugin: Mapping[str, str]) -> str:
    """Return what pip takes: a folder of this repository, or the package."""
    address = plugin["address"]
    return f"./{address}" if (ROOT / address).is_dir() else plugin["package"]


PAGES = {
    "plugins.md": plugins,
    "checks.md": checks,
    "cli.md": commands,
    "hooks.md": hooks,
    "contracts.md": contracts,
    "components.md": components,
    "modules.md": modules,
}


def _option(parameter: object) -> str:
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])  # type: ignore[attr-defined]
    default = parameter.default  # type: ignore[attr-defined]
    shown = "" if default is None or callable(default) else f"`{default}`"
    return f"| {names} | {parameter.help} | {shown} |"  # type: ignore[attr-defined]


if __name__ == "__main__":
    for page, make in PAGES.items():
        (REFERENCE / page).write_text(make(), encoding="utf-8")
