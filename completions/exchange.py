"""One HTTP request and its answer, over ASGI: the head read once, bodies within bounds, JSON out."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from django.conf import settings

from completions import keys
from completions.answering import Answering
from completions.errors import AuthenticationError, BodyTooLargeError, UnsupportedEncodingError
from completions.ids import harmless, kept_or_new
from completions.models import State
from completions.types import Caller

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
HANG_UP_SECONDS = 0.25  # until it is watched whether the caller is still there: most answers are faster


class Exchange:
    """A request and the way to answer it."""

    __slots__ = ("headers", "method", "path", "receive", "request_id", "send")

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.receive = receive
        self.send = send
        self.request_id = harmless(self.header(b"x-request-id"))  # empty: the caller named none

    def header(self, name: bytes) -> str:
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else ""

    # --- in

    async def caller(self, surface: str) -> Caller:
        """Who calls. Raises AuthenticationError."""
        key = keys.presented(self.header(b"authorization"), self.header(b"x-api-key"))
        if key is None:
            raise AuthenticationError(
                "You didn't provide an API key. Provide it in the Authorization header: Authorization: "
                f"Bearer {keys.PREFIX}-…."
            )
        return await keys.aauthenticate(key, surface=surface, request_id=self.request_id)

    async def body(self) -> bytes:
        """The whole body. Raises BodyTooLargeError (before reading, where its length is told), ClientLeft."""
        if self.header(b"content-encoding").lower() not in ("", "identity"):
            raise UnsupportedEncodingError("Content-Encoding is not supported here. Send plain JSON.")
        most: int = limit_bytes()
        length = self.header(b"content-length")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            whole = message.get("body", b"")
            if len(whole) > most:
                raise _too_large(most)
            return bytes(whole)
        return await self._rest(message, most)

    async def _rest(self, message: Message, most: int) -> bytes:
        parts, size = [], 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientLeft
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise _too_large(most)
            if not message.get("more_body"):
                return b"".join(parts)
            message = await self.receive()

    # --- out

    async def answer(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """A whole JSON answer."""
        await self.begin(status, [JSON_TYPE, (b"content-length", b"%d" % len(body)), *headers])
        await self.send({"type": "http.response.body", "body": body})

    async def begin(self, status: int, headers: Headers) -> None:
        """Status and headers; the parts of the body follow."""
        if not self.request_id:
            self.request_id = kept_or_new(None)
        request_id = self.request_id.encode()
        headers += (b"x-request-id", request_id), (b"request-id", request_id)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def part(self, body: bytes) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        await self.send({"type": "http.response.body", "body": body})


class ClientLeft(Exception):
    """The caller went away before its request was whole."""


class HangUp:
    """While it is entered, a caller who goes away ends its call. Watched after `delay` seconds."""

    __slots__ = ("_receive", "_run", "_task", "_timer")

    def __init__(self, exchange: Exchange, run: Answering, delay: float = HANG_UP_SECONDS) -> None:
        self._receive = exchange.receive
        self._run = run
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(delay, self._begin)

    def __enter__(self) -> None:
        """The timer runs since this was made."""

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._run.stop(State.CLIENT_GONE)


class _Limits:
    body_bytes: int | None = None  # of LLMHUB_MAX_BODY_BYTES; read once, for settings are slow to ask


def limit_bytes() -> int:
    if _Limits.body_bytes is None:
        _Limits.body_bytes = settings.LLMHUB_MAX_BODY_BYTES
    return _Limits.body_bytes


def forget_limits() -> None:
    """Ask the settings again: for tests."""
    _Limits.body_bytes = None


def _too_large(most: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The request body is larger than {most} bytes.")
