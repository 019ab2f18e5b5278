"""A call to the upstream: the row and its holds, the answer, the settlement.

The pump is a task of its own. Who reads its answer may go away: then the upstream is cancelled, what was
received is settled, and the row says so.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

from completions import ledger, revocation, running
from completions.admission import Admission, tightened
from completions.answering import Answering, Cached, Outlet, Result
from completions.errors import BudgetExceededError, CallEndedError, LLMServiceError, service_error
from completions.limits import limiter
from completions.meter import Meter
from completions.models import State
from completions.outcome import Failure, Outcome, observe, state_of
from completions.streams import Tape
from completions.tasks import unbroken
from completions.types import Call
from providers.dispatch import Dispatch
from providers.errors import ProviderMisconfigured, UpstreamError
from providers.types import StreamChunk, Target

SLOW_SECONDS = 60.0
ENDED = "The call was ended before its answer was complete."


class Run(Answering):
    """A call to the upstream, on its way."""

    def __init__(
        self,
        call: Call,
        admitted: Admission,
        began: float,
        outlet: "Callable[[Run], Outlet] | None" = None,
    ) -> None:
        self.call = call
        self._began = began  # monotonic: when it was asked for
        self.id = admitted.opening.id
        self.admission = admitted
        self.grant = admitted.grant
        self.cached = Cached.BYPASS
        self.meter = Meter(admitted.prompt)
        self.dispatch = Dispatch(admitted.targets, call.operation, call.body, call.timeout_seconds)
        tape = Tape()
        self.reader = tape.reader()
        self._outlet: Outlet = tape if outlet is None else outlet(self)
        self._left: State | None = None  # it is to end so
        self._interrupted = False  # the task that waits for it was cancelled
        self._pulling = False
        self._ended = False
        self._used = 0  # tokens, for the key's limit
        self._refused: LLMServiceError | None = None
        self._pump: asyncio.Task[Any] | None = None
        self._over: asyncio.Future[None] | None = None  # for who waits for the end beside the pump
        if call.stream:
            # An empty context: the one here is a request's, whose thread may be gone before the call is over.
            self._pump = asyncio.get_running_loop().create_task(self._run(), context=Context())
            self._pump.add_done_callback(_retrieve)

    # --- reading

    async def outcome(self) -> Result:
        if self._pump is None:  # nobody reads it piece by piece: the waiting task is the pump
            self._pump = asyncio.current_task()
            return await self._run()
        try:
            return await asyncio.shield(self._pump)
        except asyncio.CancelledError:
            await self.cancel(State.CLIENT_GONE)
            raise

    @property
    def provider(self) -> str:
        return self._target.endpoint.provider

    @property
    def public_model(self) -> str:
        return self._target.public_model

    @property
    def attempts(self) -> int:
        return self.dispatch.attempts

    @property
    def _target(self) -> Target:
        return self.dispatch.target or self.dispatch.targets[0]

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

    # --- the pump

    async def _run(self) -> Result:
        """From the row to its settlement, exactly once; the key's limits are corrected at the end."""
        try:
            try:
                outcome = await self._entered(self.admission.opening)
            except BudgetExceededError:
                if (tighter := await tightened(self.admission, self.call)) is None:
                    raise
                outcome = await self._entered(tighter)
        finally:
            running.end(self)
            revocation.unwatch(self, self.call.caller.api_key_id)
            self._outlet.close()
            limiter().give_back(self.admission.grant, self._used)
            self._ended = True
            if self._over is not None:
                self._over.set_result(None)
        if self._left is not None:
            raise self._refused or (asyncio.CancelledError if self._interrupted else CallEndedError(ENDED))
        if outcome.failure is not None:
            raise _told(outcome.failure, self.dispatch) from outcome.failure
        return outcome.result()

    async def _entered(self, opening: ledger.Opening) -> Outcome:
        """The row, the answer, the settlement; and what all of it took, but for the upstream."""
        async with ledger.entry(opening) as entry:
            running.begin(self)
            revocation.watch(self, self.call.caller.api_key_id)
            called = time.monotonic()
            state, failure = await self._pulled(entry)
            answered = time.monotonic()
            outcome = Outcome(state, failure, self.meter, self.dispatch)
            await self._fill(entry, outcome)
        observe(self.call, outcome, called - self._began + time.monotonic() - answered)
        return outcome

    async def _pulled(self, entry: ledger.Entry) -> tuple[State, Failure | None]:
        """Pull the answer, and how that ended."""
        self._entry = entry
        try:
            await self._pull()
        except (UpstreamError, ProviderMisconfigured) as error:
            return state_of(error), error
        except asyncio.CancelledError:
            return self._cancelled(), None
        except Exception:
            entry.final["error_code"] = "internal_error"
            raise
        return State.OK, None

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

    async def _pull(self) -> None:
        """The one part that may be interrupted."""
        if self._left is not None:
            raise asyncio.CancelledError
        self._pulling = True
        try:
            if self.call.stream:
                await self.dispatch.stream(self)
            else:
                self.meter.answer(await self.dispatch.complete())
        finally:
            self._pulling = False

    def put(self, chunks: Sequence[StreamChunk]) -> bool:
        """Chunks from the upstream (as its `Sink`): metered, and on to whoever reads."""
        meter = self.meter
        for chunk in chunks:
            meter.chunk(chunk)
        self._entry.received(meter.received)
        return self._outlet.put(chunks)

    async def room(self) -> None:
        """Wait for a slow reader. One that takes nothing for SLOW_SECONDS is left."""
        try:
            async with asyncio.timeout(SLOW_SECONDS):
                await self._outlet.room()
        except TimeoutError:
            self.stop(State.CLIENT_SLOW)

    async def _fill(self, entry: ledger.Entry, outcome: Outcome) -> None:
        """The outcome as the ledger's entry."""
        if outcome.must_tokenize:
            _, cancelled = await unbroken(asyncio.to_thread(outcome.count))
            if cancelled is not None:
                self._interrupt()
        else:
            outcome.count()
        entry.attempts = outcome.attempts()
        entry.final = outcome.final(entry.attempts)
        self._used = (entry.final["prompt_tokens"] or 0) + (entry.final["completion_tokens"] or 0)
        entry.content = outcome.content(self.call, self.admission.content_days)


def _told(failure: Failure, dispatch: Dispatch) -> LLMServiceError:
    """What the caller is told; after several attempts, another of its own helps nobody."""
    error = service_error(failure)
    error.details["attempts"] = dispatch.attempts
    return error


def _retrieve(pump: "asyncio.Task[Any]") -> None:
    """Look at a finished pump's outcome, so that asyncio does not complain when its reader has left."""
    if not pump.cancelled():
        pump.exception()
