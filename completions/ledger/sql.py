"""The ledger's own SQL: a few statements that run for every call, where an ORM object each would cost too
much.

No text of a caller ever becomes part of a statement: column names come from the code, values are parameters.
"""

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any

import orjson
from django.db import connection

from completions.ledger.operations import Admit, Row
from completions.models import State

ADMITTED = (
    "id",
    "request_id",
    "project_id",
    "api_key_id",
    "user_id",
    "end_user",
    "surface",
    "requested_model",
    "provider_slug",
    "model",
    "stream",
    "state",
    "prompt_tokens",
    "prices",
    "price_source",
    "hold_nano",
    "epoch_id",
    "created_at",
)
# Columns that an admit leaves blank, and the databases do not fill by themselves.
BLANK = {
    "finish_reason": "''",
    "error_code": "''",
    "error_message": "''",
    "usage_source": "''",
    "attempts": "0",
    "usage_anomaly": "false",
}
FINAL = frozenset(
    [
        "state",
        "finished_at",
        "provider_id",
        "provider_slug",
        "language_model_id",
        "model",
        "attempts",
        "finish_reason",
        "first_token_ms",
        "latency_ms",
        "cost_nano_usd",
        "price_source",
        "prices",
        "error_code",
        "error_message",
        "prompt_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "audio_prompt_tokens",
        "completion_tokens",
        "reasoning_tokens",
        "audio_completion_tokens",
        "usage_source",
        "usage_anomaly",
    ]
)

# Columns of an attempt, and what stands in one that a row does not name.
ATTEMPT = {
    "number": None,
    "provider_slug": "",
    "model": "",
    "state": "",
    "error_code": "",
    "error_message": "",
    "status": None,
    "started_ms": 0,
    "latency_ms": 0,
    "cost_nano_usd": None,
    "price_source": "",
    "prices": "",
    "prompt_tokens": None,
    "cached_tokens": None,
    "cache_write_tokens": None,
    "audio_prompt_tokens": None,
    "completion_tokens": None,
    "reasoning_tokens": None,
    "audio_completion_tokens": None,
    "usage_source": "",
    "usage_anomaly": False,
}
INSERT_ATTEMPT = (
    f"INSERT INTO completions_attempt (completion_id, {', '.join(ATTEMPT)}) "  # noqa: S608 - names of the code
    f"VALUES (%s{', %s' * len(ATTEMPT)})"
)
INSERT_CONTENT = (
    "INSERT INTO completions_completioncontent (completion_id, request, response, expires_at) "
    "VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"
)
CHARGE = "INSERT INTO completions_charge (completion_id, window_id, hold_nano) VALUES (%s, %s, %s)"
SETTLE_CHARGE = "UPDATE completions_charge SET cost_nano = %s WHERE completion_id = %s AND cost_nano IS NULL"
MOVE_WINDOW = (
    "UPDATE completions_budgetwindow SET spent_nano = spent_nano + %s, held_nano = held_nano + %s "
    "WHERE id = %s"
)


def admit_values(op: Admit, epoch_id: int | None) -> list[Any]:
    """The values of ADMITTED."""
    opening, caller = op.opening, op.opening.caller
    return [
        uuid_value(opening.id),
        caller.request_id or opening.id.hex,
        caller.project_id,
        caller.api_key_id,
        caller.user_id,
        opening.end_user,
        caller.surface,
        opening.requested_model,
        opening.provider_slug,
        opening.model,
        opening.stream,
        State.RUNNING.value,
        opening.prompt_tokens,
        opening.prices,
        opening.price_source,
        opening.hold_nano,
        epoch_id,
        value(op.created_at),
    ]


def attempt_values(completion: uuid.UUID, row: Row) -> list[Any]:
    """The values of INSERT_ATTEMPT. Raises ValueError for a column that an attempt does not have."""
    if not row.keys() <= ATTEMPT.keys():
        raise ValueError(f"an attempt has no {', '.join(sorted(row.keys() - ATTEMPT.keys()))}")
    return [uuid_value(completion), *(ATTEMPT | row).values()]


def settle_values(completion: uuid.UUID, final: Row) -> list[Any]:
    """The values of `settle(tuple(final))`."""
    return [*map(value, final.values()), uuid_value(completion)]


def content_values(completion: uuid.UUID, row: Row) -> list[Any]:
    """The values of INSERT_CONTENT."""
    request, response = json_text(row["request"]), json_text(row["response"])
    return [uuid_value(completion), request, response, value(row["expires_at"])]


def json_text(body: Mapping[str, Any] | bytes | str | None) -> str | None:
    """A request's body, or the message that answered it, as it is stored. Bytes are JSON that was parsed."""
    if body is None or isinstance(body, str):
        return body
    if isinstance(body, bytes):
        return body.decode()
    try:
        return orjson.dumps(body).decode()
    except TypeError:  # half a surrogate pair, integers over 64 bits: escaped, JSON can hold them
        return json.dumps(body, separators=(",", ":"))


@cache
def admit() -> str:
    columns = ", ".join((*ADMITTED, *BLANK))
    values = ", ".join(("%s",) * len(ADMITTED) + tuple(BLANK.values()))
    return f"INSERT INTO completions_completion ({columns}) VALUES ({values})"  # noqa: S608 - names of the code


@cache
def settle(columns: tuple[str, ...]) -> str:
    if unknown := set(columns) - FINAL:
        raise ValueError(f"a settlement cannot set {', '.join(sorted(unknown))}")
    changes = ", ".join(f"{column} = %s" for column in columns)
    return f"UPDATE completions_completion SET {changes} WHERE id = %s AND state = 'running'"  # noqa: S608 - as above


@cache
def running(count: int) -> str:
    """Those of `count` completions that run, locked where the database locks rows."""
    ending = " FOR UPDATE" if connection.features.has_select_for_update else ""
    return (
        "SELECT id FROM completions_completion "  # noqa: S608
        f"WHERE id IN ({marks(count)}) AND state = 'running' ORDER BY id{ending}"
    )


@cache
def charges(count: int) -> str:
    columns = "completion_id, window_id, hold_nano"
    return f"SELECT {columns} FROM completions_charge WHERE completion_id IN ({marks(count)})"  # noqa: S608


@cache
def lock(count: int) -> str:
    """Windows with their budgets, in the order of their ids, locked where the database locks rows."""
    columns = "w.id, w.spent_nano, w.held_nano, b.amount, b.hard, b.enabled, b.thresholds, b.webhook_url"
    tables = "completions_budgetwindow w JOIN completions_budget b ON b.id = w.budget_id"
    ending = " FOR UPDATE OF w" if connection.features.has_select_for_update_of else ""
    return f"SELECT {columns} FROM {tables} WHERE w.id IN ({marks(count)}) ORDER BY w.id{ending}"  # noqa: S608


def marks(count: int) -> str:
    return ", ".join(["%s"] * count)


def uuid_value(one: uuid.UUID) -> Any:
    return one if _native_uuids() else one.hex


def value(one: Any) -> Any:
    """A Python value as this database's driver takes it."""
    kind = type(one)
    if kind in PLAIN:
        return one
    if kind is uuid.UUID:
        return uuid_value(one)
    if kind is datetime:
        return connection.ops.adapt_datetimefield_value(one)
    return one.value if isinstance(one, Enum) else one


PLAIN = frozenset({int, str, bool, float, type(None)})


@cache
def _native_uuids() -> bool:
    """Asked once: the database's kind does not change while a process lives."""
    return connection.features.has_native_uuid_field
