"""What `gateway doctor` looks at on this machine: folders, database, keys, address, chains.

Each look gives findings and changes nothing but a file that it makes and deletes. Never shows a
value that could be secret.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.clock import new_id
from gateway.commands import process
from gateway.commands.terminal import Failure
from gateway.domain import Channel, FileStore, Finding, Level

if TYPE_CHECKING:
    import requests

    from gateway.adapters import Adapters
    from gateway.settings import Environment
    from gateway.store.database import Database

MEBIBYTE = 1024 * 1024
LITTLE = 1024 * MEBIBYTE  # a warning below this
NOTHING = 64 * MEBIBYTE  # a problem below this
HEALTH_TIMEOUT = 5.0
START = "the gateway does not start before this is repaired"
# File systems on which SQLite's locks and its shared memory do not work ("WAL", sqlite.org).
FUSE = ("fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.gluster", "fuse.ceph")
NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "afs", "lustre", "glusterfs", *FUSE)


def ok(subject: str, text: str) -> Finding:
    """As it should be."""
    return Finding(subject=subject, level=Level.OK, text=text)


def warning(subject: str, text: str, fix: str) -> Finding:
    """Works, and will surprise somebody."""
    return Finding(subject=subject, level=Level.WARNING, text=text, fix=fix)


def problem(subject: str, text: str, fix: str) -> Finding:
    """Does not work until it is fixed."""
    return Finding(subject=subject, level=Level.PROBLEM, text=text, fix=fix)


def folders(env: Environment) -> Iterator[Finding]:
    """The data folder, and the one in which webhooks wait while the database is away."""
    yield from _folder("DATA_DIR", env.settings.data_dir)
    yield from _folder("SPOOL_DIR", env.settings.spool)


def _folder(variable: str, path: Path) -> Iterator[Finding]:
    there = _nearest(path)
    fix = f"give it to the user that runs the gateway, or set {variable} to another folder"
    if not there.is_dir():
        text = f"{path} cannot be written: {there} is a file and no folder"
        yield problem(variable, text, f"set {variable} to another folder, or move that file away")
        return
    if there != path.absolute():
        if not os.access(there, os.W_OK | os.X_OK):
            yield problem(variable, f"{path} is not there and cannot be made in {there}", fix)
        else:
            yield ok(variable, f"{path} is not there yet: it is made when it is needed")
        return
    try:
        _written(path)
    except OSError as error:
        yield problem(variable, f"{path} cannot be written: {error.strerror}", fix)
        return
    yield ok(variable, f"{path} can be written")
    if path.stat().st_uid != os.geteuid():
        text = f"{path} belongs to another user than the one that runs this"
        yield warning(variable, text, "run `gateway doctor` as the user that runs the gateway")
    yield from _room(variable, path)


def _nearest(path: Path) -> Path:
    """What there is of a path: itself, or the nearest above it."""
    above = (path.absolute(), *path.absolute().parents)
    return next((p for p in above if p.exists()), Path("/"))


def _written(path: Path) -> None:
    """Makes a file as the gateway would, down to the disk, and deletes it."""
    handle, name = tempfile.mkstemp(prefix=".doctor-", dir=path)
    try:
        os.write(handle, b"written by gateway doctor\n")
        os.fsync(handle)
    finally:
        os.close(handle)
        Path(name).unlink()


def _room(variable: str, path: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(path).free
    text = f"{free // MEBIBYTE} MiB are free in {path}"
    if free < NOTHING:
        yield problem(variable, text, "make room: without it nothing is accepted")
    elif free < LITTLE:
        yield warning(variable, text, "make room before it is full")


def files(env: Environment) -> Iterator[Finding]:
    """Where files are kept, if that is no folder: one is written, read and deleted."""
    import asyncio

    from gateway.adapters import file_store
    from gateway.errors import FilesUnavailable

    place = env.settings.media_store
    if place is None:
        return
    try:
        asyncio.run(_tried(file_store(env)))
    except FilesUnavailable as error:
        fix = "files cannot be sent or received before this is repaired; see docs/configuration.md"
        yield problem("MEDIA_STORE", f"{place}: {error}", fix)
    else:
        yield ok("MEDIA_STORE", f"{place}: a file was written, read and deleted")


async def _tried(store: FileStore) -> None:
    key = f"doctor/{new_id('med')}"
    try:
        await store.put(key, b"doctor", "text/plain")
        async for _ in store.read(key, 0, 6):
            pass
        await store.delete(key)
    finally:
        await store.aclose()


def database(env: Environment) -> Iterator[Finding]:
    """Whether it can be reached, stands at this version's revision, and lies on a fit disk."""
    process.check_store(env)
    path = process.embedded(env)
    if path is not None:
        yield from _disk(path)
        if not path.exists():
            yield _unmade(path)
            return
    with process.store(env, current=False) as opened:
        yield from _schema(opened)


