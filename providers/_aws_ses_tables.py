"""What the errors of Amazon SES mean ("SendEmail", Errors: SES API v2 reference).

The names are those of the reference; a test compares them with botocore's model.
"""

from __future__ import annotations

import re

from gateway.errors import AccountRefused, Ambiguous, Rejected, SenderRefused, Throttled
from providers._aws_errors import Tables

SEND = Tables(
    {
        Rejected: "BadRequestException MessageRejected",
        SenderRefused: "MailFromDomainNotVerifiedException NotFoundException",
        AccountRefused: "AccountSuspendedException SendingPausedException",
        Throttled: "TooManyRequestsException LimitExceededException",
        Ambiguous: "InternalServiceErrorException",
    },
    # "Errors related to the sending quotas": one code for "Maximum sending rate exceeded", and for
    # "Daily message quota exceeded".
    daily=re.compile(r"\bdaily\b.{0,40}\bquota\b", re.IGNORECASE),
    meanings={
        "MessageRejected": "SES refused the email, or what is in it",
        "MailFromDomainNotVerifiedException": "the MAIL FROM domain of the identity is not "
        "verified",
        "NotFoundException": "AWS_SES_CONFIGURATION_SET or the identity of AWS_SES_FROM_EMAIL is "
        "not in this account and region",
        "AccountSuspendedException": "the account may not send any more",
        "SendingPausedException": "sending is paused for the account or the configuration set",
        "LimitExceededException": "a limit of the account is reached",
        "AccessDeniedException": "the credentials may not do this: allow ses:SendEmail",
        "UnrecognizedClientException": "AWS_ACCESS_KEY_ID is not known to AWS",
        "InvalidSignatureException": "AWS_SECRET_ACCESS_KEY is wrong, or this machine's clock",
    },
)
