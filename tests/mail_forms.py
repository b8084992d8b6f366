"""Emails as Inbound Parse posts them: forms whose fields have charsets of their own, by a secret
address, signed where there is a policy.

`python -m tests.mail_forms` writes the golden cases anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.domain import WebhookRequest
from tests.email_events import key, shown
from tests.golden import write
from tests.mails import ADA, SUPPORT, mail
from tests.webhook_cases import WHEN
from webhooks.sendgrid import SIGNATURE, TIMESTAMP
from webhooks.sendgrid_inbound import SendgridInboundWebhook

SECRET = "a-secret-address-of-the-tests-4d2f81c6"
PATH = "/api/webhooks/sendgrid-inbound"
URL = f"https://gateway.example.com{PATH}/{SECRET}"
BOUNDARY = "xYzZY"

File = tuple[str, str, bytes]  # its name, its type, its bytes


def form(fields: Mapping[str, str | bytes], files: Sequence[File] = ()) -> bytes:
    """A form, laid out as SendGrid does."""
    parts = [
        b'Content-Disposition: form-data; name="%s"\r\n\r\n%s'
        % (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in fields.items()
    ]
    parts += [
        b'Content-Disposition: form-data; name="attachment%d"; filename="%s"\r\n'
        b"Content-Type: %s\r\n\r\n%s" % (number, name.encode(), kind.encode(), data)
        for number, (name, kind, data) in enumerate(files, 1)
    ]
    mark = f"--{BOUNDARY}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


def fields(**more: str | bytes) -> dict[str, str | bytes]:
    """What an email of Ada's has; a charset for each, as `charsets` tells."""
    usual: dict[str, str | bytes] = {
        "headers": f"From: Ada <{ADA}>\r\nTo: {SUPPORT}\r\nMessage-ID: <p1@mail.example.com>\r\n",
        "from": f"Ada <{ADA}>",
        "to": SUPPORT,
        "subject": "A question",
        "text": "Hello\r\n",
        "envelope": json.dumps({"to": [SUPPORT], "from": ADA}),
        "SPF": "pass",
        "dkim": "{@example.com : pass}",
    }
    return {**usual, **more}


def posted(body: bytes, url: str = URL, **headers: str) -> WebhookRequest:
    """A form as it comes."""
    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    told = {n.replace("_", "-"): v for n, v in headers.items()}
    return WebhookRequest(
        method="POST", url=url, headers={**kind, **told}, body=body, received_at=WHEN
    )


def signed(
    body: bytes, by: ec.EllipticCurvePrivateKey | None = None, at: datetime = WHEN, **more: Any
) -> WebhookRequest:
    """The same with the policy's signature."""
    stamp = str(int(at.timestamp()))
    made = (by or key()).sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    proof = {TIMESTAMP: stamp, SIGNATURE: base64.b64encode(made).decode()}
    return posted(body, **{**proof, **more})


def golden() -> dict[str, tuple[WebhookRequest, str]]:
    """The golden cases."""
    body = form(fields())
    cut = {"envelope": json.dumps({"to": [SUPPORT], "from": ADA}), "email": mail().as_bytes()}
    other = ec.generate_private_key(ec.SECP256R1())
    return {
        "taken_apart": (signed(body), "events"),
        "whole": (signed(form(cut)), "events"),
        "no_form": (signed(b"{}", content_type="application/json"), "malformed"),
        "refused_unsigned": (posted(body), "401"),
        "refused_without_secret": (signed(body, url=URL.removesuffix(f"/{SECRET}")), "401"),
        "refused_other_secret": (signed(body, url=URL[:-1] + "7"), "403"),
        "refused_other_key": (signed(body, by=other), "403"),
    }


def main() -> None:
    """Writes the cases with a new key; what they become is written down, to be read."""
    variables = {
        "SENDGRID_INBOUND_SECRET": SECRET,
        "SENDGRID_INBOUND_PUBLIC_KEY": shown(key()),
    }
    write(SendgridInboundWebhook, variables, golden())


if __name__ == "__main__":
    main()
