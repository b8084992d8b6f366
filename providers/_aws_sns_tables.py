"""What the errors of AWS's two SMS APIs mean: Amazon SNS, and End User Messaging SMS.

The names are those of their API references; a test compares them with botocore's models.
"""

from __future__ import annotations

from gateway.errors import (
    AccountRefused,
    Ambiguous,
    Rejected,
    SenderRefused,
    Throttled,
    Unsupported,
)
from providers._aws_errors import Tables

# "Publish", Errors (Amazon SNS API reference). OptedOut is not listed there and comes all the same.
PUBLISH = Tables(
    {
        Rejected: """
            OptedOut InvalidParameter ParameterValueInvalid NotFound EndpointDisabled
            PlatformApplicationDisabled UserError""",
        AccountRefused: """
            AuthorizationError InvalidSecurity KMSAccessDenied KMSDisabled KMSInvalidState
            KMSNotFound KMSOptInRequired""",
        Throttled: "KMSThrottling",
        Ambiguous: "InternalError",
    },
    meanings={
        "OptedOut": "the recipient has opted out",
        "InvalidParameter": "a parameter is not valid, most often the recipient's number",
        "AuthorizationError": "the credentials may not do this: allow sns:Publish",
        "InvalidClientTokenId": "AWS_ACCESS_KEY_ID is not known to AWS",
        "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is wrong, or this machine's clock",
        "ExpiredToken": "the credentials have expired",
    },
)

# "SendTextMessage", "SendMediaMessage", Errors, and their Reasons (AWS End User Messaging SMS and
# Voice v2 API reference). A code without a known reason has the code's class.
TEXT = Tables(
    {
        Rejected: "ConflictException ValidationException",
        SenderRefused: "ResourceNotFoundException",  # or the configuration set: see `_narrowed`
        AccountRefused: "AccessDeniedException",
        Throttled: "ServiceQuotaExceededException ThrottlingException",
        Ambiguous: "InternalServerException",
    },
    {
        Rejected: """
            DESTINATION_PHONE_NUMBER_OPTED_OUT DESTINATION_PHONE_NUMBER_NOT_VERIFIED
            DESTINATION_COUNTRY_BLOCKED_BY_PROTECT_CONFIGURATION
            DESTINATION_PHONE_NUMBER_BLOCKED_BY_PROTECT_NUMBER_OVERRIDE
            FIELD_VALIDATION_FAILED INVALID_PARAMETER INVALID_REQUEST MISSING_PARAMETER
            PARAMETERS_CANNOT_BE_USED_TOGETHER CANNOT_PARSE OTHER""",
        # AWS cannot, to this destination or with this content, and somebody else may.
        Unsupported: """
            DESTINATION_COUNTRY_BLOCKED COUNTRY_NOT_ENABLED COUNTRY_CODE_MISMATCH
            INTERNATIONAL_SENDING_NOT_SUPPORTED INVALID_IDENTITY_FOR_DESTINATION_COUNTRY
            SENDER_ID_NOT_SUPPORTED SENDER_ID_REQUIRES_REGISTRATION PRICE_OVER_THRESHOLD
            CHANNEL_NOT_ENABLED ATTACHMENT_TYPE_NOT_SUPPORTED MEDIA_TYPE_NOT_SUPPORTED
            MAXIMUM_SIZE_EXCEEDED UNSPECIFIED_PARAMETER_NOT_SUPPORTED""",
        SenderRefused: """
            NO_ORIGINATION_IDENTITIES_FOUND RESOURCE_NOT_ACTIVE RESOURCE_NOT_ACCESSIBLE
            MESSAGE_TYPE_MISMATCH NUMBER_CAPABILITIES_MISMATCH REGISTRATION_NOT_COMPLETE
            SENDER_ID_NOT_REGISTERED INVALID_ARN""",
        # Nothing goes out until somebody raises the limit, or the month is over.
        AccountRefused: """
            MONTHLY_SPEND_LIMIT_REACHED_FOR_TEXT INSUFFICIENT_ACCOUNT_REPUTATION
            ACCOUNT_DISABLED UNKNOWN_OPERATION""",
        # Text goes on, so the account is not refused.
        Throttled: """
            MONTHLY_SPEND_LIMIT_REACHED_FOR_MEDIA MONTHLY_SPEND_LIMIT_REACHED_FOR_RCS
            MONTHLY_SPEND_LIMIT_REACHED_FOR_VOICE MONTHLY_SPEND_LIMIT_REACHED_FOR_NOTIFY
            DAILY_DESTINATION_CALL_LIMIT DAILY_NOTIFY_TIER_MESSAGE_LIMIT""",
    },
    {
        **PUBLISH.meanings,
        "DESTINATION_PHONE_NUMBER_OPTED_OUT": "the recipient has opted out",
        "DESTINATION_PHONE_NUMBER_NOT_VERIFIED": "the account is in the sandbox, and the "
        "recipient is not one of its verified numbers",
        "NO_ORIGINATION_IDENTITIES_FOUND": "the account has no number or sender id for this: "
        "check AWS_SMS_ORIGINATION_IDENTITY",
        "PRICE_OVER_THRESHOLD": "it costs more than AWS_SNS_SMS_MAX_PRICE",
        "MONTHLY_SPEND_LIMIT_REACHED_FOR_TEXT": "the month's spending limit for SMS is reached: "
        "raise it in the console",
        "MONTHLY_SPEND_LIMIT_REACHED_FOR_MEDIA": "the month's spending limit for MMS is reached: "
        "raise it in the console",
        "ResourceNotFoundException": "AWS_SMS_ORIGINATION_IDENTITY or AWS_SMS_CONFIGURATION_SET "
        "names something that is not in this account and region",
    },
)
