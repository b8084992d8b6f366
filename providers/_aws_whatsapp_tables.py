"""What AWS End User Messaging Social's errors mean, and which files WhatsApp takes through it.

The names of errors are those of its API reference; a test compares them with botocore's model.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.domain import MessageType
from gateway.errors import AccountRefused, Ambiguous, Rejected, SenderRefused, Throttled
from providers._aws_errors import Tables
from providers._aws_media import Taken

# "SendWhatsAppMessage", "PostWhatsAppMessageMedia", "ListWhatsAppMessageTemplates", Errors. A 5xx
# says "request processing has failed" and not that nothing was done, so it is ambiguous by itself.
SOCIAL = Tables(
    {
        Rejected: "InvalidParametersException ValidationException",
        SenderRefused: "ResourceNotFoundException",
        AccountRefused: "AccessDeniedException AccessDeniedByMetaException",
        Throttled: "ThrottledRequestException LimitExceededException",
        Ambiguous: "ConflictException DependencyException InternalServiceException",
    },
    meanings={
        "InvalidParametersException": "a parameter is not valid: the message, or "
        "AWS_WHATSAPP_API_VERSION, which not every region has",
        "ResourceNotFoundException": "AWS_WHATSAPP_PHONE_NUMBER_ID is not in this account and "
        "region",
        "AccessDeniedException": "the credentials may not do this: allow "
        "social-messaging:SendWhatsAppMessage",
        "AccessDeniedByMetaException": "Meta refuses the WhatsApp Business Account: look at it in "
        "the WhatsApp Manager",
        "UnrecognizedClientException": "AWS_ACCESS_KEY_ID is not known to AWS",
        "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is wrong, or this machine's clock",
        "ExpiredToken": "the credentials have expired",
        "ExpiredTokenException": "the credentials have expired",
    },
)

MEGA = 1 << 20
# More than a network's own limits is not held in memory: a larger document has to be in the bucket.
LARGEST = 16 * MEGA

# "Supported media file types and sizes in WhatsApp" (AWS End User Messaging Social user guide)
AUDIO = {
    "audio/aac": "aac",
    "audio/amr": "amr",
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/ogg": "ogg",
}
IMAGES = {"image/jpeg": "jpg", "image/png": "png"}
VIDEOS = {"video/3gpp": "3gp", "video/mp4": "mp4"}
OFFICE = "application/vnd.openxmlformats-officedocument"
DOCUMENTS = {
    "text/plain": "txt",
    "application/pdf": "pdf",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    f"{OFFICE}.wordprocessingml.document": "docx",
    f"{OFFICE}.spreadsheetml.sheet": "xlsx",
    f"{OFFICE}.presentationml.presentation": "pptx",
    **IMAGES,
    **VIDEOS,
    **AUDIO,
}


def _taken(endings: Mapping[str, str], limit: int, animated: int | None = None) -> Taken:
    largest = min(2 * max(limit, animated or 0), LARGEST)
    limits = dict.fromkeys(endings, limit)
    return Taken(endings=endings, limits=limits, largest=largest, animated=animated)


TAKEN: Mapping[MessageType, Taken] = {
    MessageType.AUDIO: _taken(AUDIO, LARGEST),
    MessageType.IMAGE: _taken(IMAGES, 5 * MEGA),
    MessageType.VIDEO: _taken(VIDEOS, LARGEST),
    MessageType.DOCUMENT: _taken(DOCUMENTS, LARGEST),
    MessageType.STICKER: _taken({"image/webp": "webp"}, 100 << 10, animated=500 << 10),
}
