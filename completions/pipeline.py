"""The pipeline: the one way of every call, whatever surface it comes through.

admission (model, limits, budgets) -> row and holds (ONE commit) -> dispatch (candidates in order) -> meter
-> settlement (ONE commit) -> last event

The pump is a task of its own. Who reads its answer may go away: then the upstream is cancelled, what was
received is settled, and the row says so.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextvars import Context
from typing import Any, Protocol

from completions import ledger, revocation, running
from completions.admission import Admission, admission, tightened
from completions.errors import BudgetExceededError, CallEndedError, LLMServiceError, service_error
from completions.limits import limiter
from completions.meter import Meter
from completions.models import State
from completions.outcome import Failure, Outcome, observe, state_of
from completions.streams import Tape
from completions.tasks import unbroken
from completions.types import Call, Delta, Done, LLMResponse, Started, StreamEvent
from providers.dispatch import Dispatch
from providers.errors import ProviderMisconfigured, UpstreamError
from providers.types import StreamChunk

SLOW_SECONDS = 60.0
ENDED = "The call was ended before its answer was complete."


class Outlet(Protocol):
    """Where the chunks of a streamed call go; `close` says that no more will come, and its row is settled."""

    def put(self, items: Sequence[StreamChunk]) -> bool: ...

    async def room(self) -> None: ...

    def close(self) -> None: ...


async def start(call: Call, outlet: "Callable[[Run], Outlet] | None" = None) -> "Run":
    """The running call. Raises LLMServiceError when it may not be made.

    Its chunks go to the `outlet` made for it, else to a tape that `Run.reader` reads.
    """
    running.admit()
    began = time.monotonic()
    return Run(call, await admission(call, ledger.new_id()), began, outlet)


class Run:
    """One call on its way. `answer()` is the whole; a stream comes by its `reader`, or as `events()`."""

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

    async def answer(self) -> LLMResponse:
        """The whole answer, settled. Raises LLMServiceError. Cancelling the wait cancels the call."""
        outcome = await self.outcome()
        return outcome.response(self.model, self.id, self.admission.grant.standings)

    async def outcome(self) -> Outcome:
        """What became of it, settled: as `answer`, for who needs no more than what the ledger got."""
        if self._pump is None:  # nobody reads it piece by piece: the waiting task is the pump
            self._pump = asyncio.current_task()
            return await self._run()
        try:
            return await asyncio.shield(self._pump)
        except asyncio.CancelledError:
            await self.cancel(State.CLIENT_GONE)
            raise

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        """Started, deltas, Done: the last only after the row is settled. Raises LLMServiceError.

        Closing the generator before its end cancels the call.
        """
        started = False
        try:
            while chunks := await self.reader.read():
                if not started:
                    started = True
                    yield self.started()
                for chunk in chunks:
                    if chunk.content or chunk.reasoning or chunk.tool_calls:
                        yield Delta(chunk.content, chunk.reasoning, chunk.tool_calls)
            yield Done(await self.answer())
        finally:
            await self.cancel(State.CLIENT_GONE)

    def started(self) -> Started:
        """Who answers. To be asked once the first chunk is there."""
        target = self.dispatch.target or self.dispatch.targets[0]
        standings = self.admission.grant.standings
        return Started(self.id, self.model, target.endpoint.provider, self.dispatch.attempts, standings)

    @property
    def model(self) -> str:
        return self.call.model or (self.dispatch.target or self.dispatch.targets[0]).public_model

    # --- ending it

    def stop(self, state: State) -> None:
        """End the call as `state` if it still runs. What the ledger does is never interrupted."""
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

    async def _run(self) -> Outcome:
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
        return outcome

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
