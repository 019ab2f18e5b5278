"""What a call may ask for, on `/api` and in Python: the rows of CONFIG_FIELDS and the shape of messages.

Refused here is what the hub must be sure of and what no vendor accepts. What vendors differ in, they judge.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from completions.errors import InvalidRequestError
from completions.types import CacheControl, CacheWish, CompletionRequest
from providers.types import JSON

ROLES = ("developer", "system", "user", "assistant", "tool", "function")
# A call never chooses the upstream's address, key or headers.
ROUTING = frozenset(
    {"api_base", "base_url", "api_key", "extra_headers", "organization", "custom_llm_provider"},
)
BESIDE_CONFIG = frozenset(
    {"model", "messages", "user", "provider", "stream", "stream_options", "cache", "cache_ttl_seconds"}
)
NAME_CAP = 200  # characters of `model`, `provider` and `user`: what their columns hold
LONGEST_TTL = 366 * 24 * 3600  # seconds that a cached answer may be kept
# What HTTP's own Cache-Control means here; the first that is said counts.
HTTP_WORDS = {
    "no-store": CacheControl.OFF,
    "only-if-cached": CacheControl.ONLY,
    "no-cache": CacheControl.REFRESH,
    "max-age=0": CacheControl.REFRESH,
}
MAX_AGE = re.compile(r"max-age=[0-9]{1,9}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One key of `config`: `problem(value)` says what is wrong with a value, `schema` is its JSON schema."""

    name: str
    meaning: str
    problem: Callable[[Any], str | None]
    schema: JSON
    sent: bool = True  # the upstream gets it; else it is the hub's own


def _number(name: str, low: float, high: float, meaning: str) -> Parameter:
    def problem(value: Any) -> str | None:
        fits = _is_number(value) and low <= value <= high
        return None if fits else f"must be a number from {low:g} to {high:g}"

    return Parameter(name, meaning, problem, {"type": "number", "minimum": low, "maximum": high})


def _whole(name: str, low: int, high: int, meaning: str, *, sent: bool = True) -> Parameter:
    def problem(value: Any) -> str | None:
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if fits else f"must be a whole number from {low} to {high}"

    return Parameter(name, meaning, problem, {"type": "integer", "minimum": low, "maximum": high}, sent)


def _flag(name: str, meaning: str) -> Parameter:
    def problem(value: Any) -> str | None:
        return None if isinstance(value, bool) else "must be true or false"

    return Parameter(name, meaning, problem, {"type": "boolean"})


def _word(name: str, meaning: str) -> Parameter:
    def problem(value: Any) -> str | None:
        return None if isinstance(value, str) and 0 < len(value) <= NAME_CAP else "must be a short text"

    return Parameter(name, meaning, problem, {"type": "string", "minLength": 1, "maxLength": NAME_CAP})


def _object(name: str, meaning: str) -> Parameter:
    def problem(value: Any) -> str | None:
        return None if isinstance(value, Mapping) else "must be an object"

    return Parameter(name, meaning, problem, {"type": "object", "additionalProperties": True})


def _timeout(value: Any) -> str | None:
    return (
        None
        if _is_number(value) and 0 < value <= 3600
        else "must be a number of seconds above 0, at most 3600"
    )


def _stop(value: Any) -> str | None:
    texts = [value] if isinstance(value, str) else value
    fits = isinstance(texts, list | tuple) and 1 <= len(texts) <= 16
    if not fits or not all(isinstance(text, str) and text for text in texts):
        return "must be a text, or a list of 1 to 16 texts, none of them empty"
    return None


def _typed_object(value: Any) -> str | None:
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        return 'must be an object with a "type", e.g. {"type": "json_object"}'
    return None


def _tools(value: Any) -> str | None:
    if not isinstance(value, list | tuple) or not value:
        return "must be a list of at least one tool"
    for index, tool in enumerate(value):
        if problem := _typed_object(tool):
            return f"[{index}] {problem}"
        function = tool.get("function")
        if tool["type"] == "function" and not (
            isinstance(function, Mapping) and _is_text(function.get("name"))
        ):
            return f'[{index}] needs "function" with a "name"'
    return None


def _tool_choice(value: Any) -> str | None:
    fits = isinstance(value, Mapping) or (isinstance(value, str) and value)
    return None if fits else 'must be "none", "auto", "required" or an object that names a tool'


def _list(value: Any) -> str | None:
    return None if isinstance(value, list | tuple) and value else "must be a list, not an empty one"


_TYPED = {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]}
_TOOL = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "const": "function"},
        "function": {
            "type": "object",
            "properties": {"name": {"type": "string", "minLength": 1}},
            "required": ["name"],
        },
    },
    "required": ["type", "function"],
}
_STOP_SCHEMA = {
    "oneOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 16},
    ]
}
_MOST_TOKENS = 100_000_000
_INT64 = 1 << 63

