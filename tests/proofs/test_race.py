"""200 calls at once on a budget that pays for 10 of them: not one nano-dollar too much is promised."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection

from completions.ledger.audit import audit
from completions.models import Budget, BudgetWindow, Completion, Project, State
from providers import drivers
from providers.models import ModelPrice
from tests.conftest import LiveHub
from tests.factories import make_key, make_project, make_provider
from tests.proofs.hub import ROOT, ask, hub_in, session
from tests.proofs.journal import Journal
from tests.proofs.race_calls import outcomes
from tests.proofs.watch import MOST, unwatch, watch

CALLS = 200
COST = 500_000  # nano-dollars: 50 tokens of output at 10 dollars a million; a call holds twice that
LIMIT = 10 * COST
AMOUNT = "0.005"
PROCESSES = 4


@pytest.fixture
def upstream() -> Iterator[Journal]:
    with Journal(delay=0.3) as journal:
        yield journal


@pytest.fixture
def project(transactional_db: None, upstream: Journal) -> Project:
    provider = make_provider(upstream_url=upstream.url, slug="scripted", models=("model",))
    ModelPrice.objects.create(model=provider.models.get(), valid_from="2020-01-01", prompt=0, completion=10)
    project = make_project("proofs")
    Budget.objects.create(project=project, amount=Decimal(AMOUNT), period="total", hard=True)
    return project


@pytest.fixture
def watched(project: Project) -> Iterator[None]:
    def execute(statement: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    watch(execute, connection.vendor)
    yield
    unwatch(execute, connection.vendor)


async def _closing(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await work
    finally:
        await drivers.aclose()


def assert_fair(statuses: list[int], upstream: Journal) -> None:
    """Each call was answered or refused; between 5 (all hold at once) and 10 (one by one) were answered."""
    assert len(statuses) == CALLS
    assert set(statuses) == {200, 402}
    assert 5 <= statuses.count(200) <= 10
    assert len(upstream.calls) == statuses.count(200)


def assert_never_exceeded(most: tuple[int, int], spent: int) -> None:
    """`most`: the highest spent + held, and the highest held, that any commit made."""
    assert most[0] <= LIMIT
    assert most[1] == LIMIT  # the race was one: at some moment everything was promised
    assert spent % COST == 0


def assert_true_at_rest(answered: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(MOST)
        assert_never_exceeded(cursor.fetchone(), answered * COST)
    window = BudgetWindow.objects.get()
    assert (window.spent_nano, window.held_nano) == (answered * COST, 0)
    assert Completion.objects.filter(state=State.OK).count() == Completion.objects.count() == answered
    assert audit() == []


def assert_told(numbers: dict[str, Any]) -> None:
    """A refusal shows what it went by."""
    limit, hold = Decimal(numbers["limit"]), Decimal(numbers["hold"])
    assert (limit, hold) == (Decimal(AMOUNT), Decimal("0.001"))
    assert Decimal(numbers["spent"]) + Decimal(numbers["held"]) + hold > limit


@pytest.mark.usefixtures("watched")
def test_calls_from_python_never_overrun_their_budget(upstream: Journal) -> None:
    found = asyncio.run(_closing(outcomes(CALLS)))
    statuses = [one["status"] for one in found]
    assert_fair(statuses, upstream)
    for refused in (one for one in found if one["status"] == 402):
        assert refused["code"] == "BUDGET_EXCEEDED"
        assert_told(refused["details"])
    assert_true_at_rest(statuses.count(200))


@pytest.mark.usefixtures("watched")
def test_calls_over_http_never_overrun_their_budget(
    live_hub: LiveHub, project: Project, upstream: Journal
) -> None:
    _, key = make_key(project)

    async def call(caller: Any, number: int) -> tuple[int, str | None, Any]:
        body = ask(f"call-{number}", stream=number % 2 == 0)
        async with caller.post(f"{live_hub.url}/api/completions/", json=body) as answer:
            if answer.status == 200:
                await answer.read()
                return 200, None, None
            return answer.status, answer.headers.get("x-should-retry"), await answer.json()

    async def call_all() -> list[tuple[int, str | None, Any]]:
        async with session(key) as caller:
            return await asyncio.gather(*(call(caller, number) for number in range(CALLS)))

    found = asyncio.run(call_all())
    statuses = [status for status, _, _ in found]
    assert_fair(statuses, upstream)
    for _, retry, body in (one for one in found if one[0] == 402):
        assert retry == "false"
        assert body["code"] == "BUDGET_EXCEEDED"
        assert_told(body["details"])
    assert_true_at_rest(statuses.count(200))


@pytest.mark.postgres
def test_four_processes_never_overrun_a_budget_they_share(
    tmp_path: Path, new_database: Callable[[], str], upstream: Journal
) -> None:
    url = new_database()
    with ExitStack() as stack:
        hub = stack.enter_context(hub_in(tmp_path, url))
        hub.set_up(upstream.url, AMOUNT)
        with psycopg.connect(url, autocommit=True) as database:
            watch(database.execute, "postgresql")
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.proofs.race_calls", str(CALLS // PROCESSES)],
                    cwd=ROOT,
                    env=hub.environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(PROCESSES)
        ]
        for racer in racers:
            stack.callback(racer.kill)
        assert [racer.stdout.readline() for racer in racers if racer.stdout] == ["ready\n"] * PROCESSES
        for racer in racers:
            assert racer.stdin
            racer.stdin.write("go\n")
            racer.stdin.flush()
        statuses = [one["status"] for racer in racers for one in json.loads(racer.communicate(timeout=60)[0])]
        assert_fair(statuses, upstream)
        [(spent, held)] = hub.query(
            "SELECT spent_nano, held_nano FROM completions_budgetwindow w "
            "JOIN completions_budget b ON b.id = w.budget_id WHERE b.hard"
        )
        [most] = hub.query(MOST)
        assert (spent, held) == (statuses.count(200) * COST, 0)
        assert_never_exceeded(most, spent)
        hub.assert_true()
