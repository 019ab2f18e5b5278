"""What live calls say of a provider's key: refused, or accepted again. Staff see it as the provider's health.

A thread writes it, each finding at most once a minute, and tells every process by a new snapshot: a good call
looks only at its target, and only where the key had been refused there is anything to do.
"""

import asyncio
import logging
import time
from uuid import UUID

from django.db import DatabaseError, InterfaceError, transaction
from django.utils import timezone

from providers import database, registry
from providers.errors import UpstreamAuthError
from providers.models import Health, LLMProvider
from providers.types import Target

logger = logging.getLogger(__name__)

NOTE_SECONDS = 60.0  # between two notes of the same finding on a provider, by one process
_noted: dict[tuple[UUID, Health], float] = {}  # when, by the monotonic clock


def refused(target: Target, error: UpstreamAuthError) -> None:
    """The provider does not accept our key, or not for this."""
    _soon(target, Health.AUTH_FAILED, error.message)


def accepted(target: Target) -> None:
    """It answered, though its key had been refused before."""
    _soon(target, Health.OK, "It answered a call.")


def _soon(target: Target, health: Health, message: str) -> None:
    finding, now = (target.provider_id, health), time.monotonic()
    if now - _noted.get(finding, float("-inf")) < NOTE_SECONDS:
        return
    _noted[finding] = now
    asyncio.get_running_loop().run_in_executor(None, _note, target.endpoint.provider, finding, message)


def _note(slug: str, finding: tuple[UUID, Health], message: str) -> None:
    provider_id, health = finding
    rows = LLMProvider.objects.filter(pk=provider_id).exclude(health=health)
    if health == Health.OK:  # a call says nothing of what else was found to be wrong
        rows = rows.filter(health=Health.AUTH_FAILED)
    try:
        with database.glance(), transaction.atomic():
            changed = rows.update(health=health, health_message=message[:300], checked_at=timezone.now())
            if changed:
                registry.bump()
    except (DatabaseError, InterfaceError) as error:
        _noted.pop(finding, None)  # the next call says it again
        logger.debug("the health of provider %s could not be noted: %s", slug, error)
        return
    if changed:
        logger.warning("provider %s: %s", slug, message)
