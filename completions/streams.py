"""What a pump brings and readers take: the answer of a call, chunk by chunk."""

import asyncio
from collections.abc import Sequence

from providers.types import StreamChunk

AHEAD_CHUNKS = 64  # that the pump may be before its fastest reader


class Tape:
    """Chunks in order, for any number of readers; all of it on one event loop.

    Each reader has a place of its own. What all have read is dropped. A pump that is AHEAD_CHUNKS before its
    fastest reader waits for it; one without readers waits for nobody.
    """

    def __init__(self) -> None:
        self.closed = False
        self._chunks: list[StreamChunk] = []
        self._first = 0  # the number of the first chunk that is kept
        self._readers: list[Reader] = []
        self._room: asyncio.Future[None] | None = None

    # --- for the pump

    def put(self, chunks: Sequence[StreamChunk]) -> bool:
        """Add chunks. False: the readers are behind, wait for `room`."""
        self._chunks.extend(chunks)
        for reader in self._readers:
            reader.wake()
        return len(self._chunks) < AHEAD_CHUNKS or self._ahead() < AHEAD_CHUNKS

    async def room(self) -> None:
        """Wait until the fastest reader has caught up."""
        while self._ahead() >= AHEAD_CHUNKS:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def close(self) -> None:
        """No more will come; what is there can still be read."""
        self.closed = True
        for reader in self._readers:
            reader.wake()

    # --- for readers

    def reader(self) -> "Reader":
        """A new reader, at the first chunk that is kept."""
        reader = Reader(self, self._first)
        self._readers.append(reader)
        return reader

    @property
    def end(self) -> int:
        """The number of the chunk that comes next."""
        return self._first + len(self._chunks)

    def take(self, reader: "Reader") -> list[StreamChunk]:
        """What came since the reader's place, which moves to the end. What all have read is dropped."""
        if len(self._readers) == 1:
            chunks, self._chunks = self._chunks[reader.place - self._first :], []
            reader.place = self._first = reader.place + len(chunks)
        else:
            chunks = self._chunks[reader.place - self._first :]
            reader.place += len(chunks)
            self._drop()
        self._make_room()
        return chunks

    def _drop(self) -> None:
        if self._readers:
            behind = min(reader.place for reader in self._readers)
            del self._chunks[: behind - self._first]
            self._first = max(self._first, behind)

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done() and self._ahead() < AHEAD_CHUNKS:
            self._room.set_result(None)

    def leave(self, reader: "Reader") -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            self._drop()
            self._make_room()

    def _ahead(self) -> int:
        return self.end - max((reader.place for reader in self._readers), default=self.end)


class Reader:
    """One reader's place on a tape. With `silence_seconds`, who waits longer is told."""

    __slots__ = ("_alarm", "_rang", "_since", "_tape", "_waiter", "place", "silence_seconds")

    def __init__(self, tape: Tape, place: int) -> None:
        self.place = place
        self.silence_seconds: float | None = None
        self._tape = tape
        self._waiter: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._since = 0.0  # loop time of the present wait's beginning
        self._rang = False

    @property
    def at_end(self) -> bool:
        """Everything was read, and no more will come."""
        return self._tape.closed and self.place == self._tape.end

    async def read(self) -> list[StreamChunk]:
        """The chunks that came since; none at the end of the tape (`at_end`), or after silence."""
        tape = self._tape
        while self.place == tape.end:
            if tape.closed:
                return []
            await self._wait()
            if self._rang:
                self._rang = False
                return []
        return tape.take(self)

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        if self.silence_seconds is not None:
            self._since = loop.time()
            if self._alarm is None:  # one that is set already looks when this wait began
                self._alarm = loop.call_later(self.silence_seconds, self._look)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _look(self) -> None:
        self._alarm = None
        if self._waiter is None or self.silence_seconds is None:
            return
        loop = asyncio.get_running_loop()
        due = self._since + self.silence_seconds
        if loop.time() >= due:
            self._rang = True
            self.wake()
        else:
            self._alarm = loop.call_at(due, self._look)

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def leave(self) -> None:
        """Read no more: the pump need not wait for this reader."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._tape.leave(self)
