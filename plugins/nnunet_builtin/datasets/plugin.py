"""The plugin `datasets`: the reader of nnU-Net's dataset folders; commands that check, convert and
list.
"""

from __future__ import annotations

from nnunet_core import Component, hookimpl

_HERE = "nnunet_builtin.datasets"


@hookimpl
def nnunet_dataset_readers() -> list[Component]:
    """Return the reader of the layouts of nnU-Net v1 and v2."""
    target = f"{_HERE}.reading:NnunetReader"
    return [Component("nnunet", target, "folders of nnU-Net v1 (Task*) and v2 (Dataset*)")]


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
