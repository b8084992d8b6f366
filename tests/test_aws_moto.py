"""SNS as somebody else wrote it: moto's server, which knows bad numbers and who has opted out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gateway.errors import Ambiguous, ProviderError, Rejected, Unsupported
from providers._aws_sns_tables import PUBLISH
from tests.aws_account import AwsAccount, aws_account
from tests.outbound_cases import entry_of, message, provider

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def account() -> Iterator[AwsAccount]:
    with aws_account() as made:
        yield made


@pytest.fixture
async def sns(account: AwsAccount) -> AsyncIterator[Any]:
    async with provider(entry_of("aws_sns", "publish"), account.url, timeout=20) as made:
        yield made


async def error_of(sns: Any, **fields: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await sns.send(message(**fields))
    return caught.value


@pytest.mark.parametrize(
    "sender", [{}, {"address": "+15550001111"}, {"address": "MY-BRAND"}, {"address": "12345"}]
)
async def test_it_takes_our_messages(sns: Any, sender: dict[str, str]) -> None:
    receipt = await sns.send(message(body="Grüße\n👍", sender=sender))
    assert len(receipt.provider_message_id) == 36
    assert receipt.segments is None


async def test_a_number_that_is_none_is_rejected(sns: Any) -> None:
    failed = await error_of(sns, body="Hello", to="+1")
    assert (type(failed), failed.code) == (Rejected, "InvalidParameter")


async def test_the_longest_text_is_taken_and_one_byte_more_is_not_sent(sns: Any) -> None:
    await sns.send(message(body="x" * 1600))
    failed = await error_of(sns, body="x" * 1601)
    assert (type(failed), failed.code) == (Unsupported, "too_long")


async def test_who_has_opted_out_is_known_as_such_to_the_same_client(sns: Any) -> None:
    # moto plays the list of opted-out numbers (those that end in 99), but publishes to them.
    known = sns._client.check_if_phone_number_is_opted_out
    told = await sns._aws.call(lambda _: known(phoneNumber="+15550000099"), PUBLISH)
    assert told["isOptedOut"] is True


async def test_a_product_that_moto_does_not_play_is_no_success(account: AwsAccount) -> None:
    async with provider(entry_of("aws_sns", "text"), account.url, timeout=20) as made:
        failed = await error_of(made, body="Hello")
    assert type(failed) is Ambiguous  # a page of HTML with the status 500
