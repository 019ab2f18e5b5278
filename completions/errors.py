"""What a caller of the hub can be told. Each surface has one table that renders these.

LLMServiceError                500 INTERNAL_ERROR
├── InvalidRequestError        400 INVALID_REQUEST
│   ├── TokenLimitError            400 TOKEN_LIMIT_EXCEEDED   longer than the model's window
│   ├── ModelNotFoundError         400 INVALID_REQUEST        unknown, or not this caller's
│   ├── UnpricedModelError         400 INVALID_REQUEST        no price known
│   ├── BodyTooLargeError          413 BODY_TOO_LARGE         more than LLMHUB_MAX_BODY_BYTES
│   └── UnsupportedEncodingError   415 UNSUPPORTED_MEDIA_TYPE a compressed body
├── AuthenticationError        401 AUTHENTICATION_FAILED
├── BudgetExceededError        402 BUDGET_EXCEEDED        a hard budget could be exceeded
│   └── ModelNotPricedError        402 MODEL_NOT_PRICED       no price, and a hard budget applies
├── PermissionDeniedError      403 PERMISSION_DENIED
├── RateLimitError             429 RATE_LIMIT_EXCEEDED
├── ProviderError              502 PROVIDER_ERROR
├── TimeoutError               504 TIMEOUT
├── CacheMissError             504 CACHE_MISS             only a cached answer was wanted, and there is none
├── OtherKeyError              409 CONFLICT               the answer would not be kept where it was to be
├── CallEndedError             499 CALL_ENDED             its reader left
├── EndedByStaffError          499 CALL_ENDED             staff ended it
└── UnavailableError           503 UNAVAILABLE            the hub cannot serve it now; `reason` says why
"""

from typing import Any

from providers.errors import (
    ProviderMisconfigured,
    UpstreamAuthError,
    UpstreamError,
    UpstreamInvalid,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamRedirect,
    UpstreamRefused,
    UpstreamRejected,
    UpstreamResting,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)


class LLMServiceError(Exception):
    """The root: anything the hub reports to its caller.

    `status` is the HTTP status on `/api`, `code` the machine-readable word, `details` extra facts (never
    secrets): `param` names the offending field, `retry_after` is in seconds.
    """

    status = 500
    code = "INTERNAL_ERROR"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = {key: value for key, value in details.items() if value is not None}


class InvalidRequestError(LLMServiceError):
    """The request is wrong; repeating it will not help."""

    status = 400
    code = "INVALID_REQUEST"


class TokenLimitError(InvalidRequestError):
    """The prompt, with the output asked for, does not fit the model's context window."""

    code = "TOKEN_LIMIT_EXCEEDED"


class ModelNotFoundError(InvalidRequestError):
    """No enabled model of that name for this caller. One message for unknown and not allowed."""


class UnpricedModelError(InvalidRequestError):
    """A cost was asked for a model without a known price."""


class BodyTooLargeError(InvalidRequestError):
    """More body than LLMHUB_MAX_BODY_BYTES."""

    status = 413
    code = "BODY_TOO_LARGE"


class UnsupportedEncodingError(InvalidRequestError):
    """A body that is compressed, or otherwise encoded."""

    status = 415
    code = "UNSUPPORTED_MEDIA_TYPE"


class AuthenticationError(LLMServiceError):
    """No key, or one that is not accepted."""

    status = 401
    code = "AUTHENTICATION_FAILED"


class BudgetExceededError(LLMServiceError):
    """The call could exceed a hard budget. `details`: budget, limit, spent, held, hold (USD), reset."""

    status = 402
    code = "BUDGET_EXCEEDED"


class ModelNotPricedError(BudgetExceededError):
    """A hard budget applies, and what the call will cost is not known."""

    code = "MODEL_NOT_PRICED"


class PermissionDeniedError(LLMServiceError):
    """The caller is known, but may not do this."""

    status = 403
    code = "PERMISSION_DENIED"


class RateLimitError(LLMServiceError):
    """A rate limit, the hub's or the provider's."""

    status = 429
    code = "RATE_LIMIT_EXCEEDED"


