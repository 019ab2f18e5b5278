"""OpenAI's shapes: requests as they leave, answers and chunks as they come."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from providers.drivers.refusals import error_inside
from providers.drivers.tool_calls import call_text, called_text, numbered
from providers.drivers.usage import NOTHING, usage_of
from providers.errors import UpstreamInvalid
from providers.types import JSON, Answer, Endpoint, Operation, Others, StreamChunk, Target
from providers.wire_json import OUTPUT_BOUNDS, dumped, output_bound

USAGE_FIELDS = frozenset(("usage", "x_groq", "usageMetadata"))


def request_bytes(target: Target, operation: Operation, body: JSON, *, stream: bool) -> bytes:
    """The request's JSON: the provider's defaults under the caller's `body`, in this upstream's dialect."""
    quirks = target.endpoint.quirks
    if operation is Operation.EMBEDDING:  # the defaults are of generated text
        return dumped({**body, "model": target.upstream_model})
    given = {**target.default_config, **body, "model": target.upstream_model}
    bound = output_bound(body, target.default_config)  # one name's replaces a default under the other
    for name in (*OUTPUT_BOUNDS, "stream", "stream_options"):
        given.pop(name, None)
    if bound is not None:
        given[quirks.output_bound if operation is Operation.CHAT else "max_tokens"] = bound
    if stream:
        given["stream"] = True
        if quirks.stream_usage_option:
            given["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return dumped(given)


def choices_asked(target: Target, operation: Operation, body: JSON) -> int:
    """How many answers the request for `body` asks for: `n`, on the older wire of each prompt."""
    count = body.get("n", target.default_config.get("n"))
    each = count if type(count) is int and count > 0 else 1
    prompts = body.get("prompt") if operation is Operation.COMPLETION else None
    if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):
        return each * len(prompts)
    return each


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
    for choice in choices:
        _check_error(endpoint, choice)
    first = _first(choices)
    if first is None:
        raise invalid(endpoint, "an answer without its first choice")
    content, reasoning = _said(endpoint, first, operation)
    finish_reason = _text(first.get("finish_reason")) or None
    others = _others(choices, first)
    return Answer(body, content, finish_reason, usage.usage, usage.anomaly, reasoning, others)


def _said(endpoint: Endpoint, choice: Mapping[str, Any], operation: Operation) -> tuple[str, str]:
    """Content and reasoning of a whole answer's choice."""
    if operation is Operation.COMPLETION:
        if not isinstance(choice.get("text"), str):
            raise invalid(endpoint, "a choice without text")
        return str(choice["text"]), ""
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise invalid(endpoint, "a choice without a message")
    return texts_of(message)


def chunk_of(endpoint: Endpoint, raw: bytes, *, event: str = "message") -> StreamChunk | None:
    """One event of a stream; None where it is no piece of an answer: a ping, an upstream's own figures.

    Raises UpstreamError for an error event, UpstreamInvalid for what cannot be read.
    """
    body = _object(endpoint, raw)
    if event == "error":
        raise error_inside(endpoint, body)
    tells_usage = not USAGE_FIELDS.isdisjoint(body) and usage_of(body) is not NOTHING
    if not tells_usage and (text := _plain_text(body.get("choices"))):
        return StreamChunk(body, text)
    return _looked_at(endpoint, body)


def _looked_at(endpoint: Endpoint, body: JSON) -> StreamChunk | None:
    """A chunk that is more, or less, than a piece of text."""
    choices, usage = body.get("choices"), usage_of(body)
    if choices is None:
        if _is_error(body):
            raise error_inside(endpoint, body)
        if usage.usage is None and not usage.anomaly:
            return None
        body["choices"] = choices = []
    if not isinstance(choices, list):
        raise invalid(endpoint, "an event whose choices are no list")
    for choice in choices:
        _check(endpoint, choice)
    first = _first(choices)
    others = _others(choices, first)
    if first is None:
        return StreamChunk(body, usage=usage.usage, usage_anomaly=usage.anomaly, others=others)
    content, reasoning, tool_calls = _piece(first)
    finish_reason = _text(first.get("finish_reason")) or None
    return StreamChunk(
        body, content, reasoning, tool_calls, finish_reason, usage.usage, usage.anomaly, others
    )


def _is_error(body: Mapping[str, Any]) -> bool:
    """Whether an event without an answer is an error that calls itself something else, as old vLLM's."""
    kinds = [_text(body[name]) for name in ("object", "type") if name in body]
    if kinds:
        return any(kind.endswith("error") for kind in kinds)
    return any(_text(body.get(name)) for name in ("message", "detail"))


