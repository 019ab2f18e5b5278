"""Who may spend: projects, keys and budgets as this process sees them; fresh within a second.

Loaded one by one when first needed, and forgotten together when any of them changes: a save or delete
counts up one row, which is compared every CHECK_SECONDS. A hub may have a hundred thousand keys; a process
knows those that call it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save

from completions.limits import Limits
from completions.models import ApiKey, Budget, Project
from completions.periods import Period
from providers import database
from providers.models import RegistryVersion
from providers.refresh import Refresh
from providers.types import NANO, CacheMode

VERSION_ROW = 2  # of RegistryVersion; 1 is the providers' own
CHECK_SECONDS = 0.5
LATEST_SECONDS = 0.9  # until then calls use what is known while it is compared in the background

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BudgetFacts:
    """A budget that is in force."""

    id: str  # UUID, hex
    label: str
    api_key_id: int | None
    per_end_user: bool
    amount_nano: int
    period: Period
    zone: ZoneInfo
    hard: bool
    thresholds: tuple[int, ...]
    webhook: bool


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    """A project and all of its budgets."""

    id: int
    since: float  # when it was made: with it, an id means the same after a backup was restored
    slug: str
    enabled: bool
    content_days: int
    cache_scope: str  # of CacheScope
    cache_group: str  # empty: its answers are its own
    budgets: tuple[BudgetFacts, ...]


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A key as authentication and admission need it."""

    id: int
    since: float  # when it was made
    project_id: int
    public_id: str
    secret_hmac: str = field(repr=False)
    old_public_id: str | None
    old_secret_hmac: str = field(repr=False)
    old_valid_until: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    allowed_models: frozenset[str]  # empty: all
    limits: Limits
    log_content: bool
    cache_mode: CacheMode


class _Known:
    """What was loaded since the last change. A load that a change overtakes lands in a table nobody reads."""

    def __init__(self) -> None:
        self.projects: dict[int, ProjectFacts | None] = {}
        self.keys: dict[int, KeyFacts | None] = {}
        self.keys_by_public_id: dict[str, KeyFacts | None] = {}


class _State:
    lock = threading.Lock()
    loading = threading.Lock()
    known = _Known()
    version: int | None = None
    checked_at = float("-inf")


STRANGERS = 10_000  # public ids that a process remembers, at most


def project(project_id: int) -> ProjectFacts | None:
    """The project, None if there is none. Reads the database when it is not yet known."""
    return _lookup(_current().projects, project_id, lambda: _load_project(project_id))


def key(key_id: int) -> KeyFacts | None:
    """The key of a row's id."""
    return _lookup(_current().keys, key_id, lambda: _load_key(pk=key_id))


def key_by_public_id(public_id: str) -> KeyFacts | None:
    """The key that a caller's text names, by its present public id or the one before a rotation."""
    known = _current().keys_by_public_id
    if len(known) > STRANGERS:
        known.clear()
    return _lookup(
        known, public_id, lambda: _load_key(public_id=public_id) or _load_key(old_public_id=public_id)
    )


async def aproject(project_id: int) -> ProjectFacts | None:
    """`project()` for coroutines; a thread is used only when the database must be read."""
    known = _State.known.projects
    found = _usable() and project_id in known
    return known[project_id] if found else await sync_to_async(project)(project_id)


async def akey(key_id: int) -> KeyFacts | None:
    """`key()` for coroutines."""
    known = _State.known.keys
    return known[key_id] if _usable() and key_id in known else await sync_to_async(key)(key_id)


async def akey_by_public_id(public_id: str) -> KeyFacts | None:
    """`key_by_public_id()` for coroutines."""
    known = _State.known.keys_by_public_id
    found = _usable() and public_id in known
    return known[public_id] if found else await sync_to_async(key_by_public_id)(public_id)


def is_fresh() -> bool:
    """Whether what is known may be used without a look at the database."""
    return time.monotonic() - _State.checked_at < CHECK_SECONDS


