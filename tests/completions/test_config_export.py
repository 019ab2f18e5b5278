"""Configuration as code: a hub written to a file, and made again from it."""

from textwrap import dedent
from typing import Any

import pytest
from pytest_django import Settings

from completions import keys
from completions.config import export_text
from completions.models import ApiKey, Project
from providers.models import LanguageModel, LLMProvider, ModelPrice
from tests.completions.config_files import HUB, KEY, SECRET, apply, demo
from tests.factories import make_key, make_staff

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("config_secrets")]


def rich_hub() -> None:
    """One of everything, and every awkward text."""
    make_staff("ada")
    apply(HUB)
    apply(
        """\
        providers:
          - slug: 302ai
            name: "Prüfung: ${LOCAL_API_KEY} - [x]"
            type: openai_compatible
            preset: vllm
            base_url: https://api.example.com/v1
            api_key: ${LOCAL_API_KEY}
            organization: "yes"
            project: "12"
            default_model: z
            default_config: {stop: ["$${x}"], nested: {a: [1, 2.5, null, true]}}
            timeouts: {idle: 7.5}
            priority: 3
            enabled: false
            models:
              - {name: z, capabilities: [chat, tools], enabled: false}
              - name: a/b
                prices:
                  - {valid_from: 2026-01-01, prompt: 0.000000001, completion: 123456789.123456789}
                  - {prompt: 0, completion: 10, cached: 0.10, cache_write: 3, reasoning: 4, audio_prompt: 5}
        projects:
          - {slug: a-b, keys: [{name: c, expires: 2027-01-02}, {name: C!, expires: 2027-01-02T03:04:05.6Z}]}
          - {slug: a.b, enabled: false, members: [ada], keys: [{name: c}]}
        """
    )


VARIABLES = ("_302AI_API_KEY", "LOCAL_API_KEY", "A_B_C_KEY", "A_B_C_KEY_2", "A_B_C_KEY_3", "WEB_CI_KEY")


class TestExport:
    def test_applied_to_an_empty_hub_gives_the_same_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rich_hub()
        text, before = export_text(), rows_of_the_hub()
        LLMProvider.objects.all().delete()
        Project.objects.all().delete()
        for number, name in enumerate(VARIABLES):
            monkeypatch.setenv(name, SECRET if "API" in name else f"sk-llmhub-abcdefABCDE{number}-{'x' * 43}")
        apply(text, prune=True)
        assert export_text() == text
        assert rows_of_the_hub() == before
        assert not apply(text, prune=True)

    def test_names_the_variables_and_accounts_it_needs(self) -> None:
        rich_hub()
        header = export_text().split("\n\n")[0].splitlines()
        assert [line.removeprefix("#   ") for line in header if line.startswith("#   ")] == [
            *VARIABLES,
            "ada",
        ]

    def test_holds_no_secret(self) -> None:
        apply(HUB)
        text = export_text()
        assert SECRET not in text
        assert KEY not in text
        assert ApiKey.objects.get().secret_hmac not in text
        assert LLMProvider.objects.get().__dict__["api_key"] not in text

    def test_writes_only_what_is_not_a_default(self) -> None:
        apply(demo())
        assert export_text().split("\n\n", 1)[1] == dedent(
            """\
            providers:
              - slug: demo
                type: demo
                models:
                  - m

            projects: []
            """
        )

    def test_leaves_out_revoked_keys(self) -> None:
        key, _ = make_key()
        keys.revoke(key)
        assert "keys:" not in export_text()

    def test_names_a_key_that_cannot_be_decrypted(self, settings: Settings) -> None:
        apply(HUB)
        settings.LLMHUB_ENCRYPTION_KEYS = ["another"]
        assert "api_key: ${LOCAL_API_KEY}" in export_text()

    def test_of_an_empty_hub_can_be_applied(self) -> None:
        assert not apply(export_text(), prune=True)


def rows_of_the_hub() -> list[Any]:
    """Every fact of the configuration but identities, secrets and times."""
    return [
        list(LLMProvider.objects.order_by("slug").values(*CONFIGURED)),
        list(
            LanguageModel.objects.order_by("name").values("provider__slug", "name", "public_name", "enabled")
        ),
        list(ModelPrice.objects.order_by("prompt").values("model__name", "valid_from", "prompt", "cached")),
        list(Project.objects.order_by("slug").values("slug", "name", "enabled", "members__username")),
        list(ApiKey.objects.order_by("project__slug", "name").values("project__slug", "name", "expires_at")),
    ]


CONFIGURED = (
    *("slug", "name", "type", "preset", "base_url", "organization", "project", "default_config", "enabled"),
    *("default_model", "connect_timeout_seconds", "idle_timeout_seconds", "priority", "api_key_last4"),
)
