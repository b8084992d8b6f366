"""Topics, and which URLs SNS may name for one: by whole and exact texts, before any is visited.

Every host follows from the region of an allow-listed topic, so no part of it is ever a sender's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from gateway.errors import SettingsError, SignatureInvalid

ARN = re.compile(
    r"arn:(aws|aws-cn|aws-us-gov|aws-eusc):sns:([a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2})"
    r":[0-9]{12}:[A-Za-z0-9_-]{1,256}"
)
# botocore, partitions.json: the suffix of each partition, and how its regions begin.
SUFFIXES = {
    "aws": ("", "amazonaws.com"),
    "aws-cn": ("cn-", "amazonaws.com.cn"),
    "aws-us-gov": ("us-gov-", "amazonaws.com"),
    "aws-eusc": ("eusc-", "amazonaws.eu"),
}
# AWS SDK for Java 2.x, SnsHostProvider: regions to opt in to, whose certificates have other names.
_OPT_IN = """
    af-south-1 ap-east-1 ap-east-2 ap-south-2 ap-southeast-3 ap-southeast-4 ap-southeast-5
    ap-southeast-6 ap-southeast-7 ca-west-1 eu-central-2 eu-south-1 eu-south-2 il-central-1
    me-central-1 me-south-1 mx-central-1
"""
OPT_IN = frozenset(_OPT_IN.split())
CERTIFICATE = re.compile(r"/SimpleNotificationService-[0-9a-f]{32}\.pem")
EMULATED = re.compile(r"/[A-Za-z0-9/_.~-]{0,200}")
ORIGIN = re.compile(r"https?://[a-z0-9.-]{1,253}(?::(?P<port>[0-9]{1,5}))?")
QUERY = re.compile(r"[!-~]{1,4000}")


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that may post to us, and what its region says of its URLs and certificates."""

    arn: str
    region: str
    origin: str
    certificate_names: frozenset[str]


def topics(listed: str, variable: str) -> dict[str, Topic]:
    """The topics of a comma-separated list.

    Raises:
        SettingsError: there are none, or one cannot be a topic's ARN.
    """
    arns = [part.strip() for part in listed.split(",") if part.strip()]
    if not arns:
        raise SettingsError(
            f"{variable} is blank: set it to the ARNs of the topics that may post here."
        )
    return {arn: _topic(arn, place, variable) for place, arn in enumerate(arns, 1)}


def _topic(arn: str, place: int, variable: str) -> Topic:
    match = ARN.fullmatch(arn)
    if match is None or not _of_partition(*match.groups()):
        raise SettingsError(
            f"{variable}: number {place} is not the ARN of a standard topic, such as "
            "arn:aws:sns:eu-west-1:123456789012:name."
        )
    partition, region = match.groups()
    origin = f"https://sns.{region}.{SUFFIXES[partition][1]}"
    return Topic(arn, region, origin, certificate_names(partition, region))


def _of_partition(partition: str, region: str) -> bool:
    starts = {name: start for name, (start, _) in SUFFIXES.items() if start}
    home = next((name for name, start in starts.items() if region.startswith(start)), "aws")
    return home == partition


def certificate_names(partition: str, region: str) -> frozenset[str]:
    """The names that a region's signing certificate may have (SnsHostProvider, as above)."""
    suffix = SUFFIXES[partition][1]
    signing = f"sns-signing.{region}.{suffix}"
    if partition == "aws-cn":
        return frozenset({f"sns-{region}.{suffix}"})
    if partition == "aws-us-gov":
        return frozenset({f"sns-us-gov-west-1.{suffix}"})
    if partition == "aws-eusc" or region in OPT_IN:
        return frozenset({signing})
    return frozenset({f"sns.{suffix}", signing})  # the second: a region younger than this list


def emulator_origin(given: str, variable: str) -> str:
    """The origin of a stand-in for SNS, without a slash at its end.

    Raises:
        SettingsError: it is no origin.
    """
    origin = given.strip().rstrip("/")
    match = ORIGIN.fullmatch(origin)
    if origin and (match is None or not 0 < int(match["port"] or 80) <= 65535):
        raise SettingsError(f"{variable} must be an origin such as http://127.0.0.1:4571.")
    return origin


def check_certificate_url(url: str, topic: Topic, emulator: str) -> bool:
    """Whether the certificate must be SNS's own; false for the emulator's.

    SNS, "Verifying the signatures of Amazon SNS messages": the widely copied pattern for this URL
    lets `sns.s3-us-west-2.amazonaws.com` through, which is a bucket that anybody may fill.

    Raises:
        SignatureInvalid: it is not exactly where the topic's region keeps its certificates.
    """
    if url.startswith(f"{topic.origin}/") and CERTIFICATE.fullmatch(url, len(topic.origin)):
        return True
    if emulator and url.startswith(f"{emulator}/") and EMULATED.fullmatch(url, len(emulator)):
        return False
    raise _refusal("SigningCertURL", topic)


def check_subscribe_url(url: str, token: str, topic: Topic, emulator: str) -> str:
    """Where a subscription is confirmed, without its query.

    Raises:
        SignatureInvalid: it is not the region's API, or would do something else there.
    """
    base, mark, query = url.partition("?")
    confirms = {"Action": "ConfirmSubscription", "TopicArn": topic.arn, "Token": token}
    if not mark or not confirmable(base, topic, emulator) or QUERY.fullmatch(query) is None:
        raise _refusal("SubscribeURL", topic)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=3)
    except ValueError:
        pairs = []
    if "#" in query or sorted(pairs) != sorted(confirms.items()):
        raise _refusal("SubscribeURL", topic)
    return base


def confirmable(base: str, topic: Topic, emulator: str) -> bool:
    """Whether a subscription to a topic may be confirmed there."""
    if base == f"{topic.origin}/":
        return True
    at_emulator = bool(emulator) and base.startswith(f"{emulator}/")
    return at_emulator and EMULATED.fullmatch(base, len(emulator)) is not None


def confirming(base: str, topic: Topic, token: str) -> str:
    """The URL that confirms, put together by us."""
    query = {"Action": "ConfirmSubscription", "TopicArn": topic.arn, "Token": token}
    return f"{base}?{urlencode(query, safe=':')}"


def _refusal(field: str, topic: Topic) -> SignatureInvalid:
    return SignatureInvalid(f"{field} is not one of {topic.origin}, where {topic.arn} lives")
