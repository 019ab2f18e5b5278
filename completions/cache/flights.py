"""One upstream call for equal calls that run at the same time: within this process, and across processes.

Across processes by a lease in Redis, renewed while the call runs. Who does not get it waits for the answer to
lie in the store; if the lease ends without one, it makes the call itself.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from django.conf import settings

from completions import running
from completions.admission import Admission
from completions.answering import Cached, Result
from completions.cache import index
from completions.cache.entry import Entry, each, packed
from completions.cache.index import Kept
from completions.cache.policy import Plan
from completions.cache.stores import store
from completions.errors import AuthenticationError, CallEndedError, LLMServiceError
from completions.models import State
from completions.run import Run
from completions.streams import KeptRecord, Reader
from completions.tasks import background
from completions.types import Call
from providers.loops import PerLoop
from providers.types import JSON, StreamChunk, Usage

LEASE_SECONDS = 10.0
RENEWALS = 3  # per lease: two may fail
LOOK_SECONDS = 0.1  # how often it is looked whether another process has the answer
JITTER = 0.1  # of an answer's time is taken off at random: what came together does not end together
CHUNK_BYTES = 400  # that a chunk takes beside its text
LEAST_TAPE_BYTES = 1 << 18  # that a flight keeps of a stream, however small an entry may be
PATIENCE_SECONDS = 2.0  # that the riders of a flight wait for those who read more slowly
# What a stream's pieces may bring if the answer is to be put together of them again, as the meter does it.
REBUILT = frozenset(("role", "content", "reasoning_content", "reasoning", "tool_calls"))
REBUILT_CALL = frozenset(("index", "id", "type", "function"))
REBUILT_FUNCTION = frozenset(("name", "arguments"))


class LeftBehindError(Exception):
    """A reader so slow that the others could not wait for it."""


class FlightTape(KeptRecord[StreamChunk]):
    """The chunks of a flight: all of them, for who comes late, up to a size.

    Beyond it, the oldest are dropped that all have read. Slow readers are waited for, PATIENCE_SECONDS in
    all; then nothing is kept any more that the fastest has read, and who has not is left behind.
    """

    def __init__(self) -> None:
        super().__init__(max(settings.LLMHUB_CACHE_ENTRY_BYTES, LEAST_TAPE_BYTES), _weight)
        self.is_rebuilt = True  # the answer can be put together again
        self._patience = PATIENCE_SECONDS

    def put(self, items: Sequence[StreamChunk]) -> bool:
        if self.is_rebuilt:
            self.is_rebuilt = all(map(_is_rebuilt, items))
        return super().put(items)

    async def room(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._patience):
                await super().room()
        except TimeoutError:
            self._patience = 0.0
            await super().room()
        else:
            self._patience -= min(loop.time() - began, self._patience)

    def take(self, reader: Reader[StreamChunk]) -> list[StreamChunk]:
        if reader.place < self.first:
            raise LeftBehindError
        return super().take(reader)

    def _droppable(self) -> int:
        places = [reader.place for reader in self._readers] or [self.end]
        return min(places) if self._patience else max(places)


class SharedRun(Run):
    """The upstream call of a flight. Its riders are told one by one that their keys are revoked."""

    async def fail(self, error: LLMServiceError, state: State = State.CANCELLED) -> None:
        if not isinstance(error, AuthenticationError):
            await super().fail(error, state)


class Question(NamedTuple):
    """What is asked of an upstream, and how its answer is kept and found."""

    key: str
    parts: Sequence[str]  # the keys of the entries that make up the answer
    call: Call
    admitted: Admission
    plan: Plan
    given: Callable[[Sequence[Entry]], Result]  # the answer, from its entries
    kept: Callable[["Question", Run, Result], Sequence[Kept]]
    saved_nano: int = 0  # by what of the answer is known already


class Flight:
    """An upstream call on its way, and who rides on it. It ends when the last of them has left."""

    def __init__(self, question: Question, began: float, cached: Cached = Cached.MISS) -> None:
        self.question = question
        self.tape = FlightTape()
        self.run: Run | None = None  # none: the answer came from another process
        self.source: Entry | None = None  # … and was this, or begins with it
        self.source_nano = 0  # … and cost so much there
        self._began = began
        self._asked_at = time.time()
        self._cached = cached
        self._riders = 0
        self._failure: LLMServiceError | None = None
        self.task = background(self._fly())

    @property
    def can_be_joined(self) -> bool:
        """Whether who comes now gets all of it."""
        return not self.tape.first and not self.task.done()

    def join(self) -> None:
        self._riders += 1

    async def leave(self, state: State) -> None:
        """A rider is gone; the last one takes the call with it, and sees its row settled."""
        self._riders -= 1
        if self._riders:
            return
        if self.run is not None:
            self.run.stop(state)
        else:
            self.task.cancel()
        await asyncio.wait([self.task])

    async def fail(self, error: LLMServiceError, state: State = State.CANCELLED) -> None:
        """While it waits for another process: who rides on it gets the error."""
        if self.run is not None:  # it waits no more
            await self.run.fail(error, state)
            return
        self._failure = error
        self.task.cancel()
        await asyncio.wait([self.task])

    # --- the call

    async def _fly(self) -> Result:
        beat: asyncio.Task[Any] | None = None
        token = None
        try:
            token = await self._lease()
            if token is None:
                assert self.source is not None  # noqa: S101 - found by `_lease`
                return self._given
            beat = background(self._beat(token))
            return await self._called()
        except asyncio.CancelledError:
            if self._failure is not None:
                raise self._failure from None
            raise
        finally:
            self.tape.close()
            if beat is not None:
                beat.cancel()
            if _flights.get().get(self.question.key) is self:
                del _flights.get()[self.question.key]
            if token is not None:
                await store().release(self.question.key, token)

    async def _called(self) -> Result:
        question = self.question
        outlet = (lambda _: self.tape) if question.call.stream else None
        self.run = run = SharedRun(question.call, question.admitted, self._began, outlet)
        run.cached, run.saved_nano = self._cached, question.saved_nano
        try:
            result = await run.outcome()
        except asyncio.CancelledError:  # it was stopped; the pump of a whole answer was this task
            raise CallEndedError("The call was ended before its answer was complete.") from None
        if run.dispatch.target is question.plan.target and self.tape.is_rebuilt:
            await keep(question.kept(question, run, result))
        return result

    async def _lease(self) -> str | None:
        """A token, once this process may make the call; None: another one has made it meanwhile."""
        while True:
            token = await store().lease(self.question.key, LEASE_SECONDS)
            if token is not None:
                return token
            await self._wait_for_another()
            found = await store().get(self.question.parts)
            entries = [entry for entry in found if entry is not None and self._is_news(entry)]
            if len(entries) == len(self.question.parts):
                self.source, self._given = entries[0], self.question.given(entries)
                self.source_nano = sum(entry.cost_nano or 0 for entry in entries)
                return None

    async def _wait_for_another(self) -> None:
        """Until the process that makes this call has made it, or is dead."""
        running.begin(self)
        try:
            while await store().is_leased(self.question.key):  # noqa: ASYNC110 - no event crosses machines
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            running.end(self)

    def _is_news(self, entry: Entry) -> bool:
        now = time.time()
        return entry.stored >= self._asked_at or (self.question.plan.reads and entry.fresh_until > now)

    async def _beat(self, token: str) -> None:
        while token != "only":  # noqa: S105 - the memory's word for no other process
            await asyncio.sleep(LEASE_SECONDS / RENEWALS)
            await store().renew(self.question.key, token, LEASE_SECONDS)


async def keep(kept: Sequence[Kept]) -> None:
    """Store entries, and have their rows written; what is too large is left out.

    While so many rows wait for the database that no more can, nothing is stored: it could not be purged.
    """
    if index.is_full():
        return
    now, most = time.time(), settings.LLMHUB_CACHE_ENTRY_BYTES
    stored: list[tuple[str, bytes, float]] = []
    fitting = []
    entries = [one.entry for one in kept]
    for one, data in zip(kept, await each(packed, entries), strict=True):
        one.size = len(data)
        if one.size <= most:
            fitting.append(one)
            stored.append((one.key, data, one.entry.stale_until - now))
    if stored:
        await store().put(stored)
        index.note_stored(fitting)


def new_entry(question: Question, run: Run, body: JSON, usage: Usage | None, cost_nano: int | None) -> Entry:
    """What a call brought just now, as it is kept."""
    plan, caller, now = question.plan, question.call.caller, time.time()
    fresh = now + plan.ttl_seconds * (1 - JITTER * random.random())  # noqa: S311 - no secret
    return Entry(
        body=body,
        usage=usage,
        cost_nano=cost_nano,
        finish_reason=run.meter.finish_reason,
        call=run.id,
        provider=plan.target.endpoint.provider,
        public_model=plan.target.public_model,
        project_id=caller.project_id,
        api_key_id=caller.api_key_id,
        stored=now,
        fresh_until=fresh,
        stale_until=fresh + plan.stale_seconds,
    )


def flight_of(question: Question, began: float, cached: Cached, *, alone: bool = False) -> Flight:
    """The flight to ride on: one that is under way, or a new one; `alone`: a new one nobody else joins."""
    flights = _flights.get()
    found = flights.get(question.key)
    if found is None or not found.can_be_joined or alone:
        found = Flight(question, began, cached)
        if not alone:
            flights[question.key] = found
    return found


def is_under_way(key: str) -> bool:
    """Whether a call with this key is being made here."""
    return key in _flights.get()


def _weight(chunk: StreamChunk) -> int:
    called = len(str(chunk.tool_calls)) if chunk.tool_calls else 0
    return CHUNK_BYTES + len(chunk.content) + len(chunk.reasoning) + called


def _is_rebuilt(chunk: StreamChunk) -> bool:
    """Whether it brings nothing that the meter does not gather: a refusal, citations, audio …"""
    for choice in chunk.body.get("choices") or ():
        delta = choice.get("delta") or {}
        if choice.get("logprobs") or any(delta[name] for name in delta.keys() - REBUILT):
            return False
        if (calls := delta.get("tool_calls")) and not all(map(_is_rebuilt_call, calls)):
            return False
    return True


def _is_rebuilt_call(call: Any) -> bool:
    """Whether it is a function's: no tool of another kind, no vendor's signature beside it."""
    if not isinstance(call, dict) or call.get("type") not in (None, "function"):
        return False
    function = call.get("function") or {}
    if not isinstance(function, dict):
        return False
    if not all(isinstance(function.get(name) or "", str) for name in REBUILT_FUNCTION):
        return False
    others = [call[name] for name in call.keys() - REBUILT_CALL]
    others += [function[name] for name in function.keys() - REBUILT_FUNCTION]
    return not any(others)


_flights: PerLoop[dict[str, Flight]] = PerLoop(dict)
