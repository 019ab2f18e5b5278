"""How a provider is doing, asked of itself, and not more often than every few seconds."""

import threading
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from django.core.cache import cache
from django.utils import timezone

from completions.service import LLMService
from providers.registry import snapshot
from providers.types import RateLimit

KEPT_SECONDS = 10

_asking: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """What a validation saw, and what the provider last said of its limits."""

    provider: str
    is_valid: bool
    message: str
    checked_at: datetime
    rate_limit: RateLimit | None
    token_limit: RateLimit | None


def status(service: LLMService, slug: str) -> ProviderStatus:
    """The outcome of a real call, at most KEPT_SECONDS old: many askers cost the provider one call."""
    with _asking[slug]:
        is_valid, message, checked_at = _outcome(service, slug)
    limits = service.get_rate_limit_status(slug)
    return ProviderStatus(
        provider=slug,
        is_valid=is_valid,
        message=message,
        checked_at=checked_at,
        rate_limit=limits.requests if limits else None,
        token_limit=limits.tokens if limits else None,
    )


def _outcome(service: LLMService, slug: str) -> tuple[bool, str, datetime]:
    name = f"provider-status:{snapshot().version}:{slug}"  # a changed provider is asked anew
    kept: tuple[bool, str, datetime] | None = cache.get(name)
    if kept is None:
        seen = service.validate_provider(slug)
        kept = (seen.ok, seen.message, timezone.now())
        cache.set(name, kept, KEPT_SECONDS)
    return kept
