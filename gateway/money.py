"""Amounts of money as they are stored and shown: decimal, in plain digits."""

from __future__ import annotations

from decimal import Decimal


def shown(amount: Decimal) -> str:
    """An amount in plain digits, without zeros at its end."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
