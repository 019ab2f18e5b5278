"""Budgets: what falls under them, what is held, what is refused, and what alerts."""

import asyncio
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest

from completions import budgets
from completions.errors import BudgetExceededError, ModelNotPricedError
from completions.ledger.audit import audit
from completions.models import ApiKey, Budget, BudgetAlert, BudgetWindow, Completion, Project
from completions.periods import Period, Span, span_of
from completions.service import LLMService
from completions.types import Call, Caller
from providers import drivers
from providers.models import LanguageModel, LLMProvider, ModelPrice
from providers.types import NANO, Endpoint, Operation, Price, ProviderType, Rate, Secret, Target
from tests.factories import make_key, make_project, make_provider
from tests.fakes import FakeUpstream

pytestmark = pytest.mark.django_db(transaction=True)

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello"}], "config": {"max_tokens": 100}}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        yield fake.answers("Hello!", usage=USAGE)


@pytest.fixture
def provider(upstream: FakeUpstream) -> LLMProvider:
    provider = make_provider(upstream_url=upstream.url, slug="local", models=("test-model",))
    ModelPrice.objects.create(
        model=provider.models.get(), valid_from="2020-01-01", prompt=Decimal(10), completion=Decimal(100)
    )
    return provider


@pytest.fixture
def project(provider: LLMProvider) -> Project:
    return make_project("web")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """On a loop of its own, with nothing left open on it."""

    async def closing() -> Any:
        try:
            return await work
        finally:
            await drivers.aclose()

    return asyncio.run(closing())


def service(project: Project, key: ApiKey | None = None) -> LLMService:
    return LLMService(Caller(project.pk, project.slug, api_key_id=key.pk if key else None))


def window(budget: Budget) -> BudgetWindow:
    return BudgetWindow.objects.get(budget=budget)


class TestSpending:
    def test_a_call_spends_its_cost_and_holds_nothing_afterwards(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=5)
        response = service(project).complete(ASK)

        assert response.metadata.cost == Decimal("0.02")
        assert (window(budget).spent_nano, window(budget).held_nano) == (20_000_000, 0)
        assert audit() == []

    def test_while_it_runs_a_call_holds_the_most_it_can_cost(
        self, project: Project, upstream: FakeUpstream
    ) -> None:
        budget = Budget.objects.create(project=project, amount=5)
        upstream._scripts.clear()
        upstream.hangs("headers")

        async def call() -> None:
            running = asyncio.create_task(service(project).acomplete(ASK))
            await asyncio.to_thread(upstream.wait_for)
            held = await BudgetWindow.objects.aget(budget=budget)
            row = await Completion.objects.aget()
            assert held.held_nano == row.hold_nano > 100 * 100 * NANO // 1_000_000
            running.cancel()
            await asyncio.wait([running])

        run(call())
        assert window(budget).held_nano == 0
        assert audit() == []

    def test_a_call_that_fails_before_anything_was_used_spends_nothing(
        self, project: Project, upstream: FakeUpstream
    ) -> None:
        budget = Budget.objects.create(project=project, amount=5)
        upstream._scripts.clear()
        upstream.refuses(400)
        with pytest.raises(Exception, match="refusal"):
            service(project).complete(ASK)
        assert (window(budget).spent_nano, window(budget).held_nano) == (0, 0)

    def test_every_budget_that_applies_is_charged(self, project: Project) -> None:
        key, _ = make_key(project)
        for row in (
            Budget(project=project, amount=5, period=Period.DAY),
            Budget(project=project, amount=50, period=Period.MONTH),
            Budget(project=project, api_key=key, amount=1),
        ):
            row.save()
        other, _ = make_key(project, "other")
        foreign = Budget.objects.create(project=project, api_key=other, amount=1)
        service(project, key).complete(ASK)

        assert [w.spent_nano for w in BudgetWindow.objects.all()] == [20_000_000] * 3
        assert not BudgetWindow.objects.filter(budget=foreign).exists()


