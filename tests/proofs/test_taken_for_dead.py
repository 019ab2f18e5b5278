"""Processes that were silent for longer than the dead are: each goes on as if nothing had been."""

import asyncio
import signal
from pathlib import Path

import aiohttp
import pytest

from completions.ledger.recovery import DEAD_SECONDS
from tests.proofs.hub import Hub, ask, events, hub_in, session
from tests.proofs.journal import Journal
from tests.proofs.postgres import own_postgres, programs

SILENT_SECONDS = DEAD_SECONDS + 1
BACK_SECONDS = 10.0
# A process that writes the ledger, and recovers what it takes for dead.
ANOTHER = """
import time, django
django.setup()
from completions import ledger
ledger.start()
time.sleep(2.5)
ledger.close()
"""


async def answered(hub: Hub, caller: aiohttp.ClientSession, marker: str) -> bool:
    body = ask(marker, stream=False)
    async with caller.post(f"{hub.url}/api/completions/", json=body) as answer:
        return answer.status == 200


async def streamed(hub: Hub, caller: aiohttp.ClientSession, marker: str, begun: asyncio.Event) -> bool:
    async with caller.post(f"{hub.url}/api/completions/", json=ask(marker, stream=True)) as answer:
        names = []
        async for name, _ in events(answer):
            begun.set()
            names.append(name)
        return names[-1] == "done"


async def serves_again(hub: Hub, caller: aiohttp.ClientSession, marker: str) -> None:
    async with asyncio.timeout(BACK_SECONDS):
        while not await answered(hub, caller, marker):  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.2)
    async with caller.get(f"{hub.url}/readyz") as ready:
        assert ready.status == 200


def assert_all_settled_once(hub: Hub, epochs: int) -> None:
    hub.await_rest(BACK_SECONDS)
    hub.assert_true()
    assert hub.query("SELECT DISTINCT state FROM completions_completion") == [("ok",)]
    assert hub.query("SELECT count(*) FROM completions_epoch") == [(epochs,)]


async def test_a_hub_that_was_stopped_for_a_while_goes_on(tmp_path: Path) -> None:
    with Journal(pieces=10, delay=0.2) as upstream, hub_in(tmp_path) as hub:
        hub.set_up(upstream.url)
        hub.start()
        before = hub.query("SELECT count(*) FROM completions_epoch")[0][0]
        async with session() as caller:
            begun = asyncio.Event()
            stream = asyncio.create_task(streamed(hub, caller, "across", begun))
            await begun.wait()
            hub.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(SILENT_SECONDS)
                other = await asyncio.to_thread(hub._run, "-c", ANOTHER)
                assert other.returncode == 0, other.stderr
            finally:
                hub.signal(signal.SIGCONT)
            assert await stream
            await serves_again(hub, caller, "after")
        assert_all_settled_once(hub, max(before, 1) + 1)


@pytest.mark.postgres
async def test_processes_whose_database_was_away_for_long_take_none_of_each_other_for_dead(
    tmp_path: Path,
) -> None:
    if (binaries := programs()) is None:
        pytest.skip("no pg_ctl here: a PostgreSQL of one's own cannot be stopped")
    with (
        Journal(pieces=10, delay=0.5) as upstream,
        own_postgres(binaries) as postgres,
        hub_in(tmp_path, postgres.url) as one,
        hub_in(tmp_path, postgres.url) as other,
    ):
        one.set_up(upstream.url)
        one.start()
        other.start()
        async with session() as caller:
            begun = [asyncio.Event(), asyncio.Event()]
            streams = [
                asyncio.create_task(streamed(hub, caller, f"stream-{hub.port}", event))
                for hub, event in zip((one, other), begun, strict=True)
            ]
            for event in begun:
                await event.wait()
            await asyncio.to_thread(postgres.stop)
            await asyncio.sleep(SILENT_SECONDS)
            await asyncio.to_thread(postgres.start)
            assert await asyncio.gather(*streams) == [True, True]
            for hub in (one, other):
                await serves_again(hub, caller, f"after-{hub.port}")
        await asyncio.sleep(6)  # time for a look around, in which one might recover the other
        assert_all_settled_once(one, 2)
