"""An upstream's error answer as an exception: its status, code and own words, without our key in them."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from providers.errors import (
    MESSAGE_CAP,
    UpstreamAuthError,
    UpstreamError,
    UpstreamInvalid,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamRedirect,
    UpstreamRejected,
)
from providers.retry_after import retry_after
from providers.types import Endpoint

HIDDEN = "***"
# Errors inside a 200 often carry no status, only OpenAI's or Anthropic's word for one.
STATUS_OF_WORD = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "overloaded_error": 503,
    "server_is_overloaded": 503,
}
# Gemini and xAI answer 400 to a wrong key. Believed is a code, or how a message begins: further on it may
# repeat the caller's words.
WRONG_KEY = re.compile(r"(incorrect|invalid) api key|api key not valid", re.IGNORECASE)
WRONG_KEY_CODES = frozenset(
    ("invalid_api_key", "incorrect_api_key", "api_key_invalid", "authentication_error")
)
# A 403 that is about what was asked, or from where, and not about the key (nor the policies of its account).
FORBIDDEN_REQUEST = re.compile(
    r"moderat|flagged|(?<!based )(?<![a-z])polic(?:y|ies)|(?<![a-z])(?:region|country|content)(?![a-z])",
    re.IGNORECASE,
)
KEY_LIKE = re.compile(
    r"\bBearer\s+\S+|\b(?:sk|pk|rk|gsk|xai|pplx|csk|fw|tgp|hf|key)[-_][\w*.-]{8,}|\bAIza[\w*-]{16,}|\S*\*{3,}\S*"
)
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Words(NamedTuple):
    """What an error body says."""

    message: str
    code: str | None = None
    param: str | None = None
    status: int | None = None  # that the body itself states


def refusal(endpoint: Endpoint, status: int, raw: bytes, headers: Mapping[str, str]) -> UpstreamError:
    """The exception for an answer with an error status."""
    name = endpoint.provider
    if 300 <= status < 400:
        return UpstreamRedirect(
            f"provider {name} answered with a redirect ({status}); redirects are not followed. "
            "Set its base URL to the final address.",
            status=status,
            provider=name,
        )
    return _refusal(endpoint, status, _words(_parsed(raw)), retry_after(headers))


def error_inside(endpoint: Endpoint, payload: Any) -> UpstreamError:
    """The exception for an error object that came with status 200, whole or in a stream."""
    words = _words(payload)
    status = words.status or STATUS_OF_WORD.get(words.code or "")
    if status is not None:
        return _refusal(endpoint, status, words, None)
    said = redact(words.message, endpoint) or "no message"
    name = endpoint.provider
    return UpstreamInvalid(f"provider {name} sent an error inside a successful answer: {said}", provider=name)


def _refusal(endpoint: Endpoint, status: int, words: Words, wait: float | None) -> UpstreamError:
    name = endpoint.provider
    if _is_of_the_key(status, words):
        # Never the upstream's own words: they often repeat the key.
        return UpstreamAuthError(
            f"provider {name} does not accept our key ({status})", status=status, provider=name
        )
    if status == 402:
        # Staff must act and no retry helps, as with a refused key; the caller's request is not at fault.
        message = f"provider {name} says that our account has no credit left (402)"
        return UpstreamAuthError(message, status=status, code="payment_required", provider=name)
    kind: type[UpstreamRateLimited | UpstreamOverloaded | UpstreamRejected] = UpstreamRejected
    if status == 429:
        kind = UpstreamRateLimited
    elif status in (408, 409) or status >= 500:
        kind = UpstreamOverloaded
    return kind(
        redact(words.message, endpoint) or f"provider {name} answered {status} without a message",
        status=status,
        code=redact(words.code, endpoint) if words.code else None,
        param=redact(words.param, endpoint) if words.param else None,
        retry_after=wait,
        provider=name,
    )


def _is_of_the_key(status: int, words: Words) -> bool:
    """Whether the upstream refuses our key, and not the request."""
    if status not in (400, 403):
        return status == 401
    if (words.code or "").lower() in WRONG_KEY_CODES or WRONG_KEY.match(words.message.lstrip()):
        return True
    return status == 403 and not FORBIDDEN_REQUEST.search(f"{words.code or ''} {words.message}")


def redact(text: str, endpoint: Endpoint) -> str:
    """`text` without control characters and without anything that is, or looks like, a key; at most 2 KiB."""
    text = text[: 2 * MESSAGE_CAP]
    key = endpoint.api_key.reveal()
    if key:
        text = text.replace(key, HIDDEN)
    if len(key) >= 16:  # also where the upstream shortened it
        ends = f"{re.escape(key[:8])}|{re.escape(key[-8:])}"
        text = re.sub(rf"[^\s\"']*(?:{ends})[^\s\"']*", HIDDEN, text)
    return CONTROLS.sub(" ", KEY_LIKE.sub(HIDDEN, text))[:MESSAGE_CAP].strip()


def _parsed(raw: bytes) -> Any:
    text = raw[: 1 << 16].decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return "" if text.lstrip().startswith("<") else text  # a proxy's HTML page tells callers nothing


def _words(payload: Any) -> Words:
    """From {"error": {...}} (OpenAI), {"error": text}, {"detail": ...}, {"message": ...}, [{...}] or text."""
    if isinstance(payload, list):
        return _words(payload[0]) if payload else Words("")
    if not isinstance(payload, Mapping):
        return Words(payload if isinstance(payload, str) else "")
    error = payload.get("error")
    if isinstance(error, Mapping):
        words = _words_of(error)
        return words if words.status else words._replace(status=_status(payload))
    if isinstance(error, str) and error:
        return _words_of({**payload, "message": error})
    return _words_of(payload)


def _words_of(error: Mapping[str, Any]) -> Words:
    message = next(
        (text for name in ("message", "detail", "msg", "error") if (text := _text(error.get(name)))), ""
    )
    names = [_google_reason(error.get("details")), *(error.get(name) for name in ("code", "type", "status"))]
    code = next((word for word in names if isinstance(word, str)), None)
    param = error.get("param")
    return Words(
        message, code and code[:100], param[:200] if isinstance(param, str) else None, _status(error)
    )


def _google_reason(details: Any) -> str | None:
    """How Google tells of a wrong key: its status is that of any bad request."""
    items = details if isinstance(details, list) else ()
    wrong = any(isinstance(item, Mapping) and item.get("reason") == "API_KEY_INVALID" for item in items)
    return "API_KEY_INVALID" if wrong else None


def _status(error: Mapping[str, Any]) -> int | None:
    for name in ("status", "code", "status_code", "statusCode"):
        value = error.get(name)
        if isinstance(value, str) and value.isdigit():
            value = int(value[:4])
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return None


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)[: 2 * MESSAGE_CAP]
