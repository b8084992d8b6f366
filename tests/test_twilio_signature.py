"""Twilio's signature, against Twilio's own SDK and its published vectors."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings, strategies as st

from gateway.errors import Malformed, SignatureInvalid
from tests.twilio_forms import (
    FORM,
    HOOK,
    TOKEN,
    Pairs,
    by_hand,
    by_sdk,
    holds,
    posted,
    signed,
    webhook,
)
from tests.webhook_cases import unproved
from webhooks._forms import MAX_FIELDS, read_form
from webhooks.twilio import candidates, canonical

pytestmark = pytest.mark.anyio

MINE = "https://mycompany.com/myapp.php?foo=1&bar=2"
CALL = (
    "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309"
    "&To=%2B18005551212"
)
DOCUMENTED = CALL.replace("14158675309", "12349013030")
ADDRESSES = "MessagingBinding.Address=%2B1325xxxxxxx&MessagingBinding.Address=%2B1415xxxxxxx"
# Published with Twilio's documentation ("Webhooks security") and with the tests of its libraries
# for Python, Java, C#, PHP, Ruby, Go and Node; the token is 12345 in all of them.
VECTORS = {
    "documentation": ("https://mycompany.com/myapp", DOCUMENTED, "3KI2uRuYyAdhZIJXcpU0izDUzWI="),
    "every library": (MINE, CALL, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
    "no fields": (MINE, "", "zYQTYrRWXE7LtzbG4PfP7/bkkGo="),
    "repeated field": (MINE, ADDRESSES, "83O6e2vORAoJHUNzJjDWN1jz+BA="),
    "seen with the port": (
        MINE.replace(".com/", ".com:443/"),
        CALL,
        "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
    ),
    "signed with the port": (MINE, CALL, "kvajT1Ptam85bY51eRf/AJRuM3w="),
    "plain http, signed with the port": (
        MINE.replace("https", "http"),
        CALL,
        "0ZXoZLH/DfblKGATFgpif+LLRf4=",
    ),
    "custom port": (MINE.replace(".com/", ".com:1234/"), CALL, "CYn1h0gLBdNxDGkKJg6hYohgeD8="),
    "userinfo": (MINE.replace("//", "//user:pass@"), CALL, "CukzLTc1tT5dXEDIHm/tKBanW10="),
    "userinfo, seen with the port": (
        "https://user:pass@mycompany.com:443/myapp.php?foo=1&bar=2",
        CALL,
        "CukzLTc1tT5dXEDIHm/tKBanW10=",
    ),
    "userinfo, signed with the port": (
        MINE.replace("//", "//user:pass@"),
        CALL,
        "ZQFR1PTIZXF2MXB8ZnKCvnnA+rI=",
    ),
    "host in mixed case": (MINE.replace("myc", "MyC"), CALL, "g9IN/x4Cft2g517EjYvEvM/W7LU="),
    "scheme in upper case": (
        "HTTP://username:password@MyCompany.com/myapp.php?foo=1&bar=2",
        CALL,
        "hy/l8pca+LFms4cvRdv8uiP6NGc=",
    ),
    "apostrophe": (MINE + "&Body=It's+amazing", CALL, "TfZzewPq8wqrGlMfyAud8+/IvJ0="),
}


@pytest.mark.parametrize("which", VECTORS)
async def test_every_published_vector_holds(which: str) -> None:
    url, body, signature = VECTORS[which]
    assert await holds(posted(url, body.encode(), signature), "12345")


@pytest.mark.parametrize("which", VECTORS)
async def test_no_published_vector_holds_with_another_token_or_without_its_padding(
    which: str,
) -> None:
    url, body, signature = VECTORS[which]
    request = posted(url, body.encode(), signature)
    assert not await holds(request, "12346")
    for other in (signature + " ", " " + signature, signature[:-1], signature.lower(), "", "é"):
        assert not await holds(posted(url, body.encode(), other), "12345")


async def test_the_published_json_vector_holds_and_only_for_its_body() -> None:
    digest = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"
    url, signature = f"{MINE}&bodySHA256={digest}", "a9nBmqA0ju/hNViExpshrM61xv4="
    body = b'{"property": "value", "boolean": true}'
    assert await holds(posted(url, body, signature, "application/json"), "12345")
    for other in (b"", b"{}", body + b" ", body.replace(b"true", b"false")):
        assert not await holds(posted(url, other, signature, "application/json"), "12345")


@pytest.mark.parametrize(
    "seen",
    [
        MINE.replace("https", "http"),
        MINE.replace("mycompany", "MyCompany"),
        MINE.replace("foo=1", "foo=%31"),
        MINE.replace("foo=1&bar=2", "bar=2&foo=1"),
        MINE + "&",
        MINE.replace(".php", ".php/"),
        MINE.replace(".com/", ".com:8443/").replace("foo=1", "foo=2"),
        MINE.replace("//", "//user@"),
        MINE.partition("?")[0],
    ],
)
async def test_another_url_than_the_signed_one_is_refused(seen: str) -> None:
    assert not await holds(posted(seen, CALL.encode(), VECTORS["every library"][2]), "12345")


async def test_a_fragment_is_never_signed() -> None:
    request = posted(MINE + "#rc=3&rp=all", CALL.encode(), VECTORS["every library"][2])
    assert await holds(request, "12345")


async def test_sorting_whole_pairs_instead_of_names_is_not_the_signature() -> None:
    pairs = [("ReasonConferenceEnded", "test"), ("Reason", "Participant")]
    wrong = HOOK + "".join(sorted(name + value for name, value in pairs))
    assert not await holds(posted(HOOK, urlencode(pairs).encode(), by_hand(wrong)))
    assert await holds(signed(pairs))


async def test_sha256_is_not_accepted_whatever_a_header_says() -> None:
    mac = hmac.new(TOKEN.encode(), (HOOK + "Bodyhi").encode(), hashlib.sha256)
    signature = base64.b64encode(mac.digest()).decode()
    named = {"x-twilio-webhooks-signature-settings": "key=webhooks_1,algorithm=HMAC_SHA256"}
    with pytest.raises(SignatureInvalid, match="shared key"):
        await webhook().verify(posted(HOOK, b"Body=hi", signature, **named))
    assert await holds(posted(HOOK, b"Body=hi", by_hand(HOOK + "Bodyhi"), **named))


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
fields = st.lists(st.tuples(text, text), max_size=8)


@settings(max_examples=300, deadline=None)
@given(pairs=fields, query=st.text("ab='%27&+", max_size=8), port=st.sampled_from(["", ":8443"]))
async def test_whatever_the_sdk_signs_holds(pairs: Pairs, query: str, port: str) -> None:
    url = f"https://gw.test.example{port}/hook?{query}"
    assert await holds(signed([pair for pair in pairs if pair != ("", "")], url))


@settings(max_examples=300, deadline=None)
@given(pairs=fields.filter(bool), other=fields)
async def test_a_form_that_is_not_the_signed_one_is_refused(pairs: Pairs, other: Pairs) -> None:
    joined = ["".join(n + v for n, v in sorted(set(some))) for some in (pairs, other)]
    request = posted(HOOK, urlencode(other).encode(), by_sdk(HOOK, pairs))
    assert await holds(request) == (joined[0] == joined[1])


@settings(max_examples=400, deadline=None)
@given(body=st.one_of(st.binary(max_size=60), st.text("ab&=%+;2Fé\ud7ff", max_size=30)))
def test_forms_are_read_as_the_standard_library_reads_them(body: bytes | str) -> None:
    raw = body.encode() if isinstance(body, str) else body
    read = parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True, errors="replace")
    assert read_form(raw).pairs == sorted(set(read))


async def test_too_many_fields_are_refused_before_they_are_read() -> None:
    body = b"&".join(b"a%d=1" % n for n in range(MAX_FIELDS + 1))
    with pytest.raises(SignatureInvalid, match="fields"):
        await webhook().verify(posted(HOOK, body, "x" * 28))
    with pytest.raises(Malformed, match="fields"):
        webhook().parse(unproved(webhook(), posted(HOOK, body, None)))


@pytest.mark.parametrize(
    "url", ["https://u:p'w@h:1/'?'=%27", "HTTPS://h/", "x", "https://[::1]:9/"]
)
def test_there_are_few_candidates_and_all_share_one_canonical_url(url: str) -> None:
    found = list(candidates(url))
    assert found[0] == url
    assert len(found) == len(set(found)) <= 12
    assert {canonical(candidate) for candidate in found} == {canonical(url)}


async def test_the_key_is_the_same_for_every_spelling_of_the_url() -> None:
    keys = set()
    signature = by_sdk(HOOK, [("Body", "x")])
    for seen in (HOOK, HOOK.replace(".example", ".example:443"), HOOK + "#rc=3"):
        keys.add((await webhook().verify(posted(seen, b"Body=x", signature))).key)
    assert len(keys) == 1


async def test_the_refusal_says_which_url_was_checked_and_what_to_do() -> None:
    url = "https://user:hunter2@gw.test.example/hook?attempt=att_1\n\x1b[2J" + "x" * 900
    with pytest.raises(SignatureInvalid) as caught:
        await webhook().verify(posted(url, b"Body=secret", "x" * 28))
    assert "https://gw.test.example/hook?attempt=att_1" in caught.value.detail
    assert "PUBLIC_URL" in caught.value.detail
    assert not any(word in caught.value.detail for word in ("hunter2", "secret", "\n", "\x1b"))
    assert len(caught.value.detail) <= 300


async def test_a_json_signature_does_not_hold_for_a_form_of_the_same_url() -> None:
    url = f"{HOOK}?bodySHA256={hashlib.sha256(b'{}').hexdigest()}"
    signature = by_sdk(url, [])
    assert await holds(posted(url, b"{}", signature, "application/json; charset=utf-8"))
    for kind in (FORM, "", "text/plain", "multipart/form-data; boundary=x"):
        for body in (b"", b"&", b"{}", b"Body=x", b"From=%2B15005550142&MessageSid=SM1&Body=x"):
            assert not await holds(posted(url, body, signature, kind))


async def test_a_form_signature_does_not_hold_for_json() -> None:
    for url in (HOOK, f"{HOOK}?bodySHA256={hashlib.sha256(b'Body=x').hexdigest()}"):
        request = signed([("Body", "x")], url)
        assert await holds(request)
        assert not await holds(
            posted(url, b"Body=x", request.headers["x-twilio-signature"], "application/json")
        )


async def test_json_that_nothing_binds_is_refused() -> None:
    twice = "?bodySHA256=" + hashlib.sha256(b"{}").hexdigest()
    for query in ("", "?bodySHA256=", twice + "&bodySHA256=0", twice + twice.replace("?", "&")):
        for kind in ("application/json", "Application/JSON;x", "application/cloudevents+json"):
            url = HOOK + query
            assert not await holds(posted(url, b"{}", by_sdk(url, []), kind))
