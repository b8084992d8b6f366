"""Email addresses that are not written to: why, by whom, and what becomes of what is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, strategies as st

from gateway.opt_outs import DETAILS, Source, State, Why, code_of, why_blocked
from gateway.store import opt_out_edits, opt_outs
from gateway.store.accepts import ACCEPT
from gateway.store.database import Database
from gateway.store.opt_out_edits import EDIT, operator
from tests.commands import Desk
from tests.running import Client, in_thread, variables
from tests.stored import TENANT, Store, new_message

ADA, BOB, EVE = "ada@example.com", "bob@example.com", "eve@example.com"
JO = "jörg@exämple.com"
PLACE = f"/api/suppressions/{ADA}"


def mail(to: str = ADA, **more: Any) -> dict[str, Any]:
    """An email to be sent."""
    return {"channel": "email", "to": to, "subject": "s", "body": "b", **more}


def put(client: Client, reason: str | None = None, place: str = PLACE) -> dict[str, Any]:
    """Suppresses an address."""
    answer = client.call("PUT", place, **({"json": {"reason": reason}} if reason else {}))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_suppressed_address_gets_nothing_until_it_is_lifted(url: str, tmp_path: Path) -> None:
    with in_thread(variables(tmp_path, url)) as client:
        assert client.call("GET", PLACE).status_code == 404
        assert client.call("DELETE", PLACE).status_code == 404
        shown = put(client, place="/api/suppressions/Ada@Example.COM")
        assert (shown["address"], shown["reason"], shown["source"]) == (ADA, "manual", "api")
        for reason, code in (
            ("manual", "suppressed"),
            ("bounce", "suppressed"),
            ("complaint", "suppressed"),
            ("unsubscribe", "opted_out"),
        ):
            assert put(client, reason) == client.get(PLACE)
            assert client.get("/api/suppressions", reason=reason)["items"] == [client.get(PLACE)]
            refused = client.send(**mail("ADA@example.com"))
            assert (refused["status"], refused["error"]["code"]) == ("rejected", code)
        assert client.get("/api/suppressions", reason="bounce")["items"] == []
        assert client.get("/api/opt-outs", channel="email")["items"][0]["address"] == ADA
        for part in ("cc", "bcc"):
            refused = client.send(**mail(BOB, email={part: [EVE, "Ada@example.com"]}))
            assert (refused["status"], refused["error"]["code"]) == ("rejected", "opted_out")
            assert refused["error"]["message"].startswith("Ada@example.com, whom it is copied to:")
        asked = client.call(
            "POST", "/api/messages?dry_run=true", json=mail(BOB, email={"cc": [ADA]})
        )
        assert asked.json()["opt_out"]["state"] == "out"
        assert client.call("DELETE", PLACE).json()["state"] == "in"
        assert client.call("GET", PLACE).status_code == 404
        assert client.get("/api/suppressions", address=ADA)["items"] == []
        client.until(client.send(**mail(email={"cc": [BOB]}))["id"], "delivered")
        for wrong in ("reason=spam", "colour=red", "cursor=x"):
            assert client.call("GET", f"/api/suppressions?{wrong}").status_code == 422
        assert client.call("PUT", "/api/suppressions/nobody").status_code == 422
        assert client.call("PUT", PLACE, json={"reason": "x"}).status_code == 422


def test_an_address_with_a_slash_is_an_address(idle: Client) -> None:
    name = "sales/eu@example.com"
    for written in (name, name.replace("/", "%2F")):
        place = f"/api/suppressions/{written}"
        assert put(idle, "bounce", place)["address"] == name
        assert idle.get(f"/api/opt-outs/email/{written}")["address"] == name
        (said, *_) = idle.get(f"/api/opt-outs/email/{written}/history")["items"]
        assert said["state"] == "out"
        assert idle.call("DELETE", place).json()["state"] == "in"
    for nobody in ("", "/", "history"):
        assert idle.call("DELETE", f"/api/suppressions/{nobody}").status_code == 404
        assert idle.call("PUT", f"/api/suppressions/{nobody}").status_code == 422


def test_who_is_suppressed_between_accept_and_send_gets_no_copy(store: Store) -> None:
    copied = new_message(channel="email", to=BOB, extra='{"email":{"bcc":["ada@example.com"]}}')
    alone = new_message(channel="email", to=EVE)
    store.do(ACCEPT, copied, alone)
    store.do(EDIT, operator(TENANT, "email", ADA, State.OUT, Source.VENDOR, "bounced"))
    due = {item.message_id: item for item in store.claim()}
    assert store.begin(due[copied.row["id"]]) is None
    assert store.begin(due[alone.row["id"]]) is not None
    row = store.message(copied.row["id"])
    assert (row["status"], row["error_code"]) == ("rejected", "suppressed")


def test_older_news_does_not_suppress_who_was_lifted(store: Store) -> None:
    store.do(EDIT, operator(TENANT, "email", ADA, State.OUT, Source.API, "bounced"))
    store.do(EDIT, operator(TENANT, "email", ADA, State.IN, Source.API, None))
    with store.database.read() as tx:
        said_at = tx.now - 600_000
    late = opt_outs.Word(
        id="opt_late",
        tenant_id=TENANT,
        channel="email",
        address=ADA,
        state=State.OUT,
        source=Source.VENDOR,
        said_at=said_at,
        detail="bounced",
    )
    store.do(EDIT, late)
    with store.database.read() as tx:
        assert opt_outs.blocked(tx, [(TENANT, "email", ADA)]) == {}


details = st.sampled_from([*DETAILS, "they called", "dropped:unsubscribed", None])


@given(source=st.sampled_from(Source), detail=details)
def test_a_code_and_a_reason_agree(source: Source, detail: str | None) -> None:
    code = code_of("email", detail)
    assert code in ("suppressed", "opted_out")
    if code == "suppressed":
        assert why_blocked(source, detail) is not Why.UNSUBSCRIBE
    assert code_of("sms", detail) == "opted_out"


def test_the_database_reads_reasons_as_we_do(store: Store) -> None:
    cases = [(s, d) for s in Source for d in (*DETAILS, "they called", None)]
    for number, (source, detail) in enumerate(cases):
        address = f"p{number}@example.com"
        store.do(EDIT, operator(TENANT, "email", address, State.OUT, source, detail))
    for why in Why:
        with store.database.read() as tx:
            rows = opt_out_edits.listed(tx, TENANT, {"channel": "email"}, None, 100, why)
        expected = sum(why_blocked(*case) is why for case in cases)
        assert len(rows) == expected > 0


def test_addresses_are_suppressed_from_the_terminal(tmp_path: Path, sqlite_url: str) -> None:
    desk = Desk(tmp_path, variables(tmp_path, sqlite_url))
    done = desk.run("suppressions", "add", "Ada@Example.com", "--reason", "complaint")
    assert (done.code, done.out) == (0, "Ada@example.com is not written to any more.\n")
    listed = desk.run("suppressions", "list", "--reason", "complaint").out
    assert listed.splitlines()[1].split()[:3] == [ADA, "complaint", "cli"]
    assert desk.run("suppressions", "list", "--reason", "bounce").out == "None.\n"
    assert desk.run("suppressions", "remove", ADA).code == 0
    assert desk.run("suppressions", "list").out == "None.\n"
    assert desk.run("suppressions", "remove", BOB).code == 1
    assert desk.run("suppressions", "add", "nobody").code == 2


def test_a_word_that_was_stored_under_an_address_as_it_came_is_found_and_lifted(
    store: Store, url: str, tmp_path: Path
) -> None:
    for place in ("/api/suppressions/", "/api/opt-outs/email/"):
        name = f"{place[5]}{JO}"
        store.do(EDIT, operator(TENANT, "email", name, State.OUT, Source.VENDOR, "bounced"))
    with in_thread(variables(tmp_path, url)) as client:
        for place in ("/api/suppressions/", "/api/opt-outs/email/"):
            name = f"{place[5]}{JO}"
            assert client.get(place + name)["address"] == name
            for listed in ("/api/opt-outs", "/api/suppressions"):
                assert [r["address"] for r in client.get(listed, address=name)["items"]] == [name]
            assert client.call("DELETE", place + name).json()["state"] == "in"
        (word,) = client.get(f"/api/opt-outs/email/o{JO}/history")["items"][1:]
        assert (word["address"], word["state"]) == (f"o{JO}", "out")
        assert client.get("/api/opt-outs")["items"] == []


def test_the_terminal_finds_and_lifts_it_too(tmp_path: Path, sqlite_url: str) -> None:
    database = Database(sqlite_url)
    store = Store(database)
    store.do(EDIT, operator(TENANT, "email", JO, State.OUT, Source.VENDOR, "bounced"))
    database.close()
    desk = Desk(tmp_path, variables(tmp_path, sqlite_url))
    assert "bounced" in desk.run("opt-outs", "history", JO, "--channel", "email").out
    file = str(tmp_path / "people.csv")
    assert desk.run("opt-outs", "export", "--channel", "email", "--output", file).code == 0
    assert desk.run("opt-outs", "import", file, "--channel", "email").code == 0
    blocked = desk.run("suppressions", "list", "--reason", "bounce").out
    assert JO in blocked and JO.replace("exämple", "xn--exmple-cua") in blocked
    assert desk.run("suppressions", "remove", JO).out == (
        f"{JO.replace('exämple', 'xn--exmple-cua')} may be written to.\n"
    )
    assert desk.run("suppressions", "list").out == "None.\n"
