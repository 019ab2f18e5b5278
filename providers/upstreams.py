"""Talking to a provider on behalf of staff: test its connection, list and sync its models."""

from dataclasses import dataclass

from asgiref.sync import async_to_sync
from django.db import transaction
from django.utils import timezone

from providers.drivers import driver_for
from providers.errors import ProviderMisconfigured
from providers.models import Health, LanguageModel, LLMProvider
from providers.registry import endpoint_of
from providers.types import ModelInfo, Validation


@dataclass(frozen=True, slots=True)
class SyncOutcome:
    """What a sync of models found.

    New names (added, disabled), names already known, names no longer offered.
    """

    added: list[str]
    known: list[str]
    missing: list[str]


def check_provider(provider: LLMProvider) -> Validation:
    """A real call with the stored key.

    Its outcome is kept on the row and returned. Never raises for a bad upstream.
    """
    try:
        endpoint = endpoint_of(provider)
    except ProviderMisconfigured as error:
        outcome = Validation(ok=False, message=str(error), latency_ms=0, auth_failed=True)
    else:
        outcome = async_to_sync(driver_for(endpoint.type).validate)(endpoint)
    record_health(provider.slug, outcome)
    return outcome


def record_health(slug: str, outcome: Validation) -> None:
    """Keep what the last contact said. No configuration change, so no new snapshot."""
    health = Health.OK if outcome.ok else Health.AUTH_FAILED if outcome.auth_failed else Health.FAILING
    LLMProvider.objects.filter(slug=slug).update(
        health=health, health_message=outcome.message[:300], checked_at=timezone.now()
    )


def list_models(provider: LLMProvider) -> list[ModelInfo]:
    """The models the provider itself offers. Raises UpstreamError, ProviderMisconfigured."""
    endpoint = endpoint_of(provider)
    return async_to_sync(driver_for(endpoint.type).list_models)(endpoint)


def sync_models(provider: LLMProvider) -> SyncOutcome:
    """Add the models the provider offers and we do not know, disabled: staff enable what callers may use.

    Nothing is deleted or changed. Raises UpstreamError, ProviderMisconfigured.
    """
    offered = {info.name: info for info in list_models(provider)}
    known = set(provider.models.values_list("name", flat=True))
    public = set(provider.models.values_list("public_name", flat=True))
    added = sorted(name for name in offered.keys() - known if name not in public)
    with transaction.atomic():  # hundreds of names, one commit
        for name in added:
            LanguageModel.objects.create(
                provider=provider,
                name=name,
                public_name=name,
                context_window=offered[name].context_window,
                max_output=offered[name].max_output,
                enabled=False,
            )
    return SyncOutcome(added, sorted(offered.keys() & known), sorted(known - offered.keys()))
