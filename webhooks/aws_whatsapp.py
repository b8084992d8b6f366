"""AWS End User Messaging Social: WhatsApp, by the same topics and envelopes as everything of AWS.

What Meta tells stands in `_sns_whatsapp` and its neighbours, the envelope in `_sns_webhook`.
"""

from __future__ import annotations

from webhooks._sns_webhook import SnsSettings, SnsWebhook

AwsWhatsappWebhookSettings = SnsSettings


class AwsWhatsappWebhook(SnsWebhook):
    """One connection's topics, as whoever subscribes them for WhatsApp names them."""

    name = "aws_whatsapp"
