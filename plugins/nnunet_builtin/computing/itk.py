"""ITK without its own warnings."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import SimpleITK as sitk

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def quiet_itk() -> Iterator[None]:
    """Silence ITK's own warnings on stderr; errors arrive as exceptions."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
