"""Whose code an error came from: plugin, version, file and line, for the message."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from nnunet_core.errors import NnunetError
from nnunet_core.registry.discovery import OWN, Registry, owner, source_file

_PLACE = re.compile(r'File "([^"\n]+)", line (\d+)')


def place_of(error: BaseException, registry: Registry) -> str:
    """Return "FILE, line N, of the plugin 'p' (package 1.0)": the innermost line of a traceback
    that is a stranger's; empty where there is none, or the error is a message of its own.

    The traceback is read as text: that is all that comes back from other processes.
    """
    if all(isinstance(each, NnunetError) for each in _causes(error)):
        return ""
    lines = _PLACE.findall("".join(traceback.format_exception(error)))
    plugins = _plugins(registry)
    for file, number in reversed(lines):
        path = Path(file)
        found = [name for root, name in plugins if root in (path, *path.parents)]
        if found or _is_local(path):
            return f"{file}, line {number}, of {found[0] if found else 'code outside any package'}"
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _plugins(registry: Registry) -> list[tuple[Path, str]]:
    """Return (folder or module, what it is) of the code of every plugin that is not ours."""
    modules: dict[str, str] = {}
    for info in registry.plugins():
        if info.distribution != OWN:
            named = f"the plugin '{info.name}' ({info.distribution} {info.version})"
            targets = [
                r.component.target
                for r in registry.components()
                if r.reference.startswith(f"{info.name}/")
            ]
            for module in (info.module, *targets):
                modules.setdefault(re.split("[.:]", module)[0], named)
    found = []
    for module, named in modules.items():
        if file := source_file(module):
            path = Path(file)
            found.append((path.parent if path.name == "__init__.py" else path, named))
    return found


def _is_local(file: Path) -> bool:
    """Return whether a file is a module that is imported and of no package: of a user's own."""
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == str(file) and not name.startswith("__"):
            return name.partition(".")[0] not in sys.stdlib_module_names and owner(name)[0] is None
    return False
