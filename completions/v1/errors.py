"""How `/v1` tells an error: OpenAI's shape, and what the official SDKs decide by.

`{"error": {"message", "type", "param", "code"}}`, the table of docs/api.md.
"""

import math
from typing import NamedTuple

import orjson

from completions import errors, metrics
from completions.answering import Cached
from completions.errors import InvalidRequestError, LLMServiceError, ProviderError, UnavailableError
from completions.exchange import Headers
from completions.limits import LimitExceeded, rate_limit_headers
from providers.types import JSON

LONGEST_WAIT_SECONDS = 60
UNAVAILABLE_SECONDS = 5  # until another try is sensible, where nobody knows better


class Row(NamedTuple):
    """What an error is called here. `permanent`: no other try ends otherwise until staff change something."""

    status: int
    type: str
    code: str
    permanent: bool = False


# The first class that fits.
TABLE: tuple[tuple[type[LLMServiceError], Row], ...] = (
    (errors.AuthenticationError, Row(401, "invalid_request_error", "invalid_api_key")),
    (errors.ModelNotFoundError, Row(404, "invalid_request_error", "model_not_found")),
    (errors.TokenLimitError, Row(400, "invalid_request_error", "context_length_exceeded")),
    (errors.BodyTooLargeError, Row(413, "invalid_request_error", "body_too_large")),
    (errors.UnsupportedEncodingError, Row(415, "invalid_request_error", "unsupported_encoding")),
    (InvalidRequestError, Row(400, "invalid_request_error", "invalid_value")),
    (errors.ModelNotPricedError, Row(402, "invalid_request_error", "model_not_priced", permanent=True)),
    (errors.BudgetExceededError, Row(402, "insufficient_quota", "budget_exceeded", permanent=True)),
    (errors.PermissionDeniedError, Row(403, "invalid_request_error", "permission_denied", permanent=True)),
    (errors.RateLimitError, Row(429, "rate_limit_error", "rate_limit_exceeded")),
    (errors.TimeoutError, Row(504, "api_error", "upstream_timeout")),
    (errors.CacheMissError, Row(504, "invalid_request_error", "cache_miss", permanent=True)),
    (errors.CallEndedError, Row(499, "api_error", "call_ended")),
    (errors.EndedByStaffError, Row(499, "api_error", "call_ended", permanent=True)),
    (LLMServiceError, Row(500, "api_error", "internal_error")),
)
PROVIDER_FAULTS = {
    "upstream_overloaded": Row(503, "service_unavailable_error", "server_is_overloaded"),
    "upstream_truncated": Row(502, "api_error", "upstream_truncated"),
    "upstream_auth_error": Row(502, "api_error", "upstream_auth_error"),
    "upstream_unreachable": Row(502, "api_error", "upstream_unreachable"),
    "provider_misconfigured": Row(502, "api_error", "upstream_auth_error"),
}
OTHER_FAULT = Row(502, "api_error", "upstream_invalid")
UNAVAILABLE = ("hub_unavailable", "shutting_down", "overloaded", "circuit_open")
CODES = frozenset(
    [*(row.code for _, row in TABLE), *(row.code for row in PROVIDER_FAULTS.values()), OTHER_FAULT.code]
).union(UNAVAILABLE)


class Told(NamedTuple):
    """An error as it goes out, but for the request's own headers."""

    status: int
    code: str
    headers: Headers
    body: bytes


def told(error: LLMServiceError) -> Told:
    """Status, headers and body of an error."""
    row = _row(error)
    return Told(row.status, row.code, _headers(error, row), orjson.dumps(shape(error)))


def count(error: LLMServiceError) -> None:
    """Note that a caller was told of it: by the hub's own codes, for those of upstreams have no end."""
    metrics.ERRORS.labels("v1", label(_row(error).code)).inc()


def label(code: str) -> str:
    """A code as a label of metrics."""
    return code if code in CODES else "other"


def shape(error: LLMServiceError) -> JSON:
    """The body, which is also the last frame of a stream that fails."""
    row = _row(error)
    param = error.details.get("param")
    return error_object(error.message, row.type, row.code, param if isinstance(param, str) else None)


def error_object(message: str, kind: str, code: str, param: str | None = None) -> JSON:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _row(error: LLMServiceError) -> Row:
    details = error.details
    if isinstance(error, ProviderError):
        return PROVIDER_FAULTS.get(str(details.get("reason")), OTHER_FAULT)
    if isinstance(error, UnavailableError):
        return Row(503, "service_unavailable_error", str(details.get("reason", "hub_unavailable")))
    row = next(row for kind, row in TABLE if isinstance(error, kind))
    if isinstance(error, InvalidRequestError) and details.get("upstream_status"):  # the upstream's own words
        code = details.get("upstream_code") or row.code
        return row._replace(status=details["upstream_status"], code=str(code))
    return row


def _headers(error: LLMServiceError, row: Row) -> Headers:
    headers: Headers = []
    if isinstance(error, LimitExceeded):
        headers += [
            (name.encode(), value.encode()) for name, value in rate_limit_headers(error.standings).items()
        ]
    if row.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, errors.CacheMissError):
        headers.append((b"x-llmhub-cache", Cached.MISS.value.encode()))
    if row.permanent or error.details.get("permanent") or error.details.get("attempts", 0) > 1:
        headers.append((b"x-should-retry", b"false"))
    if row.permanent or error.details.get("permanent"):
        return headers
    wait = error.details.get("retry_after", UNAVAILABLE_SECONDS if row.status == 503 else None)
    if isinstance(wait, int | float):
        seconds = min(LONGEST_WAIT_SECONDS, max(1, math.ceil(wait)))
        headers.append((b"retry-after", str(seconds).encode()))
    return headers
