"""SNS as LocalStack plays it, against a gateway that is really served: subscribe, confirm, bring
a message, unsubscribe. Not collected by `make test`; run by `make test-localstack`.

`LOCALSTACK_PYTHON` names the Python that LocalStack is installed for.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.commands import Desk, Served, serving
from tests.running import eventually, free_port

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("LOCALSTACK_PYTHON", str(ROOT / ".venv-localstack" / "bin" / "python"))
REGION, ACCOUNT = "us-east-1", "000000000000"  # LocalStack's
TOPICS = {version: f"gateway-inbound-v{version}" for version in ("1", "2")}
STRANGER = "somebody-else-s"
PERSON, OURS = "+14255550182", "+12125550101"
START = 120.0  # seconds


def arn(name: str) -> str:
    return f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}"


@dataclass(frozen=True)
class LocalStack:
    """Where it answers."""

    url: str

    @property
    def sns(self) -> Any:
        """A client of boto3, as an operator's tools would use one."""
        import boto3

        return boto3.session.Session("test", "test", region_name=REGION).client(
            "sns", endpoint_url=self.url
        )

    def get(self, path: str) -> Any:
        with urlopen(self.url + path, timeout=5) as answer:
            return json.load(answer)

    def ready(self) -> bool:
        try:
            services = self.get("/_localstack/health")["services"]
        except (OSError, ValueError):
            return False
        return services.get("sns") in ("available", "running")


@pytest.fixture(scope="module")
def localstack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    folder = tmp_path_factory.mktemp("localstack")
    address = f"127.0.0.1:{free_port()}"
    settings = {
        "GATEWAY_SERVER": "hypercorn",  # the default server listens on every address
        "GATEWAY_LISTEN": address,
        "LOCALSTACK_HOST": address,  # else its URLs name a host of the internet
        "FILESYSTEM_ROOT": str(folder / "files"),
        "SERVICES": "sns,sqs",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [PYTHON, "-m", "localstack.runtime.main"],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **settings},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    stack = LocalStack(f"http://{address}")

    def ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        return stack.ready()

    try:
        eventually(ready, "LocalStack", START)
        yield stack
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def served(localstack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that trusts this stand-in, as only one in development may."""
    variables = {
        "MESSAGING_PROVIDER": "aws",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": localstack.url,
        "AWS_SNS_EMULATOR_URL": localstack.url,
        "AWS_SNS_TOPIC_ARNS": ",".join(arn(name) for name in TOPICS.values()),
    }
    desk = Desk(tmp_path_factory.mktemp("gateway"), variables)
    with serving(desk, "--dev") as served:
        yield served


def state(served: Served, topic: str) -> str:
    """What `gateway webhooks list` says of a topic."""
    lines = served.desk.run("webhooks", "list").out.splitlines()
    return next((line.split()[1] for line in lines if line.startswith(topic + " ")), "")


def said(body: str, number: int) -> str:
    """A two-way SMS, as AWS publishes it."""
    return json.dumps(
        {
            "originationNumber": PERSON,
            "destinationNumber": OURS,
            "messageKeyword": "KEYWORD_1",
            "messageBody": body,
            "inboundMessageId": f"cae173d2-66b9-564c-8309-21f858e9fb{number:02x}",
        }
    )


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_topic_is_confirmed_brings_messages_and_leaves(
    localstack: LocalStack, served: Served, version: str
) -> None:
    sns, topic = localstack.sns, arn(TOPICS[version])
    sns.create_topic(Name=TOPICS[version], Attributes={"SignatureVersion": version})
    hook = f"{served.url}/api/webhooks/aws-sns"
    mine = sns.subscribe(
        TopicArn=topic, Protocol="http", Endpoint=hook, ReturnSubscriptionArn=True
    )["SubscriptionArn"]
    eventually(lambda: state(served, topic) == "confirmed", "the confirmation", 60)
    attributes = sns.get_subscription_attributes(SubscriptionArn=mine)["Attributes"]
    assert attributes["PendingConfirmation"] == "false"

    body = f"Grüße 🎉 by version {version}"
    sns.publish(TopicArn=topic, Message=said(body, int(version)))
    other = f"with a subject, by version {version}"
    sns.publish(TopicArn=topic, Message=said(other, 16 + int(version)), Subject="Hm")
    for text in (body, other):
        found = eventually(lambda text=text: stored(served, text), text)
        assert (found["from"], found["to"], found["provider"]) == (PERSON, OURS, "aws_sns")

    sns.unsubscribe(SubscriptionArn=mine)
    eventually(lambda: state(served, topic) == "unsubscribed", "the farewell", 60)
    assert sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"] == []


def stored(served: Served, body: str) -> dict[str, Any] | None:
    """The message that came in with this text."""
    items = served.api.get("/api/messages", **{"from": PERSON})["items"]
    return next((message for message in items if message["body"] == body), None)


def test_a_topic_that_is_not_listed_is_not_confirmed(
    localstack: LocalStack, served: Served
) -> None:
    sns = localstack.sns
    sns.create_topic(Name=STRANGER)
    hook = f"{served.url}/api/webhooks/aws-sns"
    sns.subscribe(TopicArn=arn(STRANGER), Protocol="http", Endpoint=hook)
    eventually(lambda: any(STRANGER in line for line in list(served.errors)), "the refusal", 60)
    assert state(served, arn(STRANGER)) == ""
    assert "is not in AWS_SNS_TOPIC_ARNS" in "".join(served.errors)


def test_an_sms_is_published(localstack: LocalStack, served: Served) -> None:
    sent = served.api.send(to="+15551230001", body="out through SNS")
    done = served.api.until(sent["id"], "accepted")
    numbers = localstack.get("/_aws/sns/sms-messages")["sms_messages"]
    ids = [message["MessageId"] for message in numbers["+15551230001"]]
    assert ids == [done["provider_message_id"]]
