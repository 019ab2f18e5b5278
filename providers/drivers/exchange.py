"""One request and its answer on an HTTP/1.1 connection, parsed by llhttp where the bytes arrive.

No task stands between the socket and who takes the body: what a relayed chunk costs is decided here.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from providers.errors import UpstreamError, UpstreamInvalid, UpstreamTooLarge, UpstreamTruncated

MAX_BODY_BYTES = 64 << 20
MAX_HEAD_BYTES = 64 << 10
WRITE_APART_BYTES = 64 << 10  # a body from this size on is not copied behind its head


class Home(Protocol):
    """Where a connection goes when its exchange is over."""

    def keep(self, connection: "Connection") -> None: ...


class Exchange:
    """Await `head()`, then take the body: `whole()`, or `pour()` it into a function as it comes.

    What ends it early is one UpstreamError, raised by whatever waits, or given to who is poured into. Always
    `close()` it: a complete answer gives its connection back, any other closes it, which tells the upstream.
    """

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.status = 0
        self.headers: dict[str, str] = {}  # lower-case names; of repeated ones the last
        self.begun = False  # the head is there
        self.complete = False  # the whole answer is there
        self.heard = False  # any byte of an answer came
        self.error: UpstreamError | None = None
        self.connection: Connection | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._pour: Callable[[bytes], None] | None = None
        self._ended: Callable[[UpstreamError | None], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- for who asked

    def until(self, when: float, expired: Callable[[], UpstreamError]) -> None:
        """End it with `expired()` at loop time `when`, unless it is over or given another time by then."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._expire, expired)

    async def head(self) -> None:
        """Wait for status and headers. Raises UpstreamError where they never came.

        A fault right behind them is for who takes the body: what came before it is to be taken.
        """
        while not self.begun:
            if self.error is not None:
                raise self.error
            await self._wait()

    async def whole(self) -> bytes:
        """The whole body. Raises UpstreamError, also above MAX_BODY_BYTES."""
        while not self.complete:
            await self._change()
        return self.received()

    async def some(self, cap: int) -> bytes:
        """At most about `cap` bytes of the body, and what there is of one that breaks off."""
        try:
            while not self.complete and self._size < cap:
                await self._change()
        except UpstreamError:
            pass  # what came tells something all the same
        return self.received()[:cap]

    def received(self) -> bytes:
        """What came of the body so far."""
        parts = self._parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pour(self, data: Callable[[bytes], None], ended: Callable[[UpstreamError | None], None]) -> None:
        """Call `data` with each part of the body, and `ended` once: None at its end, else the fault."""
        self._pour, self._ended = data, ended
        parts, self._parts = self._parts, []
        for part in parts:
            data(part)
        if self.complete or self.error is not None:
            ended(self.error)

    def pause(self) -> None:
        """Read nothing for now: the upstream waits."""
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        if self.connection is not None:
            self.connection.resume()

    def fail(self, error: UpstreamError) -> None:
        """End it with `error`, unless it is over already."""
        if self.complete or self.error is not None:
            return
        self.error = error
        if self.connection is not None:
            self.connection.abort()
        if self._ended is not None:
            self._ended(error)
        self._wake()

    def close(self, linger: float = 0.0) -> None:
        """Take no more. A complete answer (or one within `linger` seconds) leaves its connection open."""
        self._pour, self._ended = _ignore, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        connection = self.connection
        if connection is None:
            return
        if self.complete:
            self.connection = None
            connection.leave()
        elif linger and self.error is None:
            self._ended = lambda _: self.close()
            self._timer = asyncio.get_running_loop().call_later(linger, self.close)
        else:
            self.connection = None
            connection.abort()

    async def _change(self) -> None:
        if self.error is None:
            await self._wait()
        if self.error is not None:
            raise self.error

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _expire(self, expired: Callable[[], UpstreamError]) -> None:
        self._timer = None
        self.fail(expired())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- for the connection

    def on_head(self, status: int) -> None:
        self.status, self.begun = status, True
        self._wake()

    def on_body(self, part: bytes) -> None:
        if self._pour is not None:
            self._pour(part)
            return
        self._size += len(part)
        if self._size > MAX_BODY_BYTES:
            self.fail(self.too_long())
            return
        self._parts.append(part)
        self._wake_for_some()

    def on_complete(self) -> None:
        self.complete = True
        if self._ended is not None:
            self._ended(None)
        self._wake()

    def on_lost(self, *, mid_head: bool) -> None:
        what = "closed the connection before its answer was complete"
        if mid_head and self.heard:
            what = "closed the connection in the middle of its answer's head"
        self.fail(UpstreamTruncated(f"provider {self.provider} {what}", provider=self.provider))

    def too_long(self) -> UpstreamTooLarge:
        what = f"more than {MAX_BODY_BYTES >> 20} MiB"
        return UpstreamTooLarge(f"provider {self.provider} sent {what}", provider=self.provider)

    def invalid(self, what: str) -> UpstreamInvalid:
        return UpstreamInvalid(f"provider {self.provider} sent {what}", provider=self.provider)

    def _wake_for_some(self) -> None:
        """Whoever waits for the whole is not woken for its parts."""
        if self._size >= MAX_HEAD_BYTES:
            self._wake()


