"""What a pump brings and readers take: the answer of a call, item by item."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from providers.types import StreamChunk

AHEAD_CHUNKS = 64  # that the pump may be before its fastest reader

T = TypeVar("T")


class Record(Generic[T]):
    """Items in order, for any number of readers; all of it on one event loop.

    Items are numbered from 0, and each reader has a place of its own. What all have read is dropped. A pump
    that is `ahead` items before its fastest reader waits for it; one without readers waits for nobody.
    """

    def __init__(self, ahead: int = AHEAD_CHUNKS) -> None:
        self.closed = False
        self.first = 0  # the number of the first item that is kept
        self._ahead_most = ahead
        self._items: list[T] = []
        self._readers: list[Reader[T]] = []
        self._room: asyncio.Future[None] | None = None

    # --- for the pump

    def put(self, items: Sequence[T]) -> bool:
        """Add items. False: the readers are behind, wait for `room`."""
        self._items.extend(items)
        for reader in self._readers:
            reader.wake()
        return self._has_room()

    async def room(self) -> None:
        """Wait until the fastest reader has caught up."""
        while not self._has_room():
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def close(self) -> None:
        """No more will come; what is there can still be read."""
        self.closed = True
        for reader in self._readers:
            reader.wake()

    # --- for readers

    def reader(self, place: int | None = None) -> "Reader[T]":
        """A new reader, at the first item that is kept or at a later `place`."""
        reader = Reader(self, self.first if place is None else place)
        self._readers.append(reader)
        return reader

    @property
    def end(self) -> int:
        """The number of the item that comes next."""
        return self.first + len(self._items)

    @property
    def readers(self) -> int:
        """How many read it now."""
        return len(self._readers)

    def take(self, reader: "Reader[T]") -> list[T]:
        """What came since the reader's place, which moves to the end."""
        items = self._items[max(reader.place - self.first, 0) :]
        reader.place = self.end
        self._drop()
        self.make_room()
        return items

    def leave(self, reader: "Reader[T]") -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            self._drop()
            self.make_room()

    def make_room(self) -> None:
        """Let a pump go on that waits, if there is room."""
        if self._room is not None and not self._room.done() and self._has_room():
            self._room.set_result(None)

    # --- what is kept, and when a pump must wait

    def _has_room(self) -> bool:
        return len(self._items) < self._ahead_most or self._ahead() < self._ahead_most

    def _drop(self) -> None:
        """Forget what all have read."""
        if len(self._readers) == 1:
            self._forget_before(self._readers[0].place)
        elif self._readers:
            self._forget_before(min(reader.place for reader in self._readers))

    def _forget_before(self, place: int) -> None:
        if place >= self.end:
            self.first, self._items = self.end, []
        elif place > self.first:
            del self._items[: place - self.first]
            self.first = place

    def _ahead(self) -> int:
        return self.end - max((reader.place for reader in self._readers), default=self.end)


class Tape(Record[StreamChunk]):
    """The chunks of one call."""


class KeptRecord(Record[T]):
    """Items that stay after they were read, for who comes later, up to `kept` bytes; `weigh` tells an item's.

    Beyond that it drops what all have read, and its pump waits for room.
    """

    def __init__(self, kept: int, weigh: Callable[[T], int]) -> None:
        super().__init__()
        self.size = 0
        self._kept = kept
        self._weigh = weigh

    def put(self, items: Sequence[T]) -> bool:
        self.size += sum(map(self._weigh, items))
        return super().put(items)

    def _has_room(self) -> bool:
        self._drop()
        return self.size <= self._kept

    def _droppable(self) -> int:
        """The number of the first item that somebody may still want."""
        return min((reader.place for reader in self._readers), default=self.first)

    def _drop(self) -> None:
        if self.size <= self._kept:
            return
        behind = self._droppable()
        count = 0
        while self.size > self._kept and self.first + count < behind:
            self.size -= self._weigh(self._items[count])
            count += 1
        self._forget_before(self.first + count)


class Reader(Generic[T]):
    """One reader's place on a record. With `silence_seconds`, who waits longer is told."""

    __slots__ = ("_alarm", "_rang", "_since", "_tape", "_waiter", "place", "silence_seconds")

    def __init__(self, tape: Record[T], place: int) -> None:
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

    async def read(self) -> list[T]:
        """The items that came since; none at the end of the record (`at_end`), or after silence."""
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
