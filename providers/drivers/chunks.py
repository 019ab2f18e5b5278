"""OpenAI's shapes: requests as they leave, answers and chunks as they come."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from providers.drivers.refusals import error_inside
from providers.drivers.usage import NOTHING, usage_of
from providers.errors import UpstreamInvalid
from providers.types import JSON, Answer, Endpoint, Operation, StreamChunk, Target

USAGE_FIELDS = frozenset(("usage", "x_groq", "usageMetadata"))
BOUNDS = ("max_tokens", "max_completion_tokens")


def request_bytes(target: Target, operation: Operation, body: JSON, *, stream: bool) -> bytes:
    """The request's JSON: the provider's defaults under the caller's `body`, in this upstream's dialect."""
    quirks = target.endpoint.quirks
    if operation is Operation.EMBEDDING:  # the defaults are of generated text
        return _dumped({**body, "model": target.upstream_model})
    given = {**target.default_config, **body, "model": target.upstream_model}
    # The caller's bound, under either name, replaces a default under the other.
    bound = next((body[name] for name in BOUNDS if body.get(name) is not None), None)
    if bound is None:
        bound = next((given[name] for name in BOUNDS if given.get(name) is not None), None)
    for name in (*BOUNDS, "stream", "stream_options"):
        given.pop(name, None)
    if bound is not None:
        given[quirks.output_bound if operation is Operation.CHAT else "max_tokens"] = bound
    if stream:
        given["stream"] = True
        if quirks.stream_usage_option:
            given["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return _dumped(given)


def _dumped(given: JSON) -> bytes:
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


def answer_of(endpoint: Endpoint, raw: bytes, operation: Operation = Operation.CHAT) -> Answer:
    """A whole answer. Raises UpstreamError for an error inside it, UpstreamInvalid for anything else."""
    body = _object(endpoint, raw)
    usage = usage_of(body)
    if operation is Operation.EMBEDDING:
        data = body.get("data")
        if not isinstance(data, list) or not data:
            raise invalid(endpoint, "an answer without data")
        return Answer(body, "", None, usage.usage, usage.anomaly)
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise invalid(endpoint, "an answer without choices")
    first = _first(choices)
    if first is None:
        raise invalid(endpoint, "an answer without its first choice")
    content = _content(endpoint, first, operation)
    return Answer(body, content, _text(first.get("finish_reason")) or None, usage.usage, usage.anomaly)


def _content(endpoint: Endpoint, choice: Mapping[str, Any], operation: Operation) -> str:
    """The text of a whole answer's choice."""
    if operation is Operation.COMPLETION:
        if not isinstance(choice.get("text"), str):
            raise invalid(endpoint, "a choice without text")
        return str(choice["text"])
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise invalid(endpoint, "a choice without a message")
    return _texts(message)[0]


def chunk_of(endpoint: Endpoint, raw: bytes, *, event: str = "message") -> StreamChunk:
    """One event of a stream. Raises UpstreamError for an error event, UpstreamInvalid for anything else."""
    body = _object(endpoint, raw)
    if event == "error":
        raise error_inside(endpoint, body)
    choices = body.get("choices")
    tells_usage = not USAGE_FIELDS.isdisjoint(body)
    if not tells_usage and (text := _plain_text(choices)):
        return StreamChunk(body, text)
    usage = usage_of(body) if tells_usage else NOTHING
    if not isinstance(choices, list):
        if choices is None and (usage.usage or usage.anomaly):
            return StreamChunk(body, usage=usage.usage, usage_anomaly=usage.anomaly)
        raise invalid(endpoint, "an event without choices")
    for choice in choices:
        if not isinstance(choice, dict):
            raise invalid(endpoint, "a choice that is not an object")
    first = _first(choices)
    if first is None:
        return StreamChunk(body, usage=usage.usage, usage_anomaly=usage.anomaly)
    delta = first.get("delta")
    finish_reason = _text(first.get("finish_reason")) or None
    if delta is None:  # the older wire has text instead
        return StreamChunk(body, _text(first.get("text")), "", (), finish_reason, usage.usage, usage.anomaly)
    if not isinstance(delta, dict):
        raise invalid(endpoint, "a delta that is not an object")
    content, reasoning = _texts(delta) if delta else ("", "")
    return StreamChunk(
        body, content, reasoning, _tool_calls(delta), finish_reason, usage.usage, usage.anomaly
    )


def _plain_text(choices: Any) -> str | None:
    """The text of a chunk that is nothing but a piece of choice 0, which most are; None: look closer."""
    if type(choices) is not list or len(choices) != 1:
        return None
    choice = choices[0]
    if type(choice) is not dict or choice.get("index") or choice.get("finish_reason"):
        return None
    delta = choice.get("delta")
    if type(delta) is not dict or len(delta) > (2 if "role" in delta else 1):
        return None
    content = delta.get("content")
    return content if type(content) is str else None


def _tool_calls(delta: JSON) -> tuple[JSON, ...]:
    calls = delta.get("tool_calls")
    return tuple(call for call in calls if isinstance(call, dict)) if isinstance(calls, list) else ()


def chunk_of_answer(endpoint: Endpoint, raw: bytes, operation: Operation) -> StreamChunk:
    """A whole answer that came where a stream was asked for, as the one chunk of a stream."""
    body = answer_of(endpoint, raw, operation).body
    choices = [
        {
            **{name: value for name, value in choice.items() if name != "message"},
            **({"delta": choice["message"]} if "message" in choice else {}),
        }
        for choice in body["choices"]
        if isinstance(choice, Mapping)
    ]
    kind = "chat.completion.chunk" if operation is Operation.CHAT else body.get("object")
    return chunk_of(endpoint, json.dumps({**body, "object": kind, "choices": choices}).encode())


def begins(chunk: StreamChunk) -> bool:
    """Whether the answer begins here: with content, thought, a tool call, or its end, of any choice."""
    if chunk.content or chunk.finish_reason or chunk.tool_calls or chunk.reasoning:
        return True
    for choice in chunk.body.get("choices") or ():
        delta = choice.get("delta") or {}
        if (
            choice.get("finish_reason")
            or choice.get("text")
            or any(value for name, value in delta.items() if name != "role")
        ):
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
    for choice in choices:
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return None


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
