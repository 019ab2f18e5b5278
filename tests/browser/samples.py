"""Rows for pictures: a hub that has seen some life, with something in every state."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from tests.browser.cached import sample_answers

USER = "ada"
PASSWORD = "a password for pictures"


def sample_rows() -> dict[str, str]:
    """A hub that has seen some life; the pages to picture, by name."""
    from django.contrib.auth.models import User

    from completions.keys import create_key, revoke
    from completions.models import Project
    from providers.models import LLMProvider, ModelPrice

    User.objects.create_superuser(USER, "ada@example.com", PASSWORD)
    demo, good, broken = _providers()
    price = ModelPrice.objects.create(
        model=good.models.get(name="gpt-4o"), prompt=Decimal("2.5"), cached=Decimal("1.25"), completion=10
    )
    project = Project.objects.create(slug="web", name="Web shop")
    Project.objects.create(slug="research", name="Research", enabled=False)
    key, _ = create_key(
        project, "checkout service", allowed_models=["gpt-4o", "demo/demo", "gpt-4o-mini"],
        requests_per_minute=60, tokens_per_minute=100_000, concurrent_calls=4,
    )  # fmt: skip
    old, _ = create_key(project, "old laptop")
    revoke(old)
    create_key(project, "trial", expires_at=key.created_at - timedelta(days=1))
    calls = _calls(project, key, good)
    month, users = _budgets(project, key)
    told = _told_call(project, key, good)
    _rollups(project, key)
    answers = sample_answers(project, key)
    assert LLMProvider.objects.count() == 3
    return {
        "provider": f"/admin/providers/llmprovider/{good.pk}/change/",
        "provider-demo": f"/admin/providers/llmprovider/{demo.pk}/change/",
        "provider-broken-key": f"/admin/providers/llmprovider/{broken.pk}/change/",
        "provider-delete": f"/admin/providers/llmprovider/{good.pk}/delete/",
        "provider-history": f"/admin/providers/llmprovider/{good.pk}/history/",
        "provider-asked": f"/admin/providers/llmprovider/{good.pk}/test_connection/",
        "model": f"/admin/providers/languagemodel/{price.model_id}/change/",
        "price": f"/admin/providers/modelprice/{price.pk}/change/",
        "project": f"/admin/completions/project/{project.pk}/change/",
        "key": f"/admin/completions/apikey/{key.pk}/change/",
        "key-revoke": f"/admin/completions/apikey/{key.pk}/revoke/",
        "key-rotate": f"/admin/completions/apikey/{key.pk}/rotate/",
        "budget": f"/admin/completions/budget/{month.pk}/change/",
        "budget-end-users": f"/admin/completions/budget/{users.pk}/change/",
        "budget-for-key": f"/admin/completions/budget/add/?api_key={key.pk}",
        "call-ok": f"/admin/completions/completion/{calls[0]}/change/",
        "call-failed": f"/admin/completions/completion/{calls[1]}/change/",
        "call-told": f"/admin/completions/completion/{told}/change/",
        "call-erase": f"/admin/completions/completion/{told}/erase_content/",
        **answers,
    }


def _providers() -> tuple[Any, Any, Any]:
    from django.utils import timezone

    from providers.fields import Ciphertext
    from providers.models import Health, LanguageModel, LLMProvider

    demo = LLMProvider.objects.create(
        slug="demo", name="Demo", type="demo", default_model="demo", priority=900, health=Health.OK
    )
    LanguageModel.objects.create(provider=demo, name="demo", capabilities=["chat"])
    good = LLMProvider.objects.create(
        slug="openai",
        name="OpenAI",
        type="openai",
        preset="openai",
        api_key="sk-example-of-a-key-1234",
        default_model="gpt-4o",
    )
    for number, name in enumerate(("gpt-4o", "gpt-4o-mini", "text-embedding-3-small")):
        LanguageModel.objects.create(
            provider=good, name=name, context_window=128_000, max_output=16_384,
            capabilities=["chat", "tools", "vision"], enabled=number < 2,
        )  # fmt: skip
    broken = LLMProvider.objects.create(
        slug="mistral", name="Mistral", type="openai_compatible", base_url="https://api.mistral.ai/v1",
        default_model="mistral-small-latest", api_key="another-example-of-a-key",
    )  # fmt: skip
    LanguageModel.objects.create(provider=broken, name="mistral-small-latest")
    now = timezone.now()
    LLMProvider.objects.filter(pk=good.pk).update(health=Health.OK, health_message="", checked_at=now)
    LLMProvider.objects.filter(pk=broken.pk).update(
        api_key=Ciphertext("written-with-a-lost-encryption-key"),
        health=Health.AUTH_FAILED,
        health_message="The API key of provider mistral cannot be decrypted.",
        checked_at=now,
    )
    return demo, good, broken


def _calls(project: Any, key: Any, provider: Any) -> list[Any]:
    from django.utils import timezone

    from completions.ledger import new_id
    from completions.models import Completion, State

    states = [
        State.TIMEOUT_FIRST_TOKEN, State.OK, State.OK, State.CLIENT_GONE,
        State.UPSTREAM_ERROR, State.OK, State.RUNNING, State.OK,
    ]  # fmt: skip
    made = {}
    for number, state in enumerate(states * 8):
        answered = state in (State.OK, State.CLIENT_GONE)
        row = Completion.objects.create(
            id=new_id(), request_id=f"req-{number:04}", project=project, api_key=key, surface="api",
            requested_model="gpt-4o", provider=provider, provider_slug=provider.slug,
            model="gpt-4o-2024-08-06", state=state, attempts=1,
            finish_reason="stop" if state == State.OK else "",
            prompt_tokens=1200 + number if answered else None, completion_tokens=340 if answered else None,
            cached_tokens=0 if answered else None, usage_source="provider" if answered else "",
            cost_nano_usd=(12_345 + number * 1_000_003 if number % 5 else None) if answered else None,
            price_source="override 2026-11-01" if answered else "", created_at=timezone.now(),
            error_code="PROVIDER_ERROR" if state == State.UPSTREAM_ERROR else "",
            error_message="The provider answered 503: overloaded." if state == State.UPSTREAM_ERROR else "",
            first_token_ms=210 if answered else None,
            latency_ms=1800 + number if state != State.RUNNING else None,
        )  # fmt: skip
        made[state] = row.pk
    return [made[State.OK], made[State.UPSTREAM_ERROR]]


def _told_call(project: Any, key: Any, provider: Any) -> Any:
    """A call with two attempts, a correction, its prompt and answer; and two that wait for a price."""
    import json

    from django.utils import timezone

    from completions.ledger import new_id
    from completions.models import Adjustment, Attempt, Completion, CompletionContent, State

    now = timezone.now()
    prices = '{"prompt":"2.5","completion":"10","cached":"1.25"}'
    tokens = {
        "prompt_tokens": 1500, "cached_tokens": 1024, "cache_write_tokens": 0, "audio_prompt_tokens": 0,
        "completion_tokens": 333, "reasoning_tokens": 128, "audio_completion_tokens": 0,
        "usage_source": "provider", "prices": prices, "price_source": "override 2026-11-01",
        "cost_nano_usd": 5_800_000,
    }  # fmt: skip
    call = Completion.objects.create(
        id=new_id(), request_id="order-4711", project=project, api_key=key, surface="api", end_user="u-17",
        requested_model="gpt-4o", provider=provider, provider_slug="openai", model="gpt-4o", state=State.OK,
        finish_reason="stop", attempts=2, created_at=now, finished_at=now, first_token_ms=1210,
        latency_ms=2800, **tokens,
    )  # fmt: skip
    Attempt.objects.create(
        completion=call, number=1, provider_slug="azure-west", model="gpt-4o", state=State.UPSTREAM_ERROR,
        status=503, error_code="upstream_overloaded", error_message="The provider azure-west is overloaded.",
        started_ms=3, latency_ms=870, cost_nano_usd=0,
    )  # fmt: skip
    Attempt.objects.create(
        completion=call, number=2, provider_slug="openai", model="gpt-4o", state=State.OK, started_ms=874,
        latency_ms=1926, **tokens,
    )  # fmt: skip
    Adjustment.objects.create(
        completion=call, kind="reprice", amount_nano=-1_190_000, price_source="override 2026-11-02",
        reason="the prices of its day changed", created_at=now,
    )  # fmt: skip
    asked = [
        {"role": "system", "content": "You are the shop's assistant."},
        {"role": "user", "content": "Where is order 4711?\n<script>alert('never run')</script>"},
    ]
    function = {"name": "find_order", "arguments": '{"order": 4711}'}
    answer = {"role": "assistant", "content": "I look it up.", "tool_calls": [{"function": function}]}
    CompletionContent.objects.create(
        completion=call, request=json.dumps({"messages": asked, "temperature": 0.2}),
        response=json.dumps(answer), expires_at=now + timedelta(days=30),
    )  # fmt: skip
    for slug, model in (("openai", "gpt-4o-mini"), ("mistral", "mistral-small-latest")):
        Completion.objects.create(
            id=new_id(), request_id=model, project=project, surface="v1", requested_model=model, model=model,
            provider_slug=slug, state=State.OK, created_at=now, prompt_tokens=1200, completion_tokens=80,
        )  # fmt: skip
    return call.pk


def _rollups(project: Any, key: Any) -> None:
    """Six weeks of sums, of nine models."""
    from django.utils import timezone

    from completions.models import UsageRollup

    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    names = ("gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro", "gpt-4o-mini", "deepseek-chat", "grok-4",
             "mistral-medium-latest", "a-model-with-a-rather-long-name-of-its-own", "qwen3-32b")  # fmt: skip
    rows = []
    for day in range(42):
        for number, name in enumerate(names):
            calls = (day * 7 + number * 13) % 29 * (9 - number)
            if not calls:
                continue
            rows.append(
                UsageRollup(
                    hour=hour - timedelta(days=day), project_id=project.pk,
                    api_key_id=key.pk if number % 2 else None,
                    provider_slug="openai" if number % 3 else "local",
                    model=name, state="ok", calls=calls, unpriced_calls=3 if name == "qwen3-32b" else 0,
                    prompt_tokens=calls * 1200, completion_tokens=calls * 300,
                    cost_nano_usd=calls * 4_312_345 // (number + 1) if name != "qwen3-32b" else 0,
                    latency_ms=calls * 900,
                    cached_calls=calls * (number % 4) // 5,
                    saved_nano_usd=calls * (number % 4) // 5 * 3_912_345 // (number + 1),
                )
            )  # fmt: skip
    UsageRollup.objects.bulk_create(rows)


def _budgets(project: Any, key: Any) -> tuple[Any, Any]:
    from django.utils import timezone

    from completions.admin.standing import current_span
    from completions.models import Budget, BudgetAlert, BudgetWindow

    dollar = 10**9
    month = Budget.objects.create(
        project=project, amount=200, period="month", hard=False,
        webhook_url="https://hooks.example.com/spend", webhook_secret="an example of a secret",
    )  # fmt: skip
    day = Budget.objects.create(project=project, api_key=key, amount=5, period="day")
    users = Budget.objects.create(project=project, amount=Decimal("0.5"), period="day", per_end_user=True)
    Budget.objects.create(project=project, amount=1000, period="total", enabled=False)
    spent = {month: (16_850, 0, ""), day: (491, 120, ""), users: (31, 8, "customer-4711")}
    for budget, (cents, held, subject) in spent.items():
        span = current_span(budget)
        window = BudgetWindow.objects.create(
            budget=budget, subject=subject, starts_at=span.start, ends_at=span.end,
            spent_nano=cents * dollar // 100, held_nano=held * dollar // 1000,
        )  # fmt: skip
        for mark in (50, 80) if budget == month else ():
            BudgetAlert.objects.create(
                window=window, threshold=mark, spent_nano=mark * 2 * dollar + 12_345,
                amount_nano=200 * dollar,
                delivered_at=timezone.now() if mark == 50 else None, tries=3 if mark == 80 else 1,
                deliver_at=timezone.now() + timedelta(hours=1) if mark == 80 else None,
                last_error="The webhook answered 503." if mark == 80 else "",
            )  # fmt: skip
    for days in range(1, 4):
        start = current_span(day).start - timedelta(days=days)
        BudgetWindow.objects.create(
            budget=day, starts_at=start, ends_at=start + timedelta(days=1), spent_nano=days * dollar
        )
    return month, users
