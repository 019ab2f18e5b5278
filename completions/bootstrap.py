"""The first set-up of an empty hub: someone to sign in, a key to call with, a model to call.

Doing it again changes nothing: each part is made only where nothing of its kind exists.
"""

import itertools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor

from completions.keys import create_key
from completions.models import Project
from providers.models import LanguageModel, LLMProvider, ModelPrice
from providers.types import ProviderType, Secret

KEY_NAME = "first key"
DEMO_MODEL = "demo-chat"
LOCK = 0x6C6C6D687562  # "llmhub": PostgreSQL's advisory lock of a set-up


@dataclass(frozen=True, slots=True)
class Welcome:
    """What was made and will never be shown again; None where it existed already."""

    username: str | None = None
    password: Secret | None = None
    api_key: Secret | None = None
    demo_model: str | None = None


@contextmanager
def alone() -> Iterator[None]:
    """One set-up at a time, also when several containers start together. SQLite has one process anyway."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def make_data_dir() -> None:
    """The folder of SQLite and the key files, for its owner only. Secrets from the environment make none."""
    if settings.LLMHUB_EMBEDDED:
        settings.LLMHUB_DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)


def pending_migrations() -> int:
    """How many migrations the database lacks."""
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def migrate() -> None:
    call_command("migrate", verbosity=0, interactive=False)


@transaction.atomic
def set_up() -> Welcome:
    """Make what an empty hub lacks, all or nothing."""
    username, password = _superuser()
    return Welcome(username, password, _project_key(), _demo_provider())


def _superuser() -> tuple[str | None, Secret | None]:
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return None, None
    names = itertools.chain(["admin"], (f"admin{number}" for number in itertools.count(2)))
    username = next(name for name in names if not users.filter(username=name).exists())
    password = secrets.token_urlsafe(12)
    users.create_superuser(username=username, password=password)
    return username, Secret(password)


def _project_key() -> Secret | None:
    if Project.objects.exists():
        return None
    project = Project.objects.create(slug=settings.LLMHUB_DEFAULT_PROJECT, name="Default project")
    project.members.set(get_user_model().objects.filter(is_superuser=True))
    _, key = create_key(project, KEY_NAME)
    return Secret(key)


def _demo_provider() -> str | None:
    if LLMProvider.objects.exists():
        return None
    provider = LLMProvider.objects.create(
        slug="demo",
        name="Demo (no network)",
        type=ProviderType.DEMO,
        preset="demo",
        default_model=DEMO_MODEL,
    )
    model = LanguageModel.objects.create(
        provider=provider, name=DEMO_MODEL, context_window=8192, max_output=1024, capabilities=["chat"]
    )
    ModelPrice.objects.create(model=model, valid_from=date(1970, 1, 1), prompt=0, completion=0)  # it is free
    return DEMO_MODEL
