"""What the cache may do for a call: by its model, its key, and its own words."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.conf import settings

from completions.accounts import KeyFacts, ProjectFacts
from completions.admission import Admission
from completions.cache.entry import Entry
from completions.cache.fingerprint import canonical, key_of
from completions.errors import CacheMissError
from completions.models import CacheScope
from completions.types import CacheControl, Call
from providers.types import JSON, CacheMode, Operation, Target


class Plan(NamedTuple):
    """How a call goes by the cache."""

    key: str
    scope: str  # who shares its answer
    own_scope: str  # … and no other project's
    asked: JSON  # what the key is made of
    target: Target
    ttl_seconds: int
    stale_seconds: int
    reads: bool  # it takes an answer that is there
    only: bool  # … and nothing else
    most_age_seconds: int | None  # that such an answer may have
    shares: bool  # its own answer is kept, and given to equal calls
    kept_days: int  # 0: its content may not be written down

    def is_too_old(self, entry: Entry) -> bool:
        """Whether the call wants a younger answer than this one."""
        return self.most_age_seconds is not None and entry.age_seconds > self.most_age_seconds


def plan_of(call: Call, admitted: Admission) -> Plan | None:
    """None: the cache is not asked. Raises CacheMissError where the call wants nothing but what cannot be."""
    target = admitted.targets[0]
    mode = mode_of(target, admitted.key)
    wish = call.cache
    if mode is CacheMode.OFF:
        if wish.control is not CacheControl.ONLY:
            return None
        raise CacheMissError("Nothing is cached for this model and key, and nothing else was asked for.")
    forced = mode is CacheMode.FORCED and not wish.by_staff
    if wish.control is CacheControl.OFF and not forced:
        return None
    wanted = wish.control in (CacheControl.ON, CacheControl.ONLY) or wish.ttl_seconds is not None
    if (
        mode is CacheMode.DEFAULT
        and not wanted
        and not is_deterministic(call.operation, call.body, target.default_config)
    ):
        return None
    asked = canonical(target, call.operation, call.body)
    scope = scope_of(admitted.project, admitted.key, call.caller.user_id)
    own_scope = scope
    if admitted.project.cache_group:
        own_scope = scope_of(admitted.project, admitted.key, call.caller.user_id, grouped=False)
    return Plan(
        key=key_of(scope, target, call.operation, asked),
        scope=scope,
        own_scope=own_scope,
        asked=asked,
        target=target,
        ttl_seconds=wish.ttl_seconds or ttl_seconds(target),
        stale_seconds=target.cache.stale_seconds,
        reads=forced or wish.control is not CacheControl.REFRESH,
        only=wish.control is CacheControl.ONLY,
        most_age_seconds=None if forced else wish.most_age_seconds,
        shares=not (call.stream and is_not_rebuilt(call.operation, asked)),
        kept_days=admitted.content_days,
    )


def is_deterministic(operation: Operation, body: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    """Whether the same answer is meant to come again."""
    if operation is Operation.EMBEDDING:
        return True
    temperature = body["temperature"] if "temperature" in body else defaults.get("temperature")
    seed = body["seed"] if "seed" in body else defaults.get("seed")
    return temperature == 0 or seed is not None


def mode_of(target: Target, key: KeyFacts | None) -> CacheMode:
    """The strictest word of model and key; where neither says any, the hub's."""
    modes = {target.cache.mode, key.cache_mode if key is not None else CacheMode.DEFAULT}
    for mode in (CacheMode.OFF, CacheMode.FORCED, CacheMode.ON):
        if mode in modes:
            return mode
    return _Settings.mode()


def ttl_seconds(target: Target) -> int:
    """How long its answers are fresh, where the request does not say."""
    return target.cache.ttl_seconds or _Settings.ttl_seconds()


def scope_of(
    project: ProjectFacts, key: KeyFacts | None, user_id: int | None, *, grouped: bool = True
) -> str:
    """Who shares the answer. No project is ever part of another's, but by a group that staff named.

    Ids are told with the time of their making: a restored database gives them once more, to others.
    """
    own = f"project {project.id} of {project.since}"
    if project.cache_scope == CacheScope.KEY:
        by = f"key {key.id} of {key.since}" if key is not None else "no key"
        return f"{own} {by} user {user_id}"
    return f"group {project.cache_group}" if project.cache_group and grouped else own


def is_not_rebuilt(operation: Operation, asked: Mapping[str, Any]) -> bool:
    """Of a stream, only a plain chat answer is put together again at its end."""
    return (
        operation is not Operation.CHAT
        or asked.get("n", 1) != 1
        or bool(asked.get("logprobs"))
        or "modalities" in asked
    )


class _Settings:
    """Read once: they are slow to ask."""

    values: tuple[CacheMode, int] | None = None

    @classmethod
    def read(cls) -> tuple[CacheMode, int]:
        if cls.values is None:
            cls.values = CacheMode(settings.LLMHUB_CACHE), settings.LLMHUB_CACHE_TTL_SECONDS
        return cls.values

    @classmethod
    def mode(cls) -> CacheMode:
        return cls.read()[0]

    @classmethod
    def ttl_seconds(cls) -> int:
        return cls.read()[1]


def forget() -> None:
    """Ask the settings again: for tests."""
    _Settings.values = None
