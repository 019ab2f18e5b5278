"""The bounded buffer between a call's pump and its reader."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Buffer(Generic[T]):
    """One writer, one reader, at most `capacity` items in between: a slow reader slows the writer.

    Both ends live on one event loop.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed: asyncio.Event = asyncio.Event()
        self._closed = False

    async def put(self, item: T) -> None:
        """Add an item, waiting while the buffer is full."""
        while len(self._items) >= self._capacity:
            self._changed.clear()
            await self._changed.wait()
        self._items.append(item)
        self._changed.set()

    def close(self) -> None:
        """No more items will come; those in the buffer can still be read."""
        self._closed = True
        self._changed.set()

    def __aiter__(self) -> "Buffer[T]":
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        item = self._items.popleft()
        self._changed.set()
        return item