def _piece(choice: Mapping[str, Any]) -> tuple[str, str, tuple[JSON, ...]]:
    """Content, reasoning and tool calls of a stream's choice."""
    delta = choice.get("delta")
    if not delta:  # the older wire has text instead
        return _text(choice.get("text")), "", ()
    return *texts_of(delta), _tool_calls(delta)


def _check(endpoint: Endpoint, choice: Any) -> None:
    if not isinstance(choice, dict):
        raise invalid(endpoint, "a choice that is not an object")
    if isinstance(choice.get("index"), dict | list):
        raise invalid(endpoint, "a choice whose index is not a number")
    delta = choice.get("delta")
    if delta is not None and not isinstance(delta, dict):
        raise invalid(endpoint, "a delta that is not an object")
    _check_error(endpoint, choice)
    calls = delta and delta.get("tool_calls")
    if calls and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise invalid(endpoint, "tool calls that are not a list of objects")


def _check_error(endpoint: Endpoint, choice: Any) -> None:
    """A choice may have failed alone, as OpenRouter says it."""
    if isinstance(choice, Mapping) and (choice.get("error") or choice.get("finish_reason") == "error"):
        raise error_inside(endpoint, {"error": choice.get("error") or "the answer ended in an error"})


def _plain_text(choices: Any) -> str | None:
    """The text of a chunk that is nothing but a piece of choice 0, which most are; None: look closer."""
    if type(choices) is not list or len(choices) != 1:
        return None
    choice = choices[0]
    if type(choice) is not dict or choice.get("index") or choice.get("finish_reason") or choice.get("error"):
        return None
    delta = choice.get("delta")
    if type(delta) is not dict or len(delta) > (2 if "role" in delta else 1):
        return None
    content = delta.get("content")
    return content if type(content) is str else None


def _tool_calls(delta: Mapping[str, Any]) -> tuple[JSON, ...]:
    calls = delta.get("tool_calls")
    return tuple(call for call in calls if isinstance(call, dict)) if isinstance(calls, list) else ()


def chunk_of_answer(endpoint: Endpoint, raw: bytes, operation: Operation) -> StreamChunk:
    """A whole answer that came where a stream was asked for, as the one chunk of a stream."""
    body = answer_of(endpoint, raw, operation).body
    choices = [_as_piece(choice) for choice in body["choices"] if isinstance(choice, Mapping)]
    kind = "chat.completion.chunk" if operation is Operation.CHAT else body.get("object")
    chunk = _looked_at(endpoint, {**body, "object": kind, "choices": choices})
    assert chunk is not None  # noqa: S101 - it has choices
    return chunk


def _as_piece(choice: Mapping[str, Any]) -> JSON:
    """A whole choice in the shape of a stream's."""
    piece = {name: value for name, value in choice.items() if name != "message"}
    if "message" in choice:
        message = choice["message"]
        piece["delta"] = message
        if isinstance(message, dict) and message.get("tool_calls"):
            piece["delta"] = {**message, "tool_calls": numbered(message["tool_calls"])}
    return piece


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


def _others(choices: Iterable[Any], first: Mapping[str, Any] | None) -> Others:
    """What choices beside the first say, and what the first says beside texts and tool calls."""
    said = []
    for choice in choices:
        if isinstance(choice, Mapping) and (text := _beside(choice) if choice is first else _all_of(choice)):
            index = choice.get("index")
            said.append((index if isinstance(index, int) else 0, text))
    return tuple(said)


def _all_of(choice: Mapping[str, Any]) -> str:
    """All that a choice says, whole or a piece of it."""
    said = choice.get("delta") or choice.get("message")
    if not isinstance(said, Mapping):
        return _text(choice.get("text"))
    return "".join((*texts_of(said), *map(call_text, _tool_calls(said)), _beside(choice)))


def _beside(choice: Mapping[str, Any]) -> str:
    """The older wire's function call, the words of spoken audio, and tool calls that are none."""
    said = choice.get("delta") or choice.get("message")
    if not isinstance(said, Mapping):
        return ""
    audio, calls = said.get("audio"), said.get("tool_calls")
    texts = [called_text(said.get("function_call"))]
    if isinstance(audio, Mapping):
        texts.append(_text(audio.get("transcript")))
    if calls:
        odd = calls if isinstance(calls, list) else [calls]
        texts += [call_text(call) for call in odd if not (isinstance(call, dict) and odd is calls)]
    return "".join(texts)


def _first(choices: Iterable[Any]) -> Mapping[str, Any] | None:
    """Choice 0, the one that is shown where there is room for one; of others see `_others`."""
    for choice in choices:
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return None


def texts_of(message: Mapping[str, Any]) -> tuple[str, str]:
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
