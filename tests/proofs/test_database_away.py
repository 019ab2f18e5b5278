"""The database is away for ten seconds: what runs is finished, what is new is told so, nothing is lost."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from django.db import connection

from completions.ledger.audit import audit
from completions.models import Budget, BudgetWindow, Completion, State
from providers.models import ModelPrice
from tests.conftest import LiveHub
from tests.factories import make_key, make_project, make_provider
from tests.proofs.hub import KEY, ask, events, hub_in, session
from tests.proofs.journal import Journal
from tests.proofs.postgres import own_postgres, programs
from tests.waiting import eventually

AWAY_SECONDS = 10.0
BACK_SECONDS = 5.0  # within which the hub serves again
STALLED_SECONDS = 2.0  # a refusal where the machine itself held it up; waiting for the database takes five
STREAMS = 10
COST = 500_000  # nano-dollars of one call
STRANGER = f"sk-llmhub-stranger0000-{'s' * 43}"

Switch = Callable[[], Any]


@dataclass
class Outage:
    """Callers of a hub while its database goes away and comes back."""

    url: str
    key: str
    finished: list[str] = field(default_factory=list)  # streams whose last event came
    refusals: list[tuple[float, int, str | None]] = field(
        default_factory=list
    )  # seconds, status, retry-after
    answered: int = 0  # new calls after it was back

    async def pass_by(self, leave: Switch, come_back: Switch) -> None:
        async with session(self.key) as caller:
            await self._answered(caller, "before")
            streams = [asyncio.create_task(self._stream(caller, f"stream-{n}")) for n in range(STREAMS)]
            await asyncio.sleep(1)  # they are on their way, and will end while the database is away
            await asyncio.to_thread(leave)
            gone = time.monotonic()
            while (left := AWAY_SECONDS - (time.monotonic() - gone)) > 0:
                await asyncio.gather(*(self._refused(caller) for _ in range(3)))
                await asyncio.sleep(min(0.5, left))
            done = [task.done() for task in streams]
            await asyncio.to_thread(come_back)
            assert done == [True] * STREAMS
            await asyncio.gather(*streams)
            await self._serves_again(caller)

    async def _stream(self, caller: aiohttp.ClientSession, marker: str) -> None:
        async with caller.post(f"{self.url}/api/completions/", json=ask(marker, stream=True)) as answer:
            async for name, _ in events(answer):
                if name == "done":
                    self.finished.append(marker)

    async def _answered(self, caller: aiohttp.ClientSession, marker: str) -> bool:
        body = ask(marker, stream=False)
        async with caller.post(f"{self.url}/api/completions/", json=body) as answer:
            self.answered += answer.status == 200
            return answer.status == 200

    async def _refused(self, caller: aiohttp.ClientSession) -> None:
        began = time.monotonic()
        body = ask("refused", stream=False)
        async with caller.post(f"{self.url}/api/completions/", json=body) as answer:
            await answer.read()
            took = time.monotonic() - began
            self.refusals.append((took, answer.status, answer.headers.get("retry-after")))

    async def _serves_again(self, caller: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(BACK_SECONDS):
            while not await self._answered(caller, "after"):  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.2)

    def assert_nobody_was_kept_waiting(self, upstream: Journal) -> None:
        assert sorted(self.finished) == [f"stream-{number}" for number in range(STREAMS)]
        assert {(status, retry) for _, status, retry in self.refusals} == {(503, "5")}
        waited = sorted(took for took, _, _ in self.refusals)
        assert waited[len(waited) * 9 // 10] < 1.0
        assert waited[-1] < STALLED_SECONDS
        assert "refused" not in upstream.markers
        assert len(upstream.markers) == STREAMS + self.answered


@pytest.mark.sqlite
def test_sqlite_locked_by_another_for_ten_seconds(live_hub: LiveHub) -> None:
    with Journal(pieces=30) as upstream:
        provider = make_provider(upstream_url=upstream.url, models=("model",))
        model = provider.models.get()
        ModelPrice.objects.create(model=model, valid_from="2020-01-01", prompt=0, completion=10)
        project = make_project()
        Budget.objects.create(project=project, amount=1, period="total", hard=True)
        outage = Outage(live_hub.url, make_key(project)[1])
        path = connection.settings_dict["NAME"]
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            asyncio.run(
                outage.pass_by(lambda: other.execute("BEGIN IMMEDIATE"), lambda: other.execute("ROLLBACK"))
            )
        assert eventually(
            lambda: not Completion.objects.filter(state=State.RUNNING).exists(), BACK_SECONDS
        ), "rows were still running"
    outage.assert_nobody_was_kept_waiting(upstream)
    settled = STREAMS + outage.answered
    assert list(Completion.objects.values_list("state", flat=True)) == [State.OK] * settled
    window = BudgetWindow.objects.get()
    assert (window.spent_nano, window.held_nano) == (settled * COST, 0)
    assert audit() == []


@pytest.mark.postgres
def test_postgresql_stopped_for_ten_seconds(tmp_path: Path) -> None:
    if (binaries := programs()) is None:
        pytest.skip("no pg_ctl here: a PostgreSQL of one's own cannot be stopped")
    with (
        Journal(pieces=30) as upstream,
        own_postgres(binaries) as postgres,
        hub_in(tmp_path, postgres.url) as hub,
    ):
        hub.set_up(upstream.url)
        hub.start()
        outage, strangers = Outage(hub.url, KEY), Outage(hub.url, STRANGER)

        def stop() -> None:
            postgres.stop()
            asyncio.run(_one_refusal(strangers))

        asyncio.run(outage.pass_by(stop, postgres.start))
        hub.await_rest(BACK_SECONDS)
        strangers_told = {(status, retry) for _, status, retry in strangers.refusals}
        states = [state for (state,) in hub.query("SELECT state FROM completions_completion")]
        spent = hub.query("SELECT DISTINCT spent_nano FROM completions_budgetwindow")
        hub.assert_true()
    outage.assert_nobody_was_kept_waiting(upstream)
    assert strangers_told == {(503, "5")}  # not 401: who they are could not be looked up
    assert max(took for took, _, _ in strangers.refusals) < STALLED_SECONDS
    settled = STREAMS + outage.answered
    assert states == ["ok"] * settled
    assert spent == [(settled * COST,)]


async def _one_refusal(strangers: Outage) -> None:
    async with session(strangers.key) as caller:
        await strangers._refused(caller)
