"""A call whose frames outlive the socket that asked for them."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Protocol

from completions.answering import Answering, Result
from completions.errors import CallEndedError, LLMServiceError
from completions.live.frames import Frames, error_of
from completions.models import State
from completions.streams import KeptRecord, Reader
from completions.types import Caller
from completions.v1.frames import usage_object
from providers.types import StreamChunk, Usage

logger = logging.getLogger(__name__)

KEPT_BYTES = 4 << 20  # of one stream's frames, for who comes back; beyond it, what was read is dropped
Owner = tuple[int, int | None, int | None]


def owner_of(caller: Caller) -> Owner:
    """Who may read a stream: the same key, or the same person in the same project."""
    return caller.project_id, caller.api_key_id, caller.user_id


class Mirror(Protocol):
    """Where a stream's frames go besides, so that other processes can serve them."""

    def changed(self, stream: "LiveStream") -> None: ...


class LiveStream:
    """The outlet of a run: its frames, its readers, and how long it goes on without any.

    `grace_seconds` after its last reader left, the call is ended.
    """

    def __init__(
        self,
        run: Answering,
        client_id: str,
        grace_seconds: float,
        mirror: Mirror | None,
        ended: Callable[["LiveStream"], None],
    ) -> None:
        self.id = run.id.hex
        self.client_id = client_id
        self.owner = owner_of(run.call.caller)
        self.run: Answering | None = run  # none once it has ended: its request may be large
        self.record: KeptRecord[str] = KeptRecord(KEPT_BYTES, str.__sizeof__)
        self._frames = Frames(client_id, self.id)
        self._grace_seconds = grace_seconds
        self._mirror = mirror
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._grace: asyncio.TimerHandle | None = None
        self._elsewhere_until = 0.0  # loop time: a reader at another process was heard of
        self._left_as = State.CLIENT_GONE
        self._ending: asyncio.Task[None] | None = None
        if mirror is not None:  # it can be read elsewhere from now on
            mirror.changed(self)

    # --- the run's outlet

    def put(self, items: Sequence[StreamChunk]) -> bool:
        frames = []
        if not self._frames.seq and self.run is not None:
            frames.append(self._frames.started(self.run.started()))
        frames += self._frames.deltas(items)
        room = self.record.put(frames)
        if self._mirror is not None:
            self._mirror.changed(self)
        return room

    async def room(self) -> None:
        await self.record.room()

    def close(self) -> None:
        """The row is settled: what is left to be told is how it ended."""
        self._ending = self._loop.create_task(self._end(), context=Context())

    @property
    def over(self) -> bool:
        """Its last frame is there."""
        return self.record.closed

    async def _end(self) -> None:
        assert self.run is not None  # noqa: S101 - it ends once
        self.record.put(await self._last(self.run))
        self.record.close()
        self.run = None
        if self._grace is not None:
            self._grace.cancel()
        if self._mirror is not None:
            self._mirror.changed(self)
        self._ended(self)

    async def _last(self, run: Answering) -> list[str]:
        frames = self._frames
        try:
            return self._finished(await run.outcome())
        except CallEndedError as error:
            cancelled = self._left_as is State.CANCELLED
            return [frames.cancelled() if cancelled else frames.error(error_of(error))]
        except LLMServiceError as error:
            return [frames.error(error_of(error))]
        except Exception:
            logger.exception("unexpected error in a stream")
            fault = LLMServiceError("Something went wrong inside the hub. Its log says what.")
            return [frames.error(error_of(fault))]

    def _finished(self, result: Result) -> list[str]:
        usage = usage_object(result.usage or Usage())
        return [
            self._frames.usage(usage, result.cost_nano),
            self._frames.done(result.finish_reason),
        ]

    # --- readers

    def attach(self, place: int = 0) -> Reader[str]:
        """A reader from frame `place` on."""
        if self._left_as is State.CLIENT_SLOW:
            self._left_as = State.CLIENT_GONE
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        return self.record.reader(place)

    def detach(self, reader: Reader[str], *, slow: bool = False) -> None:
        """A reader left. The call ends a while after the last one did, as its row then says."""
        reader.leave()
        if slow and self._left_as is State.CLIENT_GONE:
            self._left_as = State.CLIENT_SLOW
        if not self.record.readers and not self.over and self._grace is None:
            self._grace = self._loop.call_later(self._grace_seconds, self._end_unread)

    def heard_elsewhere(self, seconds: float) -> None:
        """Somebody reads it at another process, and says so again within `seconds`."""
        self._elsewhere_until = self._loop.time() + seconds

    def cancel(self) -> None:
        """Its reader wants no more of it."""
        self._left_as = State.CANCELLED
        self._stop()

    def _end_unread(self) -> None:
        left = self._elsewhere_until - self._loop.time()
        if left > 0:
            self._grace = self._loop.call_later(left + self._grace_seconds, self._end_unread)
        else:
            self._stop()

    def _stop(self) -> None:
        if self.run is not None:
            self.run.stop(self._left_as)
