"""The plugin `datasets`: commands that check, convert and list raw datasets, and make their folds."""

from __future__ import annotations

from nnunet_core import Component, hookimpl

_HERE = "nnunet_builtin.datasets"


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the commands."""
    return [
        Component(
            "splits", f"{_HERE}.split_commands:splits", "Show the folds of a dataset, or make them."
        ),
        Component(
            "dataset verify",
            f"{_HERE}.commands:verify",
            "Check a raw dataset and report every problem.",
        ),
        Component(
            "dataset convert",
            f"{_HERE}.commands:convert",
            "Convert a dataset: decathlon, v1, v2, plain folders or DICOM to v2 or v1.",
        ),
        Component(
            "dataset list", f"{_HERE}.commands:list_datasets", "List the datasets of the workspace."
        ),
    ]
