"""Files that `gateway simulate` gives to simulated messages, in development only."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from gateway.domain import FetchedMedia
from gateway.errors import Rejected

FOLDER = "simulated-media"
NAME = re.compile(r"[A-Za-z0-9]{8,64}")


class SimulatedMedia:
    """Stands in for a vendor's media store: reads what the simulation put into a folder."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER

    async def fetch_media(self, reference: str, limit: int) -> FetchedMedia:
        """The file whose name is the last part of the reference."""
        name = reference.rpartition("/")[2]
        path = self._folder / name
        if NAME.fullmatch(name) is None or not path.is_file():
            raise Rejected("there is no such simulated file", code="not_found")
        if path.stat().st_size > limit:
            raise Rejected("the file is too large", code="too_large")
        return FetchedMedia(data=await asyncio.to_thread(path.read_bytes))

    def store(self, name: str, data: bytes) -> None:
        """Puts a file where `fetch_media` finds it."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._folder / name).write_bytes(data)
