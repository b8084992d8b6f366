"""Cells of CSV files, which spreadsheets read as formulas where they begin like one."""

from __future__ import annotations

import re

E164 = re.compile(r"\+[1-9][0-9]{6,14}")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; a plain number of a person stays as it is."""
    return f"'{cell}" if cell.startswith(FORMULA) and E164.fullmatch(cell) is None else cell


def unguarded(cell: str) -> str:
    """A cell as it was before `guarded`."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell
