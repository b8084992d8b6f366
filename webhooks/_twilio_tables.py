"""Twilio's words and ours: names of fields, statuses, kinds of messages, error codes.

Tables only, each under the name of the Twilio document that it follows.
"""

from __future__ import annotations

from gateway.domain import MessageType, Status

# Twilio, "Messages resource", enum Message Status; a callback has no other words. `canceled` and
# `partially_delivered` carry their own word as an error code. Part of a message came: a later
# `delivered` still overrules that.
STATUSES = {
    "accepted": Status.ACCEPTED,
    "scheduled": Status.ACCEPTED,
    "queued": Status.ACCEPTED,
    "sending": Status.ACCEPTED,
    "sent": Status.SENT,
    "delivered": Status.DELIVERED,
    "undelivered": Status.UNDELIVERED,
    "failed": Status.FAILED,
    "read": Status.READ,
    "canceled": Status.FAILED,
    "partially_delivered": Status.UNDELIVERED,
}
TELLING = frozenset({"canceled", "partially_delivered"})
WORDS = {status: word for word, status in reversed(STATUSES.items()) if word not in TELLING} | {
    Status.ACCEPTED: "queued"
}

# Twilio, "WhatsApp: messages", parameter MessageType. `sticker`, `reaction` and what follows them
# here stand in no stored document; they are read as their names say.
TYPES = {
    "text": MessageType.TEXT,
    "image": MessageType.IMAGE,
    "audio": MessageType.AUDIO,
    "video": MessageType.VIDEO,
    "document": MessageType.DOCUMENT,
    "location": MessageType.LOCATION,
    "contacts": MessageType.CONTACTS,
    "interactive": MessageType.INTERACTIVE,
    "button": MessageType.BUTTON,
    "sticker": MessageType.STICKER,
    "reaction": MessageType.REACTION,
    "order": MessageType.ORDER,
    "system": MessageType.SYSTEM,
    "unsupported": MessageType.UNSUPPORTED,
}

# Twilio, "Support for opt-out keywords": only a whole message counts. END, QUIT, CANCEL, REVOKE,
# HELP and INFO are ordinary words of a chat, so they count where Twilio itself acts on them. YES
# is a start word at Twilio too, but mostly an answer to a question: it is left out.
KEYWORDS = {
    "STOP": "stop",
    "STOPALL": "stop",
    "UNSUBSCRIBE": "stop",
    "OPTOUT": "stop",
    "START": "start",
    "UNSTOP": "start",
}
SMS_KEYWORDS = {
    **KEYWORDS,
    "END": "stop",
    "QUIT": "stop",
    "CANCEL": "stop",
    "REVOKE": "stop",
    "HELP": "help",
    "INFO": "help",
}
OPT_OUT_TYPES = frozenset({"stop", "start", "help"})

# Twilio, "Error and warning dictionary": the codes that come in callbacks, by what they mean here.
_REASONS = {
    "account_refused": "20003 20403 20404 30002",
    "sender_refused": (
        "21212 21601 21606 30018 30024 30032 30034 63001 63002 63007 63020 63062 63112"
    ),
    "rejected": (
        "21211 21214 21217 21408 21602 21603 21604 21608 21612 21614 21617 21620 21623 21655 21656 "
        "21701 21702 21703 21704 21705 30003 30004 30005 30006 30007 30010 30011 30019 30036 30450 "
        "30500 63003 63005 63006 63013 63016 63019 63021 63024 63027 63028 63030 63032 63041 63049"
    ),
    "opted_out": "21610 63014",
    "throttled": "20429 21611 30001 30022 30023 30027 63017 63018 63038",
    "unreachable": "20500 20503 30017 63009 63010 63012 63036",
    "ambiguous": "30008 30410",
}
REASONS = {code: reason for reason, codes in _REASONS.items() for code in codes.split()}

# Twilio, "Messaging webhooks": request parameters of messages and callbacks. Twilio adds
# parameters without notice, so others are welcome; these are the ones known not to be half of
# something else.
GEO = {
    f"{side}{part}": f"{side}_{part}".lower()
    for side in ("From", "To")
    for part in ("City", "State", "Zip", "Country")
}
REFERRAL = {
    "ReferralBody": "body",
    "ReferralHeadline": "headline",
    "ReferralSourceId": "source_id",
    "ReferralSourceType": "source_type",
    "ReferralSourceUrl": "source_url",
    "ReferralMediaId": "media_id",
    "ReferralMediaContentType": "media_content_type",
    "ReferralMediaUrl": "media_url",
    "ReferralCtwaClid": "ctwa_clid",
}
JSON_FIELDS = {"AddOns": "addons", "ChannelMetadata": "channel_metadata"}
FLAGS = {"Forwarded": "forwarded", "FrequentlyForwarded": "frequently_forwarded"}
_PLAIN = """
    AccountSid AddOns Address ApiVersion Body ButtonPayload ButtonText ChannelInstallSid
    ChannelMetadata ChannelPrefix ChannelStatusMessage ChannelToAddress ErrorCode ErrorMessage
    EventType ExternalUserId Forwarded FrequentlyForwarded From Label Latitude ListId ListTitle
    Longitude MessageSid MessageStatus MessageType MessagingServiceSid NumMedia NumSegments
    OptOutType OriginalRepliedMessageSender OriginalRepliedMessageSid Price PriceUnit ProfileName
    RawDlrDoneDate ReferralNumMedia SmsMessageSid SmsSid SmsStatus StructuredMessage To WaId
"""
_FILES = {f"{name}{n}" for name in ("MediaUrl", "MediaContentType") for n in range(10)}
KNOWN = frozenset({*_PLAIN.split(), *GEO, *REFERRAL, *_FILES})

# Fields that hold nothing but Twilio's own words.
SPOKEN = frozenset(
    """ApiVersion CallStatus ChannelPrefix ErrorCode EventType MessageStatus MessageType NumMedia
    NumSegments OptOutType Price PriceUnit SmsStatus""".split()  # noqa: SIM905
) | {f"MediaContentType{number}" for number in range(10)}
