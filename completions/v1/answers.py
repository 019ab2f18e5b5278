"""The answer of a call on OpenAI's wire: whole, or streamed as server-sent events."""

import logging
from functools import lru_cache
from typing import Any

import orjson

from completions.answering import Answering
from completions.errors import CallEndedError, LLMServiceError
from completions.exchange import Exchange, HangUp, Headers
from completions.limits import header_pairs
from completions.models import State
from completions.v1 import errors
from completions.v1.bodies import wants_usage
from completions.v1.frames import DONE, KEEPALIVE, Frames, usage_object
from providers.pricing import usd_text
from providers.wire_json import dumped

logger = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 15.0
STREAM_HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


async def send_whole(exchange: Exchange, run: Answering) -> None:
    """The upstream's body, its model named as the caller did. Raises LLMServiceError."""
    with HangUp(exchange, run):
        result = await run.outcome()
    body = result.body
    body["model"] = run.model
    if result.usage is not None and (result.usage.anomaly or not body.get("usage")):
        body["usage"] = usage_object(result.usage)  # what is paid for; the upstream said nothing, or nonsense
    headers = answered(run)
    if result.cost_nano is not None:
        headers.append((b"x-llmhub-cost-usd", usd_text(result.cost_nano).encode()))
    await exchange.answer(200, dumped(body), headers)


async def send_stream(exchange: Exchange, run: Answering) -> None:
    """Frames as they come. Raises LLMServiceError for what fails before the first: that is an HTTP error."""
    reader = run.reader
    with HangUp(exchange, run, delay=0):
        try:
            chunks = await reader.read()
            if not chunks:
                await run.outcome()
            reader.silence_seconds = KEEPALIVE_SECONDS
            frames = Frames(run, include_usage=wants_usage(run.call))
            await exchange.begin(200, [*STREAM_HEADERS, *answered(run)])
            while chunks or not reader.at_end:
                data = frames.render(chunks) if chunks else KEEPALIVE
                if data:
                    await exchange.part(data)
                chunks = await reader.read()
            await exchange.end(await _last(run, frames))
        finally:
            await run.cancel(State.CLIENT_GONE)


async def _last(run: Answering, frames: Frames) -> bytes:
    """Usage and [DONE], once the row is settled; or the error that ended the stream."""
    try:
        return frames.usage(await run.outcome()) + DONE
    except LLMServiceError as error:
        failure = error
    except Exception:
        logger.exception("unexpected error in a stream")
        failure = LLMServiceError("Something went wrong inside the hub. Its log says what.")
    if not isinstance(failure, CallEndedError):  # else its reader is gone
        errors.count(failure)
    return frame_of(errors.shape(failure))


def frame_of(body: Any) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def answered(run: Answering) -> Headers:
    """Who answered, or failed to, and where the caller's limits stand."""
    grant = run.grant
    return [
        *(_kept(run) if run.age_seconds is not None else ()),
        *_names(run.model, run.provider),
        (b"x-llmhub-cache", run.cached.value.encode()),
        (b"x-llmhub-attempts", b"%d" % run.attempts),
        *header_pairs(grant.limits, grant.levels),
    ]


def _kept(run: Answering) -> Headers:
    """Of an answer that was given before: its age, and how like its question was where that was another."""
    told = [(b"age", b"%d" % (run.age_seconds or 0))]
    if run.similarity is not None:
        told.append((b"x-llmhub-cache-similarity", b"%.4f" % run.similarity))
    return told


@lru_cache(maxsize=1024)
def _names(model: str, provider: str) -> Headers:
    """Names may hold any letter; a header may not."""
    return [(b"x-llmhub-model", ascii(model)[1:-1].encode()), (b"x-llmhub-provider", provider.encode())]
