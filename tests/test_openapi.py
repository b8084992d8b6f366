"""The OpenAPI document tells the truth: requests made from it get the answers it lists."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.api.openapi import document
from tests.databases import sqlite_copy
from tests.running import Client, in_thread, inbound_form, sid, variables


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, sqlite_file: Path) -> Iterator[Client]:
    """A gateway with something in it."""
    folder = tmp_path_factory.mktemp("openapi")
    url = sqlite_copy(sqlite_file, folder)
    with in_thread(variables(folder, url, GATEWAY_ENV="development")) as made:
        sent = made.send(to="+15550100001", body="hello")
        made.until(sent["id"], "delivered")
        assert made.webhook("/api/webhooks/sms", inbound_form(sid(1))).ok
        yield made


# The stream has no end, so it is left to tests of its own.
SCHEMA = schemathesis.openapi.from_dict(deepcopy(document())).exclude(path="/api/events")
DOCUMENTED = [result.ok() for result in SCHEMA.get_all_operations()]
WITH_INPUT = [
    o
    for o in DOCUMENTED
    if o.label not in ("GET /health", "GET /health/ready", "GET /health/messaging", "GET /metrics")
]
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


@pytest.mark.parametrize("operation", DOCUMENTED, ids=lambda o: o.label)
def test_every_operation_answers_as_documented(operation: Any, client: Client) -> None:
    @hypothesis.settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def answers(case: schemathesis.Case) -> None:
        case.call_and_validate(
            base_url=client.url,
            session=client.session,
            headers={"Authorization": f"Bearer {client.key}"},
            checks=CHECKS,
        )

    answers()


@pytest.mark.parametrize("operation", WITH_INPUT, ids=lambda o: o.label)
def test_what_the_document_forbids_is_refused_as_documented(operation: Any, client: Client) -> None:
    @hypothesis.settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def refuses(case: schemathesis.Case) -> None:
        answer = case.call(
            base_url=client.url,
            session=client.session,
            headers={"Authorization": f"Bearer {client.key}"},
        )
        case.validate_response(answer, checks=CHECKS)

    refuses()


STEPS, SCENARIOS = 8, 8  # enough to open, change and page through what the steps before made


def test_what_an_answer_leads_to_can_be_asked_and_answers_as_documented(client: Client) -> None:
    asked = set()

    class Machine(SCHEMA.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:
            key = {"Authorization": f"Bearer {client.key}"}
            return {"base_url": client.url, "session": client.session, "headers": key}

        def validate_response(
            self, response: Any, case: schemathesis.Case, *_: Any, **more: Any
        ) -> None:
            case.validate_response(response, checks=CHECKS)
            asked.add(case.operation.label)

    Machine.run(
        settings=hypothesis.settings(
            max_examples=SCENARIOS,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
    )
    assert len(asked) > 3


def test_every_link_leads_to_an_operation_and_holds_for_a_real_answer(client: Client) -> None:
    told = client.get("/openapi.json")["paths"].values()
    operations = {o["operationId"]: o for path in told for o in path.values() if "operationId" in o}
    followed = set()
    for operation in operations.values():
        for status, answer in operation["responses"].items():
            for link in answer.get("links", {}).values():
                target = operations[link["operationId"]]
                assert status.startswith("2")
                assert set(link["parameters"]) <= {p["name"] for p in target["parameters"]}
                followed.add(link["operationId"])
    assert {"messages_cancel", "retries_retry", "conversations_messages"} <= followed
    (thread,) = client.get("/api/conversations", limit=1)["items"]
    assert client.get(f"/api/conversations/{thread['id']}/messages")["items"]


def test_the_document_lists_every_route_of_the_api(client: Client) -> None:
    from gateway.api.routes import OPERATIONS

    document = client.get("/openapi.json")
    assert document["openapi"].startswith("3.1")
    for operation in OPERATIONS:
        assert operation.method.lower() in document["paths"][operation.path]


def test_a_real_message_fits_its_schema(client: Client) -> None:
    import jsonschema

    document = client.get("/openapi.json")
    for item in client.get("/api/messages")["items"]:
        wanted = {**document, "$ref": "#/components/schemas/MessageWithAttempts"}
        jsonschema.validate(client.message(item["id"]), wanted)
    for item in client.get("/api/conversations")["items"]:
        jsonschema.validate(item, {**document, "$ref": "#/components/schemas/Conversation"})


def test_the_page_of_the_document_names_every_operation_and_no_other_host(client: Client) -> None:
    page = client.call("GET", "/docs").text
    assert "/api/conversations/{id}/messages" in page and "Send a message" in page
    assert "http://" not in page and "https://" not in page and "<script" not in page
