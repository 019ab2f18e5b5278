"""The configuration as this process sees it: a frozen snapshot of providers, models and prices.

Read without touching the database; fresh within a second. Every save or delete of a provider, model or price
counts up one row (`RegistryVersion`) in the same transaction; a snapshot older than CHECK_SECONDS compares
that count before it is used again, and is rebuilt when it moved.
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, transaction
from django.db.models.signals import post_delete, post_save

from providers import database, presets, pricing
from providers.errors import DecryptionError, ProviderMisconfigured
from providers.models import Health, LanguageModel, LLMProvider, ModelPrice, RegistryVersion
from providers.refresh import Refresh
from providers.types import (
    CacheMode,
    CacheRules,
    Endpoint,
    Price,
    ProviderType,
    Rate,
    Secret,
    Target,
    Timeouts,
)

VERSION_ROW = 1  # of RegistryVersion
CHECK_SECONDS = 0.5  # half the promise of one second, so that a slow check still keeps it
LATEST_SECONDS = 0.9  # until then calls use what is known while it is compared in the background


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """What callers and staff pages need of a provider, without its secret."""

    slug: str
    name: str
    type: ProviderType
    base_url: str
    default_model: str
    default_config: dict[str, Any]
    health: str
    endpoint: Endpoint
    unusable: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Enabled providers by slug, and their enabled models as targets in the order of priority."""

    version: int
    day: date
    providers: dict[str, ProviderFacts]
    targets: tuple[Target, ...]
    by_name: dict[str, tuple[Target, ...]] = field(repr=False)

    def resolve(self, model: str | None, provider: str | None = None) -> tuple[Target, ...]:
        """The candidates for a call, best first; empty if nothing fits.

        `model` is a public name or 'provider/name'; None means the default model of `provider`, or of the
        first provider that has one.
        """
        if model is None:
            return self._default(provider)
        found = self.by_name.get(model, ())
        return found if provider is None else tuple(t for t in found if t.endpoint.provider == provider)

    def _default(self, provider: str | None) -> tuple[Target, ...]:
        for facts in self.providers.values():
            if provider is None or facts.slug == provider:
                for target in self.targets:
                    if (
                        target.endpoint.provider == facts.slug
                        and target.upstream_model == facts.default_model
                    ):
                        return (target,)
        return ()

    def endpoint(self, slug: str) -> Endpoint:
        """Raises KeyError: no enabled provider of that name; ProviderMisconfigured: it cannot be called."""
        facts = self.providers[slug]
        if facts.unusable:
            raise ProviderMisconfigured(facts.unusable)
        return facts.endpoint


class _State:
    """The current snapshot of this process and when it was last compared with the database."""

    lock = threading.Lock()
    current: Snapshot | None = None
    checked_at = 0.0


def snapshot() -> Snapshot:
    """The configuration, at most a second old. Reads the database only when it is time to compare."""
    if (current := _fresh()) is not None:
        return current
    with _State.lock:
        if (current := _fresh()) is not None:
            return current
        checked_at = time.monotonic()
        current = _State.current
        try:
            with database.glance():
                current = _compared(current)
        except (DatabaseError, InterfaceError):
            if current is None:
                raise
            checked_at = time.monotonic()  # the database is away: what is known stays in use
        _State.current, _State.checked_at = current, checked_at
        return current


def _compared(current: Snapshot | None) -> Snapshot:
    """`current` if nothing has changed, else a new one."""
    version = RegistryVersion.objects.current(VERSION_ROW)
    if current is None or current.version != version or current.day != _today():
        return build(version)
    return current


async def asnapshot() -> Snapshot:
    """`snapshot()` for coroutines: the database is read in a thread, and awaited after a pause only."""
    current = _State.current
    age = time.monotonic() - _State.checked_at
    if current is None or age >= LATEST_SECONDS:
        return await sync_to_async(snapshot)()
    if age >= CHECK_SECONDS:
        _refresh.soon()
    return current


_refresh = Refresh(snapshot)


def _fresh() -> Snapshot | None:
    return _State.current if time.monotonic() - _State.checked_at < CHECK_SECONDS else None


def forget() -> None:
    """Make this process compare with the database at the next use."""
    _State.checked_at = 0.0


def bump() -> None:
    """Tell every process that the configuration changed.

    Saves and deletes do so by themselves; bulk updates must.
    """
    RegistryVersion.objects.count_up(VERSION_ROW)
    forget()
    transaction.on_commit(forget)


def _changed(sender: type, **_: Any) -> None:
    bump()


for _model in (LLMProvider, LanguageModel, ModelPrice):
    post_save.connect(_changed, sender=_model, dispatch_uid=f"registry-save-{_model.__name__}")
    post_delete.connect(_changed, sender=_model, dispatch_uid=f"registry-delete-{_model.__name__}")


