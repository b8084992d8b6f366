"""`gateway inbox export`: a stored webhook, redacted, as a test case in two files.

Writes nothing of a request that cannot be redacted, and never over a case that is there.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands import process
from gateway.commands.inbox_rows import named
from gateway.commands.terminal import Failure, say
from gateway.inbound import verified

if TYPE_CHECKING:
    from gateway.domain import Webhook

CASE = re.compile(r"[a-z][a-z0-9_]{0,60}")
SETTINGS = "_settings.json"


def export(
    id_: Annotated[str, typer.Argument(metavar="ID", help="As `gateway inbox list` shows it.")],
    case: Annotated[str, typer.Option(help="The name of the case, such as sms_in_two_parts.")],
    out: Annotated[Path, typer.Option(help="The folder of the cases.")] = Path("cases"),
) -> None:
    """Make a test case of a request: names, numbers, texts and ids are replaced, and it is signed
    anew with a secret of the cases. Look through it before you pass it on.

    \b
    Example:
      gateway inbox export inb_01k… --case sms_in_two_parts
    """
    if CASE.fullmatch(case) is None:
        raise typer.BadParameter("--case must be lower-case letters, digits and _")
    with process.store(process.beside()) as database:
        row = named(database, id_)
    folder = out / str(row["webhook"]) / "inbound"
    webhook, variables = _signer(row, folder)
    facts, body = _made(webhook, row, case)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / SETTINGS).exists():
            _write(folder / SETTINGS, variables)
        with (folder / f"{case}.body").open("xb") as file:
            file.write(body)
        _write(folder / f"{case}.json", facts)
    except FileExistsError:
        raise Failure(f"{folder} has a case {case}: take another name") from None
    except OSError as error:
        raise Failure(f"{folder} cannot be written: {error.strerror}") from None
    say(f"{folder / case}.json")


def _signer(row: dict[str, Any], folder: Path) -> tuple[Webhook, dict[str, str]]:
    """The webhook with the secrets of the cases, and these: new ones where there are none yet."""
    from gateway.catalog import CATALOG
    from gateway.errors import SettingsError

    kind = next((entry.webhook for entry in CATALOG if entry.name == row["webhook"]), None)
    if kind is None:
        raise Failure(f"{row['id']} is of a webhook that this version does not have")
    path = folder / SETTINGS
    try:
        variables = json.loads(path.read_text()) if path.exists() else kind.development()
        return kind(kind.Settings.model_validate(variables)), variables
    except (OSError, ValueError, SettingsError) as error:
        raise Failure(f"{path} cannot be used ({type(error).__name__}): mend it") from None


def _made(webhook: Webhook, row: dict[str, Any], case: str) -> tuple[Any, bytes]:
    from gateway.cases import exported

    try:
        made = asyncio.run(exported(webhook, verified(row), case.replace("_", " ").capitalize()))
    except ValueError as error:
        raise Failure(f"{row['id']} cannot be exported: {error}; nothing was written") from None
    return made.facts, made.body


def _write(path: Path, facts: Any) -> None:
    path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
