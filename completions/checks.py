"""System checks of the settings: what must not run (E) and what deserves a second look (W)."""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

TAG = "llmhub"
SECRET_CHARACTERS = 32  # fewer can be guessed


@checks.register(TAG)
def settings_are_sound(**_: Any) -> list[CheckMessage]:
    return [*_processes(), *_secrets(), *_exposure()]


def _processes() -> Iterator[CheckMessage]:
    if settings.WEB_CONCURRENCY == 1:
        return
    several = f"WEB_CONCURRENCY={settings.WEB_CONCURRENCY} asks for several server processes"
    if settings.LLMHUB_EMBEDDED:
        yield checks.Error(
            f"{several}, but the database is SQLite, which one process must have to itself.",
            hint="Set DATABASE_URL=postgres://…, or unset WEB_CONCURRENCY.",
            id="llmhub.E001",
        )
    if not settings.REDIS_URL:
        yield checks.Error(
            f"{several}, but REDIS_URL is not set: they would not share cache, limits and sign-in locks.",
            hint="Set REDIS_URL=redis://…, or unset WEB_CONCURRENCY.",
            id="llmhub.E002",
        )


def _secrets() -> Iterator[CheckMessage]:
    make_one = "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
    if settings.SECRET_KEY in settings.LLMHUB_ENCRYPTION_KEYS:
        yield checks.Error(
            "LLMHUB_SECRET_KEY is also one of LLMHUB_ENCRYPTION_KEYS: who learns one must not have both.",
            hint=make_one,
            id="llmhub.E003",
        )
    if len(settings.SECRET_KEY) < SECRET_CHARACTERS:
        yield checks.Warning(
            f"LLMHUB_SECRET_KEY is shorter than {SECRET_CHARACTERS} characters: sessions could be forged.",
            hint=make_one,
            id="llmhub.W001",
        )
    if any(len(key) < SECRET_CHARACTERS for key in settings.LLMHUB_ENCRYPTION_KEYS):
        yield checks.Warning(
            f"One of LLMHUB_ENCRYPTION_KEYS is shorter than {SECRET_CHARACTERS} characters.",
            hint=f"{make_one}, put it first, run manage.py rotate_encryption_keys, drop the short one.",
            id="llmhub.W002",
        )


def _exposure() -> Iterator[CheckMessage]:
    if settings.LLMHUB_LISTENS_ON_LOOPBACK:
        return
    if settings.DEBUG:
        yield checks.Warning(
            f"LLMHUB_DEBUG is on while HOST={settings.HOST} is open to others: error pages show settings.",
            hint="Unset LLMHUB_DEBUG.",
            id="llmhub.W003",
        )
    if settings.HOST in ("0.0.0.0", "::") and len(set(settings.ALLOWED_HOSTS)) <= 4:  # noqa: S104 - compared
        yield checks.Warning(
            f"HOST={settings.HOST} listens everywhere, but answers to the name localhost alone.",
            hint="Set LLMHUB_ALLOWED_HOSTS to the names and addresses by which people reach the hub.",
            id="llmhub.W004",
        )
