"""The ledger's own SQL: a few statements that run for every call, where an ORM object each would cost too
much.

No text of a caller ever becomes part of a statement: column names come from the code, values are parameters.
They go to the database's own driver: Django's cursor would look for placeholders in every text anew.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from functools import cache, lru_cache
from typing import Any

from django.db import Error, connection

from completions.ledger.operations import Opening, Row
from completions.models import State
from providers.wire_json import dumped

ADMITTED = (
    "id",
    "request_id",
    "project_id",
    "api_key_id",
    "user_id",
    "end_user",
    "surface",
    "operation",
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
    "cache": "''",
    "saved_nano_usd": "0",
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
        "cache",
        "saved_nano_usd",
        "cached_from",
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
# Waits until no other transaction begins windows of this name. SQLite lets only one write in any case.
LOCK_NAME = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
REPEATED = frozenset({"40001", "40P01"})  # SQLSTATE: serialization failure, deadlock
Values = Sequence[Any]


class Statements:
    """The open transaction's statements: written with %s for a value, sent as its driver wants them.

    Raises Django's database errors.
    """

    def __init__(self) -> None:
        self._errors = connection.wrap_database_errors
        self._cursor: Any = connection.connection.cursor()
        self._text = _with_question_marks if connection.vendor == "sqlite" else str

    def __enter__(self) -> "Statements":
        return self

    def __exit__(self, *_: object) -> None:
        self._cursor.close()

    def rows(self, statement: str, values: Values) -> list[Any]:
        with self._errors:
            self._cursor.execute(self._text(statement), values)
            return list(self._cursor.fetchall())

    def many(self, statement: str, rows: Sequence[Values]) -> None:
        """One statement for each of `rows`; none for none."""
        if rows:
            with self._errors:
                self._cursor.executemany(self._text(statement), rows)


def must_repeat(error: BaseException | None) -> bool:
    """Whether the database undid a transaction because of another's: the same may be tried again at once."""
    return isinstance(error, Error) and getattr(error.__cause__, "sqlstate", None) in REPEATED


@lru_cache(maxsize=1024)
def _with_question_marks(statement: str) -> str:
    return statement.replace("%s", "?")


def admit_values(opening: Opening, created_at: datetime, epoch_id: int | None) -> list[Any]:
    """The values of ADMITTED."""
    caller = opening.caller
    return [
        uuid_value(opening.id),
        caller.request_id or opening.id.hex,
        caller.project_id,
        caller.api_key_id,
        caller.user_id,
        opening.end_user,
        caller.surface,
        opening.operation,
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
        value(created_at),
    ]


def post_values(opening: Opening, created_at: datetime, epoch_id: int | None, final: Row) -> list[Any]:
    """The values of `post(tuple(final))`."""
    admitted = dict(zip(ADMITTED, admit_values(opening, created_at, epoch_id), strict=True))
    return [*(admitted | {name: value(one) for name, one in final.items()}).values()]


def attempt_values(completion: uuid.UUID, row: Row) -> list[Any]:
    """The values of `attempt(tuple(row))`."""
    return [uuid_value(completion), *map(value, row.values())]


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
    return dumped(body).decode()


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
def post(columns: tuple[str, ...]) -> str:
    """Insert a row that is final: ADMITTED and these columns. One that is there already stays as it is."""
    if unknown := set(columns) - FINAL:
        raise ValueError(f"a row cannot have {', '.join(sorted(unknown))}")
    given = tuple(dict.fromkeys((*ADMITTED, *columns)))
    blank = {name: text for name, text in BLANK.items() if name not in given}
    names = ", ".join((*given, *blank))
    values = ", ".join(("%s",) * len(given) + tuple(blank.values()))
    return f"INSERT INTO completions_completion ({names}) VALUES ({values}) ON CONFLICT DO NOTHING"  # noqa: S608 - as above


@cache
def attempt(columns: tuple[str, ...]) -> str:
    """Insert an attempt's row of these columns; the others are left as ATTEMPT says."""
    if unknown := set(columns) - ATTEMPT.keys():
        raise ValueError(f"an attempt has no {', '.join(sorted(unknown))}")
    blank = {name: _literal(default) for name, default in ATTEMPT.items() if name not in columns}
    names = ", ".join(("completion_id", *columns, *blank))
    values = ", ".join(("%s",) * (1 + len(columns)) + tuple(blank.values()))
    return f"INSERT INTO completions_attempt ({names}) VALUES ({values})"  # noqa: S608 - names of the code


def _literal(default: Any) -> str:
    return {type(None): "NULL", bool: "false"}.get(type(default), repr(default))


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
    """Windows with their budgets, in the order of their ids, locked where the database locks rows.

    The first value is the time now: whether a window has not ended is the last column.
    """
    columns = (
        "w.id, w.spent_nano, w.held_nano, b.amount, b.hard, b.enabled, b.thresholds, b.webhook_url, "
        "w.ends_at IS NULL OR w.ends_at > %s"
    )
    tables = "completions_budgetwindow w JOIN completions_budget b ON b.id = w.budget_id"
    ending = " FOR UPDATE OF w" if connection.features.has_select_for_update_of else ""
    return f"SELECT {columns} FROM {tables} WHERE w.id IN ({marks(count)}) ORDER BY w.id{ending}"  # noqa: S608


@cache
def alerted(count: int) -> str:
    """The alerts there are of windows."""
    columns = "window_id, threshold, amount_nano"
    return f"SELECT {columns} FROM completions_budgetalert WHERE window_id IN ({marks(count)})"  # noqa: S608


def marks(count: int) -> str:
    return ", ".join(["%s"] * count)


def uuid_value(one: uuid.UUID) -> Any:
    return one if _native_types() else one.hex


def value(one: Any) -> Any:
    """A Python value as this database's driver takes it."""
    kind = type(one)
    if kind in PLAIN:
        return one
    if kind is uuid.UUID:
        return uuid_value(one)
    if kind is datetime:
        return time_value(one)
    return one.value if isinstance(one, Enum) else one


def time_value(one: datetime) -> Any:
    """Aware times; SQLite keeps them as text, in UTC, as Django writes them."""
    return one if _native_types() else str(one.astimezone(UTC).replace(tzinfo=None))


PLAIN = frozenset({int, str, bool, float, type(None)})


@cache
def _native_types() -> bool:
    """Whether the database knows ids and times. Asked once: its kind stays while a process lives."""
    return connection.features.has_native_uuid_field
