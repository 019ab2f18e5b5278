"""The pipeline: the one way of every call, whatever surface it comes through.

admission (model, limits, budgets) -> row and holds (ONE commit) -> dispatch (candidates in order) -> meter
-> settlement (ONE commit) -> last event

The pump is a task of its own. Who reads its answer may go away: then the upstream is cancelled, what was
received is settled, and the row says so.
"""

import asyncio
from collections.abc import AsyncGenerator

from completions import ledger, revocation
from completions.admission import Admission, admission
from completions.errors import LLMServiceError, service_error
from completions.limits import limiter
from completions.meter import Meter
from completions.models import State
from completions.outcome import Outcome, state_of
from completions.streams import Buffer
from completions.tasks import unbroken
from completions.types import Call, Delta, Done, LLMResponse, Started, StreamEvent
from providers.dispatch import Dispatch
from providers.errors import ProviderMisconfigured, UpstreamError
from providers.types import StreamChunk

BUFFERED_CHUNKS = 64  # between the upstream and a slow reader


async def start(call: Call) -> "Run":
    """The running call, its row committed. Raises LLMServiceError when it may not be made."""
    call_id = ledger.new_id()
    run = Run(call, await admission(call, call_id))
    try:
        await asyncio.shield(run.admitted)
    except asyncio.CancelledError:
        await run.cancel(State.CLIENT_GONE)
        raise
    return run


class Run:
    """One call on its way. Read it once: `answer()` for the whole, or `events()` piece by piece."""

    def __init__(self, call: Call, admitted: Admission) -> None:
        self.call = call
        self.id = admitted.opening.id
        self.admission = admitted
        self.meter = Meter(call.body)
        self.dispatch = Dispatch(admitted.targets, call.body, call.timeout_seconds)
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._chunks: Buffer[StreamChunk] = Buffer(BUFFERED_CHUNKS)
        self._left = State.CLIENT_GONE
        self._used = 0  # tokens, for the key's limit
        self._refused: LLMServiceError | None = None
        self._pump = asyncio.create_task(self._run(), name=f"completion {self.id}")
        self._pump.add_done_callback(_retrieve)

    async def answer(self) -> LLMResponse:
        """The whole answer, settled. Raises LLMServiceError. Cancelling the wait cancels the call."""
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
            async for chunk in self._chunks:
                if not started:
                    started = True
                    yield self._started()
                if chunk.content or chunk.reasoning or chunk.tool_calls:
                    yield Delta(chunk.content, chunk.reasoning, chunk.tool_calls)
            yield Done(await asyncio.shield(self._pump))
        finally:
            await self.cancel(State.CLIENT_GONE)

    async def cancel(self, state: State) -> None:
        """End the call if it still runs, and wait until its row is settled as `state`."""
        if not self._pump.done() and not self._pump.cancelling():
            self._left = state
            self._pump.cancel()
        if not self._pump.done():
            await asyncio.wait([self._pump])

    async def fail(self, error: LLMServiceError) -> None:
        """End the call as cancelled; whoever reads it gets `error`."""
        if not self._pump.done():
            self._refused = error
        await self.cancel(State.CANCELLED)

    @property
    def model(self) -> str:
        return self.call.model or (self.dispatch.target or self.dispatch.targets[0]).public_model

    async def _run(self) -> LLMResponse:
        """The pump.

        From the row to its settlement, exactly once; the key's limits are corrected at the end.
        """
        key_id = self.call.caller.api_key_id
        try:
            async with ledger.entry(self.admission.opening) as entry:
                self.admitted.set_result(None)
                revocation.watch(self, key_id)
                return await self._settled(entry)
        except BaseException as error:
            if not self.admitted.done():
                self.admitted.set_exception(error)
                self.admitted.exception()  # it may be that nobody asks
            raise
        finally:
            revocation.unwatch(self, key_id)
            self._chunks.close()
            await unbroken(limiter().release(self.admission.grant, self._used))

    async def _settled(self, entry: ledger.Entry) -> LLMResponse:
        """Pull the answer and fill the ledger's entry with whatever came of it."""
        state, failure, cancelled = State.OK, None, None
        try:
            await self._pull(entry)
        except (UpstreamError, ProviderMisconfigured) as error:
            state, failure = state_of(error), error
        except asyncio.CancelledError as error:
            state, cancelled = self._left, error
        except Exception:
            entry.final |= {"error_code": "internal_error"}
            raise
        outcome = Outcome(state, failure, self.meter, self.dispatch)
        response, late = await unbroken(self._fill(entry, outcome))
        if (gone := cancelled or late) is not None:
            raise self._refused or gone
        if failure is not None:
            raise service_error(failure) from failure
        return response

    async def _pull(self, entry: ledger.Entry) -> None:
        if not self.call.stream:
            self.meter.answer(await self.dispatch.complete())
            return
        chunks = self.dispatch.stream()
        try:
            async for chunk in chunks:
                self.meter.chunk(chunk)
                entry.received(self.meter.received)
                await self._chunks.put(chunk)
        finally:
            await chunks.aclose()

    async def _fill(self, entry: ledger.Entry, outcome: Outcome) -> LLMResponse:
        """The outcome as the ledger's entry, and as the answer."""
        if outcome.must_tokenize:
            await asyncio.to_thread(outcome.count)
        else:
            outcome.count()
        entry.attempts = outcome.attempts()
        entry.final = outcome.final(entry.attempts)
        self._used = sum(entry.final[column] or 0 for column in ("prompt_tokens", "completion_tokens"))
        entry.content = outcome.content(self.call.body, self.admission.content_days)
        return outcome.response(entry.final, self.model, self.id, self.admission.grant.standings)

    def _started(self) -> Started:
        target = self.dispatch.target or self.dispatch.targets[0]
        standings = self.admission.grant.standings
        return Started(self.id, self.model, target.endpoint.provider, self.dispatch.attempts, standings)


def _retrieve(pump: "asyncio.Task[LLMResponse]") -> None:
    """Look at a finished pump's outcome, so that asyncio does not complain when its reader has left."""
    if not pump.cancelled():
        pump.exception()
