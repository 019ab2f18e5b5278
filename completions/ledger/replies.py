"""How the writer thread answers: those who wait on one event loop are woken together, once per commit."""

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

_race = threading.Lock()  # between a commit and whoever gives up waiting for it


class LoopReply:
    """The commit of one operation, awaited on an event loop; no cancellation makes it forget."""

    __slots__ = ("_committed", "_given_up", "_waiter", "error", "loop", "over")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.over = False
        self.error: BaseException | None = None
        self._committed = self._given_up = False
        self._waiter: asyncio.Future[None] | None = None

    async def wait(
        self, seconds: float | None = None, expired: Callable[[], BaseException] = TimeoutError
    ) -> asyncio.CancelledError | None:
        """Until it is committed; a cancellation that came meanwhile is returned.

        Raises what kept it from being committed, or `expired()` after `seconds`.
        """
        cancelled: asyncio.CancelledError | None = None
        timer = None if seconds is None else self.loop.call_later(seconds, self._give_up, expired)
        while not self.over:
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError as error:
                cancelled = error
        if timer is not None:
            timer.cancel()
        if self.error is not None:
            raise self.error
        return cancelled

    def commit(self) -> bool:
        """From the writer's thread: it is committed. False: nobody waits for it any more."""
        with _race:
            self._committed = not self._given_up
        return self._committed

    def resolve(self, error: BaseException | None) -> None:
        """On its loop: the commit came, or failed."""
        if not self.over:
            self._end(error)

    def _give_up(self, expired: Callable[[], BaseException]) -> None:
        with _race:
            self._given_up = not self._committed
        if self._given_up and not self.over:
            self._end(expired())

    def _end(self, error: BaseException | None) -> None:
        self.over, self.error = True, error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def is_over(reply: "Future[None] | LoopReply") -> bool:
    """Whether who waits was told already."""
    return reply.over if isinstance(reply, LoopReply) else reply.done()


Outcome = tuple["Future[None] | LoopReply", BaseException | None]


def deliver(outcomes: Iterable[Outcome]) -> None:
    """Tell everybody who waits, from any thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[LoopReply, BaseException | None]]] = {}
    for reply, error in outcomes:
        if isinstance(reply, LoopReply):
            by_loop.setdefault(reply.loop, []).append((reply, error))
        elif error is None:
            reply.set_result(None)
        else:
            reply.set_exception(error)
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, mine)
        except RuntimeError:
            pass  # the loop is closed: nobody waits there any more


def _resolve(outcomes: list[Any]) -> None:
    for reply, error in outcomes:
        reply.resolve(error)
