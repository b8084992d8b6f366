"""`gateway serve` and `gateway worker`: the processes that run."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands import lock, process
from gateway.commands.terminal import Failure, say

if TYPE_CHECKING:
    from gateway.app import Gateway
    from gateway.settings import Environment

# The others are added in `tree`: a start does not wait for what only they need.
commands = typer.Typer(
    name="gateway",
    help="A two-way messaging gateway: one API out, signed webhooks in.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@commands.command()
def serve(
    dev: Annotated[
        bool, typer.Option("--dev", help="On your own machine: GATEWAY_ENV=development.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="The address to listen on (HOST).", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="The port (PORT); 0: any that is free.", min=0, max=65535),
    ] = None,
) -> None:
    """Run the gateway: the API, the webhooks, the page and the worker.

    \b
    Examples:
      gateway serve --dev
      gateway serve --host 0.0.0.0 --port 8000
    """
    gc.disable()  # a start makes nothing but what stays
    env = process.environment(
        GATEWAY_ENV="development" if dev else None,
        HOST=host,
        PORT=None if port is None else str(port),
    )
    from gateway.commands import server

    listener = server.bound(env.settings.host, env.settings.port)
    env = env.with_(PORT=str(listener.getsockname()[1]))
    with running(env, "serve") as gateway:
        _serve(gateway, listener)


def _serve(gateway: Gateway, listener: object) -> None:
    import socket

    from gateway.asgi import asgi
    from gateway.commands import server, welcome

    assert isinstance(listener, socket.socket)
    settings = gateway.settings
    with process.readable(gateway.database):
        key = welcome.first_key(gateway.database, settings)
    url = welcome.reachable(settings)
    note = lock.Serving(pid=os.getpid(), url=url, origin=settings.origin, env=settings.gateway_env)

    def ready() -> None:
        server.settled(then=gateway.warm)
        welcome.greet(gateway, url, key)

    with lock.noted(settings.data_dir, note):
        server.run(
            asgi(gateway),
            listener,
            stop_within=settings.shutdown_timeout,
            ready=ready,
            leaving=gateway.hub.end_streams,
        )


@commands.command()
def worker(
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="Answer scrapes of /metrics on this port of 127.0.0.1, without a key.",
            min=1,
            max=65535,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run only the worker, beside `gateway serve` on the same PostgreSQL database.

    \b
    Examples:
      DATABASE_URL=postgresql://gateway@db/gateway gateway worker
      gateway worker --metrics-port 9464
    """
    import uvloop

    env = process.environment()
    with running(env, "worker") as gateway:
        gateway.warm()  # nobody waits for an answer
        uvloop.run(_work(gateway, metrics_port))


async def _work(gateway: Gateway, metrics_port: int | None) -> None:
    import asyncio
    import signal

    from gateway.commands import welcome
    from gateway.errors import OutcomeUnknown, StoreUnavailable

    leaving = asyncio.Event()

    def leave(number: int) -> None:
        if leaving.is_set():
            os._exit(128 + number)
        leaving.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave, number)
    try:
        await gateway.start()
    except (StoreUnavailable, OutcomeUnknown) as error:
        raise Failure(str(error)) from None
    welcome.warn(gateway.settings)
    try:
        unlisten = gateway.scrape.listen(metrics_port, loop) if metrics_port else None
    except OSError as error:
        await gateway.stop()
        raise Failure(f"cannot listen on 127.0.0.1:{metrics_port}: {error.strerror}") from None
    say("The worker runs.")
    await leaving.wait()
    if unlisten is not None:
        await asyncio.to_thread(unlisten)  # a scrape under way still needs the loop
    await gateway.stop()


@contextlib.contextmanager
def running(env: Environment, command: str) -> Iterator[Gateway]:
    """What serves or works: alone beside an embedded database, on a schema of this version.

    Raises:
        Failure, SettingsError: it cannot run; the text names the fix.
    """
    from gateway.app import Gateway
    from gateway.commands import logs

    logs.set_up(env.settings.log_level)
    process.check_store(env)
    process.folder(env)
    path = process.embedded(env)
    with lock.held(path, command) if path is not None else contextlib.nullcontext():
        gateway = Gateway(environment=env, serving=command == "serve")
        process.prepare(gateway.database)
        yield gateway
