"""Where the log goes: stderr, one line an entry, with the time in UTC."""

from __future__ import annotations

import logging
import sys
import time

QUIET = ("alembic", "uvicorn", "asyncio", "aiohttp", "urllib3", "sqlalchemy", "twilio")


class OneLine(logging.Formatter):
    """An entry on one line, with what may not be printed escaped; a traceback follows it."""

    converter = staticmethod(time.gmtime)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line of an entry."""
        text = record.message
        if not text.isprintable():
            record.message = "".join(
                c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
            )
        return super().formatMessage(record)


def set_up(level: str) -> None:
    """Sends what is at least `level` to stderr; libraries only from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        OneLine("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    least = max(logging.WARNING, root.level)
    for name in QUIET:
        logging.getLogger(name).setLevel(least)
