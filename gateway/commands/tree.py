"""Every command of `gateway`, by its name. Thin: each noun has a module of its own.

What a command needs is imported when it runs, so that each starts quickly.
"""

from __future__ import annotations

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

app = serve.commands
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
