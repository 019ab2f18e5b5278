"""What became of a call, as its ledger rows and as its caller is told."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from completions import content, metrics
from completions.answering import Result
from completions.errors import reason_of
from completions.meter import Meter
from completions.models import State
from completions.types import Call
from providers import pricing
from providers.dispatch import Dispatch, Tried
from providers.errors import (
    ProviderMisconfigured,
    UpstreamError,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTruncated,
)
from providers.types import NANO, Target, Usage, UsageSource

logger = logging.getLogger(__name__)

WORDS_NOT_KEPT = "The provider's words are not kept: they may quote the prompt."
BYTES_PER_TOKEN = 4  # where nothing but a size is known
Row = dict[str, Any]
Failure = UpstreamError | ProviderMisconfigured


@dataclass(slots=True)
class Outcome:
    """The end of a call: how it ended, and what its meter and dispatch saw. Call `count` before the rest."""

    state: State
    failure: Failure | None
    meter: Meter
    dispatch: Dispatch
    fault: Exception | None = None  # the hub's own, which nobody foresaw: what was used is owed all the same
    with_words: bool = True  # whether a provider's words, which may quote the prompt, are kept
    usage: Usage | None = None  # of the answering attempt; None where nothing is owed
    lost: dict[int, Usage] = field(default_factory=dict)  # of attempts before it whose prompt was sent
    row: Row = field(default_factory=dict)  # what `final` made

    @property
    def target(self) -> Target:
        return self.dispatch.target or self.dispatch.targets[0]

    @property
    def must_tokenize(self) -> bool:
        """Whether `count` has texts to count: not work for the event loop."""
        return (self._owes and self.meter.reported is None) or bool(self._lost_attempts())

    @property
    def _owes(self) -> bool:
        """Whether the last attempt used tokens.

        It answered, or failed or was cut off after its prompt was sent.
        """
        if not self.dispatch.tried:
            return False
        last = self.dispatch.tried[-1]
        return self.meter.answered or (last.sent if last.error is None else _was_sent(last.error))

    def _lost_attempts(self) -> list[tuple[int, Tried]]:
        earlier = enumerate(self.dispatch.tried[:-1], start=1)
        return [(number, tried) for number, tried in earlier if _was_sent(tried.error)]

    def count(self) -> None:
        """What each attempt used: by the upstream's word, else counted."""
        if self._owes:
            try:
                self.usage = self.meter.usage(self.target.upstream_model)
            except Exception:  # it is billed all the same
                logger.exception("an answer could not be counted")
                self.usage = self._rough()
        for number, tried in self._lost_attempts():
            self.lost[number] = self.meter.prompt_only(tried.target.upstream_model)

    def _rough(self) -> Usage:
        """By sizes alone: of an answer that cannot be counted."""
        return Usage(
            prompt=self.meter.prompt.rough,
            completion=math.ceil(self.meter.received / BYTES_PER_TOKEN),
            source=UsageSource.ESTIMATED,
            anomaly=self.meter.anomaly,
        )

    def attempts(self) -> list[Row]:
        """A row for each upstream call."""
        return [
            self._attempt(number, tried, last=number == len(self.dispatch.tried))
            for number, tried in enumerate(self.dispatch.tried, start=1)
        ]

    def _attempt(self, number: int, tried: Tried, *, last: bool) -> Row:
        error = tried.error or (self.failure if last else None)
        usage = self.usage if last else self.lost.get(number)
        elapsed = self.meter.elapsed_ms() - tried.started_ms
        return {
            "number": number,
            "provider_slug": tried.target.endpoint.provider,
            "model": tried.target.upstream_model,
            "state": str(self.state if last and tried.error is None else state_of(error)),
            "status": error.status if isinstance(error, UpstreamRefused) else None,
            "started_ms": tried.started_ms,
            "latency_ms": elapsed if tried.latency_ms is None else tried.latency_ms,
            "cost_nano_usd": _cost(usage, tried.target),
            **_price_columns(tried.target),
            **(self._error_columns(error) or (_fault_columns(self.fault) if last else {})),
            **_usage_columns(usage),
        }

    def final(self, attempts: Sequence[Row]) -> Row:
        """The completion's own columns: the sums of its attempts."""
        target = self.target
        self.row = {
            "state": self.state,
            "provider_id": target.provider_id,
            "provider_slug": target.endpoint.provider,
            "language_model_id": target.model_id,
            "model": target.upstream_model,
            "attempts": len(attempts),
            "finish_reason": (self.meter.finish_reason or "")[:32],
            "first_token_ms": self.meter.first_token_ms,
            "latency_ms": self.meter.elapsed_ms(),
            "cost_nano_usd": _sum_of(attempts, "cost_nano_usd"),
            **_price_columns(target),
            **(self._error_columns(self.failure) or _fault_columns(self.fault)),
            **_total_usage(attempts),
        }
        return self.row

    def _error_columns(self, error: Failure | None) -> Row:
        if error is None:
            return {}
        message = str(error)[:500]
        if not self.with_words and isinstance(error, UpstreamRefused | UpstreamInvalid):
            message = WORDS_NOT_KEPT
        return {"error_code": reason_of(error), "error_message": message}

    def content(self, call: Call, days: int) -> Row | None:
        """Prompt and answer, where they are kept. They become text where they are written."""
        if not days:
            return None
        try:
            message = self.meter.message()
        except Exception:  # the row is settled all the same
            logger.exception("an answer could not be kept")
            return None
        return {
            "request": call.raw or call.body,
            "response": message,
            "expires_at": content.expires_at(days),
        }

    def result(self) -> Result:
        """The answer, once `final` was made."""
        meter = self.meter
        return Result(
            body=meter.body(),
            message=meter.message(),
            text=meter.text,
            usage=self.usage,
            cost_nano=self.row["cost_nano_usd"],
            finish_reason=meter.finish_reason,
            latency_ms=self.row["latency_ms"],
        )