_ROWS = (
    _whole("max_tokens", 1, _MOST_TOKENS, "Most tokens of output, hidden reasoning included."),
    _whole("max_completion_tokens", 1, _MOST_TOKENS, "The newer name of max_tokens: give one of the two."),
    _number("temperature", 0, 2, "0: always the likeliest token; higher: more varied."),
    _number("top_p", 0, 1, "Sample from the likeliest tokens that make up this share."),
    _number("frequency_penalty", -2, 2, "Above 0: repeat tokens less, the more often they occurred."),
    _number("presence_penalty", -2, 2, "Above 0: repeat tokens less once they occurred."),
    Parameter("stop", "Text, or up to 16 texts, at which the answer ends.", _stop, _STOP_SCHEMA),
    Parameter(
        "timeout",
        "Seconds for the whole call; it can only shorten the provider's own limit.",
        _timeout,
        {"type": "number", "exclusiveMinimum": 0, "maximum": 3600},
        sent=False,
    ),
    _whole("seed", -_INT64, _INT64 - 1, "Same seed, same answer, as far as the provider can."),
    Parameter("response_format", "Text, JSON or a JSON schema.", _typed_object, _TYPED),
    Parameter(
        "tools",
        "Functions the model may call.",
        _tools,
        {"type": "array", "items": _TOOL, "minItems": 1},
    ),
    Parameter(
        "tool_choice",
        "none, auto, required, or an object that names a tool.",
        _tool_choice,
        {"oneOf": [{"type": "string", "minLength": 1}, {"type": "object"}]},
    ),
    _flag("parallel_tool_calls", "Whether one answer may call several tools."),
    _word("reasoning_effort", "How long a reasoning model may think, e.g. low, medium, high."),
    _word("verbosity", "How wordy the answer may be, e.g. low, medium, high."),
    _whole("n", 1, 1, "One answer a call: only 1 is accepted.", sent=False),
    _flag("logprobs", "Return the tokens' log probabilities in `message`."),
    _whole("top_logprobs", 0, 20, "How many likely alternatives to return for each token."),
    _object("logit_bias", "Token id to bias, -100 to 100."),
    _object("metadata", "Names and texts the provider keeps with the call."),
    _whole("top_k", -1, 1_000_000, "Sample from this many likeliest tokens (not every provider)."),
    _number("min_p", 0, 1, "Least share of the likeliest token's probability (not every provider)."),
    _number("repetition_penalty", 0, 10, "Above 1: repeat less (not every provider)."),
    _object("prediction", "Text the answer will mostly repeat."),
    _object("thinking", "Extended thinking, in the provider's own shape."),
    Parameter(
        "modalities",
        "Kinds of output, e.g. text.",
        _list,
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
    ),
    _object("audio", "Voice and format of audio output."),
    _object("web_search_options", "The provider's own web search."),
    _word("service_tier", "The provider's class of service."),
    _flag("store", "Whether the provider may keep the answer."),
    _word("prompt_cache_key", "Helps the provider to route alike prompts to one cache."),
    _word("safety_identifier", "A stable hash of the person behind the call."),
)
CONFIG_FIELDS: Mapping[str, Parameter] = {row.name: row for row in _ROWS}


def validate(request: CompletionRequest) -> JSON:
    """The OpenAI chat completion body of `request`, without model and stream.

    Raises InvalidRequestError; its details name the offending field as `param`, e.g. "messages[2].role".
    """
    for name in ("model", "provider", "user"):
        _check_name(name, getattr(request, name))
    body: JSON = {"messages": _messages(request.messages)}
    _check_plain("messages", body["messages"])
    body |= _config(request.config)
    if request.user:
        body["user"] = request.user
    return body


def timeout_of(request: CompletionRequest) -> float | None:
    """Seconds the caller gives the whole call, None where it did not say."""
    value = request.config.get("timeout")
    return None if value is None else float(value)


def cache_wish(control: Any, ttl_seconds: Any) -> CacheWish:
    """What a request says of the cache. Raises InvalidRequestError with `param`."""
    if control not in tuple(CacheControl):
        words = ", ".join(word for word in CacheControl if word)
        raise _wrong("cache", f"must be one of {words}, not {ascii(control)[:64]}")
    if ttl_seconds is not None and (type(ttl_seconds) is not int or not 1 <= ttl_seconds <= LONGEST_TTL):
        raise _wrong("cache_ttl_seconds", f"must be a whole number of seconds from 1 to {LONGEST_TTL}")
    return CacheWish(CacheControl(control), ttl_seconds)


