"""The pipeline: the one way of every call, whatever surface it comes through.

resolve -> admit (a committed row) -> dispatch (candidates in order) -> meter -> settle (committed) -> last
event

The pump is a task of its own. Who reads its answer may go away: then the upstream is cancelled, what was
received is settled, and the row says so.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from completions import ledger, tokens
from completions.errors import ModelNotFoundError, TokenLimitError, reason_of, service_error
from completions.meter import Meter
from completions.models import State
from completions.streams import Buffer
from completions.tasks import unbroken
from completions.types import Caller, Delta, Done, LLMResponse, Metadata, Started, StreamEvent, Tokens
from providers import pricing
from providers.dispatch import Dispatch
from providers.errors import (
    ProviderMisconfigured,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamTruncated,
)
from providers.registry import asnapshot
from providers.types import JSON, StreamChunk, Target, Usage

BUFFERED_CHUNKS = 64  # between the upstream and a slow reader


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked and ready: `body` is an OpenAI chat body without model and stream."""

    caller: Caller
    body: JSON
    model: str | None
    provider: str | None = None
    stream: bool = False
    timeout_seconds: float | None = None
    end_user: str = ""


async def start(call: Call) -> "Run":
    """The running call, its row committed. Raises LLMServiceError when it may not be made."""
    targets = (await asnapshot()).resolve(call.model, call.provider)
    if not targets:
        raise ModelNotFoundError(_no_model(call), param="model")
    run = Run(call, await _that_fit(targets, call.body))
    try:
        await asyncio.shield(run.admitted)
    except asyncio.CancelledError:
        await run.cancel(State.CLIENT_GONE)
        raise
    return run


def _no_model(call: Call) -> str:
    if call.model is None:
        return "No enabled provider has a default model. Staff add providers in the admin."
    return f"The model {call.model!r} does not exist or you do not have access to it."


async def _that_fit(targets: Sequence[Target], body: JSON) -> list[Target]:
    """The candidates whose context window holds the prompt. Raises TokenLimitError when none does.

    A token is at least one byte, so a short prompt needs no counting; an estimated count refuses nobody.
    """
    messages, tools = body["messages"], body.get("tools")
    size = tokens.upper_bound(messages, tools)
    fitting = [target for target in targets if target.context_window is None or size <= target.context_window]
    for target in targets:
        if target in fitting:
            continue
        count = await asyncio.to_thread(tokens.count_messages, messages, target.upstream_model, tools)
        window = target.context_window or 0
        if not count.exact or count.count <= window:
            fitting.append(target)
    if not fitting:
        raise TokenLimitError(
            f"The prompt has {count.count} tokens; the context window of {targets[-1].public_model} "
            f"is {window}. Shorten the messages.",
            param="messages",
            prompt_tokens=count.count,
            context_window=window,
        )
    return [target for target in targets if target in fitting]


