"""Settings of a class as they stand in its source: nothing is imported, so that the shell need not
wait.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from nnunet_core.registry.discovery import source_file


def fields_of(target: str) -> dict[str, str]:
    """Return {argument of the constructor: source of its default} of `package.module:Class`; what
    cannot be found in the source is left out.
    """
    module, _, name = target.partition(":")
    found = _class(module, name)
    return {} if found is None else _settings(*found)


def _settings(module: str, cls: ast.ClassDef) -> dict[str, str]:
    """Return the arguments of `__init__`; or the fields of a dataclass, inherited ones first."""
    for node in cls.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return dict(_arguments(node.args))
    found: dict[str, str] = {}
    for base in reversed(cls.bases):
        inherited = _class(module, base.id) if isinstance(base, ast.Name) else None
        found.update(_settings(*inherited) if inherited else {})
    if any("dataclass" in ast.unparse(decorator) for decorator in cls.decorator_list):
        found.update(_fields(cls))
    return found


def _arguments(arguments: ast.arguments) -> Iterator[tuple[str, str]]:
    named = [*arguments.posonlyargs, *arguments.args]
    with_default = named[len(named) - len(arguments.defaults) :]
    for argument, default in zip(with_default, arguments.defaults, strict=True):
        yield argument.arg, ast.unparse(default)
    for argument, given in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if given is not None:
            yield argument.arg, ast.unparse(given)


def _fields(cls: ast.ClassDef) -> Iterator[tuple[str, str]]:
    annotated = [node for node in cls.body if isinstance(node, ast.AnnAssign)]
    for node in annotated:
        shared = "ClassVar" in ast.unparse(node.annotation)
        if isinstance(node.target, ast.Name) and node.value is not None and not shared:
            yield node.target.id, ast.unparse(node.value)


def _class(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """Return a class and the module that defines it, from one that defines or imports it."""
    for node in _body(module):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _class(_imported(module, node), alias.name)
    return None


def _imported(module: str, node: ast.ImportFrom) -> str:
    """Return the full name of the module that `from MODULE import` means."""
    if not node.level:
        return node.module or ""
    parents = module.split(".")[: -node.level]
    return ".".join([*parents, *([node.module] if node.module else [])])


@functools.lru_cache(maxsize=64)
def _body(module: str) -> list[ast.stmt]:
    file = source_file(module) if module else None
    if file is None or not file.endswith(".py"):
        return []
    try:
        return ast.parse(Path(file).read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return []
