"""A streamed answer being read: server-sent events as they arrive, into chunks, into a sink."""

import asyncio
from collections.abc import Sequence
from functools import partial

from providers.drivers.base import Sink
from providers.drivers.chunks import begins, chunk_of, invalid, open_choices
from providers.drivers.exchange import Exchange
from providers.drivers.sse import Event, SSEParser
from providers.drivers.usage import falls_behind
from providers.drivers.wire import timed_out
from providers.errors import UpstreamError, UpstreamInvalid, UpstreamTruncated
from providers.types import Endpoint, StreamChunk, Usage

DONE = b"[DONE]"
SHORT = 16  # bytes: an event below it may be [DONE] with spaces around it
HELD_CHUNKS = 1000  # without content, held back at most while it is open whether the answer is an error
LINGER_SECONDS = 0.02  # for the end of the body after [DONE], so that the connection can be used again


class Stream:
    """Chunks before the first content are held back: an answer that turns out to be an error has not begun.

    `first_by` and `deadline` are loop times. Silence is measured between events: comments and pings are none.
    `asked`: how many answers (choices) there must be.
    """

    def __init__(self, endpoint: Endpoint, sink: Sink, deadline: float, asked: int = 1) -> None:
        self.endpoint = endpoint
        self.sink = sink
        self.deadline = deadline
        self.asked = asked
        self._loop = asyncio.get_running_loop()
        self.first_by = self._loop.time() + endpoint.timeouts.first_token
        self._parser = SSEParser()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._begun = False
        self._choices: dict[object, bool] = {}  # by index: whether its finish_reason was seen
        self._usage: Usage | None = None  # the last that can be
        self._held: list[StreamChunk] = []
        self._heard_at = 0.0  # loop time of the last event
        self._look: asyncio.TimerHandle | None = None
        self._catching_up: asyncio.Task[None] | None = None  # the sink's readers are

    @property
    def linger_seconds(self) -> float:
        """How long the rest of the body may take: no time where the answer was not complete."""
        good = self._over.done() and not self._over.cancelled() and self._over.exception() is None
        return LINGER_SECONDS if good else 0.0

    async def read(self, exchange: Exchange) -> None:
        """Until the answer is complete. Raises UpstreamError."""
        self._exchange = exchange
        exchange.pour(self._data, self._end)
        try:
            await self._over
        finally:
            if self._look is not None:
                self._look.cancel()
            if self._catching_up is not None:
                self._catching_up.cancel()

    @property
    def _finished(self) -> bool:
        """Without a [DONE]: every answer that was asked for has its end."""
        return len(self._choices) >= self.asked and all(self._choices.values())

    # --- where the bytes arrive

    def _data(self, data: bytes) -> None:
        if self._over.done():
            return
        try:
            self._take(self._parser.feed(data))
        except Exception as error:  # noqa: BLE001 - nobody above could tell it: this runs in the socket's callback
            self._stop(error)

    def _end(self, fault: UpstreamError | None) -> None:
        """The body is at its end, or will not come to it."""
        if self._over.done():
            return
        try:
            if fault is None:
                self._take_rest()
        except Exception as error:  # noqa: BLE001 - as above
            self._stop(error)
            return
        if self._finished:
            self._stop()
        elif fault is None:
            name = self.endpoint.provider
            what = f"provider {name} ended its answer before it was finished"
            self._stop(UpstreamTruncated(what, provider=name))
        else:
            self._stop(fault)

    def _take_rest(self) -> None:
        try:
            self._take(self._parser.close())
        except UpstreamInvalid:
            pass  # the end cut an event in two

    def _take(self, events: Sequence[Event]) -> None:
        """Good chunks before a bad one are brought first."""
        try:
            for event in events:
                if not event.data or event.event == "ping":
                    continue
                if len(event.data) < SHORT and event.data.strip() == DONE:
                    self._done()
                    return
                chunk = chunk_of(self.endpoint, event.data, event=event.event)
                if chunk is not None:
                    self._add(chunk)
        finally:
            if self._begun and self._held:
                self._bring()

    def _add(self, chunk: StreamChunk) -> None:
        if chunk.usage is not None:
            chunk = self._weighed(chunk)
        self._held.append(chunk)
        goes_on = chunk.content and not chunk.finish_reason and len(chunk.body["choices"]) == 1
        if self._begun and goes_on and 0 in self._choices:
            return  # one more piece of choice 0: nothing begins or ends
        open_choices(chunk, self._choices)
        if not self._begun and (begins(chunk) or len(self._held) >= HELD_CHUNKS):
            self._begin()

    def _weighed(self, chunk: StreamChunk) -> StreamChunk:
        """A chunk whose usage is not less than what was told before."""
        usage = chunk.usage
        if usage is not None and self._usage is not None and falls_behind(usage, self._usage):
            return chunk._replace(usage=None, usage_anomaly=True)
        self._usage = usage
        return chunk

    def _begin(self) -> None:
        self._begun = True
        self._exchange.until(self.deadline, partial(timed_out, self.endpoint, "total"))
        self._heard_at = self._loop.time()
        self._look = self._loop.call_later(self.endpoint.timeouts.idle, self._look_for_silence)

    def _done(self) -> None:
        if not self._choices:
            raise invalid(self.endpoint, "a stream without an answer")
        self._begun = True
        self._bring()
        self._stop()

    def _bring(self) -> None:
        held, self._held = self._held, []
        self._heard_at = self._loop.time()
        if held and not self.sink.put(held) and self._catching_up is None:
            self._exchange.pause()
            self._catching_up = self._loop.create_task(self._resume())

    async def _resume(self) -> None:
        """The time that readers take is not the upstream's silence."""
        await self.sink.room()
        self._catching_up = None
        self._heard_at = self._loop.time()
        self._exchange.resume()

    def _look_for_silence(self) -> None:
        idle = self.endpoint.timeouts.idle
        now = self._loop.time()
        if self._catching_up is not None:
            self._heard_at = now
        if now - self._heard_at >= idle:
            self._exchange.fail(timed_out(self.endpoint, "idle"))
        else:
            self._look = self._loop.call_at(self._heard_at + idle, self._look_for_silence)

    def _stop(self, error: Exception | None = None) -> None:
        if self._over.done():
            return
        if error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(error)