def cache_wish_of_headers(cache_control: str, control: str, ttl: str) -> CacheWish:
    """`cache_wish` of the headers Cache-Control, x-llmhub-cache and x-llmhub-cache-ttl; "" for none."""
    most_age = None
    if not control and cache_control:
        said = {word.strip().lower() for word in cache_control.split(",")}
        control = next((meant for word, meant in HTTP_WORDS.items() if word in said), "")
        ages = [word.removeprefix("max-age=") for word in said if MAX_AGE.fullmatch(word)]
        most_age = min(map(int, ages), default=None)
    if ttl and not (ttl.isascii() and ttl.isdigit() and len(ttl) <= len(str(LONGEST_TTL))):
        raise _wrong("x-llmhub-cache-ttl", f"must be a whole number of seconds from 1 to {LONGEST_TTL}")
    return cache_wish(control.lower(), int(ttl) if ttl else None)._replace(most_age_seconds=most_age)


def check_messages(messages: Any) -> list[JSON]:
    """`messages` as plain JSON. Raises InvalidRequestError with `param`."""
    plain = _messages(messages)
    _check_plain("messages", plain)
    return plain


def check_tools(tools: Any) -> list[JSON]:
    """`tools` as plain JSON. Raises InvalidRequestError with `param`."""
    if problem := _tools(tools):
        raise _wrong("tools", problem)
    _check_plain("tools", tools)
    return [dict(tool) for tool in tools]


def _config(config: Any) -> JSON:
    if not isinstance(config, Mapping):
        raise _wrong("config", "must be an object of parameters")
    sent: JSON = {}
    for name, value in config.items():
        parameter = _parameter(name)
        if value is None:  # as in OpenAI's own wire: null is "not given"
            continue
        if problem := parameter.problem(value):
            raise _wrong(f"config.{name}", problem)
        if parameter.sent:
            sent[name] = value
    _check_plain("config", sent)
    newer = sent.pop("max_completion_tokens", None)
    if newer is not None and sent.setdefault("max_tokens", newer) != newer:
        raise _wrong("config.max_completion_tokens", "and max_tokens differ; give one of the two")
    return sent


def _parameter(name: Any) -> Parameter:
    if name in CONFIG_FIELDS:
        return CONFIG_FIELDS[name]
    if name in ROUTING:
        raise _wrong(
            f"config.{name}", "is not accepted: a call never chooses the provider's address, key or headers"
        )
    if name in BESIDE_CONFIG:
        raise _wrong(f"config.{name}", "does not belong into config; give it beside config")
    shown = ascii(str(name)[:64])
    known = ", ".join(CONFIG_FIELDS)
    raise InvalidRequestError(f"config has an unknown parameter {shown}. Known are: {known}.", param="config")


def _messages(messages: Any) -> list[JSON]:
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise _wrong("messages", 'must be a list of messages, e.g. [{"role": "user", "content": "Hello"}]')
    if not messages:
        raise _wrong("messages", "must hold at least one message")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: Any, at: str) -> JSON:
    if not isinstance(message, Mapping):
        raise _wrong(at, 'must be an object, e.g. {"role": "user", "content": "Hello"}')
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise _wrong(f"{at}.role", f"must be one of {', '.join(ROLES)}")
    _check_content(message, role, at)
    if role == "tool" and not _is_text(message.get("tool_call_id")):
        raise _wrong(f"{at}.tool_call_id", "must name the tool call this message answers")
    calls = message.get("tool_calls")
    if calls is not None and not _are_objects(calls):
        raise _wrong(f"{at}.tool_calls", "must be a list of tool calls")
    return dict(message)


def _check_content(message: Mapping[str, Any], role: str, at: str) -> None:
    content = message.get("content")
    if content is None:
        says_otherwise = any(message.get(key) for key in ("tool_calls", "function_call", "refusal", "audio"))
        if role != "assistant" or not says_otherwise:
            raise _wrong(f"{at}.content", "must be a text or a list of parts")
        return
    if isinstance(content, str):
        return
    if not isinstance(content, list | tuple) or not content:
        raise _wrong(f"{at}.content", "must be a text or a list of at least one part")
    for index, part in enumerate(content):
        if not isinstance(part, Mapping) or not _is_text(part.get("type")):
            raise _wrong(
                f"{at}.content[{index}]",
                'must be an object with a "type", e.g. {"type": "text", "text": "Hi"}',
            )
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise _wrong(f"{at}.content[{index}].text", "must be a text")


def _check_name(name: str, value: Any) -> None:
    if value is None and name != "user":
        return
    if not isinstance(value, str) or len(value) > NAME_CAP:
        raise _wrong(name, f"must be a text of at most {NAME_CAP} characters")
    if CONTROL.search(value):
        raise _wrong(name, "must not hold control characters")
    _check_plain(name, value)


def _check_plain(param: str, value: Any) -> None:
    """Refuses what JSON cannot carry: other objects, lone surrogates, endless nesting, huge whole numbers."""
    try:
        orjson.dumps(value)
    except TypeError as error:
        raise _wrong(param, f"cannot be sent as JSON: {error}") from error


def _wrong(param: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{param} {problem}.", param=param)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_objects(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)
