"""A program of its own: a picture on its standard input, a small one on its standard output.

It runs apart, without an environment, with little memory and time, as what decodes a stranger's
picture may be made to fail. Imports nothing of ours. Exit code 3: this has no small picture.
"""

from __future__ import annotations

import resource
import sys
from io import BytesIO

LONGEST = 320  # pixels of a side
PIXELS = 50_000_000
MEMORY = 1 << 30
SECONDS = 10
FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
NONE, NO_LIBRARY = 3, 4


def main() -> int:
    """Reads, shrinks, writes."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return NO_LIBRARY
    limit()
    Image.MAX_IMAGE_PIXELS = PIXELS
    try:
        with Image.open(BytesIO(sys.stdin.buffer.read()), formats=FORMATS) as picture:
            if picture.width * picture.height > PIXELS:
                return NONE
            picture.draft("RGB", (2 * LONGEST, 2 * LONGEST))  # JPEG: decoded smaller at once
            small = picture.convert("RGBA" if transparent(picture) else "RGB")
            turned = ImageOps.exif_transpose(small)
            turned.thumbnail((LONGEST, LONGEST))
            made = BytesIO()
            turned.save(made, "WEBP", quality=80, exif=b"", icc_profile=b"")
    except Exception:
        return NONE
    sys.stdout.buffer.write(made.getvalue())
    return 0


def transparent(picture: object) -> bool:
    """Whether something is to be seen through a picture."""
    return bool(getattr(picture, "has_transparency_data", False))


def limit() -> None:
    """Bounds what this process may take, whatever the picture makes it do."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
