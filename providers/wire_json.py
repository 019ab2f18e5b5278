"""JSON as it goes out and is stored, and the one field of a request that has two names."""

import json
from collections.abc import Mapping
from typing import Any

import orjson

# Of what a call may bring; the first that is said counts.
OUTPUT_BOUNDS = ("max_completion_tokens", "max_tokens")


def dumped(value: Any, *, sort_keys: bool = False) -> bytes:
    """JSON; also of what orjson refuses: half a surrogate pair and huge whole numbers, escaped."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except TypeError:
        return json.dumps(value, sort_keys=sort_keys, separators=(",", ":")).encode()


def output_bound(*bodies: Mapping[str, Any]) -> Any:
    """The most tokens of output that is asked for, in the first of `bodies` that says any; None: nowhere.

    What is sent, held, limited and cached must go by the same one.
    """
    for body in bodies:
        for name in OUTPUT_BOUNDS:
            if body.get(name) is not None:
                return body[name]
    return None