def _usable() -> bool:
    """Whether a coroutine may go by what is known; if so, it is compared with the database in time."""
    age = time.monotonic() - _State.checked_at
    if CHECK_SECONDS <= age < LATEST_SECONDS:
        _refresh.soon()
    return age < LATEST_SECONDS


def _lookup(table: dict[Any, T], name: Any, load: Callable[[], T]) -> T:
    if name not in table:
        with _State.loading:  # many calls at once ask for the same at first: one reads it
            if name not in table:
                with database.glance():
                    table[name] = load()
    return table[name]


def _current() -> _Known:
    """What is known, emptied if anything changed. While the database is away, it stays in use as it is."""
    if is_fresh():
        return _State.known
    with _State.lock:
        if is_fresh():
            return _State.known
        checked_at = time.monotonic()
        try:
            with database.glance():
                version = RegistryVersion.objects.current(VERSION_ROW)
        except (DatabaseError, InterfaceError):
            if _State.version is None:
                raise
            version, checked_at = _State.version, time.monotonic()
        if version != _State.version:
            _State.known = _Known()
        _State.version, _State.checked_at = version, checked_at
        return _State.known


_refresh = Refresh(_current)


def forget() -> None:
    """Know nothing, and compare with the database at the next use."""
    _State.known = _Known()
    _State.version, _State.checked_at = None, float("-inf")


def bump() -> None:
    """Tell every process that a project, key or budget changed. Saves and deletes do so by themselves."""
    RegistryVersion.objects.count_up(VERSION_ROW)
    forget()
    transaction.on_commit(forget)


def _changed(sender: type, **_: Any) -> None:
    bump()


for _model in (Project, ApiKey, Budget):
    for _signal, _word in ((post_save, "save"), (post_delete, "delete")):
        _signal.connect(_changed, sender=_model, dispatch_uid=f"accounts-{_word}-{_model.__name__}")
m2m_changed.connect(_changed, sender=Project.members.through, dispatch_uid="accounts-members")


def _load_project(project_id: int) -> ProjectFacts | None:
    row = Project.objects.filter(pk=project_id).first()
    if row is None:
        return None
    zone = ZoneInfo(row.time_zone)
    budgets = Budget.objects.filter(project=row, enabled=True).select_related("api_key", "project")
    return ProjectFacts(
        id=row.pk,
        since=row.created_at.timestamp(),
        slug=row.slug,
        enabled=row.enabled,
        content_days=row.content_days,
        cache_scope=row.cache_scope,
        cache_group=row.cache_group,
        budgets=tuple(_budget(budget, zone) for budget in budgets.defer("webhook_secret").order_by("pk")),
    )


def _budget(row: Budget, zone: ZoneInfo) -> BudgetFacts:
    return BudgetFacts(
        id=row.pk.hex,
        label=str(row),
        api_key_id=row.api_key_id,
        per_end_user=row.per_end_user,
        amount_nano=int(row.amount * NANO),
        period=Period(row.period),
        zone=zone,
        hard=row.hard,
        thresholds=tuple(sorted(row.thresholds)),
        webhook=bool(row.webhook_url),
    )


def _load_key(**which: Any) -> KeyFacts | None:
    row = ApiKey.objects.filter(**which).first()
    if row is None:
        return None
    return KeyFacts(
        id=row.pk,
        since=row.created_at.timestamp(),
        project_id=row.project_id,
        public_id=row.public_id,
        secret_hmac=row.secret_hmac,
        old_public_id=row.old_public_id,
        old_secret_hmac=row.old_secret_hmac,
        old_valid_until=row.old_valid_until,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        allowed_models=frozenset(row.allowed_models),
        limits=Limits(row.requests_per_minute, row.tokens_per_minute, row.concurrent_calls),
        log_content=row.log_content,
        cache_mode=CacheMode(row.cache_mode),
    )
