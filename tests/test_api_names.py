"""Names in requests: parameters that there are not, two names of one field, a name that comes
twice; and what else JSON can hold that is not to be taken."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from gateway.api.routes import OPERATIONS
from tests.databases import sqlite_copy
from tests.running import KEY, Client, in_thread, variables

TO = "+15550100001"


@pytest.fixture(scope="module")
def api(sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("names")
    with in_thread(variables(folder, sqlite_copy(sqlite_file, folder)), working=False) as client:
        yield client


def errors(answer: Any) -> dict[str, str]:
    """What a problem says, by field."""
    assert answer.status_code == 422, (answer.status_code, answer.text)
    return {error["field"]: error["message"] for error in answer.json()["errors"]}


PLACES = sorted({(each.method, each.path) for each in OPERATIONS})


@pytest.mark.parametrize(("method", "path"), PLACES)
def test_a_parameter_that_there_is_not_is_refused_everywhere(
    method: str, path: str, api: Client
) -> None:
    filled = (
        path.replace("{channel}", "sms").replace("{address}", TO).replace("{", "").replace("}", "")
    )
    answer = api.call(method, f"{filled}?surprise=1")
    (known,) = {each.query for each in OPERATIONS if (each.method, each.path) == (method, path)}
    told = f"known are {', '.join(known)}" if known else "there are none"
    assert errors(answer) == {"surprise": f"is no parameter here; {told}"}
    assert api.stranger().call(method, f"{filled}?surprise=1").status_code == 401
    for name in known[:1]:
        assert errors(api.call(method, f"{filled}?{name}=1&{name}=1"))[name] == "must be given once"


def test_nothing_is_sent_by_a_request_that_meant_something_else(api: Client) -> None:
    body = {"to": TO, "body": "x"}
    for path in ("/api/messages?dryrun=true", "/api/sms/send?dry-run=true"):
        assert errors(api.call("POST", path, json=body))
    assert errors(api.call("POST", "/api/sms/bulk?dry_run=true", json={"messages": [body]}))
    assert api.get("/api/messages")["items"] == []


def test_where_a_stream_goes_on_may_stand_in_its_address(api: Client) -> None:
    with api.session.get(
        f"{api.url}/api/events?after=0&lastEventId=0",
        headers={"Authorization": f"Bearer {KEY}"},
        stream=True,
        timeout=20,
    ) as answer:
        assert answer.status_code == 200
    assert "lastEventId" in errors(api.call("GET", "/api/events?lastEventId=x&after=0"))
    url = api.url.replace("http", "ws") + "/api/events/ws"
    headers = {"Authorization": f"Bearer {KEY}"}
    with connect(f"{url}?after=0", additional_headers=headers):
        pass
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{url}?since=0", additional_headers=headers)
    assert refused.value.response.status_code == 422


def test_what_vendors_and_monitors_add_to_an_address_is_let_be(api: Client) -> None:
    for path in ("/health?x=1", "/health/ready?x=1"):
        assert api.stranger().call("GET", path).status_code == 200
    hook = api.call("POST", "/api/webhooks/twilio?x=1", data={"Body": "x"})
    assert hook.status_code in (401, 403)


@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        ("/api/messages", {"to": TO, "recipient_number": "+15550100002", "body": "x"},
         ["to", "recipient_number"]),
        ("/api/messages", {"to": TO, "body": "x", "content": "y"}, ["body", "content"]),
        ("/api/messages", {"to": TO, "body": "x", "channel": "sms", "communication_type": "EMAIL"},
         ["channel", "communication_type"]),
        ("/api/sms/send", {"recipient": TO, "recipient_number": "+15550100002", "body": "x"},
         ["recipient_number", "recipient"]),
        ("/api/sms/send", {"to": TO, "message": "x", "text": "y"}, ["message", "text"]),
        ("/api/sms/send", {"to": TO, "body": "x", "from": TO, "sender_id": "SHOP"},
         ["from", "sender_id"]),
        ("/api/sms/bulk", {"recipients": [TO], "phone_numbers": ["+15550100002"], "body": "x"},
         ["recipients", "phone_numbers"]),
    ],
)  # fmt: skip
def test_two_names_that_contradict_each_other_are_both_named(
    path: str, body: dict[str, Any], names: list[str], api: Client
) -> None:
    told = errors(api.call("POST", path, json=body))
    assert [*told] == names
    assert {*told.values()} == {f"contradict each other: give one of {' and '.join(names)}"}


def test_two_names_that_say_the_same_are_taken(api: Client) -> None:
    for body in (
        {"to": TO, "recipient_number": "+1 (555) 010-0001", "body": "x", "content": "x"},
        {"to": None, "recipient_number": TO, "body": "", "content": "x"},
        {"to": TO, "body": "x", "channel": "sms", "communication_type": "SMS"},
    ):
        answer = api.call("POST", "/api/messages", json=body)
        assert answer.status_code == 202, answer.text
        assert (answer.json()["to"], answer.json()["body"]) == (TO, "x")
    body = {"messages": [{"to": TO, "phone_number": "+15550100002", "body": "x"}]}
    many = api.call("POST", "/api/sms/bulk", json=body).json()
    assert [error["field"] for error in many["items"][0]["errors"]] == ["to", "phone_number"]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"to": "+15550100001", "to": "+15550100002", "body": "x"}', "to"),
        ('{"to": "+15550100001", "\\u0074o": "+15550100002", "body": "x"}', "to"),
        ('{"to": "+15550100001", "body": "at 9:00", "body": "x"}', "body"),
        ('{"to": "+15550100001", "body": "x", "metadata": {"a": [{"b": 1, "b": 1}]}}', "b"),
        (
            '{"to": "+15550100001", "body": "x", "metadata": {"a": {"b": [1e999]}}}',
            "metadata.a.b.0",
        ),
        ('{"to": "+15550100001", "body": "x", "metadata": {"a": -1E+400}}', "metadata.a"),
        ('{"to": "+15550100001", "body": "x", "": 1}', '""'),
        ('{"to": "+15550100001", "body": "x", "": "\\u0000"}', '""'),
    ],
)
def test_json_that_can_be_read_in_two_ways_is_refused(text: str, field: str, api: Client) -> None:
    kind = {"Content-Type": "application/json"}
    answer = api.call("POST", "/api/messages", data=text.encode(), headers=kind)
    assert [*errors(answer)] == [field]


@pytest.mark.parametrize(
    "text",
    [
        '\ufeff{"to": "+15550100001", "body": "x"}',
        '{"to": "+15550100001", "body": "at 9:00, {\\"to\\": 1, \\"to\\": 2}"}',
        '{"to": "+15550100001", "body": "x", "metadata": {"to": "a:b", "c": {"to": 1e308}}}',
    ],
)
def test_json_that_is_only_unusual_is_taken(text: str, api: Client) -> None:
    kind = {"Content-Type": "application/json"}
    answer = api.call("POST", "/api/messages", data=text.encode(), headers=kind)
    assert answer.status_code == 202, answer.text


def test_two_idempotency_keys_are_none(api: Client) -> None:
    body = b'{"to": "+15550100001", "body": "x"}'
    wire = HTTPConnection(api.url.removeprefix("http://"), timeout=20)
    wire.putrequest("POST", "/api/messages")
    for name, value in (
        ("Authorization", f"Bearer {KEY}"),
        ("Content-Length", str(len(body))),
        ("Idempotency-Key", "one"),
        ("Idempotency-Key", "two"),
    ):
        wire.putheader(name, value)
    wire.endheaders(body)
    answer = wire.getresponse()
    assert (answer.status, b"Idempotency-Key" in answer.read()) == (422, True)
    wire.close()


def test_a_problem_names_a_bounded_number_of_fields(api: Client) -> None:
    body = {"to": TO, "body": "x", **{f"unknown_{number}": 1 for number in range(5000)}}
    answer = api.call("POST", "/api/messages", json=body)
    assert len(errors(answer)) == 100
    answer = api.call("POST", "/api/messages", json={"to": TO, "body": "x", "y" * 100_000: 1})
    assert [*errors(answer)] == ["y" * 200]
