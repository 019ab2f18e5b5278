"""What `/v1` takes: bodies in OpenAI's shape, checked as far as the hub must understand them.

Everything else passes through: vendors differ, and they judge their own parameters.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import orjson

from completions.errors import InvalidRequestError
from completions.requests import CONTROL, NAME_CAP, ROUTING
from completions.types import Call, Caller
from providers.types import JSON, Operation

MOST_ANSWERS = 128
MOST_TOKENS = 100_000_000
MOST_INPUTS = 2048  # of one embeddings request, as OpenAI has it
MOST_LEVELS = 100  # of a body's objects and lists in one another: what walks through them must not fall
# Who may answer in place of `model`: of OpenRouter, and of other gateways behind this one.
ANOTHER_MODEL = frozenset(("models", "route", "preset", "fallbacks"))
Check = Callable[[Any], str | None]


def call_of(caller: Caller, operation: Operation, raw: bytes) -> Call:
    """The call that a body asks for. Raises InvalidRequestError with `param`."""
    return checked(caller, operation, _object(raw), raw)


def checked(caller: Caller, operation: Operation, body: JSON, raw: bytes = b"") -> Call:
    """The call of a body that was read already (and is changed). `raw`: as it came. Raises as `call_of`."""
    for name in body.keys() & ROUTING:
        raise _wrong(name, "is not accepted: a call never chooses the provider's address, key or headers")
    for name in body.keys() & ANOTHER_MODEL:
        raise _wrong(name, "is not accepted: `model` alone says which model answers")
    for name, check in CHECKS[operation].items():
        value = body.get(name)
        if (value is not None or name in REQUIRED) and (problem := check(value)):
            raise _wrong(name, problem)
    _check_levels(body, CHECKS[operation])
    model = body.pop("model")
    stream = bool(body.pop("stream", None)) and operation is not Operation.EMBEDDING
    if not stream:
        body.pop("stream_options", None)
    return Call(caller, body, model, None, stream, None, body.get("user") or "", operation, raw)


def wants_usage(call: Call) -> bool:
    """Whether the caller of a stream asked for its usage."""
    options = call.body.get("stream_options")
    return bool(options and options.get("include_usage"))


def _object(raw: bytes) -> JSON:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(body, dict):
        raise InvalidRequestError('The request body must be a JSON object, e.g. {"model": …}.')
    return body


def _check_levels(body: JSON, checked: Collection[str]) -> None:
    """Refuse what is nested too deeply. Level by level, for it may be too deep to be walked by recursion.

    It takes 2 µs of a prompt of 100 kB; to count that prompt's brackets first would take 90.
    """
    for name, value in body.items():
        if not (name in FLAT and name in checked) and _levels_left(value, MOST_LEVELS - 1):
            raise _wrong(name, f"is nested too deeply: a body may have at most {MOST_LEVELS} levels")


def _levels_left(value: Any, most: int) -> bool:
    """Whether a value has more levels of objects and lists than `most`."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(most):
        inner = [each.values() if type(each) is dict else each for each in level]
        level = [value for values in inner for value in values if type(value) is dict or type(value) is list]
        if not level:
            break
    return bool(level)


def _wrong(name: str, problem: str) -> InvalidRequestError:
    where = name if problem.startswith("[") else f"{name} "  # "messages[0] must be", "n must be"
    return InvalidRequestError(f"{where}{problem}.", param=name)


# --- what is wrong with a value, or None


def _model(value: Any) -> str | None:
    if value is None:
        return "is required: the model to call"
    if not isinstance(value, str) or not 0 < len(value) <= NAME_CAP or CONTROL.search(value):
        return f"must be the name of a model, of at most {NAME_CAP} characters"
    return None


def _messages(value: Any) -> str | None:
    if not isinstance(value, list) or not value:
        return 'must be a list of at least one message, e.g. [{"role": "user", "content": "Hello"}]'
    for index, message in enumerate(value):
        if not isinstance(message, dict):
            return f"[{index}] must be an object with a role and content"
        if not isinstance(message.get("role"), str):
            return f"[{index}].role must be a text such as user, system or assistant"
    return None


def _objects(value: Any) -> str | None:
    fits = isinstance(value, list) and all(isinstance(item, dict) for item in value)
    return None if fits else "must be a list of objects"


def _object_or_none(value: Any) -> str | None:
    return None if isinstance(value, dict) else "must be an object"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _user(value: Any) -> str | None:
    fits = isinstance(value, str) and len(value) <= NAME_CAP and not CONTROL.search(value)
    return None if fits else f"must be a text of at most {NAME_CAP} characters, without control characters"


def _whole(most: int, least: int = 1) -> Check:
    def check(value: Any) -> str | None:
        fits = type(value) is int and least <= value <= most
        return None if fits else f"must be a whole number from {least} to {most}"

    return check


def _prompt(value: Any) -> str | None:
    """Text, tokens, or a list of either."""
    if isinstance(value, str):
        return None
    if not isinstance(value, list) or not value:
        return "must be a text, a list of texts, a list of tokens, or a list of those"
    if len(value) > MOST_INPUTS and not isinstance(value[0], int):
        return f"holds {len(value)} inputs; at most {MOST_INPUTS} are accepted"
    if all(isinstance(item, str) for item in value) or _are_tokens(value) or all(map(_are_tokens, value)):
        return None
    return "must hold texts only, or tokens only, or lists of tokens only"


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)


def _encoding(value: Any) -> str | None:
    return None if value in ("float", "base64") else 'must be "float" or "base64"'


REQUIRED = frozenset(("model", "messages", "input"))  # the older wire completes nothing, if given no prompt
FLAT = ("prompt", "input")  # texts and tokens, where they are checked: long, and of two levels
COMMON: Mapping[str, Check] = {"model": _model, "user": _user}
BOUNDS: Mapping[str, Check] = {
    "stream": _flag,
    "stream_options": _object_or_none,
    "n": _whole(MOST_ANSWERS),
    "max_tokens": _whole(MOST_TOKENS),
}
CHECKS: Mapping[Operation, Mapping[str, Check]] = {
    Operation.CHAT: {
        **COMMON,
        "messages": _messages,
        **BOUNDS,
        "max_completion_tokens": _whole(MOST_TOKENS),
        "tools": _objects,
    },
    Operation.COMPLETION: {
        **COMMON,
        "prompt": _prompt,
        **BOUNDS,
        "max_tokens": _whole(MOST_TOKENS, least=0),  # with echo and logprobs: the prompt's own figures
        "best_of": _whole(MOST_ANSWERS),
    },
    Operation.EMBEDDING: {
        **COMMON,
        "input": _prompt,
        "encoding_format": _encoding,
        "dimensions": _whole(MOST_TOKENS),
    },
}
