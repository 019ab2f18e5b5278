"""Every error of `/api` in one shape: {status_code, message, code, timestamp, details}."""

import logging
import math
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404
from django.utils import timezone
from rest_framework import exceptions
from rest_framework.response import Response

from completions import metrics
from completions.errors import CacheMissError, LLMServiceError, UnavailableError, service_error
from completions.limits import LimitExceeded, rate_limit_headers
from providers.errors import ProviderMisconfigured, UpstreamError
from providers.types import JSON

logger = logging.getLogger(__name__)

CODES = {
    400: "INVALID_REQUEST",
    401: "AUTHENTICATION_FAILED",
    402: "BUDGET_EXCEEDED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    413: "BODY_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "RATE_LIMIT_EXCEEDED",
    502: "PROVIDER_ERROR",
    503: "UNAVAILABLE",
    504: "TIMEOUT",
}
PERMANENT = (402, 403)  # no other try will end otherwise until staff change something
RETRY_AFTER_CAP = 60  # seconds
UNAVAILABLE_SECONDS = 5  # until another try is sensible, where nobody knows better


class BodyTooLarge(exceptions.APIException):
    """More body than LLMHUB_MAX_BODY_BYTES."""

    status_code = 413

    def __init__(self, most: int) -> None:
        super().__init__(f"The request body is larger than {most} bytes.")


class Conflict(exceptions.APIException):
    """What is asked for contradicts what is there."""

    status_code = 409


def error_body(status: int, message: str, code: str = "", details: Any = None) -> JSON:
    """The one error shape of this surface. `timestamp` is UTC, ISO 8601."""
    return {
        "status_code": status,
        "message": message,
        "code": code or CODES.get(status, "INVALID_REQUEST" if status < 500 else "INTERNAL_ERROR"),
        "timestamp": timezone.now().isoformat(),
        "details": details or {},
    }


def service_error_body(error: LLMServiceError) -> JSON:
    """`error` as this surface tells it."""
    return error_body(error.status, error.message, error.code, error.details)


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler: nothing leaves a view in another shape."""
    if isinstance(error, LLMServiceError):
        return _service_error(error)
    if isinstance(error, UpstreamError | ProviderMisconfigured):
        return _service_error(service_error(error))
    if isinstance(error, OperationalError | InterfaceError):
        logger.error("database error on /api: %s", error)
        return _service_error(UnavailableError("The hub's database cannot serve now.", retry_after=5))
    known = _as_api_exception(error)
    if known is None:
        logger.error("unexpected error on /api", exc_info=error)
        return _answer(500, "Something went wrong inside the hub. Its log says what.")
    return _api_error(known)


def _service_error(error: LLMServiceError) -> Response:
    metrics.ERRORS.labels("api", error.code.lower()).inc()
    return Response(service_error_body(error), status=error.status, headers=error_headers(error))


def error_headers(error: LLMServiceError) -> dict[str, str]:
    """What the official SDKs go by: whether another try makes sense, and when."""
    headers: dict[str, str] = {}
    if isinstance(error, LimitExceeded):
        headers |= rate_limit_headers(error.standings)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, CacheMissError):
        headers["x-llmhub-cache"] = "MISS"
    if error.status in PERMANENT or error.details.get("permanent"):
        return headers | {"x-should-retry": "false"}
    if error.details.get("attempts", 0) > 1:  # the hub has tried again already
        headers["x-should-retry"] = "false"
    retry_after = error.details.get("retry_after", UNAVAILABLE_SECONDS if error.status == 503 else None)
    if isinstance(retry_after, int | float):
        headers["Retry-After"] = str(min(RETRY_AFTER_CAP, max(1, math.ceil(retry_after))))
    return headers


def _as_api_exception(error: Exception) -> exceptions.APIException | None:
    if isinstance(error, exceptions.APIException):
        return error
    if isinstance(error, Http404):
        return exceptions.NotFound()
    if isinstance(error, DjangoPermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(error, RequestDataTooBig):
        return BodyTooLarge(settings.LLMHUB_MAX_BODY_BYTES)
    if isinstance(error, SuspiciousOperation):
        return exceptions.ParseError("The request cannot be read.")
    return None


def _api_error(error: exceptions.APIException) -> Response:
    if isinstance(error, exceptions.ValidationError):
        message, details = _first_problem(error.detail), _by_field(error.detail)
    else:
        message, details = str(error.detail), {}
    response = _answer(error.status_code, message, details)
    if challenge := getattr(error, "auth_header", None):
        response["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        response["Retry-After"] = str(math.ceil(wait))
    return response


def _answer(status: int, message: str, details: Any = None) -> Response:
    return Response(error_body(status, message, details=details), status=status)


def _by_field(detail: Any) -> Any:
    return detail if isinstance(detail, dict) else {"non_field_errors": detail}


def _first_problem(detail: Any, path: str = "") -> str:
    """The first message of DRF's nested error structure, led by the field it belongs to."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            if inner:
                return _first_problem(inner, path if name == "non_field_errors" else _joined(path, name))
    if isinstance(detail, list):
        for index, inner in enumerate(detail):
            if isinstance(inner, str):
                return _first_problem(inner, path)
            if inner:
                return _first_problem(inner, f"{path}[{index}]")
    return f"{path}: {detail}" if path else str(detail)


def _joined(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)
