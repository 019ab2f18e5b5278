"""kill -9 at random moments, again and again: nothing the upstream was asked for is missing in the ledger.

`make prove` kills more often. A failure names its seed: LLMHUB_PROVE_SEED=<seed> plays the same moments.
"""

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.proofs.hub import Hub, ask, events, hub_in, session
from tests.proofs.journal import Journal

SEED = int(os.environ.get("LLMHUB_PROVE_SEED", "1"))
KILLS = int(os.environ.get("LLMHUB_PROVE_KILLS", "4"))
STREAMS = 30
RECOVERY_SECONDS = 30.0


@dataclass
class Traffic:
    """STREAMS callers at a time, whatever becomes of the hub; and what they saw of it."""

    hub: Hub
    relayed: set[str] = field(default_factory=set)  # something of the answer came
    finished: set[str] = field(default_factory=set)  # the whole answer came
    failed: dict[str, object] = field(default_factory=dict)  # an answer came that says why not
    refused: set[str] = field(
        default_factory=set
    )  # a slow disk: the hub did not take it, and may be asked again
    _calls: int = 0

    async def run(self) -> None:
        async with session() as caller:
            await asyncio.gather(*(self._call_on(caller) for _ in range(STREAMS)))

    async def flows(self) -> None:
        """Wait for the first piece of an answer after now."""
        before = len(self.relayed)
        async with asyncio.timeout(30):
            while len(self.relayed) == before:  # noqa: ASYNC110 - counted elsewhere, by whoever relays
                await asyncio.sleep(0.01)

    async def _call_on(self, caller: aiohttp.ClientSession) -> None:
        while True:
            self._calls += 1
            marker = f"call-{self._calls}"
            try:
                await self._call(caller, marker)
            except aiohttp.ClientError:  # the hub is dead
                await asyncio.sleep(0.3)

    async def _call(self, caller: aiohttp.ClientSession, marker: str) -> None:
        url = f"{self.hub.url}/api/completions/"
        async with caller.post(url, json=ask(marker, stream=True)) as answer:
            if answer.status == 503:
                self.refused.add(marker)
                await asyncio.sleep(0.3)
                return
            if answer.status != 200:
                self.failed[marker] = await answer.json()
                return
            async for name, data in events(answer):
                if name == "delta":
                    self.relayed.add(marker)
                elif name == "done":
                    self.finished.add(marker)
                elif name == "error":
                    self.failed[marker] = data


async def crash_loop(hub: Hub, kills: int) -> Traffic:
    chance = random.Random(SEED)  # noqa: S311 - moments, not secrets
    traffic = Traffic(hub)
    running = asyncio.create_task(traffic.run())
    for _ in range(kills):
        await asyncio.to_thread(hub.start)
        await traffic.flows()
        await asyncio.sleep(chance.uniform(0, 2))
        await asyncio.to_thread(hub.kill)
    running.cancel()
    await asyncio.wait([running])
    return traffic


async def prove(hub: Hub, kills: int) -> None:
    with Journal(pieces=8, delay=0.1) as upstream:
        hub.set_up(upstream.url)
        traffic = await crash_loop(hub, kills)
        asked = set(upstream.markers)
    hub.start()
    took = hub.await_rest(RECOVERY_SECONDS)
    columns = "end_user, state, completion_tokens, cost_nano_usd"
    found = hub.query(f"SELECT {columns} FROM completions_completion")  # noqa: S608 - columns of the code
    rows = {row[0]: row[1:] for row in found}
    states = {marker: state for marker, (state, _, _) in rows.items()}
    said = f"seed {SEED}, recovered in {took:.1f} s; the hub's log:\n{hub.log.read_text()[-3000:]}"

    assert traffic.finished, said
    assert "recovered" in states.values(), said
    assert traffic.failed == {}, said
    assert asked - rows.keys() == set(), said
    assert asked & traffic.refused == set(), said
    assert len(upstream.markers) == len(asked), said
    assert {states[marker] for marker in traffic.finished} == {"ok"}, said
    assert {marker for marker in traffic.relayed if not rows[marker][1]} == set(), said
    unused = {marker for marker, row in rows.items() if row[1] is None}  # by who was given up before
    assert asked & unused == set(), said
    assert {marker for marker, row in rows.items() if (row[2] or 0) != (row[1] or 0) * 10_000} == set(), said
    hub.assert_true()


async def test_after_kill_9_every_call_the_upstream_saw_is_in_the_ledger_and_nothing_is_held(
    tmp_path: Path,
) -> None:
    with hub_in(tmp_path) as hub:
        await prove(hub, KILLS)


@pytest.mark.postgres
async def test_the_same_on_postgresql(tmp_path: Path, new_database: Callable[[], str]) -> None:
    with hub_in(tmp_path, new_database()) as hub:
        await prove(hub, max(2, KILLS // 2))
