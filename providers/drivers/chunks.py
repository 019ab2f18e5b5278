"""OpenAI's chat completion shapes: requests as they leave, answers and chunks as they come."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from providers.drivers.refusals import error_inside
from providers.drivers.usage import usage_of
from providers.errors import UpstreamInvalid
from providers.types import JSON, Answer, Endpoint, StreamChunk, Target

BOUNDS = ("max_tokens", "max_completion_tokens")


def request_bytes(target: Target, body: JSON, *, stream: bool) -> bytes:
    """The request's JSON: the provider's defaults under the caller's `body`, in this upstream's dialect."""
    quirks = target.endpoint.quirks
    given = {**target.default_config, **body, "model": target.upstream_model}
    # The caller's bound, under either name, replaces a default under the other.
    bound = next((body[name] for name in BOUNDS if body.get(name) is not None), None)
    if bound is None:
        bound = next((given[name] for name in BOUNDS if given.get(name) is not None), None)
    for name in (*BOUNDS, "stream", "stream_options"):
        given.pop(name, None)
    if bound is not None:
        given[quirks.output_bound] = bound
    if stream:
        given["stream"] = True
        if quirks.stream_usage_option:
            given["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    try:
        return orjson.dumps(given)
    except TypeError:  # lone surrogates, integers over 64 bits: JSON all the same
        return json.dumps(given).encode()


def parsed(raw: bytes | str) -> Any:
    """JSON, also with what orjson refuses and vendors send: NaN, half a surrogate pair. Raises ValueError."""
    try:
        return orjson.loads(raw)
    except ValueError:
        pass
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    try:
        value = json.loads(text)
        whole = json.dumps(value, ensure_ascii=False)
        return json.loads(whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def answer_of(endpoint: Endpoint, raw: bytes) -> Answer:
    """A whole answer. Raises UpstreamError for an error inside it, UpstreamInvalid for anything else."""
    body = _object(endpoint, raw)
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise invalid(endpoint, "an answer without choices")
    first = _first(choices)
    message = first.get("message") if first else None
    if first is None or not isinstance(message, Mapping):
        raise invalid(endpoint, "a choice without a message")
    content, _ = _texts(message)
    usage = usage_of(body)
    return Answer(body, content, _text(first.get("finish_reason")) or None, usage.usage, usage.anomaly)


def chunk_of(endpoint: Endpoint, raw: str, *, event: str = "message") -> StreamChunk:
    """One event of a stream. Raises UpstreamError for an error event, UpstreamInvalid for anything else."""
    body = _object(endpoint, raw)
    if event == "error":
        raise error_inside(endpoint, body)
    choices = body.get("choices")
    usage = usage_of(body)
    if not isinstance(choices, list):
        if choices is None and (usage.usage or usage.anomaly):
            return StreamChunk(body, usage=usage.usage, usage_anomaly=usage.anomaly)
        raise invalid(endpoint, "an event without choices")
    if not all(isinstance(choice, Mapping) for choice in choices):
        raise invalid(endpoint, "a choice that is not an object")
    first = _first(choices)
    if first is None:
        return StreamChunk(body, usage=usage.usage, usage_anomaly=usage.anomaly)
    delta = first.get("delta")
    if delta is not None and not isinstance(delta, Mapping):
        raise invalid(endpoint, "a delta that is not an object")
    content, reasoning = _texts(delta) if delta else ("", "")
    calls = delta.get("tool_calls") if delta else None
    tool_calls = tuple(call for call in calls if isinstance(call, dict)) if isinstance(calls, list) else ()
    finish_reason = _text(first.get("finish_reason")) or None
    return StreamChunk(body, content, reasoning, tool_calls, finish_reason, usage.usage, usage.anomaly)


def chunk_of_answer(endpoint: Endpoint, raw: bytes) -> StreamChunk:
    """A whole answer that came where a stream was asked for, as the one chunk of a stream."""
    body = answer_of(endpoint, raw).body
    choices = [
        {
            **{name: value for name, value in choice.items() if name != "message"},
            "delta": choice.get("message"),
        }
        for choice in body["choices"]
        if isinstance(choice, Mapping)
    ]
    chunk = {**body, "object": "chat.completion.chunk", "choices": choices}
    return chunk_of(endpoint, json.dumps(chunk))


def begins(chunk: StreamChunk) -> bool:
    """Whether the answer begins here: with content, thought, a tool call, or its end, of any choice."""
    if chunk.content or chunk.finish_reason or chunk.tool_calls or chunk.reasoning:
        return True
    for choice in chunk.body.get("choices") or ():
        delta = choice.get("delta") or {}
        if choice.get("finish_reason") or any(value for name, value in delta.items() if name != "role"):
            return True
    return False


def open_choices(chunk: StreamChunk, known: dict[Any, bool]) -> None:
    """Note in `known`, by index, which choices have begun (False) and which have ended (True)."""
    for choice in chunk.body.get("choices") or ():
        index = choice.get("index") or 0
        known[index] = known.get(index, False) or bool(choice.get("finish_reason"))


def invalid(endpoint: Endpoint, what: str) -> UpstreamInvalid:
    return UpstreamInvalid(f"provider {endpoint.provider} sent {what}", provider=endpoint.provider)


def _object(endpoint: Endpoint, raw: bytes | str) -> JSON:
    try:
        body = parsed(raw)
    except ValueError:
        raise invalid(endpoint, "something that is not JSON") from None
    if isinstance(body, list) and body and isinstance(body[0], dict) and body[0].get("error"):
        raise error_inside(endpoint, body)
    if not isinstance(body, dict):
        raise invalid(endpoint, "JSON that is not an object")
    if body.get("error"):
        raise error_inside(endpoint, body)
    return body


def _first(choices: Iterable[Any]) -> Mapping[str, Any] | None:
    """Choice 0, the one that is metered and shown; chunks of others are passed on with their bodies."""
    return next((c for c in choices if isinstance(c, Mapping) and not c.get("index")), None)


def _texts(message: Mapping[str, Any]) -> tuple[str, str]:
    """Content and reasoning of a message or delta. Mistral sends both as a list of parts."""
    reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    content = message.get("content")
    if not isinstance(content, list):
        return _text(content) or _text(message.get("refusal")), reasoning
    texts = ["", reasoning]
    for part in content:
        if isinstance(part, Mapping):
            thinking = part.get("thinking")
            inner = thinking if isinstance(thinking, list) else [part]
            texts[thinking is not None] += "".join(
                _text(p.get("text")) for p in inner if isinstance(p, Mapping)
            )
    return texts[0], texts[1]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
