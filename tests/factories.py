"""Rows as tests want them: valid by default, every fact open to change."""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser

from completions.keys import create_key
from completions.models import ApiKey, Project
from providers.models import LanguageModel, LLMProvider
from providers.types import ProviderType

PASSWORD = "a password of the test suite"


def make_provider(
    *,
    upstream_url: str = "",
    slug: str = "upstream",
    models: tuple[str | dict[str, Any], ...] = ("test-model",),
    **fields: Any,
) -> LLMProvider:
    """A provider with its models; at `upstream_url` (with its /v1), or the demo driver when that is left out.

    `models` are upstream names, or the fields of LanguageModel.
    """
    rows = [{"name": model} if isinstance(model, str) else model for model in models]
    values: dict[str, Any] = {
        "name": slug.capitalize(),
        "type": ProviderType.OPENAI_COMPATIBLE if upstream_url else ProviderType.DEMO,
        "base_url": upstream_url,
        "default_model": rows[0]["name"] if rows else "test-model",
    }
    provider = LLMProvider.objects.create(slug=slug, **(values | fields))
    for row in rows:
        LanguageModel.objects.create(provider=provider, **row)
    return provider


def make_project(slug: str = "web", *, members: tuple[AbstractBaseUser, ...] = (), **fields: Any) -> Project:
    """A project, with the people who may use it by session."""
    project = Project.objects.create(slug=slug, **({"name": slug.capitalize()} | fields))
    project.members.set(members)  # type: ignore[arg-type]
    return project


def make_key(project: Project | None = None, name: str = "test key", **options: Any) -> tuple[ApiKey, str]:
    """A key and its plaintext; of a new project if none is given."""
    return create_key(project or make_project(), name, **options)


def make_staff(username: str = "ada", **fields: Any) -> Any:
    """A superuser whose password is PASSWORD."""
    return get_user_model().objects.create_superuser(username=username, password=PASSWORD, **fields)
