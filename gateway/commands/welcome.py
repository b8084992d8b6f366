"""What `gateway serve` tells when it is ready: where it is, and what to try first.

Makes the first key of a developer's machine. Never shows a key in production.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.commands.terminal import complain, facts, program, say

if TYPE_CHECKING:
    from gateway.app import Gateway
    from gateway.settings import Settings
    from gateway.store.database import Database

KEY_FILE = "development-key"
PERSON = "+15551230001"


@dataclass(frozen=True, slots=True)
class Key:
    """What to say of the keys, and what to put into a `curl`, shell-quoted."""

    said: str
    header: str | None = None


def first_key(database: Database, settings: Settings) -> Key:
    """The key to try the API with, made if none ever was: only on a developer's machine."""
    from gateway.store import keys

    static = settings.gateway_api_key
    if static is not None:
        secret = static.get_secret_value() if settings.development else None
        return Key("GATEWAY_API_KEY", shlex.quote(_bearer(secret)) if secret else None)
    with database.read() as tx:
        known = keys.any_ever(tx)
    if not settings.development:
        return Key("" if known else f"none yet: `{program()} keys create NAME` makes one")
    if not known:
        return _make(database, settings)
    return _known(settings)


def _make(database: Database, settings: Settings) -> Key:
    from gateway.adapters import private_file
    from gateway.store import keys

    path = settings.data_dir / KEY_FILE
    with database.write() as tx:
        made = keys.make(tx, tenant_id="default", name="development")
        private_file(path, made + "\n")
    return Key(f"{made}  (shown once; kept in {path})", shlex.quote(_bearer(made)))


def _known(settings: Settings) -> Key:
    path = settings.data_dir / KEY_FILE
    another = f"`{program()} keys create NAME` makes another"
    if not path.is_file():
        return Key(f"one exists already; {another}")
    return Key(f"in {path}; {another}", f'"{_bearer(f"$(cat {shlex.quote(str(path))})")}"')


def _bearer(key: str) -> str:
    return f"Authorization: Bearer {key}"


def reachable(settings: Settings) -> str:
    """The address to call from this machine."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}  # noqa: S104 - compared
    host = everywhere.get(settings.host, settings.host).strip("[]")
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def greet(gateway: Gateway, url: str, key: Key) -> None:
    """Prints where everything is."""
    settings = gateway.settings
    warn(settings)
    say(f"The gateway runs ({settings.gateway_env}). Ctrl-C stops it.")
    say()
    facts(
        [
            ("  page", f"{url}/"),
            ("  API", f"{url}/docs"),
            ("  webhooks", f"{settings.origin}/api/webhooks/sms and /whatsapp"),
            ("  sends by", _chains(gateway)),
            ("  key", key.said),
        ]
    )
    if settings.development:
        _first_steps(url, key)


def warn(settings: Settings) -> None:
    """Says what a gateway in production is unlikely to be meant to lack."""
    if settings.public_url is None and not settings.development:
        complain(
            "PUBLIC_URL is not set. Vendors sign and call that address, so their webhooks will be "
            "refused (403), and no status callbacks are asked for. Set it to the address at which "
            "this gateway is reached, such as https://gateway.example.com."
        )


def _chains(gateway: Gateway) -> str:
    chains = gateway.adapters.chains
    listed = [f"{c}: {', '.join(r.name for r in chains[c])}" for c in chains if chains[c]]
    return "; ".join(listed) or "nothing: no provider is set up"


def _first_steps(url: str, key: Key) -> None:
    header = key.header or shlex.quote(_bearer("YOUR_KEY"))
    body = f'{{"channel": "sms", "to": "{PERSON}", "body": "Hello from the gateway"}}'
    say(
        f"""
Send a first message:

  curl -sS {url}/api/messages \\
    -H {header} \\
    -H 'Content-Type: application/json' \\
    -d '{body}'

Answer as that person would, signed as the vendor signs:

  {program()} simulate inbound --channel sms --from {PERSON} --body "hi"
  {program()} simulate chat --from {PERSON}
"""
    )
