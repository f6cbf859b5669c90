"""Run the conformance kit on installed packages of docs/plugins.toml and write down what it found.

Usage: python docs/check_plugins.py [PACKAGE ...]     (default: every package that is installed)
"""

from __future__ import annotations

import datetime
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import tomli_w
import tomllib

from nnunet_core import __version__
from nnunet_core.registry.discovery import Registry
from nnunet_core.testing.doors import rows_of
from nnunet_core.testing.references import Finder

FILE = Path(__file__).with_name("plugins.toml")


def checked(package: str, registry: Registry) -> dict[str, Any]:
    """Return version, kinds and what the kit found of a package."""
    mine = [each for each in registry.components() if each.distribution == package]
    kinds: dict[str, list[str]] = {}
    for each in mine:
        kinds.setdefault(each.kind, []).append(each.component.name)
    for info, variant in registry.variants():
        if info.distribution == package:
            kinds.setdefault("variant", []).append(variant.name)
    names = {info.name for info in registry.plugins() if info.distribution == package}
    if names.intersection(registry.hooks.observers()):
        kinds["observer"] = sorted(names.intersection(registry.hooks.observers()))
    rows = list(rows_of(Finder(registry).package(package)))
    counts = Counter(row.outcome for row in rows)
    return {
        "version": metadata.version(package),
        "kinds": kinds,
        "checked": {
            "core": __version__,
            "date": datetime.date.today().isoformat(),
            **{name: counts[name] for name in ("passed", "failed", "skipped", "expected")},
        },
    }


def main() -> None:
    """Check packages and write the file."""
    text = FILE.read_text(encoding="utf-8")
    content, registry = tomllib.loads(text), Registry.discover()
    installed = {each.distribution for each in registry.plugins() if each.status == "active"}
    for plugin in content["plugin"]:
        name = plugin["package"]
        if name in (sys.argv[1:] or installed):
            plugin.update(checked(name, registry))
            sys.stdout.write(f"{name}: {plugin['checked']}\n")
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    FILE.write_text(f"{head}\n{tomli_w.dumps(content)}", encoding="utf-8")


if __name__ == "__main__":
    main()
