"""Answers that are given without an upstream call of their own: kept ones, and those of an equal call."""

import asyncio
import builtins
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from completions import content, errors, ledger, metrics, revocation, running
from completions.admission import Admission
from completions.answering import Cached, Result
from completions.cache import index
from completions.cache.entry import Entry, chunks_of
from completions.cache.flights import Flight, LeftBehindError, Question, flight_of
from completions.errors import CallEndedError, LLMServiceError
from completions.limits import limiter
from completions.models import State
from completions.outcome import WORDS_NOT_KEPT
from completions.pumped import OutletOf, Pumped
from completions.run import SLOW_SECONDS
from completions.types import Call
from providers.types import StreamChunk, Target

MOST_TRIES = 3  # of a call whose leader failed before anything came
# What may be only the leader's: then others try again. A budget's refusal is told to each by its own.
WORTH_ANOTHER = (
    errors.BudgetExceededError,
    errors.AuthenticationError,
    errors.CallEndedError,
    errors.ProviderError,
    errors.TimeoutError,
)


GIVEN = (State.OK, State.COALESCED)  # the call has its answer


class Origin(NamedTuple):
    """The call that brought the answer, and what it cost."""

    call: uuid.UUID
    cost_nano: int | None


class Given(Pumped):
    """A call with a row of its own, final when it is written, that costs nothing."""

    def __init__(self, call: Call, admitted: Admission, began: float, outlet: OutletOf | None) -> None:
        self.id = admitted.opening.id
        self.admission = admitted
        self.grant = admitted.grant
        self._began = began
        self._first_ms: int | None = None
        self._begun = False  # drains and revocations end it, too
        super().__init__(call, outlet)

    @property
    def _target(self) -> Target:
        return self.admission.targets[0]

    @property
    def provider(self) -> str:
        return self._target.endpoint.provider

    @property
    def public_model(self) -> str:
        return self._target.public_model

    async def _tell(self, chunks: Sequence[StreamChunk]) -> None:
        """Chunks to whoever reads; the bodies are each reader's own, to be changed as it likes."""
        if self._first_ms is None:
            self._first_ms = self._elapsed_ms()
        if self._outlet.put([chunk._replace(body={**chunk.body}) for chunk in chunks]):
            return
        try:
            async with asyncio.timeout(SLOW_SECONDS):
                await self._outlet.room()
        except builtins.TimeoutError:
            self._left = self._left or State.CLIENT_SLOW
            raise asyncio.CancelledError from None

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._began) * 1000)

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            running.begin(self)
            revocation.watch(self, revocation.bond_of(self.call.caller))

    def _end(self) -> None:
        if self._begun:
            self._begun = False
            running.end(self)
            revocation.unwatch(self, revocation.bond_of(self.call.caller))

    async def _post(
        self,
        state: State,
        origin: Origin | None,
        result: Result | None = None,
        error: LLMServiceError | None = None,
    ) -> None:
        """The row."""
        target = self._target
        provider = target.endpoint.provider
        saved = 0 if state not in GIVEN or origin is None else origin.cost_nano or 0
        final: ledger.Row = {
            "state": state,
            "provider_id": target.provider_id,
            "provider_slug": provider,
            "language_model_id": target.model_id,
            "model": target.upstream_model,
            "finish_reason": ((result.finish_reason if result else None) or "")[:32],
            "first_token_ms": self._first_ms,
            "latency_ms": self._elapsed_ms(),
            "cost_nano_usd": 0,
            "prices": "",
            "price_source": "",
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "cache": self.cached.value,
            "saved_nano_usd": saved,
            "cached_from": origin.call if origin is not None else None,
            "error_code": error.code.lower() if error is not None else "",
            "error_message": _kept_message(error, self.admission.content_days),
        }
        written = None
        if self.admission.content_days:
            written = {
                "request": self.call.raw or self.call.body,
                "response": result.message if result is not None else {},
                "expires_at": content.expires_at(self.admission.content_days),
            }
        if await ledger.post(self.admission.opening._replace(hold_nano=0), final, written) is not None:
            self._interrupt()
        operation = self.call.operation.value
        metrics.requests(operation, provider, target.upstream_model, state.value).inc()
        metrics.duration(operation).observe(final["latency_ms"] / 1000)
        metrics.cache(self.cached.value).inc()


class Hit(Given):
    """A kept answer. `entries`: what it is made of."""

    def __init__(
        self,
        call: Call,
        admitted: Admission,
        began: float,
        outlet: OutletOf | None,
        kept: tuple[Sequence[str], Sequence[Entry], Result],
        cached: Cached = Cached.HIT,
    ) -> None:
        self._keys, self._entries, self._result = kept
        self.cached = cached
        self.age_seconds = max(entry.age_seconds for entry in self._entries)
        super().__init__(call, admitted, began, outlet)

    async def _run(self) -> Result:
        saved = sum(entry.cost_nano or 0 for entry in self._entries)
        try:
            state = State.OK if self._left is None else self._left
            if self.call.stream and self._left is None:
                state = await self._told()
            await self._post(state, Origin(self._entries[0].call, saved), self._result)
        finally:
            self._end()
            limiter().give_back(self.grant, 0)
            self._finish()
        if (ending := self._ending()) is not None:
            raise ending
        index.note_hits(zip(self._keys, self._entries, strict=True))
        self._result.latency_ms = self._elapsed_ms()
        return self._result

    async def _told(self) -> State:
        self._begin()
        self._pulling = True
        try:
            await self._tell(chunks_of(self._result.body, self.call.operation, self._result.usage))
        except asyncio.CancelledError:
            return self._cancelled()
        finally:
            self._pulling = False
        return State.OK


