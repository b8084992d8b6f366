"""Amazon SNS for a run: a key, its certificate where the gateway fetches it, and two-way SMS that
are signed before the clock starts. Written from AWS's description, apart from the code under test.

A signature takes a third of a millisecond and more, so all cores make them:
`python -m bench.sns KEY STAMP FIRST LAST` is one of the processes that do.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from bench import load, machine
from bench.machine import Cores, Process
from bench.servers import CERTIFICATE, TOPIC, VISITS

BITS = 2048
SIZE = BITS // 8  # of a signature
HOOK = "/api/webhooks/aws-sns"
OURS = "+15005550006"
SAID = "Thank you, see you then! Could we have a table near the window?"
UNSUBSCRIBE = (
    "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe"
    f"&SubscriptionArn={TOPIC}:6f5a6c1e-0000-4000-8000-000000000000"
)


def fields(number: int, stamp: str) -> dict[str, str]:
    """What is signed of a message, in its order: SNS, "Verifying the signatures of Amazon SNS
    messages". Its content is that of End User Messaging SMS, "Two-way SMS messaging"."""
    said = {
        "originationNumber": f"+1{2_010_000_000 + number}",
        "destinationNumber": OURS,
        "messageKeyword": "KEYWORD_210987654321",
        "messageBody": SAID,
        "inboundMessageId": f"10000000-0000-4000-8000-{number:012d}",
    }
    return {
        "Message": json.dumps(said, separators=(",", ":")),
        "MessageId": f"00000000-0000-5000-8000-{number:012d}",
        "Timestamp": stamp,
        "TopicArn": TOPIC,
        "Type": "Notification",
    }


def signed_text(number: int, stamp: str) -> bytes:
    """The text that a signature is of."""
    return "".join([f"{name}\n{text}\n" for name, text in fields(number, stamp).items()]).encode()


def post(number: int, stamp: str, signature: bytes, url: str) -> bytes:
    """The request, laid out as SNS does; `url` is where its certificate is, and is not signed."""
    envelope = {
        **fields(number, stamp),
        "SignatureVersion": "2",
        "Signature": base64.b64encode(signature).decode(),
        "SigningCertURL": url,
        "UnsubscribeURL": UNSUBSCRIBE,
    }
    lines = [f"  {json.dumps(name)} : {json.dumps(text)}" for name, text in envelope.items()]
    return load.post(
        HOOK,
        ("{\n" + ",\n".join(lines) + "\n}").encode(),
        "x-amz-sns-message-type: Notification",
        f"x-amz-sns-message-id: {envelope['MessageId']}",
        f"x-amz-sns-topic-arn: {TOPIC}",
        f"x-amz-sns-subscription-arn: {TOPIC}:6f5a6c1e-0000-4000-8000-000000000000",
        "Content-Type: text/plain; charset=UTF-8",
        "User-Agent: Amazon Simple Notification Service Agent",
        "Accept-Encoding: gzip,deflate",
    )


class Sns:
    """A topic with one key. What was signed once is posted to every server."""

    def __init__(self, folder: Path, places: Cores) -> None:
        folder.mkdir()
        self.folder = folder
        self.places = places
        self.stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z"
        self.signatures = bytearray()
        self._key, pem = key_pair()
        (folder / CERTIFICATE).write_bytes(pem)
        (folder / "key.pem").touch(0o600)
        (folder / "key.pem").write_bytes(self._key)
        self._urls = count(1)

    def start(self) -> Sns:
        """Serves the certificate."""
        port = machine.free_port()
        command = [sys.executable, "-m", "bench.servers", "certificates", "--port", str(port)]
        command += ["--data", str(self.folder)]
        log = self.folder / "log"
        self.process = Process(command, port, self.places.rest, log=log).start()
        self.origin = f"http://127.0.0.1:{port}"
        self.url = self.fresh_url()
        return self

    def stop(self) -> None:
        """Ends that."""
        self.process.stop()

    def fresh_url(self) -> str:
        """A URL of the certificate that nobody has asked for yet."""
        return f"{self.origin}/SimpleNotificationService-{next(self._urls):032x}.pem"

    def visits(self) -> list[str]:
        """The paths that were asked for, in order."""
        return (self.folder / VISITS).read_text().split()

    def requests(self, first: int, urls: Sequence[str]) -> list[bytes]:
        """Messages of people who write for the first time, one for each of the certificate's
        URLs."""
        self.sign(first + len(urls))
        return [self._request(number, url) for number, url in enumerate(urls, first)]

    def _request(self, number: int, url: str) -> bytes:
        signature = bytes(self.signatures[number * SIZE : (number + 1) * SIZE])
        return post(number, self.stamp, signature, url)

    def sign(self, until: int) -> None:
        """Has as many signed; all cores share what is missing."""
        have = len(self.signatures) // SIZE
        if until <= have:
            return
        cores = sorted({self.places.server, self.places.rest})
        step = -(-(until - have) // len(cores))
        with ExitStack() as stack:
            running = [
                stack.enter_context(self._signing(core, low, min(low + step, until)))
                for core, low in zip(cores, range(have, until, step), strict=False)
            ]
            for process in running:
                self.signatures += process.communicate()[0]
        if len(self.signatures) != until * SIZE:
            raise RuntimeError("bench.sns did not sign what it was told to")

    def _signing(self, core: int, first: int, last: int) -> subprocess.Popen[bytes]:
        key = str(self.folder / "key.pem")
        return subprocess.Popen(
            [sys.executable, "-m", "bench.sns", key, self.stamp, str(first), str(last)],
            cwd=machine.ROOT,
            env=machine.clean_environment(),
            stdout=subprocess.PIPE,
            preexec_fn=machine.pin(core),  # noqa: PLW1509 - nothing else runs in this process
        )


def key_pair() -> tuple[bytes, bytes]:
    """A new key and its own certificate, as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return secret, certificate.public_bytes(serialization.Encoding.PEM)


def signed(key: Any, stamp: str, first: int, last: int) -> Iterator[bytes]:
    """The signatures of some messages, as SignatureVersion 2 has them."""
    how, padding = hashes.SHA256(), PKCS1v15()
    return (key.sign(signed_text(n, stamp), padding, how) for n in range(first, last))


def main() -> None:
    """Signs, and writes the signatures one behind the other when all are made."""
    path, stamp, first, last = sys.argv[1:]
    key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    sys.stdout.buffer.write(b"".join(signed(key, stamp, int(first), int(last))))


if __name__ == "__main__":
    main()