class TestRefusal:
    def test_a_hard_budget_refuses_what_could_exceed_it_before_the_upstream_is_called(
        self, project: Project, upstream: FakeUpstream
    ) -> None:
        Budget.objects.create(project=project, amount=Decimal("0.001"))
        with pytest.raises(BudgetExceededError) as caught:
            service(project).complete(ASK)

        assert not upstream.requests
        assert not Completion.objects.exists()
        details = caught.value.details
        assert details["limit"] == "0.001000000"
        assert (details["spent"], details["held"]) == ("0.000000000", "0.000000000")
        assert details["reset"] is not None
        assert caught.value.status == 402

    def test_a_soft_budget_refuses_nothing(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=Decimal("0.001"), hard=False)
        service(project).complete(ASK)
        assert window(budget).spent_nano == 20_000_000

    def test_a_spent_budget_refuses_and_a_raised_one_pays_at_once(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=Decimal("0.03"))
        service(project).complete(ASK)
        with pytest.raises(BudgetExceededError):
            service(project).complete(ASK)
        budget.amount = Decimal(1)
        budget.save()
        service(project).complete(ASK)
        assert window(budget).spent_nano == 40_000_000

    def test_a_smaller_output_bound_fits_where_a_larger_one_did_not(self, project: Project) -> None:
        Budget.objects.create(project=project, amount=Decimal("0.005"))
        with pytest.raises(BudgetExceededError):
            service(project).complete(ASK)
        service(project).complete({**ASK, "config": {"max_tokens": 10}})

    def test_a_model_without_a_price_is_refused_under_a_hard_budget_alone(
        self, project: Project, provider: LLMProvider, upstream: FakeUpstream
    ) -> None:
        LanguageModel.objects.create(provider=provider, name="nameless")
        unpriced = {**ASK, "model": "nameless"}
        service(project).complete(unpriced)
        Budget.objects.create(project=project, amount=5)
        with pytest.raises(ModelNotPricedError):
            service(project).complete(unpriced)
        assert len(upstream.requests) == 1

    def test_of_a_batch_only_those_are_refused_that_do_not_fit(self, project: Project) -> None:
        Budget.objects.create(project=project, amount=Decimal("0.05"))  # a hold is a little over 0.01

        async def burst() -> list[Any]:
            calls = (service(project).acomplete(ASK) for _ in range(8))
            return await asyncio.gather(*calls, return_exceptions=True)

        outcomes = run(burst())
        refused = [one for one in outcomes if isinstance(one, BudgetExceededError)]
        answered = [one for one in outcomes if not isinstance(one, Exception)]
        assert len(refused) + len(answered) == 8
        assert 2 <= len(answered) <= 4
        assert audit() == []


