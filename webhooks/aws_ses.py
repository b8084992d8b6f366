"""Amazon SES: email, by the same topics and envelopes as everything of AWS.

What SES tells stands in `_sns_ses`, the envelope in `_sns_webhook`.
"""

from __future__ import annotations

from webhooks._sns_webhook import SnsSettings, SnsWebhook

AwsSesWebhookSettings = SnsSettings


class AwsSesWebhook(SnsWebhook):
    """One connection's topics, as whoever subscribes them for email names them."""

    name = "aws_ses"
