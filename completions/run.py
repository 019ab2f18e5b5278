"""A call to the upstream: the row and its holds, the answer, the settlement.

The pump is a task of its own. Who reads its answer may go away: then the upstream is cancelled, what was
received is settled, and the row says so.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence

from completions import ledger, metrics, revocation, running
from completions.admission import Admission, tightened
from completions.answering import Cached, Result
from completions.errors import BudgetExceededError, LLMServiceError, service_error
from completions.ledger.writer import note_call
from completions.limits import limiter
from completions.meter import Meter
from completions.models import State
from completions.outcome import Failure, Outcome, observe, state_of
from completions.pumped import OutletOf, Pumped
from completions.tasks import unbroken
from completions.types import Call
from providers.dispatch import Dispatch, Tried
from providers.errors import ProviderMisconfigured, UpstreamError
from providers.types import Answer, StreamChunk, Target, Usage

logger = logging.getLogger(__name__)

SLOW_SECONDS = 60.0


class Run(Pumped):
    """A call to the upstream, on its way."""

    def __init__(self, call: Call, admitted: Admission, began: float, outlet: OutletOf | None = None) -> None:
        self._began = began  # monotonic: when it was asked for
        self.id = admitted.opening.id
        self.admission = admitted
        self.grant = admitted.grant
        self.cached = Cached.BYPASS
        self.saved_nano = 0  # by parts of the answer that were known
        self.meter = Meter(admitted.prompt)
        self.dispatch = Dispatch(
            admitted.targets, call.operation, call.body, call.timeout_seconds, tried=_Noted(self.id)
        )
        self._used = 0  # tokens, for the key's limit
        super().__init__(call, outlet)

    # --- who answers

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
            revocation.unwatch(self, revocation.bond_of(self.call.caller))
            limiter().give_back(self.grant, self._used)
            self._finish()
        if (ending := self._ending()) is not None:
            raise ending
        if outcome.failure is not None:
            raise _told(outcome.failure, self.dispatch) from outcome.failure
        if outcome.fault is not None:
            raise outcome.fault
        return outcome.result()

    async def _entered(self, opening: ledger.Opening) -> Outcome:
        """The row, the answer, the settlement; and what all of it took, but for the upstream."""
        async with ledger.entry(opening) as entry:
            running.begin(self)
            revocation.watch(self, revocation.bond_of(self.call.caller))
            called = time.monotonic()
            outcome = await self._pulled(entry)
            answered = time.monotonic()
            await self._fill(entry, outcome)
        metrics.cache(self.cached.value).inc()
        observe(self.call, outcome, called - self._began + time.monotonic() - answered)
        return outcome

    async def _pulled(self, entry: ledger.Entry) -> Outcome:
        """Pull the answer, and how that ended: whatever happens, what was used until then is settled."""
        self._entry = entry
        entry.received(0)  # its progress is kept from here on
        try:
            await self._pull()
        except (UpstreamError, ProviderMisconfigured) as error:
            return self._ended_as(state_of(error), error)
        except asyncio.CancelledError:
            return self._ended_as(self._cancelled())
        except Exception as fault:
            logger.exception("call %s failed by the hub's own fault", self.id)
            return self._ended_as(State.UPSTREAM_ERROR, fault=fault)
        return self._ended_as(State.OK)

    def _ended_as(
        self, state: State, failure: Failure | None = None, fault: Exception | None = None
    ) -> Outcome:
        return Outcome(
            state, failure, self.meter, self.dispatch, fault, with_words=bool(self.admission.content_days)
        )

    async def _pull(self) -> None:
        """The one part that may be interrupted."""
        if self._left is not None:
            raise asyncio.CancelledError
        self._pulling = True
        try:
            if self.call.stream:
                await self.dispatch.stream(self)
            else:
                self._answered(await self.dispatch.complete())
        finally:
            self._pulling = False

    def _answered(self, answer: Answer) -> None:
        try:
            self.meter.answer(answer)
        except Exception:
            self._state_usage(answer.usage, anomaly=answer.usage_anomaly)
            raise

    def put(self, chunks: Sequence[StreamChunk]) -> bool:
        """Chunks from the upstream (as its `Sink`): metered, and on to whoever reads."""
        meter = self.meter
        try:
            for chunk in chunks:
                meter.chunk(chunk)
        except Exception:
            for chunk in chunks:
                self._state_usage(chunk.usage, anomaly=chunk.usage_anomaly)
            raise
        self._entry.received(meter.received)
        return self._outlet.put(chunks)

    def _state_usage(self, usage: Usage | None, *, anomaly: bool) -> None:
        """The upstream's own figures count, though the rest of what it said cannot be read."""
        if usage is not None or anomaly:
            self.meter.chunk(StreamChunk({}, usage=usage, usage_anomaly=anomaly))

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
        if self.cached is not Cached.BYPASS:
            entry.final |= {"cache": self.cached.value, "saved_nano_usd": self.saved_nano}
        self._used = (entry.final["prompt_tokens"] or 0) + (entry.final["completion_tokens"] or 0)
        entry.content = outcome.content(self.call, self.admission.content_days)


class _Noted(list[Tried]):
    """The upstream calls of a dispatch, each noted as it begins: who recovers the row has to know where to.

    It knows the call by its id alone: a cycle of references would leave every call to the garbage collector.
    """

    def __init__(self, call: uuid.UUID) -> None:
        super().__init__()
        self._call = call

    def append(self, tried: Tried) -> None:
        super().append(tried)
        note_call(self._call, len(self), tried.target.model_id)


def _told(failure: Failure, dispatch: Dispatch) -> LLMServiceError:
    """What the caller is told; after several attempts, another of its own helps nobody."""
    error = service_error(failure)
    error.details["attempts"] = dispatch.attempts
    return error