class TestHolds:
    """They cover all of the prompt; a call that could cost more than is left is not made."""

    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            f"f{number}": {"type": "string", "description": "some words"} for number in range(500)
        },
    }

    @pytest.mark.parametrize(
        "config",
        [
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
            {"prediction": {"type": "content", "content": "some words " * 1000}},
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"anyOf": [SCHEMA]}}}]},
        ],
        ids=lambda config: next(iter(config)),
    )
    def test_what_a_model_reads_beside_the_messages_is_held(
        self, project: Project, upstream: FakeUpstream, config: dict[str, Any]
    ) -> None:
        upstream._scripts.clear()
        upstream.answers("H", usage={"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11})
        Budget.objects.create(project=project, amount=Decimal("0.01"))  # 1000 tokens of prompt
        service(project).complete({**ASK, "config": {"max_tokens": 1}})
        with pytest.raises(BudgetExceededError):
            service(project).complete({**ASK, "config": {"max_tokens": 1, **config}})
        assert len(upstream.requests) == 1

    def test_where_the_bytes_are_too_many_but_the_tokens_are_not_the_call_is_made(
        self, project: Project, upstream: FakeUpstream
    ) -> None:
        Budget.objects.create(project=project, amount=Decimal("0.045"))  # its bytes would cost 0.055
        config = {"max_tokens": 1, "prediction": None, "response_format": {"type": "x", "y": "word " * 1000}}
        service(project).complete({**ASK, "config": config})
        assert len(upstream.requests) == 1

    def test_what_an_upstream_does_not_say_is_counted_over_the_same_fields(
        self, project: Project, upstream: FakeUpstream
    ) -> None:
        upstream._scripts.clear()
        upstream.answers("Hello!", usage=None)
        config = {"response_format": {"type": "json_schema", "json_schema": {"schema": self.SCHEMA}}}
        response = service(project).complete({**ASK, "config": config})
        assert response.usage.prompt > 2000

    def test_a_file_that_is_only_named_may_fill_the_window(self) -> None:
        held = budgets.worst_case(
            [target(context_window=1_000_000)], 10, asking(max_tokens=0), open_ended=True
        )
        assert held >= NANO


class TestEndUsers:
    def test_each_end_user_has_the_amount_for_themselves(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=Decimal("0.03"), per_end_user=True)
        for user in ("ann", "bob"):
            service(project).complete({**ASK, "user": user})
        with pytest.raises(BudgetExceededError):
            service(project).complete({**ASK, "user": "ann"})

        shares = BudgetWindow.objects.filter(budget=budget).values_list("subject", "spent_nano")
        assert dict(shares) == {"ann": 20_000_000, "bob": 20_000_000}

    def test_a_call_without_a_user_is_not_on_a_budget_per_end_user(self, project: Project) -> None:
        Budget.objects.create(project=project, amount=Decimal("0.000001"), per_end_user=True)
        service(project).complete(ASK)
        assert not BudgetWindow.objects.exists()


class TestAlerts:
    def test_each_threshold_alerts_once(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=Decimal("0.04"), hard=False)
        for _ in range(4):
            service(project).complete(ASK)

        alerts = BudgetAlert.objects.filter(window__budget=budget).order_by("threshold")
        assert list(alerts.values_list("threshold", "spent_nano")) == [
            (50, 20_000_000),
            (80, 40_000_000),
            (100, 40_000_000),
        ]
        assert all(alert.deliver_at is None for alert in alerts)

    def test_with_a_webhook_the_alert_waits_to_be_delivered(self, project: Project) -> None:
        Budget.objects.create(
            project=project, amount=Decimal("0.04"), webhook_url="https://example.com/hook", thresholds=[50]
        )
        service(project).complete(ASK)
        assert BudgetAlert.objects.get().deliver_at is not None


BERLIN = ZoneInfo("Europe/Berlin")


class TestPeriods:
    @pytest.mark.parametrize(
        ("period", "at", "start", "end"),
        [
            (Period.DAY, "2026-11-23T10:00Z", "2026-11-22T23:00Z", "2026-11-23T23:00Z"),
            (Period.DAY, "2026-11-22T23:00Z", "2026-11-22T23:00Z", "2026-11-23T23:00Z"),
            (Period.DAY, "2026-03-29T12:00Z", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),  # 23 hours
            (Period.DAY, "2026-10-25T12:00Z", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),  # 25 hours
            (Period.WEEK, "2026-11-29T22:59Z", "2026-11-22T23:00Z", "2026-11-29T23:00Z"),
            (Period.MONTH, "2026-11-30T22:59Z", "2026-10-31T23:00Z", "2026-11-30T23:00Z"),
            (Period.MONTH, "2026-12-31T12:00Z", "2026-11-30T23:00Z", "2026-12-31T23:00Z"),
        ],
    )
    def test_a_period_begins_and_ends_at_midnight_of_the_projects_zone(
        self, period: Period, at: str, start: str, end: str
    ) -> None:
        moments = [datetime.fromisoformat(text) for text in (at, start, end)]
        assert span_of(period, moments[0], BERLIN) == Span(moments[1], moments[2])

    def test_a_total_never_begins_anew(self) -> None:
        first = span_of(Period.TOTAL, datetime(2020, 1, 1, tzinfo=UTC), BERLIN)
        assert first == span_of(Period.TOTAL, datetime(2030, 1, 1, tzinfo=UTC), BERLIN)
        assert first.end is None

    def test_a_clock_that_steps_back_does_not_begin_a_period_twice(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=5, period=Period.DAY)
        tomorrow = span_of(Period.DAY, datetime(2099, 1, 2, tzinfo=UTC), ZoneInfo("UTC"))
        BudgetWindow.objects.create(
            budget=budget, starts_at=tomorrow.start, ends_at=tomorrow.end, spent_nano=0
        )
        service(project).complete(ASK)
        assert BudgetWindow.objects.get().spent_nano == 20_000_000


def target(**facts: Any) -> Target:
    endpoint = Endpoint("p", ProviderType.OPENAI, "https://example.com", Secret("k"))
    price = Price(prompt=Rate(Decimal(1)), completion=Rate(Decimal(2)))
    values = {"provider_id": None, "model_id": 1, "upstream_model": "m", "public_model": "m", "price": price}
    return Target(endpoint, **(values | facts))


def asking(operation: Operation = Operation.CHAT, **body: Any) -> Call:
    return Call(Caller(1, "p"), body, "m", operation=operation)


class TestWorstCase:
    def test_it_is_the_prompt_and_the_output_that_is_asked_for(self) -> None:
        assert budgets.worst_case([target()], 1_000_000, asking(max_tokens=1_000_000)) == 3 * NANO

    def test_without_a_bound_it_is_the_models_own_maximum(self) -> None:
        assert budgets.output_bound(target(max_output=500, context_window=9000), asking()) == 500
        assert budgets.output_bound(target(context_window=9000), asking()) == 9000
        assert budgets.output_bound(target(), asking()) == budgets.UNKNOWN_OUTPUT

    def test_several_answers_are_bounded_each(self) -> None:
        assert budgets.output_bound(target(), asking(max_tokens=10, n=3)) == 30
        older = asking(Operation.COMPLETION, max_tokens=10, n=2, best_of=4, prompt=["a", "b"])
        assert budgets.output_bound(target(), older) == 80

    def test_the_providers_default_number_of_answers_counts(self) -> None:
        several = target(default_config={"n": 5, "best_of": 7})
        assert budgets.output_bound(several, asking(max_tokens=10)) == 70
        assert budgets.output_bound(target(default_config={"n": 5}), asking(max_tokens=10, n=2)) == 20

    def test_what_the_providers_defaults_add_to_the_prompt_counts(self) -> None:
        schema = {"response_format": {"type": "json_schema", "json_schema": {"x": "y" * 1_000_000}}}
        call = asking(max_tokens=1)
        assert budgets.worst_case([target(default_config=schema)], 0, call) >= NANO
        own = asking(max_tokens=1, response_format={"type": "text"})
        assert budgets.worst_case([target(default_config=schema)], 0, own) < NANO

    def test_a_prediction_that_is_wrong_is_billed_as_output(self) -> None:
        call = asking(max_tokens=10, prediction={"type": "content", "content": "x" * 1000})
        assert budgets.output_bound(target(), call) > 1010

    def test_on_the_older_wire_no_output_may_be_asked_for(self) -> None:
        assert budgets.output_bound(target(), asking(Operation.COMPLETION, max_tokens=0, prompt="a")) == 0
        assert budgets.output_bound(target(), asking(Operation.COMPLETION, max_tokens=5)) == 5

    def test_an_embedding_generates_nothing(self) -> None:
        assert budgets.output_bound(target(max_output=500), asking(Operation.EMBEDDING, input="a")) == 0

    def test_the_providers_default_bound_counts(self) -> None:
        assert budgets.output_bound(target(default_config={"max_tokens": 7}, max_output=500), asking()) == 7

    def test_of_several_candidates_the_dearest_output_and_every_prompt_counts(self) -> None:
        dear = Price(prompt=Rate(Decimal(3)), completion=Rate(Decimal(10)))
        held = budgets.worst_case([target(), target(price=dear)], 1_000_000, asking(max_tokens=1_000_000))
        assert held == (1 + 3 + 10) * NANO

    def test_of_several_classes_the_dearest_counts(self) -> None:
        price = Price(prompt=Rate(Decimal(1)), completion=Rate(Decimal(1)), reasoning=Rate(Decimal(5)))
        assert budgets.worst_case([target(price=price)], 0, asking(max_tokens=1_000_000)) == 5 * NANO
