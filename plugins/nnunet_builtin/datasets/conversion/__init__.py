"""Conversion of datasets: from the decathlon, v1 and v2 layouts, plain folders and DICOM to the
layouts of v1 and v2.
"""

from __future__ import annotations

from nnunet_builtin.datasets.conversion.folders import find_folders
from nnunet_builtin.datasets.conversion.layouts import find_renumbered, find_source
from nnunet_builtin.datasets.conversion.source import Source
from nnunet_builtin.datasets.conversion.values import parse_labels
from nnunet_builtin.datasets.conversion.writing import LAYOUTS, convert, default_destination

__all__ = [
    "LAYOUTS",
    "Source",
    "convert",
    "default_destination",
    "find_folders",
    "find_renumbered",
    "find_source",
    "parse_labels",
]