class Run:
    """One call on its way. Read it once: `answer()` for the whole, or `events()` piece by piece."""

    def __init__(self, call: Call, targets: Sequence[Target]) -> None:
        self.call = call
        self.id = ledger.new_id()
        self.meter = Meter(call.body)
        self.dispatch = Dispatch(targets, call.body, call.timeout_seconds)
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._chunks: Buffer[StreamChunk] = Buffer(BUFFERED_CHUNKS)
        self._left = State.CLIENT_GONE
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
                    provider = self.target.endpoint.provider
                    yield Started(self.id, self.model, provider, self.dispatch.attempts)
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

    @property
    def target(self) -> Target:
        return self.dispatch.target or self.dispatch.targets[0]

    @property
    def model(self) -> str:
        return self.call.model or self.target.public_model

    async def _run(self) -> LLMResponse:
        """The pump: from admission to settlement, exactly once."""
        opening = ledger.Opening(
            self.id, self.call.caller, self.call.model or "", self.call.stream, self.call.end_user
        )
        try:
            async with ledger.entry(opening) as entry:
                self.admitted.set_result(None)
                return await self._settled(entry)
        except BaseException as error:
            if not self.admitted.done():
                self.admitted.set_exception(error)
                self.admitted.exception()  # it may be that nobody asks
            raise
        finally:
            self._chunks.close()

    async def _settled(self, entry: ledger.Entry) -> LLMResponse:
        """Pull the answer and fill the ledger's entry with whatever came of it."""
        state, failure, cancelled = State.OK, None, None
        try:
            await self._pull()
        except (UpstreamError, ProviderMisconfigured) as error:
            state, failure = _state_of(error), error
        except asyncio.CancelledError as error:
            state, cancelled = self._left, error
        except Exception:
            entry.final |= {"error_code": "internal_error"}
            raise
        response, late = await unbroken(self._fill(entry, state, failure))
        if (gone := cancelled or late) is not None:
            raise gone
        if failure is not None:
            raise service_error(failure) from failure
        return response

    async def _pull(self) -> None:
        if not self.call.stream:
            self.meter.answer(await self.dispatch.complete())
            return
        chunks = self.dispatch.stream()
        try:
            async for chunk in chunks:
                self.meter.chunk(chunk)
                await self._chunks.put(chunk)
        finally:
            await chunks.aclose()

    async def _fill(self, entry: ledger.Entry, state: State, error: Exception | None = None) -> LLMResponse:
        """Write the outcome into the ledger's entry; the answer as callers get it."""
        meter, target = self.meter, self.target
        usage = None
        if meter.answered or isinstance(error, UpstreamTimeout | UpstreamTruncated) or state == self._left:
            usage = await asyncio.to_thread(meter.usage, target.upstream_model)
        cost = _cost(usage, target)
        entry.final |= {
            "state": state,
            "provider_id": target.provider_id,
            "provider_slug": target.endpoint.provider,
            "language_model_id": target.model_id,
            "model": target.upstream_model,
            "attempts": self.dispatch.attempts,
            "finish_reason": (meter.finish_reason or "")[:32],
            "first_token_ms": meter.first_token_ms,
            "latency_ms": meter.elapsed_ms(),
            "cost_nano_usd": cost,
            "price_source": target.price.source if target.price else "",
            **_error_columns(error),
            **_usage_columns(usage),
        }
        return self._response(usage or Usage(), cost)

    def _response(self, usage: Usage, cost: int | None) -> LLMResponse:
        meter = self.meter
        return LLMResponse(
            content=meter.text,
            tokens=Tokens(usage.prompt, usage.completion, usage.total),
            metadata=Metadata(
                id=self.id,
                model=self.model,
                provider=self.target.endpoint.provider,
                timestamp=datetime.now(UTC),
                latency_ms=meter.elapsed_ms(),
                cached=False,
                cost=None if cost is None else pricing.usd(cost),
                finish_reason=meter.finish_reason,
                attempts=self.dispatch.attempts,
            ),
            message=meter.message(),
            usage=usage,
        )


def _retrieve(pump: "asyncio.Task[LLMResponse]") -> None:
    """Look at a finished pump's outcome, so that asyncio does not complain when its reader has left."""
    if not pump.cancelled():
        pump.exception()


def _state_of(error: UpstreamError | ProviderMisconfigured) -> State:
    if isinstance(error, UpstreamTimeout):
        return State(f"timeout_{error.phase}")
    if isinstance(error, UpstreamTruncated):
        return State.UPSTREAM_TRUNCATED
    if isinstance(error, UpstreamInvalid):
        return State.UPSTREAM_INVALID
    return State.UPSTREAM_ERROR


def _cost(usage: Usage | None, target: Target) -> int | None:
    """Nano-dollars; 0 where nothing was used, None where no price is known."""
    if usage is None:
        return 0
    return None if target.price is None else pricing.cost(usage, target.price)


def _error_columns(error: Exception | None) -> dict[str, Any]:
    if not isinstance(error, UpstreamError | ProviderMisconfigured):
        return {}
    return {"error_code": reason_of(error), "error_message": str(error)[:500]}


def _usage_columns(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {}
    return {
        "prompt_tokens": usage.prompt,
        "cached_tokens": usage.cached,
        "cache_write_tokens": usage.cache_write,
        "audio_prompt_tokens": usage.audio_prompt,
        "completion_tokens": usage.completion,
        "reasoning_tokens": usage.reasoning,
        "audio_completion_tokens": usage.audio_completion,
        "usage_source": usage.source,
        "usage_anomaly": usage.anomaly,
    }
