"""What a model says of the machine and the cases that made it, taken out before it leaves."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from nnunet_core.errors import StorageError

# an absolute path inside a text; no fraction ("mm/s"), no name ("plugin/name"), no address
_INSIDE = re.compile(r"(?<![\w.:/\\])(?:file:/*)?(?:~|[A-Za-z]:)?(?:[/\\]+[^/\\\s'\",;]+)+")
_WHOLE = re.compile(r"(file:|~?[/\\]|[A-Za-z]:[/\\]).*", re.DOTALL)
_SHORTEST = 4  # letters of the name of a case that is looked for


def without_paths(value: Any) -> Any:
    """Return a JSON value whose texts hold no absolute path: of each, its last part stays."""
    if isinstance(value, str):
        if _WHOLE.fullmatch(value):
            return _last_part(value)
        return _INSIDE.sub(lambda found: _last_part(found.group()), value)
    if isinstance(value, dict):
        return {without_paths(key): without_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_paths(part) for part in value]
    return value


def _last_part(path: str) -> str:
    kind = PureWindowsPath if "\\" in path else PurePosixPath
    return kind(path).name or path


def changed(before: Any, after: Any, entry: str = "") -> Iterator[str]:
    """Yield the entries in which two JSON values of one form differ."""
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        for key in before:
            yield from changed(before[key], after[key], f"{entry}.{key}" if entry else key)
    elif before != after:
        yield entry


def refuse_cases(content: Any, cases: Collection[str], source: Path, entry: str = "") -> None:
    """Raise StorageError where a text in a JSON value holds the name of a case.

    Args:
        content: Of a file.
        cases: Names; short ones and numbers are not looked for.
        source: The file, for messages.
        entry: Where the value stands in it, for messages.
    """
    if isinstance(content, dict):
        for key, part in content.items():
            refuse_cases(str(key), cases, source, entry)
            refuse_cases(part, cases, source, f"{entry}.{key}" if entry else key)
    elif isinstance(content, list):
        for part in content:
            refuse_cases(part, cases, source, entry)
    elif isinstance(content, str) and (case := _case_in(content, cases)):
        raise StorageError(
            f"'{entry}' of {source} holds the name of a case: {case!r}. Nothing was exported, "
            "since an exported model says nothing of its cases. Take the name out of that entry."
        )


def _case_in(text: str, cases: Collection[str]) -> str:
    for case in cases:
        if len(case) < _SHORTEST or case.isdigit() or case not in text:
            continue
        if re.search(rf"(?<![A-Za-z0-9]){re.escape(case)}(?![A-Za-z0-9])", text):
            return case
    return ""
