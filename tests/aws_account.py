"""An AWS account on loopback: moto's server, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

from tests.running import eventually, free_port

ACCOUNT = "123456789012"  # moto's
REGION = "eu-central-1"
KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI-a-secret-of-the-tests"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:gateway-inbound"


@dataclass(frozen=True)
class AwsAccount:
    """Where it answers, and how it is spoken to."""

    url: str

    @property
    def variables(self) -> dict[str, str]:
        """The settings of a gateway that uses it."""
        return {
            "MESSAGING_PROVIDER": "aws",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_SNS_TOPIC_ARNS": TOPIC,
        }

    def client(self, service: str = "sns", region: str = REGION) -> Any:
        """A client of boto3, as an operator's tools would use one."""
        import boto3

        return boto3.session.Session(KEY_ID, SECRET, region_name=region).client(
            service, endpoint_url=self.url
        )

    def reset(self) -> None:
        """Forgets everything."""
        urlopen(Request(f"{self.url}/moto-api/reset", method="POST"), timeout=20).close()


@contextmanager
def aws_account() -> Iterator[AwsAccount]:
    """An account for as long as the block runs."""
    account = AwsAccount(f"http://127.0.0.1:{free_port()}")
    port = account.url.rpartition(":")[2]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: answers(account), "the AWS account")
        yield account
    finally:
        server.kill()
        server.wait(10)


def answers(account: AwsAccount) -> bool:
    """Whether it is there."""
    try:
        with urlopen(f"{account.url}/moto-api/data.json", timeout=2) as page:
            return bool(json.load(page) is not None)
    except OSError:
        return False
