"""Cells of CSV files, which spreadsheets read as formulas where they begin like one."""

from __future__ import annotations

import re

E164 = re.compile(r"\+[1-9][0-9]{6,14}")
# What a spreadsheet would run: a sign of a formula, also a wide one, be it behind what some pass
# over (blanks, controls, marks that nobody sees), and what ends a cell or a line.
FORMULA = re.compile(
    "[\\s\\x00-\\x1f\\u200b-\\u200f\\u2060\\ufeff]*[=+@\uff1d\uff0b\uff0d\uff20-]|[\\t\\r\\n]"
)


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; a plain number of a person stays as it is."""
    return f"'{cell}" if FORMULA.match(cell) and E164.fullmatch(cell) is None else cell


def unguarded(cell: str) -> str:
    """A cell as it was before `guarded`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell[1:]) else cell
