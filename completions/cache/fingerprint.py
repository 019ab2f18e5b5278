"""Which requests are equal: one key for each answer that may be given again.

A key is a hash over who shares the answer, what is called, and every field that changes the output. The order
of an object's names and the spelling of numbers do not matter; the order of a list does.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from providers.types import JSON, Operation, Target
from providers.wire_json import OUTPUT_BOUNDS, dumped, output_bound

FORMAT = 1  # of the key: another one forgets all that is stored
# They change how an answer is delivered, or what is noted of it; not what it says.
IGNORED = frozenset(("user", "stream", "stream_options", "metadata"))


def canonical(target: Target, operation: Operation, body: Mapping[str, Any]) -> JSON:
    """What the upstream is asked, in one spelling: its defaults under the caller's own words."""
    return spelled(target.default_config, operation, body)


def spelled(defaults: Mapping[str, Any], operation: Operation, body: Mapping[str, Any]) -> JSON:
    """`canonical`, of a provider with these defaults."""
    given = dict(body)
    if operation is not Operation.EMBEDDING:
        given = {**defaults, **body}
        for name in OUTPUT_BOUNDS:
            given.pop(name, None)
        given["max_tokens"] = output_bound(body, defaults)
    return {name: plain(value) for name, value in given.items() if value is not None and name not in IGNORED}


def key_of(scope: str, target: Target, operation: Operation, asked: JSON) -> str:
    """64 hexadecimal digits. `asked`: as `canonical` makes it."""
    at = target.endpoint
    called = [at.type.value, at.provider, at.base_url, target.upstream_model]
    return hashlib.sha256(
        dumped([FORMAT, scope, operation.value, *called, asked], sort_keys=True)
    ).hexdigest()


def plain(value: Any) -> Any:
    """A JSON value with whole numbers as such, however they were written: 1.0 is 1."""
    kind = type(value)
    if kind is float:
        return int(value) if value.is_integer() else value
    if kind is dict:
        return {name: plain(inner) for name, inner in value.items()}
    if kind is list or kind is tuple:
        return [plain(inner) for inner in value]
    return value
