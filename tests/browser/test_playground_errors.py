"""What goes wrong is said in words, with what one can do about it; what is left to spend is always there."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.models import Session

from completions import accounts
from completions.admin.standing import current_span
from completions.models import Budget, BudgetWindow, Project
from providers import breaker, registry
from providers.models import LanguageModel, LLMProvider, ModelPrice
from tests.browser.bench import Bench
from tests.browser.conftest import MODEL, OpenBench
from tests.browser.scripts import Upstream
from tests.fakes import refused_url

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def set_budget(project: Project, amount: int, spent_cents: int = 0) -> None:
    budget = Budget.objects.create(project=project, amount=amount, period="day")
    span = current_span(budget)
    BudgetWindow.objects.create(
        budget=budget, starts_at=span.start, ends_at=span.end, spent_nano=spent_cents * 10**7
    )


def said(bench: Bench) -> str:
    """The card that tells what went wrong, as people read it."""
    bench.wait("failed")
    return str(bench.reply().locator(".problem-card").inner_text())


def configured() -> None:
    """What was changed holds now, and not only within a second."""
    registry._State.current = None
    registry.forget()
    accounts.forget()
    breaker.forget()


def test_a_budget_that_is_spent(bench: Bench, project: Project) -> None:
    set_budget(project, 5, spent_cents=500)
    configured()
    bench.page.reload()
    bench.page.wait_for_selector("#budget[data-level=spent] >> text=Budget spent")
    bench.ask("Hello")
    words = said(bench)
    assert "The budget is spent" in words
    assert "$5.00 spent and $0 held of $5.00" in words
    assert "wait until the budget begins anew, or have it raised" in words


def test_what_is_left_is_shown_and_falls_with_each_answer(
    bench: Bench, upstream: Upstream, project: Project
) -> None:
    ModelPrice.objects.update(prompt=100_000, completion=0)  # of nine tokens: 90 cents
    LanguageModel.objects.update(context_window=20, max_output=5)
    set_budget(project, 5, spent_cents=100)
    configured()
    bench.page.reload()
    bench.page.wait_for_selector("#budget-left >> text=$4.00 left")
    bench.ask("Hello")
    bench.wait("done")
    bench.page.wait_for_selector("#budget-left >> text=$3.10 left")
    bench.page.click("#budget summary")
    assert "$1.90 spent." in bench.page.inner_text("#budgets")
    bench.page.keyboard.press("Escape")
    assert not bench.page.locator("#budgets").is_visible()


def wire_error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code}}


# What the provider does, and what people read of it.
UPSTREAM_CASES: list[tuple[Callable[[Upstream], object], str, str]] = [
    (lambda up: up.refuses(529), "The provider is overloaded", "choose another model"),
    (lambda up: up.refuses(401), "The provider refused the hub's key", "Staff can check the provider's key"),
    (
        lambda up: up.refuses(400, wire_error("seed must be prime", "invalid_value")),
        "seed must be prime",
        "Change",
    ),
    (
        lambda up: up.refuses(400, wire_error("8 tokens at most", "context_length_exceeded")),
        "The conversation is too long for this model",
        "Remove messages",
    ),
    (lambda up: up.cuts(after=2), "The answer broke off", "What came is kept, and paid for."),
    (
        lambda up: up.refuses(200, "nonsense"),
        "The provider answered nonsense",
        "Try again",
    ),
]


def test_a_provider_that_fails(bench: Bench, upstream: Upstream) -> None:
    for fail, title, hint in UPSTREAM_CASES:
        upstream.clear()
        fail(upstream)
        configured()
        bench.ask("Hello")
        words = said(bench)
        assert title in words
        assert hint in words
    with refused_url() as url:
        LLMProvider.objects.update(base_url=url)
        configured()
        bench.ask("Hello")
        assert "The provider cannot be reached" in said(bench)


def test_a_model_that_nobody_may_call(bench: Bench, project: Project) -> None:
    set_budget(project, 5)
    ModelPrice.objects.all().delete()
    configured()
    bench.ask("Hello")
    assert "This model has no price yet" in said(bench)
    LanguageModel.objects.update(enabled=False)
    configured()
    bench.ask("Hello")
    words = said(bench)
    assert "This model is gone" in words
    assert "Choose another one." in words


def test_who_is_signed_out_is_told_and_finds_the_conversation_after_signing_in(bench: Bench) -> None:
    bench.ask("Hello")
    bench.wait("done")
    Session.objects.all().delete()
    bench.network_fails = True  # Chromium logs the 401
    bench.page.evaluate("() => { dispatchEvent(new Event('online')); }")  # the socket is opened anew
    bench.ask("And now?")
    assert "You are signed out" in said(bench)
    link = bench.page.locator(".problem-card a")
    assert link.get_attribute("href") == "/sign-in/?next=%2Fplayground%2F"
    assert bench.text(0) == "Hello!"


def test_after_an_error_another_try_works(bench: Bench, upstream: Upstream) -> None:
    upstream.cuts(after=2)
    upstream.says("Whole.")
    bench.ask("Hello")
    said(bench)
    assert bench.text() == "piece0 piece1 "
    bench.page.click("text=Ask again")
    bench.wait("done")
    assert bench.text() == "Whole."


def test_who_is_of_no_project_is_told_so(open_bench: OpenBench, project: Project) -> None:
    project.members.clear()
    page = open_bench(wait=False).page
    said = page.inner_text("#notice:not([hidden])")
    assert "You are a member of no project" in said
    assert "Ask staff" in said
    assert page.inner_text("#panes option") == "No model"
    for control in ("#draft", "#role", "#add", "#send"):
        assert page.is_disabled(control)


def test_a_hub_without_a_model_says_what_to_do(open_bench: OpenBench) -> None:
    LanguageModel.objects.filter(name=MODEL).update(enabled=False)
    page = open_bench().page
    assert page.inner_text("#empty h2") == "No model can be called yet"
    assert "Staff must add a provider first" in page.inner_text("#empty")
    assert page.is_disabled("#send")
