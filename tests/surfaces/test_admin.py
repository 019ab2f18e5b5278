"""The admin's pages for providers: what may be saved, what is shown, and that secrets never are."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from providers.fields import Ciphertext
from providers.models import Health, KeyState, LanguageModel, LLMProvider, ModelPrice
from tests.factories import make_key, make_project, make_provider, make_staff
from tests.fakes import FakeUpstream

pytestmark = pytest.mark.django_db

CANARY = "sk-canary-of-the-admin-0123456789-wxyz"
BACKEND = "django.contrib.auth.backends.ModelBackend"
ADD = "/admin/providers/llmprovider/add/"


@pytest.fixture
def ada(client: Client) -> Client:
    """A browser signed in as a superuser."""
    client.force_login(make_staff(), backend=BACKEND)
    return client


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream(models=("alpha", "beta")) as fake:
        yield fake


def change(provider: LLMProvider) -> str:
    return reverse("admin:providers_llmprovider_change", args=[provider.pk])


def filled(
    provider: LLMProvider | None = None, *, models: list[dict[str, Any]] | None = None, **changes: Any
) -> Any:
    """The provider form as a browser sends it: as it stands in the database, with changes."""
    values: dict[str, Any] = {
        "preset": "", "name": "Acme", "slug": "acme", "type": "openai_compatible",
        "base_url": "https://api.example.com/v1", "api_key": "", "default_model": "alpha",
        "default_config": "{}", "priority": 100, "enabled": "on", "organization": "", "project": "",
        "connect_timeout_seconds": 5, "first_token_timeout_seconds": 60, "idle_timeout_seconds": 30,
        "total_timeout_seconds": 600,
    }  # fmt: skip
    rows = models if models is not None else [{"name": "alpha", "public_name": "alpha", "enabled": "on"}]
    if provider is not None:
        values |= {
            name: getattr(provider, name) for name in ("name", "slug", "type", "base_url", "default_model")
        }
        if models is None:
            stored = provider.models.order_by("-enabled", "name")
            rows = [
                {"id": row.pk, "name": row.name, "public_name": row.public_name, "enabled": "on"}
                for row in stored
            ]
    values |= {"models-TOTAL_FORMS": len(rows), "models-INITIAL_FORMS": sum("id" in row for row in rows)}
    for number, row in enumerate(rows):
        values |= {f"models-{number}-{name}": value for name, value in row.items()}
        if provider is not None:
            values[f"models-{number}-provider"] = provider.pk
    return values | changes


def field_errors(answer: Any) -> set[str]:
    """The names of the fields with an error in the form that came back."""
    context = answer.context
    names = set(context["adminform"].form.errors)
    return names | {
        "models" for inline in context["inline_admin_formsets"] if inline.formset.non_form_errors()
    }


def test_every_page_of_the_admin_opens_and_names_itself(ada: Client) -> None:
    model = make_provider(api_key=CANARY).models.get()
    ModelPrice.objects.create(model=model, prompt=1, completion=2)
    make_key(make_project())
    for registered, page in admin.site._registry.items():
        name = f"admin:{registered._meta.app_label}_{registered._meta.model_name}"
        urls = [reverse(f"{name}_changelist")]
        urls += [reverse(f"{name}_add")] if page.has_add_permission(_request_of(ada)) else []
        urls += [reverse(f"{name}_change", args=[row.pk]) for row in registered._default_manager.all()[:1]]
        for url in urls:
            answer = ada.get(url)
            assert answer.status_code == 200, url
            assert "| llmhub</title>" in answer.text, url


def _request_of(client: Client) -> Any:
    return client.get("/admin/").wsgi_request


def test_nothing_of_the_hub_itself_or_of_axes_has_a_page() -> None:
    names = {model._meta.label for model in admin.site._registry}
    assert names == {
        "providers.LLMProvider", "providers.LanguageModel", "providers.ModelPrice", "completions.Project",
        "completions.ApiKey", "completions.Budget", "completions.Completion", "completions.CachedResponse",
        "auth.User", "auth.Group",
    }  # fmt: skip


def test_no_page_asks_another_host_for_anything(ada: Client) -> None:
    provider = make_provider(api_key=CANARY)
    for url in ("/admin/", ADD, change(provider), "/admin/completions/completion/", "/admin/login/"):
        if "login" in url:
            ada.logout()
        sources = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="([^"]+)"', ada.get(url).text)
        assert sources
        assert [source for source in sources if not source.startswith("/")] == [], url


def test_a_stored_key_is_on_no_page_and_in_no_history(ada: Client) -> None:
    provider = make_provider(slug="acme", models=("alpha",))
    ada.post(change(provider), filled(provider, api_key=CANARY))
    provider.refresh_from_db()
    assert provider.api_key == CANARY
    pages = [change(provider), reverse("admin:providers_llmprovider_history", args=[provider.pk])]
    for url in (*pages, "/admin/", "/admin/providers/llmprovider/", f"{change(provider)[:-7]}delete/"):
        text = ada.get(url).text
        assert CANARY not in text
        assert provider.__dict__["api_key"] not in text
    assert "…wxyz" in ada.get(change(provider)).text
    assert CANARY not in "".join(
        f"{entry.change_message}{entry.object_repr}" for entry in LogEntry.objects.all()
    )


def test_a_refused_form_does_not_send_the_key_back(ada: Client) -> None:
    answer = ada.post(ADD, filled(api_key=CANARY, default_model="missing"))
    assert answer.status_code == 200
    assert CANARY not in answer.text


def test_saving_a_provider_untouched_keeps_its_key(ada: Client) -> None:
    provider = make_provider(slug="acme", models=("alpha",), api_key=CANARY)
    assert ada.post(change(provider), filled(provider)).status_code == 302
    provider = LLMProvider.objects.get()
    assert provider.api_key == CANARY
    assert provider.api_key_last4 == "wxyz"


def test_a_new_key_replaces_the_stored_one_and_the_box_removes_it(ada: Client) -> None:
    provider = make_provider(slug="acme", models=("alpha",), api_key="sk-the-old-one-0000")
    ada.post(change(provider), filled(provider, api_key=CANARY))
    assert LLMProvider.objects.get().api_key == CANARY
    ada.post(change(provider), filled(provider, clear_api_key="on"))
    assert LLMProvider.objects.get().key_state == KeyState.NONE
    assert LLMProvider.objects.get().api_key_last4 == ""


def test_a_key_that_cannot_be_decrypted_is_red_and_its_provider_can_still_be_saved(ada: Client) -> None:
    provider = make_provider(slug="acme", models=("alpha",), api_key=CANARY)
    LLMProvider.objects.update(api_key=Ciphertext("written with a lost key"))
    for url in ("/admin/", "/admin/providers/llmprovider/", change(provider)):
        assert re.search(r"bg-red-100[^>]*>Cannot be decrypted", ada.get(url).text), url
    assert ada.post(change(provider), filled(provider, name="Renamed")).status_code == 302
    assert LLMProvider.objects.get().name == "Renamed"
    assert LLMProvider.objects.get().key_state == KeyState.UNREADABLE
    assert ada.post(change(provider), filled(provider, api_key=CANARY)).status_code == 302
    assert LLMProvider.objects.get().api_key == CANARY


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"type": "telegraph"}, "type"),
        ({"preset": "nobody"}, "preset"),
        ({"slug": "Not a slug"}, "slug"),
        ({"type": "openai", "base_url": ""}, "api_key"),
        ({"type": "openai_compatible", "base_url": ""}, "base_url"),
        ({"base_url": "ftp://example.com"}, "base_url"),
        ({"base_url": "http://169.254.169.254/v1"}, "base_url"),
        ({"default_model": "gamma"}, "default_model"),
        ({"default_config": '{"api_key": "x"}'}, "default_config"),
        ({"default_config": "[1]"}, "default_config"),
        ({"default_config": "{"}, "default_config"),
        ({"idle_timeout_seconds": 0}, "idle_timeout_seconds"),
        ({"models": []}, "models"),
    ],
)
def test_an_invalid_provider_is_refused_and_the_field_is_named(
    ada: Client, changes: dict[str, Any], field: str
) -> None:
    answer = ada.post(ADD, filled(**changes))
    assert answer.status_code == 200
    assert field in field_errors(answer)
    assert not LLMProvider.objects.exists()


def test_a_provider_is_added_with_its_models(ada: Client) -> None:
    answer = ada.post(ADD, filled(api_key=CANARY))
    assert answer.status_code == 302
    provider = LLMProvider.objects.get()
    assert [model.public_name for model in provider.models.all()] == ["alpha"]
    assert (provider.api_key, provider.default_model) == (CANARY, "alpha")


def test_several_models_may_leave_their_public_name_empty(ada: Client) -> None:
    rows = [{"name": name, "public_name": "", "enabled": "on"} for name in ("alpha", "beta")]
    assert ada.post(ADD, filled(models=rows)).status_code == 302
    assert list(LanguageModel.objects.values_list("public_name", flat=True)) == ["alpha", "beta"]
    rows = [{"name": "alpha", "public_name": ""}, {"name": "beta", "public_name": "alpha"}]
    assert ada.post(ADD, filled(models=rows, slug="other")).status_code == 200


def test_providers_are_disabled_and_deleted_many_at_once(ada: Client) -> None:
    chosen = {"_selected_action": [make_provider(slug=slug).pk for slug in ("one", "two")]}
    ada.post("/admin/providers/llmprovider/", {"action": "disable_selected", **chosen})
    assert not LLMProvider.objects.enabled().exists()
    ada.post("/admin/providers/llmprovider/", {"action": "delete_selected", "post": "yes", **chosen})
    assert not LLMProvider.objects.exists()


def test_the_default_model_may_be_one_that_is_added_but_not_one_that_is_removed(ada: Client) -> None:
    provider = make_provider(slug="acme", models=("alpha",))
    row = provider.models.get()
    new = {"name": "beta", "enabled": "on"}
    leaving = {"id": row.pk, "name": "alpha", "public_name": "alpha", "DELETE": "on"}
    refused = ada.post(change(provider), filled(provider, models=[leaving, new]))
    assert field_errors(refused) == {"default_model"}
    assert (
        ada.post(change(provider), filled(provider, models=[leaving, new], default_model="beta")).status_code
        == 302
    )
    assert [model.name for model in provider.models.all()] == ["beta"]


def test_a_provider_with_hundreds_of_models_can_be_saved(ada: Client) -> None:
    names = [f"model-{number:03}" for number in range(240)]
    provider = make_provider(slug="acme", models=tuple(names))
    provider.default_model = names[-1]
    provider.save()
    shown = list(provider.models.order_by("-enabled", "name"))[:50]
    assert ada.get(change(provider)).text.count("</tbody>") < 60
    rows = [
        {"id": row.pk, "name": row.name, "public_name": row.public_name, "enabled": "on"} for row in shown
    ]
    assert ada.post(change(provider), filled(provider, models=rows, name="Renamed")).status_code == 302
    assert provider.models.count() == 240


def test_choosing_a_vendor_is_offered_with_what_it_fills_in(ada: Client) -> None:
    text = ada.get(ADD).text
    assert '<script id="provider-presets" type="application/json">' in text
    assert "https://api.mistral.ai/v1" in text
    assert "providers/provider_form.js" in text


def test_test_connection_asks_first_and_runs_only_by_post(ada: Client, upstream: FakeUpstream) -> None:
    provider = make_provider(upstream_url=upstream.url, models=("alpha",))
    url = reverse("admin:providers_llmprovider_test_connection", args=[provider.pk])
    asked = ada.get(url)
    assert asked.status_code == 200
    assert 'method="post"' in asked.text
    assert upstream.requests == []
    told = ada.post(url, follow=True)
    assert re.search(r"Connected in \d+ ms: 2 models", told.text)
    provider.refresh_from_db()
    assert (provider.health, provider.checked_at is not None) == (Health.OK, True)


def test_actions_refuse_a_post_without_the_csrf_token(upstream: FakeUpstream) -> None:
    provider = make_provider(upstream_url=upstream.url, models=("alpha",))
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(make_staff(), backend=BACKEND)
    for name in ("test_connection", "sync_models"):
        assert (
            strict.post(reverse(f"admin:providers_llmprovider_{name}", args=[provider.pk])).status_code == 403
        )
    assert upstream.requests == []


def test_a_refused_key_is_told_and_marked_without_showing_the_key(ada: Client) -> None:
    with FakeUpstream(key="another") as strict:
        provider = make_provider(upstream_url=strict.url, models=("alpha",), api_key=CANARY)
        told = ada.post(
            reverse("admin:providers_llmprovider_test_connection", args=[provider.pk]), follow=True
        )
    provider.refresh_from_db()
    assert provider.health == Health.AUTH_FAILED
    assert "bg-red-100" in told.text
    assert CANARY not in told.text


def test_sync_models_adds_new_ones_disabled_and_says_so(ada: Client, upstream: FakeUpstream) -> None:
    provider = make_provider(upstream_url=upstream.url, models=("alpha",))
    told = ada.post(reverse("admin:providers_llmprovider_sync_models", args=[provider.pk]), follow=True)
    assert "1 new, added disabled: beta; 1 already here." in told.text
    assert dict(provider.models.values_list("name", "enabled")) == {"alpha": True, "beta": False}


def test_an_unreachable_provider_is_told_on_sync(ada: Client, upstream: FakeUpstream) -> None:
    provider = make_provider(upstream_url="http://127.0.0.1:9/v1", models=("alpha",))
    told = ada.post(reverse("admin:providers_llmprovider_sync_models", args=[provider.pk]), follow=True)
    assert "The models could not be listed" in told.text


def test_changing_where_a_provider_is_forgets_its_last_test(ada: Client) -> None:
    provider = make_provider(slug="acme", upstream_url="https://api.example.com/v1", models=("alpha",))
    LLMProvider.objects.update(health=Health.OK, health_message="fine")
    ada.post(change(provider), filled(provider, name="Renamed"))
    assert LLMProvider.objects.get().health == Health.OK
    ada.post(change(provider), filled(provider, base_url="https://api.example.org/v1"))
    assert LLMProvider.objects.get().health == Health.UNKNOWN


def test_staff_without_the_permission_see_no_providers_and_run_nothing(
    client: Client, upstream: FakeUpstream
) -> None:
    provider = make_provider(upstream_url=upstream.url, models=("alpha",))
    client.force_login(make_staff("bob", is_superuser=True), backend=BACKEND)
    client.logout()
    clerk = make_staff("clerk")
    clerk.is_superuser = False
    clerk.save()
    client.force_login(clerk, backend=BACKEND)
    assert provider.name not in client.get("/admin/").text
    assert client.get(change(provider)).status_code == 403
    assert (
        client.post(reverse("admin:providers_llmprovider_test_connection", args=[provider.pk])).status_code
        == 403
    )
    assert upstream.requests == []


def test_the_price_in_force_is_shown_with_its_source(ada: Client) -> None:
    provider = make_provider(
        slug="openai", type="openai", api_key=CANARY, models=("gpt-4o", "gpt-4o-mini", "own-1")
    )
    ModelPrice.objects.create(
        model=provider.models.get(name="gpt-4o"), prompt=Decimal("2.5"), completion=Decimal("0.000000001")
    )
    text = ada.get("/admin/providers/languagemodel/").text
    assert "$2.50 in · $0.000000001 out" in text
    assert "genai-prices" in text
    assert "No price known" in text


def test_the_default_model_can_be_neither_renamed_nor_deleted_by_itself(ada: Client) -> None:
    model = make_provider(models=("alpha", "beta")).models.get(name="alpha")
    url = reverse("admin:providers_languagemodel_change", args=[model.pk])
    prices = {"prices-TOTAL_FORMS": 0, "prices-INITIAL_FORMS": 0}
    answer = ada.post(url, {"name": "gamma", "public_name": "alpha", "capabilities": "[]", **prices})
    assert field_errors(answer) == {"name"}
    ada.post(reverse("admin:providers_languagemodel_delete", args=[model.pk]), {"post": "yes"})
    assert LanguageModel.objects.filter(pk=model.pk).exists()


def test_models_are_enabled_many_at_once(ada: Client) -> None:
    provider = make_provider(models=("alpha", {"name": "beta", "enabled": False}))
    chosen = {"action": "enable_selected", "_selected_action": [row.pk for row in provider.models.all()]}
    ada.post("/admin/providers/languagemodel/", chosen)
    assert provider.models.filter(enabled=True).count() == 2
