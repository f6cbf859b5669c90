"""Where components come from: what decides whether two runs are the same method."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import io
import re
import tokenize
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from nnunet_core.registry.discovery import TARGET, Resolved, owner, source_file
from nnunet_core.registry.records import ComponentRecord
from nnunet_core.registry.settings import content_digests, full_settings
from nnunet_core.runtime import files

#: How a text begins that names code, whatever follows; no address of the web.
CODE = re.compile(r"\s*[^\W\d][\w.]*\s*:(?!//)")
_LIBRARIES = ("nnunet-core", "torch", "numpy", "scipy", "SimpleITK", "blosc2", "batchgenerators")


def component_record(resolved: Resolved) -> ComponentRecord:
    """Describe a resolved component."""
    settings = full_settings(resolved)
    return ComponentRecord(
        reference=resolved.reference,
        target=resolved.component.target,
        distribution=resolved.distribution,
        version=resolved.version,
        settings=settings,
        contents=content_digests(resolved, settings),
        source_digest=_source_digest(resolved, settings),
        code_digest=_digest_of([resolved.component.target]),
    )


def _source_digest(resolved: Resolved, settings: Mapping[str, Any]) -> str | None:
    """Return the digest of the files outside any package that a component is made of: its own, and
    those that settings name.
    """
    targets = [] if resolved.distribution else [resolved.component.target]
    named = [text for text in texts_of(settings) if TARGET.fullmatch(text)]
    targets += [text for text in named if owner(text)[0] is None]
    return _digest_of(targets)


def _digest_of(targets: Sequence[str]) -> str | None:
    """Return the digest of the code in the files of some targets, None if they have none."""
    sources = sorted({file for target in targets if (file := source_file(target))})
    digests = [code_digest(Path(source)) for source in sources]
    return digests[0] if len(digests) == 1 else files.digest(digests) if digests else None


def code_digest(path: Path) -> str:
    """Return 16 hexadecimal digits that identify what a file of Python does: comments and empty
    lines change nothing; of a file that is no Python, every byte counts.
    """
    state = path.stat()
    return _code_digest(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=256)
def _code_digest(path: Path, *_: int) -> str:
    try:
        with tokenize.open(path) as file:
            text = file.read()
        ast.parse(text)  # the tokenizer lets much pass
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (SyntaxError, ValueError, tokenize.TokenError):
        return files.file_digest(path)
    lines = dict(enumerate(text.split("\n"), start=1))
    for token in tokens:
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row] = lines[row][:column].rstrip()
    inside = {row for t in tokens for row in range(t.start[0], t.end[0])}  # of strings over lines
    return files.digest([line for row, line in lines.items() if line.strip() or row in inside])


def texts_of(value: Any) -> list[str]:
    """Return every text in a JSON value, keys of objects included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for part in pair for text in texts_of(part)]
    if isinstance(value, list | tuple):
        return [text for part in value for text in texts_of(part)]
    return []


def described_code(text: str) -> str:
    """Return what a file names, and the file that it would be, which is found and not imported."""
    file = source_file(text) if TARGET.fullmatch(text) else None
    return f"{text!r} ({file or 'not found here'})"


def code_identity(function: Callable[..., Any]) -> list[str | None]:
    """Return what changes when a function may do something else: where it is defined, not where it
    is inherited.

    Returns:
        Its full name, the version of the distribution that it belongs to, and the digest of the
        code in the file that defines it.
    """
    plain = inspect.unwrap(function)
    source = source_file(plain.__module__)
    digest = code_digest(Path(source)) if source else None
    return [f"{plain.__module__}.{plain.__qualname__}", owner(plain.__module__)[1], digest]


def library_versions() -> dict[str, str]:
    """Return {distribution: version} of the libraries that numbers depend on."""
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def components_digest(components: Mapping[str, ComponentRecord]) -> str:
    """Return 16 hexadecimal digits that identify a choice of components with all their settings."""
    return files.digest({kind: record.identity() for kind, record in components.items()})
