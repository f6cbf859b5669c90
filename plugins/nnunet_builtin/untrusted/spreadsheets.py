"""Names of strangers in CSV files: no spreadsheet takes them for a formula."""

from __future__ import annotations

#: What a formula begins with; and what marks a text, which is taken off again.
_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "'")


def as_text(cell: object) -> object:
    """Return a cell that spreadsheets show as it is: a text that would be a formula gets an
    apostrophe in front; numbers stay.
    """
    is_formula = isinstance(cell, str) and len(cell) > 1 and cell.startswith(_BEGINNINGS)
    return f"'{cell}" if is_formula else cell


def from_text(cell: str) -> str:
    """Return what `as_text` was given."""
    return cell[1:] if len(cell) > 2 and cell[0] == "'" and cell[1] in _BEGINNINGS else cell
