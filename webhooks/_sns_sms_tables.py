"""AWS's words for the fate of a text message, and ours. Tables only.

Each stands under the name of the AWS document that it follows.
"""

from __future__ import annotations

from gateway.domain import Channel, Status

# AWS End User Messaging SMS, "Event types": a prefix says how it travelled, the rest what became of
# it. There is no channel for voice yet.
CHANNELS = {"TEXT": Channel.SMS, "MEDIA": Channel.SMS, "RCS": Channel.RCS, "VOICE": None}
FALLEN_BACK = "FALLEN_BACK_TO_SMS"

# The same document. SUCCESSFUL is the carrier's word: it is the last one only where `isFinal`
# says so. UNKNOWN says that AWS took the message and never learned more.
STATUSES = {
    "QUEUED": Status.ACCEPTED,
    "INITIATED": Status.ACCEPTED,
    "UNKNOWN": Status.ACCEPTED,
    "PENDING": Status.SENT,
    "SENT": Status.SENT,
    "RINGING": Status.SENT,
    FALLEN_BACK: Status.SENT,
    "SUCCESSFUL": Status.DELIVERED,
    "DELIVERED": Status.DELIVERED,
    "ANSWERED": Status.DELIVERED,
    "COMPLETED": Status.DELIVERED,
    "READ": Status.READ,
    "INVALID": Status.FAILED,
    "INVALID_MESSAGE": Status.FAILED,
    "SPAM": Status.FAILED,
    "BLOCKED": Status.FAILED,
    "CARRIER_BLOCKED": Status.FAILED,
    "UNREACHABLE": Status.FAILED,
    "CARRIER_UNREACHABLE": Status.FAILED,
    "TTL_EXPIRED": Status.FAILED,
    "PROTECT_BLOCKED": Status.FAILED,
    "FAILED": Status.FAILED,
    "BUSY": Status.FAILED,
    "NO_ANSWER": Status.FAILED,
    "FILE_INACCESSIBLE": Status.FAILED,
    "FILE_TYPE_UNSUPPORTED": Status.FAILED,
    "FILE_SIZE_EXCEEDED": Status.FAILED,
}
NOT_FINAL = {"SUCCESSFUL": Status.SENT}

# What a failure means here. FAILED tells nothing.
REASONS = {
    "INVALID": "rejected",
    "INVALID_MESSAGE": "rejected",
    "SPAM": "rejected",
    "BLOCKED": "rejected",
    "CARRIER_BLOCKED": "rejected",
    "FILE_INACCESSIBLE": "rejected",
    "FILE_TYPE_UNSUPPORTED": "rejected",
    "FILE_SIZE_EXCEEDED": "rejected",
    "UNREACHABLE": "unreachable",
    "CARRIER_UNREACHABLE": "unreachable",
    "TTL_EXPIRED": "unreachable",
    "BUSY": "unreachable",
    "NO_ANSWER": "unreachable",
    "PROTECT_BLOCKED": "account_refused",
    "FAILED": "ambiguous",
}

# SNS, "Viewing Amazon CloudWatch metrics and logs for SMS deliveries", and the same sentences in
# `messageStatusDescription`.
OPTED_OUT = "Phone number is opted out"
RESPONSES = {
    OPTED_OUT: "opted_out",
    "Blocked as spam by phone carrier": "rejected",
    "Destination is on a blocked list": "rejected",
    "Invalid phone number": "rejected",
    "Message body is invalid": "rejected",
    "Phone carrier has blocked this message": "rejected",
    "Phone has blocked SMS": "rejected",
    "Phone is on a blocked list": "rejected",
    "Phone carrier is currently unreachable/unavailable": "unreachable",
    "Phone is currently unreachable/unavailable": "unreachable",
    "This delivery would exceed max price": "account_refused",
    "Unknown error attempting to reach phone": "ambiguous",
}
LOGGED = {"SUCCESS": Status.DELIVERED, "FAILURE": Status.FAILED}

# For what is simulated: our status as AWS would word it.
WORDS = {
    Status.ACCEPTED: "TEXT_QUEUED",
    Status.SENT: "TEXT_SENT",
    Status.DELIVERED: "TEXT_DELIVERED",
    Status.FAILED: "TEXT_UNREACHABLE",
}
