"""What lies in a folder, to see whether it changed."""

from __future__ import annotations

from pathlib import Path

from nnunet_core.runtime.files import file_digest


def contents(folder: Path) -> dict[str, str]:
    """Return {path in the folder: digest of its content}; folders have none."""
    return {
        str(path.relative_to(folder)): file_digest(path) if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }
