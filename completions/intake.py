"""How much of a request's body is read, before Django sees any of it: Django would read it all, to disk."""

import json
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY

from completions import keys
from completions.errors import LLMServiceError
from completions.exceptions import error_body
from completions.exchange import drop_body
from completions.ids import kept_or_new

STRANGERS_BYTES = 64 << 10  # what is read of a body whose sender shows neither a valid key nor a session

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]


class BodyLimit:
    """ASGI middleware: at most LLMHUB_MAX_BODY_BYTES of body, from strangers at most 64 KiB."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        intake = _Intake(scope, receive)
        await intake.look_at_length()
        if intake.refused is None:
            await self.application(scope, intake.receive, intake.unless_refused(send))
        if intake.refused is not None:
            await _refuse(intake, send)


class _Intake:
    """Counts what comes in. Once refused, the application is told that the client left."""

    def __init__(self, scope: Any, receive: Receive) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.refused: int | None = None  # an HTTP status
        self.unbounded = receive
        self._read = 0
        self._known = False

    async def look_at_length(self) -> None:
        """Refuse by what the client says it will send, before any of it is read."""
        length = self.headers.get(b"content-length", b"0")
        if length.isdigit():
            await self._judge(int(length))

    async def receive(self) -> Message:
        message = await self.unbounded()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            await self._judge(self._read)
        return {"type": "http.disconnect"} if self.refused else message

    def unless_refused(self, send: Send) -> Send:
        async def guarded(message: Message) -> None:
            if self.refused is None:
                await send(message)

        return guarded

    async def _judge(self, size: int) -> None:
        if size > STRANGERS_BYTES and not self._known:
            self._known = await sync_to_async(_is_known)(self.headers)
            if not self._known:
                self.refused = 401
                return
        if size > settings.LLMHUB_MAX_BODY_BYTES:
            self.refused = 413


def _is_known(headers: dict[bytes, bytes]) -> bool:
    def text(name: bytes) -> str:
        return headers.get(name, b"").decode("latin-1")

    key = keys.presented(text(b"authorization"), text(b"x-api-key"))
    if key is None:
        return _has_session(text(b"cookie"))
    try:
        keys.authenticate(key)
    except LLMServiceError:
        return False
    return True


def _has_session(cookies: str) -> bool:
    try:
        morsel = SimpleCookie(cookies).get(settings.SESSION_COOKIE_NAME)
    except CookieError:
        return False
    if morsel is None:
        return False
    store = import_module(settings.SESSION_ENGINE).SessionStore(morsel.value)
    return SESSION_KEY in store


async def _refuse(intake: _Intake, send: Send) -> None:
    status = intake.refused or 413
    if status == 413:
        message = f"The request body is larger than {settings.LLMHUB_MAX_BODY_BYTES} bytes."
    else:
        message = f"A body of more than {STRANGERS_BYTES} bytes needs a valid API key or a session."
    body = json.dumps(error_body(status, message)).encode()
    request_id = kept_or_new(intake.headers.get(b"x-request-id", b"").decode("latin-1")).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"x-request-id", request_id),
        (b"request-id", request_id),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await drop_body(intake.unbounded, intake.headers.get(b"content-length", b"").decode("latin-1"))
    await send({"type": "http.response.body"})
