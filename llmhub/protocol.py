"""uvicorn's HTTP protocol, with bounds on what a stranger may send before its request is whole."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

HEAD_BYTES = 64 << 10  # of a request's line and headers, besides the read in which they began
HEAD_SECONDS = 30.0  # until they are whole
BODY_SECONDS = 60.0  # that a body which is asked for may stop to come
LOOK_SECONDS = 5.0  # between two looks at that
JOINED_BYTES = 64 << 10  # of a body that is copied behind its head


class Protocol(HttpToolsProtocol):
    """One connection.

    uvicorn by itself keeps heads of any size in memory, and waits for ever for what never becomes whole.
    Where no proxy stands before it, a stranger could so take every connection there is.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._has_begun = False  # its first request
        self._in_head = True
        self._head_bytes = 0
        self._heard_at = self._head_began_at = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(LOOK_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._look_no_more()

    def handle_websocket_upgrade(self) -> None:
        self._look_no_more()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"The headers are larger than {HEAD_BYTES >> 10} KiB.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_begun = self._in_head = True
        self._head_bytes = 0
        self._head_began_at = self._heard_at

    def on_headers_complete(self) -> None:
        self._in_head = False
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and self.cycle.scope["method"] != "HEAD":
            self.cycle.transport = Joining(self.cycle)  # type: ignore[assignment] # all that is asked of one

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _look(self) -> None:
        """Whether what has begun to come still comes."""
        now = self.loop.time()
        waits_for_head = self._in_head and (self.cycle is None or self.cycle.response_complete)
        if waits_for_head and now - self._head_began_at > HEAD_SECONDS:
            if self._has_begun:
                self._refuse(408, f"No whole request came within {HEAD_SECONDS:g} s.")
            else:  # browsers connect ahead, and would take a word for the answer to their first request
                self.transport.close()
        elif self._waits_for_body() and now - self._heard_at > BODY_SECONDS:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(LOOK_SECONDS, self._look)

    def _waits_for_body(self) -> bool:
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.more_body:
            return False
        return not (cycle.waiting_for_100_continue or self.flow.read_paused)

    def _owes_an_answer(self) -> bool:
        """Whether a request before this one is still answered."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        return cycle.response_started or not cycle.more_body

    def _look_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, message: str) -> None:
        """In the shape of `/v1`, whatever was asked for: its address may not have come."""
        if self.transport.is_closing():
            return
        if self._owes_an_answer():  # which the refusal would be taken for, or a part of
            self.transport.abort()
            return
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": "bad_request"}
        body = orjson.dumps({"error": error})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()


class Joining:
    """What a request is answered to: its connection, to which a whole answer goes by one system call.

    uvicorn writes head and body each by itself. Here a head that tells its body's length waits for the body.
    """

    __slots__ = ("_cycle", "_head", "_transport", "write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head = b""
        self.write: Callable[[bytes], None] = self._begin

    def _begin(self, data: bytes) -> None:
        """The head, or before it that the request may go on."""
        cycle = self._cycle
        if cycle.response_started:
            del self._cycle  # each held the other
            if cycle.expected_content_length and not cycle.chunked_encoding:
                self._head = data
                self.write = self._join
                return
            self.write = self._transport.write
        self._transport.write(data)

    def _join(self, data: bytes) -> None:
        """The body, or its first part."""
        self.write = self._transport.write
        if len(data) > JOINED_BYTES:
            self._transport.write(self._head)
            self._transport.write(data)
        else:
            self._transport.write(self._head + data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
