"""An answer as it is kept: the whole body with its usage and cost, ready to be given whole or streamed."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

import orjson

from completions.answering import Result
from providers.drivers.chunks import texts_of
from providers.types import JSON, Operation, StreamChunk, Usage, UsageSource
from providers.wire_json import dumped

FORMAT = 1
INLINE = 16  # entries that are packed, or unpacked, on the event loop
GOOD_ENDS = ("stop", "tool_calls", "function_call")
SAID = ("content", "text", "tool_calls", "function_call", "refusal", "audio", "images")
THOUGHTS = ("reasoning_content", "reasoning")  # a message's fields that are text, beside its content
PIECE_CHARACTERS = 256  # of text in one replayed chunk

T = TypeVar("T")
U = TypeVar("U")


class Entry(NamedTuple):
    """One answer. Times are seconds since 1970."""

    body: JSON  # as the upstream gave it, under its own name of the model
    usage: Usage | None
    cost_nano: int | None  # what it cost; None: no price was known
    finish_reason: str | None
    call: uuid.UUID  # that brought it
    provider: str
    public_model: str
    project_id: int
    api_key_id: int | None
    stored: float
    fresh_until: float
    stale_until: float

    @property
    def age_seconds(self) -> int:
        return max(int(time.time() - self.stored), 0)


def packed(entry: Entry) -> bytes:
    """As it is stored."""
    facts = {**entry._asdict(), "usage": usage_list(entry.usage), "call": entry.call.hex, "format": FORMAT}
    return dumped(facts)


async def each(work: Callable[[T], U], given: Sequence[T]) -> list[U]:
    """`work` done on each. On many (a large batch of embeddings) in a thread: the loop serves others."""
    if len(given) <= INLINE:
        return [work(one) for one in given]
    return await asyncio.to_thread(lambda: [work(one) for one in given])


def usage_list(usage: Usage | None) -> list[Any] | None:
    """Usage as JSON holds it; an answer whose usage is an anomaly is never kept."""
    return None if usage is None else [*usage[:-2], usage.source.value]


def usage_from(told: list[Any] | None) -> Usage | None:
    """What `usage_list` made."""
    return None if told is None else Usage._make([*told[:-1], UsageSource(told[-1]), False])


def unpacked(data: Any) -> Entry | None:
    """What `packed` made; None for anything else: what cannot be read is a miss."""
    try:
        facts = orjson.loads(data)
        if facts.pop("format") != FORMAT:
            return None
        facts["usage"] = usage_from(facts["usage"])
        facts["call"] = uuid.UUID(facts["call"])
        entry = Entry(**facts)
        return entry if is_sound(entry) else None
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


def is_sound(entry: Entry) -> bool:
    """Whether an entry that was read is of the kinds that giving it takes."""
    times, tokens = (entry.stored, entry.fresh_until, entry.stale_until), (entry.usage or ())[:-2]
    return (
        all(isinstance(one, int | float) for one in times)
        and all(isinstance(one, int) for one in (*tokens, entry.cost_nano or 0))
        and isinstance(entry.finish_reason or "", str)
        and (_are_choices(entry.body.get("choices")) or _are_vectors(entry.body.get("data")))
    )


def fits(entry: Entry, operation: Operation) -> bool:
    """Whether it can be the answer to such a call."""
    return ("data" if operation is Operation.EMBEDDING else "choices") in entry.body


def _are_choices(choices: Any) -> bool:
    return isinstance(choices, list) and bool(choices) and all(map(_is_choice, choices))


def _is_choice(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return False
    message = choice.get("message")
    if not isinstance(message, dict):  # the older wire's
        return isinstance(choice.get("text"), str)
    calls = message.get("tool_calls") or []
    return isinstance(calls, list) and all(isinstance(one, dict) for one in calls)


def _are_vectors(data: Any) -> bool:
    return isinstance(data, list) and bool(data) and all(isinstance(one, dict) for one in data)


def is_complete(result: Result) -> bool:
    """Whether a generated answer is whole and good, so that it may be given again."""
    if result.usage is not None and result.usage.anomaly:
        return False
    choices: Any = result.body.get("choices")
    return _are_choices(choices) and all(map(_is_whole, choices))


def _is_whole(choice: JSON) -> bool:
    """It ended well, and says something: nothing at all may well be a fault that passes."""
    said = choice.get("message") or choice
    return choice.get("finish_reason") in GOOD_ENDS and any(said.get(name) for name in SAID)


def result_of(entry: Entry, operation: Operation, latency_ms: int) -> Result:
    """The answer, given once more: it costs nothing."""
    message, text = message_of(entry.body, operation)
    return Result(entry.body, message, text, entry.usage, 0, entry.finish_reason, latency_ms)


def message_of(body: JSON, operation: Operation) -> tuple[JSON, str]:
    """The first choice's message, and its text."""
    if operation is Operation.EMBEDDING:
        return {}, ""
    first = body["choices"][0]
    if operation is Operation.COMPLETION:
        text = str(first.get("text") or "")
        return {"role": "assistant", "content": text}, text
    message: JSON = first.get("message") or {}
    return message, texts_of(message)[0]


