"""A program of its own: an order and an email on its standard input, what it says on its standard
output, as a line of JSON and the files.

It runs apart, without an environment, with little memory and time, as a stranger's email may be
made to take all of both. Knows no secret, opens no file, calls nobody.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

MEMORY = 512 * 1024 * 1024
SECONDS = 5


def main() -> int:
    """Reads, and writes what it says."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from webhooks import _mail_form, _mail_letter

    order = json.loads(sys.stdin.buffer.readline())
    read = _mail_form.form if order.get("form") else _mail_letter.mime
    facts, files = read(order, sys.stdin.buffer.read())
    for piece in _mail_letter.written(facts, files):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
