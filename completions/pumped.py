"""A call whose answer is brought by a task of its own, the pump; who reads the answer may go away."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

from completions.answering import Answering, Outlet, Result
from completions.errors import CallEndedError, LLMServiceError
from completions.models import State
from completions.streams import Tape
from completions.types import Call
from providers.types import StreamChunk

ENDED = "The call was ended before its answer was complete."
OutletOf = Callable[[Any], Outlet]  # makes the outlet of a call


class Nowhere:
    """The outlet of a call whose answer is given whole."""

    def put(self, items: Sequence[StreamChunk]) -> bool:
        return True

    async def room(self) -> None: ...

    def close(self) -> None: ...


NOWHERE = Nowhere()


class Pumped(Answering):
    """What every pump has in common: it is waited for, told to stop, and says when its row is settled.

    `_run` is the pump: it calls `_finish` once its row is settled, and raises `_ending()` if there is one.
    """

    def __init__(self, call: Call, outlet: OutletOf | None) -> None:
        self.call = call
        self._outlet: Outlet = NOWHERE
        if outlet is not None:
            self._outlet = outlet(self)
        elif call.stream:
            self._outlet = tape = Tape()
            self.reader = tape.reader()
        self._left: State | None = None  # it is to end so
        self._interrupted = False  # the task that waits for it was cancelled
        self._pulling = False  # it may be interrupted
        self._ended = False
        self._refused: LLMServiceError | None = None
        self._pump: asyncio.Task[Any] | None = None
        self._over: asyncio.Future[None] | None = None  # for who waits for the end beside the pump
        if call.stream:
            self._start()

    def _start(self) -> None:
        # An empty context: the one here is a request's, whose thread may be gone before the call is over.
        self._pump = asyncio.get_running_loop().create_task(self._run(), context=Context())
        self._pump.add_done_callback(_retrieve)

    @abstractmethod
    async def _run(self) -> Result:
        """From the row to its settlement, exactly once."""

    async def outcome(self) -> Result:
        if self._pump is None:  # nobody reads it piece by piece: the waiting task is the pump
            self._pump = asyncio.current_task()
            return await self._run()
        try:
            return await asyncio.shield(self._pump)
        except asyncio.CancelledError:
            await self.cancel(State.CLIENT_GONE)
            raise

    # --- ending it

    def stop(self, state: State) -> None:
        """What the ledger does is never interrupted."""
        if self._left is None and not self._ended:
            self._left = state
            if self._pulling and self._pump is not None:
                self._pump.cancel()

    async def cancel(self, state: State) -> None:
        """`stop()`, and wait until the row is settled."""
        self.stop(state)
        if not self._ended and self._pump is not None and self._pump is not asyncio.current_task():
            if self._over is None:
                self._over = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._over])

    async def fail(self, error: LLMServiceError, state: State = State.CANCELLED) -> None:
        """End the call as `state`; whoever reads it gets `error`."""
        if self._left is None and not self._ended:
            self._refused = error
        await self.cancel(state)

    # --- for the pump

    def _cancelled(self) -> State:
        """The state of a call whose pump was cancelled: by `stop`, or by who cancelled the waiting task."""
        if self._left is None:
            return self._interrupt()
        if self._pump is not None:
            self._pump.uncancel()  # it was only told to stop pulling
        return self._left

    def _interrupt(self) -> State:
        self._interrupted = True
        self._left = self._left or State.CLIENT_GONE
        return self._left

    def _finish(self) -> None:
        """The row is settled."""
        self._outlet.close()
        self._ended = True
        if self._over is not None:
            self._over.set_result(None)

    def _ending(self) -> BaseException | None:
        """What who waits for a call gets that was ended before its time; None where it was not."""
        if self._left is None:
            return None
        return self._refused or (asyncio.CancelledError() if self._interrupted else CallEndedError(ENDED))


def _retrieve(pump: "asyncio.Task[Any]") -> None:
    """Look at a finished pump's outcome, so that asyncio does not complain when its reader has left."""
    if not pump.cancelled():
        pump.exception()
