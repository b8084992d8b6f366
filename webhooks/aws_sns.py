"""Amazon SNS and AWS End User Messaging SMS: people's texts and the fate of ours, by a topic.

Everything about the envelope stands in `_sns_webhook`.
"""

from __future__ import annotations

from webhooks._sns_webhook import SnsSettings, SnsWebhook

AwsSnsWebhookSettings = SnsSettings


class AwsSnsWebhook(SnsWebhook):
    """One connection's topics, as whoever subscribes them for text messages names them."""

    name = "aws_sns"