def _today() -> date:
    return datetime.now(UTC).date()


def build(version: int) -> Snapshot:
    """A snapshot straight from the database."""
    providers = {
        row.slug: facts_of(row) for row in LLMProvider.objects.enabled().order_by("priority", "slug")
    }
    day = _today()
    prices = _overrides(ModelPrice.objects.filter(valid_from__lte=day).order_by("valid_from"))
    rows = LanguageModel.objects.filter(enabled=True, provider__enabled=True).select_related("provider")
    targets = tuple(
        target_of(row, providers[row.provider.slug], prices.get(row.pk), day)
        for row in rows.order_by("provider__priority", "provider__slug", "pk")
        if row.provider.slug in providers
    )
    return Snapshot(version, day, providers, targets, _index(targets))


def _index(targets: Iterable[Target]) -> dict[str, tuple[Target, ...]]:
    """Targets by every name a caller may use: public name, provider/public name, provider/upstream name.

    A public name wins over another model's upstream name.
    """
    by_name: dict[str, list[Target]] = {}
    targets = tuple(targets)
    for target in targets:
        for name in (target.public_model, f"{target.endpoint.provider}/{target.public_model}"):
            by_name.setdefault(name, []).append(target)
    for target in targets:
        by_name.setdefault(f"{target.endpoint.provider}/{target.upstream_model}", [target])
    return {name: tuple(found) for name, found in by_name.items()}


def _overrides(rows: Iterable[ModelPrice]) -> dict[int, Price]:
    """The override in force for each model: rows come oldest first, so the last one wins."""
    return {row.model_id: price_of(row) for row in rows}


def price_of(row: ModelPrice) -> Price:
    """An override row as a Price."""

    def rate(value: Any) -> Rate | None:
        return None if value is None else Rate(value)

    return Price(
        prompt=Rate(row.prompt),
        completion=Rate(row.completion),
        cached=rate(row.cached),
        cache_write=rate(row.cache_write),
        reasoning=rate(row.reasoning),
        audio_prompt=rate(row.audio_prompt),
        audio_completion=rate(row.audio_completion),
        source=f"override {row.valid_from.isoformat()}",
    )


def endpoint_of(row: LLMProvider) -> Endpoint:
    """How to reach a provider. Raises ProviderMisconfigured when its key cannot be read."""
    try:
        api_key = Secret(row.api_key or "")
    except DecryptionError as error:
        raise ProviderMisconfigured(
            f"The API key of provider {row.slug} cannot be decrypted: {error}"
        ) from error
    kind = ProviderType(row.type)
    headers = {"OpenAI-Organization": row.organization, "OpenAI-Project": row.project}
    return Endpoint(
        provider=row.slug,
        type=kind,
        base_url=presets.base_url_of(kind, row.preset, row.base_url).rstrip("/"),
        api_key=api_key,
        headers={name: value for name, value in headers.items() if value},
        timeouts=Timeouts(
            connect=row.connect_timeout_seconds,
            first_token=row.first_token_timeout_seconds,
            idle=row.idle_timeout_seconds,
            total=row.total_timeout_seconds,
        ),
        quirks=presets.quirks_of(kind, row.preset),
    )


def facts_of(row: LLMProvider) -> ProviderFacts:
    unusable = ""
    try:
        endpoint = endpoint_of(row)
    except ProviderMisconfigured as error:
        unusable = str(error)
        endpoint = Endpoint(row.slug, ProviderType(row.type), row.base_url, Secret(""))
    return ProviderFacts(
        slug=row.slug,
        name=row.name,
        type=ProviderType(row.type),
        base_url=endpoint.base_url,
        default_model=row.default_model,
        default_config=dict(row.default_config),
        health=row.health,
        endpoint=endpoint,
        unusable=unusable,
    )


def target_of(row: LanguageModel, facts: ProviderFacts, override: Price | None, day: date) -> Target:
    price_source = presets.price_source_of(facts.type, row.provider.preset)
    return Target(
        endpoint=facts.endpoint,
        provider_id=row.provider_id,
        model_id=row.pk,
        upstream_model=row.name,
        public_model=row.public_name,
        default_config=facts.default_config,
        context_window=row.context_window,
        max_output=row.max_output,
        capabilities=frozenset(row.capabilities),
        cache=CacheRules(
            CacheMode(row.cache_mode),
            row.cache_ttl_seconds,
            row.cache_stale_seconds,
            row.cache_least_similarity,
        ),
        created=int(row.provider.created_at.timestamp()),
        price=override or pricing.bundled_price(price_source, row.name, day),
        unusable=facts.unusable,
        key_refused=facts.health == Health.AUTH_FAILED,
    )
