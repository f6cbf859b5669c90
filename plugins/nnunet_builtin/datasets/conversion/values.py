"""Label values of sources that do not name them: found in the files, named, renumbered."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_builtin.datasets.conversion.source import LabelValues, whole_values
from nnunet_core.data.images import ImageFormat
from nnunet_core.errors import DatasetError, UsageError
from nnunet_core.runtime.workers import Workers


def parse_labels(assignments: Sequence[str]) -> dict[str, int]:
    """Parse `NAME=VALUE` arguments of `--label` to {name: value}, without the background.

    Raises:
        UsageError: No `=`, no whole number, or a name or value that is given twice.
    """
    given: dict[str, int] = {}
    for text in assignments:
        name, equals, value = (part.strip() for part in text.rpartition("="))
        if not equals or not name or not value.isdigit():
            raise UsageError(f"--label got '{text}'; it takes NAME=VALUE, for example liver=1.")
        if name in given or int(value) in given.values():
            raise UsageError(f"--label got '{text}'; a name or a value is given twice.")
        given[name] = int(value)
    if given.get("background", 0) != 0:
        raise UsageError(f"--label got 'background={given['background']}'; the background is 0.")
    return {name: value for name, value in given.items() if value != 0}


def found_values(
    image_format: ImageFormat, paths: Sequence[Path], workers: Workers
) -> dict[int, Path]:
    """Return {value: a file that holds it} of label files.

    Raises:
        ImageError: A file that cannot be read, or with several channels.
        DatasetError: Values that are no whole numbers from 0 to 65535.
    """
    found: dict[int, Path] = {}
    for path, values in workers.each(functools.partial(_values, image_format=image_format), paths):
        for value in values:
            found.setdefault(value, path)
    return found


def _values(path: Path, image_format: ImageFormat) -> tuple[Path, list[int]]:
    return path, whole_values(image_format.read(path), path).tolist()


def name_values(
    found: Mapping[int, Path], given: Mapping[str, int], renumber: bool
) -> tuple[LabelValues, dict[int, int]]:
    """Name the values of label files, and number them from 0 in increasing order where that is
    asked for.

    Args:
        found: {value: a file that holds it}.
        given: {name: value}, values as in the files; empty names them `label 1`, `label 2`, ...
        renumber: Map values that are not consecutive.

    Returns:
        {name: value of the result}, and {value of the file: value of the result}, empty when they
        are the same.

    Raises:
        DatasetError: Values that are not consecutive without `renumber`, or that no given name
            declares.
    """
    names = {value: name for name, value in given.items()}
    unknown = sorted(value for value in found if given and value and value not in names)
    if unknown:
        raise DatasetError(
            f"{found[unknown[0]]} holds the value {unknown[0]}; --label declares {dict(given)}. "
            f"Values that are not declared: {unknown[:10]}. Add a --label NAME=VALUE for each."
        )
    values = sorted({0, *found, *names})
    consecutive = values == list(range(len(values)))
    if not consecutive and not renumber:
        example = next((found[value] for value in reversed(values) if value in found), "the labels")
        raise DatasetError(
            f"The label values are {_short(values)} (the last one for example in {example}); they "
            "must be consecutive from 0, which is the background. --renumber maps them to "
            f"0..{len(values) - 1} in increasing order."
        )
    labels: dict[str, int | list[int]] = {"background": 0}
    labels.update(
        {names.get(value, f"label {value}"): new for new, value in enumerate(values) if value}
    )
    return labels, {} if consecutive else {value: new for new, value in enumerate(values)}


def _short(values: Sequence[int]) -> str:
    shown = ", ".join(str(value) for value in values[:20])
    return f"{shown}, ... ({len(values)} values)" if len(values) > 20 else shown
