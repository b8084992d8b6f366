"""Every command of `gateway`, by its name. Thin: each noun has a module of its own.

What a command needs is imported when it runs, so that each starts quickly.
"""

from __future__ import annotations

import typer

from gateway.commands import (
    chat,
    costs,
    db,
    doctor,
    inbox,
    keys,
    opt_outs,
    providers,
    queue,
    send,
    serve,
    ses,
    simulate,
    suppressions,
    webhooks,
)

app = typer.Typer(
    name="gateway",
    help="A two-way messaging gateway: one API out, signed webhooks in.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command()(serve.serve)
app.command()(serve.worker)
app.command()(send.send)
app.command()(doctor.doctor)
simulate.commands.command()(chat.chat)
app.add_typer(simulate.commands, name="simulate")
app.add_typer(keys.commands, name="keys")
app.add_typer(webhooks.commands, name="webhooks")
app.add_typer(providers.commands, name="providers")
app.add_typer(inbox.commands, name="inbox")
app.add_typer(queue.commands, name="queue")
app.add_typer(opt_outs.commands, name="opt-outs")
app.add_typer(costs.commands, name="costs")
app.add_typer(suppressions.commands, name="suppressions")
app.add_typer(ses.commands, name="ses")
app.add_typer(db.commands, name="db")
