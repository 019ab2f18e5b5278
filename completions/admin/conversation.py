"""Prompts and answers as people read them: text as text, of anything else only its kind."""

import base64
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHOWN_CHARACTERS = 50_000  # of one text; the API gives it whole
SHOWN_NUMBERS = 8  # of a vector, or of a list of tokens


@dataclass(frozen=True, slots=True)
class Message:
    """One message as people read it: who says it, what, and which functions it calls."""

    role: str
    text: str
    calls: tuple[tuple[str, str], ...] = ()


def parsed(text: str) -> Any:
    """What stored JSON holds; the text itself where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def pretty(value: Any) -> str:
    """JSON on several lines; cut where it is very long."""
    return _cut(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def _cut(text: str) -> str:
    rest = len(text) - SHOWN_CHARACTERS
    return text if rest <= 0 else f"{text[:SHOWN_CHARACTERS]}\n… {rest:,} more characters"


def asked_of(request: Any) -> list[Message]:
    """What a request says, whatever its wire: messages, a prompt, or inputs of an embedding."""
    if not isinstance(request, Mapping):
        return []
    messages = request.get("messages")
    if isinstance(messages, list):
        return [message_of(one) for one in messages]
    for name in ("prompt", "input"):
        if (given := request.get(name)) is not None:
            several = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
            return [_single(name, one) for one in (given if several else [given])]
    return []


def answers_of(body: Any) -> list[Message]:
    """What an answer says: its choices, or of each vector how long it is and how it begins."""
    if not isinstance(body, Mapping):
        return []
    choices = [one for one in body.get("choices") or () if isinstance(one, Mapping)]
    if choices:
        return [
            message_of(one.get("message") or {"role": "assistant", "content": one.get("text")})
            for one in choices
        ]
    return [_vector(one.get("embedding")) for one in body.get("data") or () if isinstance(one, Mapping)]


def _single(name: str, one: Any) -> Message:
    if isinstance(one, list):
        tokens = " ".join(map(str, one[:SHOWN_NUMBERS]))
        return Message(f"{name}, {len(one):,} tokens", tokens + (" …" if len(one) > SHOWN_NUMBERS else ""))
    return Message(name, _cut(str(one)))


def _vector(vector: Any) -> Message:
    numbers = _numbers(vector)
    begins = ", ".join(f"{number:.6g}" for number in numbers[:SHOWN_NUMBERS])
    return Message(f"vector, {len(numbers):,} dimensions", f"{begins}, …" if numbers else "")


def _numbers(vector: Any) -> list[float]:
    """A vector as a list, or as OpenAI's client asks for it: 32-bit floats in base64."""
    if isinstance(vector, list):
        return [number for number in vector if isinstance(number, int | float)]
    try:
        data = base64.b64decode(vector) if isinstance(vector, str) else b""
    except ValueError:
        return []
    return [number for (number,) in struct.iter_unpack("<f", data[: len(data) // 4 * 4])]


def message_of(message: Any) -> Message:
    if not isinstance(message, Mapping):
        return Message("?", pretty(message))
    calls = message.get("tool_calls")
    thought = message.get("reasoning_content")
    text = _text(message.get("content"))
    if isinstance(thought, str) and thought:
        text = f"[reasoning]\n{thought}\n[answer]\n{text}"
    return Message(
        role=" ".join(str(message[name]) for name in ("role", "name", "tool_call_id") if message.get(name)),
        text=_cut(text),
        calls=tuple(_call(one) for one in calls) if isinstance(calls, list) else (),
    )


def _text(content: Any) -> str:
    """Text parts as they are; of any other part only its kind: an image is never loaded or drawn."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content if isinstance(content, str) else pretty(content)
    return "\n".join(_piece(part) for part in content)


def _piece(part: Any) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else None
    return f"[{kind or 'part'}, {len(json.dumps(part)):,} characters of JSON]"


def _call(call: Any) -> tuple[str, str]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return "?", pretty(call)
    return str(function.get("name") or "?"), _cut(str(function.get("arguments") or ""))