# --- as a stream


def chunks_of(body: JSON, operation: Operation, usage: Usage | None) -> list[StreamChunk]:
    """A whole answer as the chunks of a stream: roles, texts in pieces, ends; then its usage."""
    kind = "chat.completion.chunk" if operation is Operation.CHAT else "text_completion"
    head = {name: value for name, value in body.items() if name not in ("choices", "usage")}
    head["object"] = kind
    chunks = []
    for choice in body["choices"]:
        pieces = _deltas(choice) if operation is Operation.CHAT else _texts(choice)
        index = choice.get("index", 0)
        chunks += [_chunk(head, index, piece, metered=not index) for piece in pieces]
    if usage is not None:
        raw = body.get("usage")
        chunks.append(StreamChunk({**head, "choices": [], "usage": raw if raw else None}, usage=usage))
    return chunks


def _chunk(head: JSON, index: int, piece: JSON, *, metered: bool) -> StreamChunk:
    body = {**head, "choices": [{"index": index, "finish_reason": None, **piece}]}
    if not metered:
        return StreamChunk(body)
    delta = piece.get("delta") or {}
    content, reasoning = texts_of(delta)
    return StreamChunk(
        body,
        content=content or piece.get("text") or "",
        reasoning=reasoning,
        tool_calls=tuple(delta.get("tool_calls") or ()),
        finish_reason=piece.get("finish_reason"),
    )


def _deltas(choice: JSON) -> Iterator[JSON]:
    message = dict(choice.get("message") or {})
    logprobs = choice.get("logprobs")
    reasons = {name: message.pop(name) for name in THOUGHTS if isinstance(message.get(name) or 0, str)}
    content, calls = message.pop("content", None), message.pop("tool_calls", None)
    yield {"delta": {"role": "assistant", **message, "content": "" if isinstance(content, str) else content}}
    for pieces in zip_longest(*map(_pieces, reasons.values())):  # two names of one thought go side by side
        yield {"delta": {name: piece for name, piece in zip(reasons, pieces, strict=True) if piece}}
    if isinstance(content, str) and logprobs:
        yield {"delta": {"content": content}, "logprobs": logprobs}  # they belong to its tokens: in one piece
    elif isinstance(content, str):
        yield from ({"delta": {"content": piece}} for piece in _pieces(content))
    for number, call in enumerate(calls or ()):
        yield {"delta": {"tool_calls": [{"index": number, **call}]}}
    end: JSON = {"delta": {}, "finish_reason": choice.get("finish_reason")}
    yield end if isinstance(content, str) or not logprobs else {**end, "logprobs": logprobs}


def _texts(choice: JSON) -> Iterator[JSON]:
    logprobs = choice.get("logprobs")
    text = str(choice.get("text") or "")
    yield from ({"text": piece, "logprobs": logprobs} for piece in ([text] if logprobs else _pieces(text)))
    yield {"text": "", "finish_reason": choice.get("finish_reason")}


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield text[start : start + PIECE_CHARACTERS]
