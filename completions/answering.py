"""A call as its surface sees it, however its answer comes: by the upstream, from the cache, with others."""

import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from completions.limits import Grant
from completions.models import State
from completions.types import Call, Delta, Done, LLMResponse, Metadata, Started, StreamEvent, Tokens
from providers import pricing
from providers.types import JSON, StreamChunk, Usage


class Cached(StrEnum):
    """What the cache did for a call: the header `x-llmhub-cache`, and the row's column."""

    HIT = "HIT"
    STALE = "STALE"  # a hit past its time, while a fresh answer is being fetched
    SEMANTIC = "SEMANTIC"  # the answer to another question that means the same
    COALESCED = "COALESCED"  # an equal call was under way: its answer
    MISS = "MISS"
    PARTIAL = "PARTIAL"  # some inputs of an embedding were known
    BYPASS = "BYPASS"  # the cache was not asked


@dataclass(slots=True)
class Result:
    """A whole answer, settled. `body` is in OpenAI's shape, with the upstream's own model name."""

    body: JSON
    message: JSON
    text: str
    usage: Usage | None
    cost_nano: int | None  # what this call cost; None: no price is known
    finish_reason: str | None
    latency_ms: int


class Reading(Protocol):
    """A place in the chunks of a stream."""

    silence_seconds: float | None

    @property
    def at_end(self) -> bool: ...

    async def read(self) -> list[StreamChunk]: ...


class Answering(ABC):
    """One call. A stream's chunks come by `reader`, or as `events()`; whoever stops reading cancels it."""

    call: Call
    id: uuid.UUID
    grant: Grant
    cached: Cached
    reader: Reading
    age_seconds: int | None = None  # of a kept answer
    similarity: float | None = None  # of the question that it answered, where that was another

    @abstractmethod
    async def outcome(self) -> Result:
        """The whole, settled. Raises LLMServiceError. Cancelling the wait ends the call."""

    @abstractmethod
    def stop(self, state: State) -> None:
        """Its reader is gone, or wants no more: end it as `state`, if it still runs."""

    @abstractmethod
    async def cancel(self, state: State) -> None:
        """`stop()`, and wait until its row is settled."""

    @property
    @abstractmethod
    def provider(self) -> str:
        """Slug of the provider that answers."""

    @property
    @abstractmethod
    def public_model(self) -> str:
        """What callers call the model that answers."""

    @property
    def attempts(self) -> int:
        """How many upstream calls were made for it."""
        return 0

    @property
    def model(self) -> str:
        """The model as the caller named it."""
        return self.call.model or self.public_model

    def started(self) -> Started:
        """Who answers. To be asked once the first chunk is there."""
        return Started(
            self.id,
            self.model,
            self.provider,
            self.attempts,
            self.cached.value,
            self.age_seconds,
            self.similarity,
            self.grant.standings,
        )

    async def answer(self) -> LLMResponse:
        """The whole answer as Python callers get it. Raises as `outcome`."""
        result = await self.outcome()
        usage, cost = result.usage or Usage(), result.cost_nano
        return LLMResponse(
            content=result.text,
            tokens=Tokens(usage.prompt, usage.completion, usage.total),
            metadata=Metadata(
                id=self.id,
                model=self.model,
                provider=self.provider,
                timestamp=datetime.now(UTC),
                latency_ms=result.latency_ms,
                cached=self.cached in FROM_CACHE,
                cost=None if cost is None else pricing.usd(cost),
                finish_reason=result.finish_reason,
                attempts=self.attempts,
                cache=self.cached.value,
                age_seconds=self.age_seconds,
                similarity=self.similarity,
                standings=self.grant.standings,
            ),
            message=result.message,
            usage=usage,
        )

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


FROM_CACHE = frozenset((Cached.HIT, Cached.STALE, Cached.SEMANTIC))


class Outlet(Protocol):
    """Where the chunks of a streamed call go; `close` says that no more will come, and its row is settled."""

    def put(self, items: Sequence[StreamChunk]) -> bool: ...

    async def room(self) -> None: ...

    def close(self) -> None: ...
