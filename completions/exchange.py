"""One HTTP request and its answer, over ASGI: the head read once, bodies within bounds, JSON out."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import Any

from django.conf import settings

from completions import keys, run, sockets
from completions.answering import Answering
from completions.errors import AuthenticationError, BodyTooLargeError, UnsupportedEncodingError
from completions.ids import harmless, kept_or_new
from completions.models import State
from completions.requests import cache_wish_of_headers
from completions.types import CacheWish, Caller

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

NO_WISH = CacheWish()
CACHE_HEADERS = (b"cache-control", b"x-llmhub-cache", b"x-llmhub-cache-ttl")
BODY_HEADERS = {b"content-length", b"transfer-encoding"}  # a request without either has no body
JSON_TYPE = (b"content-type", b"application/json")
CLOSE = (b"connection", b"close")
HANG_UP_SECONDS = 0.25  # until it is watched whether the caller is still there: most answers are faster
DROPPED_BYTES = 32 << 20  # of a refused request's body that are read after the answer, to be forgotten
DROPPED_SECONDS = 2.0
UNREAD_SECONDS = 0.5  # that a connection stays for its answer whose request is longer than that


class Exchange:
    """A request and the way to answer it."""

    __slots__ = (
        "_read", "answering", "headers", "method", "path", "receive", "request_id", "send", "sending_since",
    )  # fmt: skip

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.receive = receive
        self.send = send
        self.request_id = harmless(self.header(b"x-request-id"))  # empty: the caller named none
        self.answering: Answering | None = None  # the call, once it is on its way
        self.sending_since = 0.0  # monotonic: since when the reader has taken nothing; 0: it takes all
        self._read = False  # the body, all of it

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
            self._read = True
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
                self._read = True
                return b"".join(parts)
            message = await self.receive()

    def cache_wish(self) -> CacheWish:
        """What the request says of the cache. Raises InvalidRequestError."""
        said = [self.header(name) for name in CACHE_HEADERS]
        return cache_wish_of_headers(*said) if any(said) else NO_WISH

    def begins(self, call: Answering) -> None:
        """The call is on its way: where the caller named its request not, it goes by the row's id."""
        self.answering = call
        if not self.request_id:
            self.request_id = call.id.hex

    # --- out

    async def refuse(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """A whole JSON answer to a request whose body may not have been read.

        The caller has it at once. Then what comes of the body is dropped and the connection closed.
        """
        if self._read or not (self.headers.keys() & BODY_HEADERS):
            await self.answer(status, body, headers)
            return
        await self.begin(status, [JSON_TYPE, CLOSE, (b"content-length", b"%d" % len(body)), *headers])
        await self.part(body)
        await drop_body(self.receive, self.header(b"content-length"))
        await self.end()

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
        self.sending_since = monotonic()
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
        self.sending_since = 0.0

    async def end(self, body: bytes = b"") -> None:
        self.sending_since = monotonic()
        await self.send({"type": "http.response.body", "body": body})
        self.sending_since = 0.0


class ClientLeft(Exception):
    """The caller went away before its request was whole."""


class HangUp:
    """While it is entered, a caller who goes away ends its call, and so does one who takes nothing.

    The first is watched after `delay` seconds; what was answered within them needs no watching.
    """

    __slots__ = ("_call", "_exchange", "_loop", "_task", "_timer")

    def __init__(self, exchange: Exchange, call: Answering, delay: float = HANG_UP_SECONDS) -> None:
        self._exchange = exchange
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(delay, self._begin)

    def __enter__(self) -> None:
        """The timer runs since this was made."""

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._watch())
        self._timer = self._loop.call_later(run.SLOW_SECONDS, self._look)

    async def _watch(self) -> None:
        while (await self._exchange.receive())["type"] != "http.disconnect":
            pass
        self._call.stop(State.CLIENT_GONE)

    def _look(self) -> None:
        """Whether the caller takes what it is sent."""
        now = monotonic()
        left = (self._exchange.sending_since or now) + run.SLOW_SECONDS - now
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        self._call.stop(State.CLIENT_SLOW)
        sockets.cutter(self._exchange.receive)()  # its buffers are full: of an end it would never hear


async def drop_body(receive: Receive, length: str) -> None:
    """Read what is left of a body of `length` (as its header says), and forget it.

    Closed before that, the connection is reset, and many clients lose the answer that came before. With a
    body that is too long for that it is not begun: the answer gets a moment to arrive.
    """
    left = DROPPED_BYTES
    if length.isdigit() and int(length) > left:
        await asyncio.sleep(UNREAD_SECONDS)
        return
    try:
        async with asyncio.timeout(DROPPED_SECONDS):
            while left > 0 and (message := await receive()).get("more_body"):
                left -= len(message.get("body", b""))
    except TimeoutError:
        pass


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