class ProviderError(LLMServiceError):
    """The provider could not be reached, refused our key, or answered nonsense."""

    status = 502
    code = "PROVIDER_ERROR"


class TimeoutError(LLMServiceError):  # noqa: A001 - the contract's name
    """The provider did not answer in time."""

    status = 504
    code = "TIMEOUT"


class CacheMissError(LLMServiceError):
    """The request asked for a cached answer and nothing else, and there is none."""

    status = 504
    code = "CACHE_MISS"


class OtherKeyError(LLMServiceError):
    """The call was to be made only if its answer is cached under a certain key, and would not be."""

    status = 409
    code = "CONFLICT"


class CallEndedError(LLMServiceError):
    """The call was ended before its answer was complete: its reader left."""

    status = 499
    code = "CALL_ENDED"


class EndedByStaffError(LLMServiceError):
    """Staff ended the call before its answer was complete; its reader is still there to be told."""

    status = 499
    code = "CALL_ENDED"


class UnavailableError(LLMServiceError):
    """The call cannot be served now.

    `reason`: hub_unavailable (its database is away), shutting_down, overloaded (too many calls), circuit_open
    (the provider failed too often of late).
    """

    status = 503
    code = "UNAVAILABLE"


def service_error(error: UpstreamError | ProviderMisconfigured) -> LLMServiceError:
    """What the caller is told of an upstream's fault; the original stays the cause.

    An upstream's refusal of *our* key is never the caller's 401, and only its own code makes a 400 a token
    limit.
    """
    translated = _translated(error)
    translated.__cause__ = error
    return translated


def _translated(error: UpstreamError | ProviderMisconfigured) -> LLMServiceError:
    if isinstance(error, ProviderMisconfigured):
        return ProviderError(str(error), reason="provider_misconfigured")
    provider = error.provider or None
    if isinstance(error, UpstreamTimeout):
        return TimeoutError(error.message, phase=error.phase, provider=provider)
    if isinstance(error, UpstreamResting):
        return UnavailableError(
            error.message, reason="circuit_open", retry_after=error.retry_after, provider=provider
        )
    if isinstance(error, UpstreamRateLimited):
        return RateLimitError(error.message, retry_after=error.retry_after, provider=provider)
    if isinstance(error, UpstreamRejected):
        kind = TokenLimitError if error.code in TOKEN_LIMIT_CODES else InvalidRequestError
        return kind(
            error.message,
            param=error.param,
            upstream_code=error.code,
            upstream_status=error.status,
            provider=provider,
        )
    refused = error if isinstance(error, UpstreamRefused) else None
    return ProviderError(
        error.message,
        reason=reason_of(error),
        upstream_status=refused and refused.status,
        retry_after=refused and refused.retry_after,
        provider=provider,
    )


def reason_of(error: UpstreamError | ProviderMisconfigured) -> str:
    """One word for the ledger row and for `details.reason`."""
    return next(word for kind, word in REASONS if isinstance(error, kind))


REASONS: tuple[tuple[type[Exception], str], ...] = (
    (ProviderMisconfigured, "provider_misconfigured"),
    (UpstreamUnreachable, "upstream_unreachable"),
    (UpstreamTimeout, "upstream_timeout"),
    (UpstreamResting, "circuit_open"),
    (UpstreamAuthError, "upstream_auth_error"),
    (UpstreamRedirect, "upstream_redirect"),
    (UpstreamRateLimited, "upstream_rate_limited"),
    (UpstreamOverloaded, "upstream_overloaded"),
    (UpstreamRejected, "upstream_rejected"),
    (UpstreamTruncated, "upstream_truncated"),
    (UpstreamInvalid, "upstream_invalid"),
    (UpstreamError, "upstream_error"),
)
# What vendors call a prompt that does not fit: OpenAI and those who follow it, Groq, Mistral, llama.cpp.
TOKEN_LIMIT_CODES = frozenset(
    {
        "context_length_exceeded",
        "string_above_max_length",
        "exceed_context_size_error",
        "context_window_exceeded",
    }
)