def _unmade(path: Path) -> Finding:
    there = _nearest(path)
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return ok("database", f"{path} is not there yet: the first start makes it")
    fix = "set DATA_DIR (or DATABASE_URL) to where the user that runs the gateway may write"
    return problem("database", f"{path} is not there and cannot be made in {there}", fix)


def _disk(path: Path) -> Iterator[Finding]:
    kind = mounted(path)
    if kind is not None and kind.startswith(NETWORK):
        text = f"{path} lies on a network file system ({kind}), where SQLite loses data"
        yield problem("database", text, "use a local disk, or PostgreSQL (DATABASE_URL)")


def mounted(path: Path, table: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The kind of file system a path lies on, where the system tells."""
    found: tuple[int, str] | None = None
    with contextlib.suppress(OSError):
        for line in table.read_text(errors="replace").splitlines():
            left, _, right = line.partition(" - ")
            point = Path(left.split()[4].encode().decode("unicode_escape"))
            if path.resolve().is_relative_to(point) and len(point.parts) >= (found or (0,))[0]:
                found = (len(point.parts), right.split()[0])
    return found[1] if found else None


def _schema(opened: Database) -> Iterator[Finding]:
    from gateway.store import migrate
    from gateway.store.database import describe

    revision = migrate.current(opened)
    if revision == migrate.head():
        yield ok("database", f"{_kind(opened)}, at this version's revision {revision}")
    else:
        text = f"it stands at revision {revision or 'none'}; this version's is {migrate.head()}"
        fix = process.NEWER if migrate.newer(opened) else "run `gateway db upgrade`"
        yield problem("database", text, fix)
    with opened.read() as tx:
        if opened.sqlite:
            mode = str(tx.run("PRAGMA journal_mode").scalar())
            if mode != "wal":
                fix = "put it on a local disk that allows shared memory, or use PostgreSQL"
                yield problem("database", f"SQLite cannot use its WAL here ({mode})", fix)
        elif tx.run("SELECT pg_is_in_recovery()").scalar():
            where = describe(opened.url.render_as_string(hide_password=True))
            text = f"{where} is a standby, which takes no writes"
            yield problem("database", text, "set DATABASE_URL to the primary")


def _kind(opened: Database) -> str:
    return f"SQLite at {opened.path}" if opened.sqlite else "PostgreSQL"


def keys(env: Environment) -> Iterator[Finding]:
    """Whether anybody can call the API."""
    if env.settings.gateway_api_key is not None:
        yield ok("API keys", "GATEWAY_API_KEY is set")
        return
    try:
        valid = _valid(env)
    except Failure:
        return  # the look at the database says why
    if valid:
        yield ok("API keys", f"{valid} in the database")
    elif env.settings.development:
        yield ok("API keys", "none yet: the first start makes one")
    else:
        fix = "`gateway keys create NAME` makes one, or set GATEWAY_API_KEY"
        yield problem("API keys", "there is none, so nobody can call the API", fix)


def _valid(env: Environment) -> int:
    from gateway.store import keys as stored

    path = process.embedded(env)
    if path is not None and not path.exists():
        return 0
    with process.store(env) as opened, opened.read() as tx:
        rows = stored.all_of(tx, "default")
        return sum(
            row["revoked_at"] is None and (row["expires_at"] or tx.now + 1) > tx.now for row in rows
        )


def address(env: Environment, origin: str) -> Iterator[Finding]:
    """Whether vendors can call PUBLIC_URL, as far as that can be seen from here."""
    url, development = env.settings.public_url, env.settings.development
    fix = "set it to the https address at which vendors reach this gateway"
    if url is None and development:
        yield ok("PUBLIC_URL", f"not set: {origin}, which no vendor can call")
        return
    if url is None:
        text = "not set: webhooks will be refused, and no status callbacks are asked for"
        yield warning("PUBLIC_URL", text, fix)
        return
    told = warning if development else problem
    host = urlsplit(url).hostname or ""
    if urlsplit(url).scheme != "https":
        yield told("PUBLIC_URL", f"{url} is not https: what people write goes unprotected", fix)
    if (where := _private(host)) is not None:
        yield told("PUBLIC_URL", f"{host} is {where}: vendors cannot call it", fix)
    yield _answers(url, told, fix)


def _private(host: str) -> str | None:
    """Why a host is not public, judged by its spelling only."""
    with contextlib.suppress(ValueError):
        return None if ip_address(host).is_global else "a private address"
    return None if "." in host and not host.endswith(".local") else "a name of this network only"


def _answers(url: str, told: Any, fix: str) -> Finding:
    """Asks as anybody would. From inside, a router may not lead back in: that is no proof."""
    import requests

    session = requests.Session()
    session.trust_env = False
    where = f"{url}/health"
    try:
        answer = session.get(where, timeout=HEALTH_TIMEOUT, allow_redirects=False, stream=True)
        with answer:
            return _judged(where, answer)
    except requests.exceptions.SSLError:
        text = f"the certificate of {url} does not hold"
        return problem("PUBLIC_URL", text, "use a certificate that everybody trusts, whole chain")
    except requests.RequestException as error:
        if "resolve" in str(error).lower() or "getaddrinfo" in str(error).lower():
            found: Finding = told("PUBLIC_URL", f"{url} has a name that does not resolve", fix)
            return found
        text = f"{where} cannot be reached from this machine"
        again = "start the gateway and its proxy, and try from outside: a router may block this way"
        return warning("PUBLIC_URL", text, again)
    finally:
        session.close()


def _judged(where: str, answer: requests.Response) -> Finding:
    said = b"".join(answer.iter_content(1024))[:1024] if answer.status_code == 200 else b""
    if said.replace(b" ", b"") == b'{"status":"ok"}':
        return ok("PUBLIC_URL", f"{where} answers as a gateway does")
    if answer.is_redirect:
        text = f"{where} redirects, and no vendor follows a redirect"
        return warning("PUBLIC_URL", text, "set PUBLIC_URL to the address that it leads to")
    text = f"{where} answers {answer.status_code}, and not as a gateway does"
    fix = "start the gateway; let the proxy pass every path on to it as it came"
    return warning("PUBLIC_URL", text, fix)


def senders(env: Environment, made: Adapters) -> Iterator[Finding]:
    """Who sends on each channel."""
    chains = {channel: chain for channel, chain in made.chains.items() if chain}
    for channel, chain in chains.items():
        yield ok(channel.value, f"sent by {', then '.join(route.name for route in chain)}")
        if not env.settings.development and any(r.connection.family == "console" for r in chain):
            text = "the console stands in the chain: it prints messages and sends nothing"
            fix = "name the vendors that send in MESSAGING_PROVIDER and the channel's chain"
            yield warning(channel.value, text, fix)
    if not chains:
        fix = "set MESSAGING_PROVIDER and the variables of that vendor"
        yield problem("sending", "no provider is set up: nothing can be sent", fix)
    elif Channel.SMS not in chains:
        yield warning("sms", "nobody sends SMS", "name a provider of SMS in SMS_PROVIDERS")


def hooks(made: Adapters) -> Iterator[Finding]:
    """Which webhooks are on, and what the others lack."""
    from gateway import catalog

    used = {route.connection.family for route in made.routes.values()}
    for entry in catalog.CATALOG:
        variable = made.missing.get(entry.name)
        if entry.name in made.webhooks:
            yield ok(entry.name, "on")
        elif variable is not None and entry.family in used and entry.family != "console":
            text = f"off, as {variable} is not set: nothing that comes in is taken"
            yield warning(entry.name, text, f"set {variable}")
        elif variable is not None:
            yield ok(entry.name, f"off: {variable} is not set")