class Rider(Given):
    """A call that shares its upstream call with equal ones. Who came first leads: the cost is in its row.

    `dress` makes this call's own answer of what the upstream gave.
    """

    def __init__(
        self,
        call: Call,
        question: Question,
        began: float,
        outlet: OutletOf | None,
        cached: Cached = Cached.MISS,
        dress: Callable[[Result], Result] | None = None,
    ) -> None:
        self.cached = cached
        self._leading = cached  # what it is called while it leads
        self._question = question
        self._dress = dress
        self._flight: Flight | None = None
        self._told = False
        self._origin: Origin | None = None
        super().__init__(call, question.admitted, began, outlet)

    @property
    def leads(self) -> bool:
        """Whether the upstream call, and its row, are this call's."""
        run = self._flight.run if self._flight is not None else None
        return run is not None and run.id == self.id

    @property
    def _target(self) -> Target:
        run = self._flight.run if self._flight is not None else None
        return self.admission.targets[0] if run is None else run.dispatch.target or run.dispatch.targets[0]

    @property
    def attempts(self) -> int:
        run = self._flight.run if self._flight is not None and self.leads else None
        return 0 if run is None else run.attempts

    async def _run(self) -> Result:
        result: Result | None = None
        error: LLMServiceError | None = None
        state = State.COALESCED
        try:
            try:
                result = await self._in_time()
            except asyncio.CancelledError:
                state = self._cancelled()
            except LLMServiceError as failure:
                state, error = _state_of(failure), failure
            if not self.leads:
                await self._post(state, self._origin, result, error)
        finally:
            self._end()
            revocation.unwatch(self, revocation.bond_of(self.call.caller))
            if not self.leads:  # else its run has done so
                limiter().give_back(self.grant, 0)
            self._finish()
        if (ending := self._ending()) is not None:
            raise ending
        if error is not None:
            raise error
        assert result is not None  # noqa: S101 - else one of the above
        return result

    async def _in_time(self) -> Result:
        """`_ridden`, for as long as the call may take. While it leads, its run sees to that."""
        target = self.admission.targets[0]
        seconds = min(target.endpoint.timeouts.total, self.call.timeout_seconds or float("inf"))
        loop = asyncio.get_running_loop()

        def end() -> None:
            if not self.leads:
                limit.reschedule(loop.time())

        try:
            async with asyncio.timeout(None) as limit:
                waited = time.monotonic() - self._began
                timer = loop.call_later(max(seconds - waited, 0.0), end)
                try:
                    return await self._ridden()
                finally:
                    timer.cancel()
        except builtins.TimeoutError:
            raise errors.TimeoutError(
                f"An equal call was under way, and had no whole answer within {seconds:g} s.", phase="total"
            ) from None

    async def _ridden(self) -> Result:
        """The shared answer. One that fails before anything came is tried again with another leader."""
        alone = False
        for number in range(1, MOST_TRIES + 1):
            if self._left is not None:
                raise asyncio.CancelledError
            flight = self._board(alone=alone)
            try:
                return await self._ride(flight)
            except WORTH_ANOTHER as error:
                if self.leads or self._told or number == MOST_TRIES or self._refused is not None:
                    raise
                alone = isinstance(error, errors.BudgetExceededError)
        raise AssertionError("unreachable")

    def _board(self, *, alone: bool) -> Flight:
        flight = self._flight = flight_of(self._question, self._began, self._leading, alone=alone)
        mine = flight.question is self._question
        self.cached = self._leading if mine else Cached.COALESCED
        if mine:
            self._end()  # its run is counted
            revocation.watch(self, revocation.bond_of(self.call.caller))
        else:
            self._begin()
        flight.join()
        return flight

    async def _ride(self, flight: Flight) -> Result:
        self._pulling = True
        try:
            if self.call.stream:
                await self._relay(flight)
            mine = self._own(flight, await asyncio.shield(flight.task))
            if self.call.stream and not self._told:
                await self._tell(chunks_of(mine.body, self.call.operation, mine.usage))
            return mine
        except asyncio.CancelledError:
            if flight.task.cancelled() and self._left is None and not _is_cancelling():
                raise CallEndedError("The call was ended before its answer was complete.") from None
            await flight.leave(self._left or State.CLIENT_GONE)
            raise
        finally:
            self._pulling = False

    def _own(self, flight: Flight, result: Result) -> Result:
        """The shared answer as this call's own."""
        if flight.run is not None:
            self._origin = Origin(flight.run.id, (result.cost_nano or 0) + self._question.saved_nano)
        elif flight.source is not None:
            self.cached = Cached.COALESCED
            self._origin = Origin(flight.source.call, flight.source_nano + self._question.saved_nano)
        mine = replace(result, body={**result.body}, cost_nano=result.cost_nano if self.leads else 0)
        return mine if self._dress is None else self._dress(mine)

    async def _relay(self, flight: Flight) -> None:
        reader = flight.tape.reader(0)
        try:
            while chunks := await reader.read():
                self._told = True
                await self._tell(chunks)
        except LeftBehindError:
            self._left = self._left or State.CLIENT_SLOW
            raise asyncio.CancelledError from None
        finally:
            reader.leave()


def _state_of(error: LLMServiceError) -> State:
    return State.SHUTDOWN if error.details.get("reason") == "shutting_down" else State.UPSTREAM_ERROR


def _kept_message(error: LLMServiceError | None, content_days: int) -> str:
    """A provider's words may quote the prompt: they are kept where that is."""
    if error is None:
        return ""
    is_theirs = isinstance(error, errors.ProviderError | errors.InvalidRequestError)
    return error.message[:500] if content_days or not is_theirs else WORDS_NOT_KEPT


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
