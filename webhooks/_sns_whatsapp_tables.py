"""Meta's words of WhatsApp, and ours. Tables only.

Each stands under the name of the document of Meta's that it follows.
"""

from __future__ import annotations

from gateway.domain import MessageType, Status

# "Messages webhook": the types that hold a file, under their own name. `voice` is an older one.
FILES = {
    "image": MessageType.IMAGE,
    "video": MessageType.VIDEO,
    "audio": MessageType.AUDIO,
    "voice": MessageType.AUDIO,
    "document": MessageType.DOCUMENT,
    "sticker": MessageType.STICKER,
}
# The same: what a person chose. The words that other vendors' choices have here, too.
CHOICES = {"button_reply": "button", "list_reply": "list", "nfm_reply": "flow"}

# "Status messages webhook". Somebody has played a voice message: they have read it.
STATUSES = {
    "accepted": Status.ACCEPTED,
    "sent": Status.SENT,
    "delivered": Status.DELIVERED,
    "read": Status.READ,
    "played": Status.READ,
    "failed": Status.FAILED,
}
# The same: words that say something else than how far a message came.
ASIDES = frozenset({"deleted", "warning"})
WORDS = {status: word for word, status in reversed(STATUSES.items()) if word != "played"}

# "Error codes" of the Cloud API; a code that stands nowhere is final. Nothing is acted on by
# title: Meta is about to drop those.
_REASONS = {
    "throttled": "4 80007 130429 131048 131056 131064 132069 133016",
    "unreachable": "1 2 131000 131016 131057",
    "opted_out": "131050",
    "account_refused": (
        "0 3 10 190 368 130497 131005 131031 131037 131042 131044 131045 "
        + " ".join(str(code) for code in range(200, 300))
    ),
}
REASONS = {code: reason for reason, codes in _REASONS.items() for code in codes.split()}
OTHERWISE = "rejected"

# "User preferences webhook".
WISHES = {"stop": "unsubscribed", "resume": "resubscribed"}

# "Webhooks": the fields that tell of what is ours at Meta.
NOTICES = {
    "message_template_status_update": "template.updated",
    "message_template_quality_update": "template.updated",
    "message_template_components_update": "template.updated",
    "template_category_update": "template.updated",
    "template_correct_category_detection": "template.updated",
    "phone_number_name_update": "number.updated",
    "phone_number_quality_update": "number.updated",
    "account_alerts": "account.updated",
    "account_review_update": "account.updated",
    "account_settings_update": "account.updated",
    "account_update": "account.updated",
    "business_capability_update": "account.updated",
    "business_status_update": "account.updated",
    "payment_configuration_update": "account.updated",
    "security": "account.updated",
}
# The members of a template's change, by what they tell.
TEMPLATE = {
    "id": ("message_template_id",),
    "name": ("message_template_name",),
    "language": ("message_template_language",),
    "status": ("event",),
    "reason": ("reason",),
    "category": ("new_category", "correct_category", "message_template_category"),
    "quality": ("new_quality_score",),
}
LOWERED = frozenset({"status", "category", "quality"})