def observe(call: Call, outcome: Outcome, overhead_seconds: float) -> None:
    """Tell the metrics of a call that has ended, and what of its time the hub took for itself."""
    row, meter = outcome.row, outcome.meter
    where = (row["provider_slug"], row["model"])
    metrics.requests(call.operation.value, *where, str(outcome.state)).inc()
    for kind, count in (("prompt", row["prompt_tokens"]), ("completion", row["completion_tokens"])):
        if count:
            metrics.tokens(kind, *where).inc(count)
    if row["cost_nano_usd"]:
        metrics.cost(*where).inc(row["cost_nano_usd"] / NANO)
    metrics.duration(call.operation.value).observe(meter.elapsed_ms() / 1000)
    metrics.overhead(call.operation.value).observe(overhead_seconds)
    if call.stream and meter.first_token_ms is not None:
        metrics.first_token(*where).observe(meter.first_token_ms / 1000)
    for tried in outcome.dispatch.tried:
        if tried.error is not None:
            metrics.UPSTREAM_ERRORS.labels(tried.target.endpoint.provider, reason_of(tried.error)).inc()


def state_of(error: Failure | None) -> State:
    """The state of a call, or an attempt, that ended in `error`."""
    if error is None:
        return State.OK
    if isinstance(error, UpstreamTimeout):
        return State(f"timeout_{error.phase}")
    if isinstance(error, UpstreamTruncated):
        return State.UPSTREAM_TRUNCATED
    if isinstance(error, UpstreamInvalid):
        return State.UPSTREAM_INVALID
    return State.UPSTREAM_ERROR


def _was_sent(error: Failure | None) -> bool:
    """Whether the prompt reached the upstream and was not refused: then it may be billed."""
    if isinstance(error, UpstreamTimeout):
        return error.phase != "connect"
    return isinstance(error, UpstreamTruncated | UpstreamInvalid)


def _cost(usage: Usage | None, target: Target) -> int | None:
    """Nano-dollars; 0 where nothing was used, None where no price is known."""
    if usage is None:
        return 0
    return None if target.price is None else pricing.cost(usage, target.price)


def _sum_of(attempts: Sequence[Row], column: str) -> int | None:
    """The sum, None where a part is unknown."""
    parts = [row[column] for row in attempts]
    return None if None in parts else sum(parts)


def _price_columns(target: Target) -> Row:
    if target.price is None:
        return {"prices": "", "price_source": ""}
    return {"prices": pricing.dump(target.price), "price_source": target.price.source}


def _fault_columns(fault: Exception | None) -> Row:
    """What its words may hold, of a caller's content say, is for the log alone."""
    if fault is None:
        return {}
    return {"error_code": "internal_error", "error_message": f"The hub's own fault: {type(fault).__name__}."}


COUNTS = (
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "audio_prompt_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "audio_completion_tokens",
)


def _usage_columns(usage: Usage | None) -> Row:
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
        "usage_source": usage.source.value,
        "usage_anomaly": usage.anomaly,
    }


def _total_usage(attempts: Sequence[Row]) -> Row:
    """Tokens of all attempts together; the last one says where the figures come from."""
    counted = [row for row in attempts if "prompt_tokens" in row]
    if not counted:
        return dict.fromkeys(COUNTS) | {"usage_source": "", "usage_anomaly": False}
    sums = {column: sum(row[column] for row in counted) for column in COUNTS}
    last = counted[-1]
    return sums | {"usage_source": last["usage_source"], "usage_anomaly": last["usage_anomaly"]}