def _ignore(part: bytes) -> None:
    """What comes after an answer was given up."""


class Connection(asyncio.Protocol):
    """A connection to an upstream: one exchange at a time, and kept by its home in between."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.used = 0  # exchanges begun
        self.exchange: Exchange | None = None
        self.transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._head: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []  # of the bytes being parsed: handed on together
        self._over = False  # the message has ended
        self._head_bytes = 0
        self._interim = False  # a 1xx answer, which another follows
        self._until_close = False  # the body ends where the connection does
        self._may_stay = False
        self._paused = False

    @property
    def open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def send(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Begin an exchange. The connection is open and has none."""
        assert self.transport is not None  # noqa: S101 - it was made by connecting
        self.used += 1
        self.exchange, exchange.connection = exchange, self
        self._parser = httptools.HttpResponseParser(self)
        self._over = False
        self._begin_head()
        if len(body) < WRITE_APART_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))

    def leave(self) -> None:
        """The exchange is over, its answer complete."""
        self.exchange = None
        self.resume()
        if self._may_stay and self.open:
            self.home.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        self.exchange = None
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        if not self._paused and self.open:
            self._paused = True
            self.transport.pause_reading()  # type: ignore[union-attr] # open: there is one

    def resume(self) -> None:
        if self._paused and self.open:
            self.transport.resume_reading()  # type: ignore[union-attr]
        self._paused = False

    # --- asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are none by name

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None or exchange.complete:  # bytes that nobody asked for: not to be trusted again
            self._may_stay = False
            if exchange is None:
                self.abort()
            return
        exchange.heard = True
        if not exchange.begun:
            self._head_bytes += len(data)
        fault = None
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr] # set with the exchange
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            fault = exchange.invalid("something that is not HTTP")
        if self._body:
            body, self._body = self._body, []
            exchange.on_body(body[0] if len(body) == 1 else b"".join(body))
        if self._over:
            self._may_stay = self._may_stay and fault is None  # what follows a good answer may be bad
            exchange.on_complete()
        elif fault is not None:
            exchange.fail(fault)
        if self._head_bytes > MAX_HEAD_BYTES and not exchange.begun:
            exchange.fail(exchange.invalid(f"more than {MAX_HEAD_BYTES >> 10} KiB of headers"))

    def eof_received(self) -> None:
        self._at_end()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._at_end()
        self._may_stay = False
        exchange = self.exchange
        if exchange is not None and not exchange.complete:
            exchange.on_lost(mid_head=not exchange.begun)

    def _at_end(self) -> None:
        """The upstream sends no more: the end of a body whose length nothing else tells."""
        exchange = self.exchange
        if exchange is not None and exchange.begun and self._until_close and not exchange.complete:
            self._may_stay = False
            exchange.on_complete()

    # --- llhttp's callbacks: what they raise would be lost

    def _begin_head(self) -> None:
        self._head = []
        self._head_bytes = 0
        self._interim = self._until_close = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head.append((name, value))  # trailers too, which nobody looks at

    def on_headers_complete(self) -> None:
        exchange, parser = self.exchange, self._parser
        if exchange is None or parser is None or self._over:
            return
        status = parser.get_status_code()
        if status < 200:
            self._interim = True
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._head}
        exchange.headers = headers
        self._until_close = "content-length" not in headers and "transfer-encoding" not in headers
        exchange.on_head(status)

    def on_body(self, part: bytes) -> None:
        if self._over:
            self._may_stay = False  # a second answer to one request
        else:
            self._body.append(part)

    def on_message_complete(self) -> None:
        if self._interim:
            self._begin_head()
        elif not self._over and self._parser is not None:
            self._over = True
            self._may_stay = bool(self._parser.should_keep_alive())
