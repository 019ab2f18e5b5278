"""`POST /api/completions/` of callers with a key, awaited on the server's own loop.

The same viewset, parser, serializers and errors as everybody gets; left out is what such a call never needs:
a thread and a database connection of its own, session, sign-in and pages' middleware. It costs a sixth of the
whole way (docs/decisions.md), which sessions, WSGI servers and Django's test client still take.
"""

from contextlib import aclosing
from io import BytesIO
from typing import Any

import orjson
from django.core.handlers.asgi import ASGIRequest
from rest_framework.request import Request
from rest_framework.response import Response

from completions import keys
from completions.errors import CallEndedError
from completions.exchange import ClientLeft, Exchange, HangUp, Headers, Message, Receive, Send
from completions.middleware import META_KEY
from completions.serializers import response_body
from completions.service import LLMService
from completions.sse import EventStream
from completions.views import (
    CompletionViewSet,
    answer_headers,
    call_headers,
    checked_request,
    stream_headers,
)

PATHS = ("/api/completions/", "/api/completions")


def takes(scope: Message) -> bool:
    """Whether a request under `/api` is one that `application` serves."""
    if scope["method"] != "POST" or scope["path"] not in PATHS:
        return False
    headers: dict[bytes, bytes] = dict(scope["headers"])
    shown = (headers.get(name, b"").decode("latin-1") for name in (b"authorization", b"x-api-key"))
    return keys.presented(*shown) is not None


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """ASGI."""
    exchange = Exchange(scope, receive, send)
    view = CompletionViewSet(
        action_map={"post": "create"}, args=(), kwargs={}, request=None, format_kwarg=None
    )
    try:
        caller = await exchange.caller("api")
        request = _request(view, scope, await exchange.body(), exchange)
        request.auth = caller
        asked = checked_request(request)
        service = LLMService(caller)
        if asked.validated_data.get("stream"):
            await _stream(exchange, service, asked.request())
        else:
            await _whole(exchange, service, asked.request())
    except (ClientLeft, CallEndedError):
        pass  # there is nobody to tell
    except Exception as error:  # noqa: BLE001 - DRF's handler logs and renders whatever it is
        await _tell(exchange, view, error)


def _request(view: CompletionViewSet, scope: Message, body: bytes, exchange: Exchange) -> Request:
    django_request = ASGIRequest(scope, BytesIO(body))
    django_request.META["CONTENT_LENGTH"] = str(len(body))  # a chunked body has none
    django_request.META[META_KEY] = exchange.request_id
    request: Request = view.initialize_request(django_request)
    return request


async def _whole(exchange: Exchange, service: LLMService, asked: Any) -> None:
    run = await service.start(asked, stream=False)
    exchange.begins(run)
    with HangUp(exchange, run):
        response = await run.answer()
    await exchange.answer(
        200, orjson.dumps(response_body(response)), _encoded(answer_headers(response.metadata))
    )


async def _stream(exchange: Exchange, service: LLMService, asked: Any) -> None:
    run = await service.start(asked, stream=True)
    exchange.begins(run)
    with HangUp(exchange, run, delay=0):
        stream = await EventStream.open(run)
        await exchange.begin(200, _encoded(stream_headers(stream.started)))
        async with aclosing(stream.frames()) as frames:
            async for frame in frames:
                await exchange.part(frame)
        await exchange.end()


async def _tell(exchange: Exchange, view: CompletionViewSet, error: Exception) -> None:
    response: Response = view.handle_exception(error)
    headers = {name: value for name, value in response.items() if name != "Content-Type"}
    if exchange.answering is not None:
        headers |= call_headers(exchange.answering.started())
    await exchange.refuse(response.status_code, orjson.dumps(response.data), _encoded(headers))


def _encoded(headers: dict[str, str]) -> Headers:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
