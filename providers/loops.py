"""One of something for each event loop: what belongs to a loop ends with it."""

import asyncio
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Made by `make` when a loop first asks. The loop that asked last is remembered: mostly there is one."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._all: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, T] = weakref.WeakKeyDictionary()
        self._last: tuple[Callable[[], asyncio.AbstractEventLoop | None], T] | None = None

    def get(self) -> T:
        """The running loop's."""
        loop = asyncio.get_running_loop()
        if self._last is not None and self._last[0]() is loop:
            return self._last[1]
        found = self._all.get(loop)
        if found is None:
            found = self._all[loop] = self._make()
        self._last = (weakref.ref(loop), found)
        return found

    def everywhere(self) -> list[tuple[asyncio.AbstractEventLoop, T]]:
        """Every loop's; from any thread."""
        return list(self._all.items())

    def pop(self) -> T | None:
        """The running loop's, which it has no longer; None where it had none."""
        self._last = None
        return self._all.pop(asyncio.get_running_loop(), None)
