"""What bounds a websocket: how many there are, how fast they talk, how long they may be silent or slow."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from django.conf import settings

from completions.errors import RateLimitError
from completions.types import Caller

logger = logging.getLogger(__name__)

SLOW_SECONDS = 60.0  # that a reader may take nothing of what was sent, and up to a look longer
LOOKS = 4  # in that time
CUT_SECONDS = 1.0  # that such a reader has to hear of it
CLOSE_SECONDS = 10.0  # that any other has
AUTH_SECONDS = 5.0  # until the first frame must have told who it is
BURST_SECONDS = 4.0  # of messages that may come at once


class Pace:
    """At most `per_second` messages in the long run."""

    __slots__ = ("_at", "_level", "_loop", "_most", "_per_second")

    def __init__(self, per_second: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._per_second = per_second
        self._most = per_second * BURST_SECONDS
        self._level = 0.0
        self._at = self._loop.time()

    def allows(self) -> bool:
        now = self._loop.time()
        self._level = max(0.0, self._level - (now - self._at) * self._per_second) + 1
        self._at = now
        return self._level <= self._most


class Place:
    """One of the sockets that a key, or a person, may have open at this process."""

    taken: ClassVar[Counter[str]] = Counter()

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.taken[owner] += 1

    def leave(self) -> None:
        self.taken[self.owner] -= 1
        if self.taken[self.owner] <= 0:
            del self.taken[self.owner]


def take_place(caller: Caller) -> Place:
    """Raises RateLimitError when the caller has as many sockets as it may."""
    by_key = caller.api_key_id is not None
    owner = f"key {caller.api_key_id}" if by_key else f"user {caller.user_id}"
    most = settings.LLMHUB_SOCKETS_PER_KEY if by_key else settings.LLMHUB_SOCKETS_PER_USER
    if Place.taken[owner] >= most:
        raise RateLimitError(f"{most} websockets are open; that is the most.")
    return Place(owner)


class Gone(OSError):
    """The websocket has ended: nothing can be sent."""


class Socket(Protocol):
    """What a watch looks after."""

    caller: Caller | None
    pumps: set[asyncio.Task[None]]
    cut: Callable[[], None]

    async def leave(self, code: int, reason: str) -> None: ...


class Watch:
    """Closes a socket that never says who it is, that nobody uses, or whose reader takes nothing."""

    def __init__(self, socket: Socket, idle_seconds: float) -> None:
        self.is_slow = False
        self._socket = socket
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._used_at = self._loop.time()
        self._waiting = self._loop.call_later(AUTH_SECONDS, self._look_who)  # then for what never comes
        self._senders = 0  # that wait for the reader
        self.taken = 0  # frames that are on their way
        self._looks = 0  # that saw it take nothing, in a row
        self._slow: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    def used(self) -> None:
        """Something was asked, or an answer has ended."""
        self._used_at = self._loop.time()

    def sending(self) -> None:
        """Something is to be sent; who sends counts what is `taken`, and at the end calls `stopped`."""
        self._senders += 1
        if self._slow is None:
            self._look_again()

    def stopped(self) -> None:
        self._senders -= 1

    def stop(self) -> None:
        self._waiting.cancel()
        if self._slow is not None:
            self._slow.cancel()

    def _look_who(self) -> None:
        if self._socket.caller is None:
            self._close("Nobody said who this is.", 4401)
        else:
            self._waiting = self._loop.call_later(self._idle_seconds, self._look_whether_it_is_used)

    def _look_whether_it_is_used(self) -> None:
        unused = 0.0 if self._socket.pumps else self._loop.time() - self._used_at
        if unused >= self._idle_seconds:
            self._close("Nothing was asked for a long time.")
        else:
            self._waiting = self._loop.call_later(self._idle_seconds - unused, self._look_whether_it_is_used)

    def _look_again(self) -> None:
        self._slow = self._loop.call_later(SLOW_SECONDS / LOOKS, self._look_whether_it_reads, self.taken)

    def _look_whether_it_reads(self, taken: int) -> None:
        self._slow = None
        if not self._senders or self.taken != taken:
            self._looks = 0
        else:
            self._looks += 1
        if self._looks == LOOKS:
            self.is_slow = True
            self._close("The reader took nothing for a minute.")
            # Its buffers are full, so it hears of no close: the connection itself is broken.
            self._slow = self._loop.call_later(CUT_SECONDS, self._socket.cut)
        elif self._senders:
            self._look_again()

    def _close(self, reason: str, code: int = 4408) -> None:
        for pump in list(self._socket.pumps):
            pump.cancel()
        self._closing = self._loop.create_task(self._socket.leave(code, reason))


def cutter(receive: Any) -> Callable[[], None]:
    """What breaks the connection itself, where the server shows it: for a peer that no longer reads."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)

    def cut() -> None:
        if transport is not None:
            transport.abort()

    return cut
