"""A value that a JSON schema allows: what the demo provider fills structured answers and tool calls with."""

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 12
MAX_ITEMS = 20
TEXT = "demo"
FORMATS = {
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "date-time": "2026-01-31T12:00:00Z",
    "email": "demo@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
}


def sample(schema: Mapping[str, Any]) -> Any:
    """The same value every time. `pattern` is not honoured, nor are conditions between properties."""
    return _sample(schema, schema, 0)


def _sample(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return None
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    for name in ("enum", "examples"):
        if isinstance(schema.get(name), list) and schema[name]:
            return schema[name][0]
    if isinstance(reference := schema.get("$ref"), str):
        return _sample(_resolved(reference, root), root, depth + 1)
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list) and schema[name]:
            return _sample(schema[name][0], root, depth + 1)
    if isinstance(parts := schema.get("allOf"), list):
        values = [_sample(part, root, depth + 1) for part in parts]
        return {name: value for part in values if isinstance(part, dict) for name, value in part.items()}
    return _of_type(schema, root, depth)


def _of_type(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type") or ("array" if "items" in schema else "object")
    if isinstance(kind, list):
        kind = kind[0] if kind else "null"
    if kind == "object":
        properties = schema.get("properties")
        given = properties if isinstance(properties, Mapping) else {}
        if depth >= MAX_DEPTH // 2:  # a schema that refers to itself: only what it insists on
            given = {name: value for name, value in given.items() if name in (schema.get("required") or ())}
        return {name: _sample(value, root, depth + 1) for name, value in given.items()}
    if kind == "array":
        fewest = _number(schema, "minItems", 0 if depth >= MAX_DEPTH // 2 else 1)
        return [_sample(schema.get("items", {"type": "string"}), root, depth + 1)] * min(
            int(fewest), MAX_ITEMS
        )
    if kind == "string":
        return _string(schema)
    if kind in ("integer", "number"):
        least = _number(
            schema, "minimum", _number(schema, "exclusiveMinimum", 0) + ("exclusiveMinimum" in schema)
        )
        return int(least) if kind == "integer" else least
    return True if kind == "boolean" else None


def _string(schema: Mapping[str, Any]) -> str:
    text = FORMATS.get(str(schema.get("format")), TEXT)
    fewest, most = int(_number(schema, "minLength", 0)), int(_number(schema, "maxLength", 1 << 16))
    return text.ljust(min(fewest, 1 << 16), ".")[:most]


def _number(schema: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


def _resolved(reference: str, root: Mapping[str, Any]) -> Any:
    value: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        value = value.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(value, Mapping) else None
    return value if reference != "#" else root
