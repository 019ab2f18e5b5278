"""What every answer of Django's has (a request id), and `/api` on top: JSON errors, no slash redirects."""

from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from completions.exceptions import error_body
from completions.ids import kept_or_new

API = "/api/"
META_KEY = "llmhub.request_id"  # lower case: no request header can become this key


def request_id_of(request: Any) -> str:
    """The id of this request (Django's or DRF's), as its answer's x-request-id says."""
    return str(request.META.get(META_KEY) or "")


@sync_and_async_middleware
def api_middleware(
    get_response: Callable[[HttpRequest], Any],
) -> Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]:
    if iscoroutinefunction(get_response):

        async def async_middleware(request: HttpRequest) -> HttpResponseBase:
            _prepare(request)
            return _finished(request, await get_response(request))

        return async_middleware

    def middleware(request: HttpRequest) -> HttpResponseBase:
        _prepare(request)
        return _finished(request, get_response(request))

    return middleware


def _prepare(request: HttpRequest) -> None:
    request.META[META_KEY] = kept_or_new(request.headers.get("X-Request-Id"))
    if request.path_info.startswith(API) and not request.path_info.endswith("/"):
        request.path_info += "/"  # both spellings are the same address: nobody is redirected, no body is lost
    if request.headers.get("Transfer-Encoding") == "chunked" and "CONTENT_LENGTH" not in request.META:
        request.META["CONTENT_LENGTH"] = str(len(request.body))  # DRF takes a body without a length for none


def _finished(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if request.path_info.startswith(API) and response.status_code >= 400 and _is_html(response):
        response = JsonResponse(
            error_body(response.status_code, f"{response.reason_phrase}: the request cannot be served."),
            status=response.status_code,
        )
    response["x-request-id"] = response["request-id"] = request_id_of(request)
    return response


def _is_html(response: HttpResponseBase) -> bool:
    return response.get("Content-Type", "").startswith("text/html")
