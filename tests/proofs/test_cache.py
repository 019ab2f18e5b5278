"""The cache of a hub that is stopped, killed and started again, and of one that is told to stop meanwhile."""

import asyncio
import json
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.proofs.hub import Hub, hub_in, session
from tests.proofs.journal import Journal

COST = 500_000  # nano-dollars of one call
PIECES = 10
TEXT = "".join(f"piece {number} " for number in range(PIECES))
DRAIN_SECONDS = 2
SHORT, LONG = 0.05, 0.5  # seconds before each piece: the whole takes less, or more, than the hub has to stop


@dataclass
class Cached:
    """A hub that runs, its upstream, and a question that no other test asks."""

    hub: Hub
    upstream: Journal
    question: str

    async def ask(self, caller: aiohttp.ClientSession, marker: str, **fields: Any) -> aiohttp.ClientResponse:
        messages = [{"role": "user", "content": self.question}]
        body = {"model": "model", "messages": messages, "temperature": 0, "max_tokens": 100, "user": marker}
        answer = await caller.post(f"{self.hub.url}/v1/chat/completions", json=body | fields)
        assert answer.status == 200, await answer.text()
        return answer

    async def says(self, marker: str, **fields: Any) -> str:
        """What the cache did for a call, which is read to its end."""
        async with session() as caller:
            answer = await self.ask(caller, marker, **fields)
            await answer.read()
            return answer.headers["x-llmhub-cache"]

    async def share(self, count: int) -> list[str]:
        """What so many equal streams say to their ends, of a hub that is told to stop meanwhile."""
        async with session() as caller:
            answers = [await self.ask(caller, "leader", stream=True)]
            followers = (self.ask(caller, f"follower {n}", stream=True) for n in range(count - 1))
            answers += await asyncio.gather(*followers)
            self.hub.signal(signal.SIGTERM)
            told = await asyncio.gather(*map(end_of, answers))
        await asyncio.to_thread(self.hub.wait, 15)
        return told

    def rows(self, columns: str) -> list[tuple[Any, ...]]:
        """Of the calls of this test."""
        return self.hub.query(
            f"SELECT {columns} FROM completions_completion c JOIN completions_completioncontent t "  # noqa: S608
            f"ON t.completion_id = c.id WHERE t.request LIKE '%{self.question}%' ORDER BY c.id"
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Journal]]:
    with Journal(pieces=PIECES, delay=SHORT) as upstream, hub_in(tmp_path_factory.mktemp("hub")) as hub:
        hub.environment["LLMHUB_DRAIN_SECONDS"] = str(DRAIN_SECONDS)
        hub.set_up(upstream.url)
        yield hub, upstream
        hub.assert_true()  # whatever became of it


@pytest.fixture
def cached(made: tuple[Hub, Journal]) -> Cached:
    hub, upstream = made
    if hub._process is None:
        hub.start()
    upstream.delay = SHORT
    upstream.requests.clear()
    return Cached(hub, upstream, f"question {uuid.uuid4().hex}")


async def end_of(answer: aiohttp.ClientResponse) -> str:
    """What a stream says; or the error that it ends with."""
    said = ""
    async for line in answer.content:
        if line.startswith(b"data: {"):
            frame = json.loads(line[6:])
            if "error" in frame:
                return str(frame["error"]["code"])
            said += "".join(choice["delta"].get("content") or "" for choice in frame["choices"])
    return said


async def test_a_hub_knows_its_answers_again_once_it_was_stopped_or_killed(cached: Cached) -> None:
    hub = cached.hub
    assert await cached.says("first") == "MISS"
    hub.signal(signal.SIGTERM)  # at once: the row is written on the way out
    await asyncio.to_thread(hub.wait, 15)
    await asyncio.to_thread(hub.start)
    assert await cached.says("second") == "HIT"
    hub.kill()
    await asyncio.to_thread(hub.start)
    assert await cached.says("third", stream=True) == "HIT"

    assert cached.upstream.markers == ["first"]
    rows = cached.rows("end_user, cost_nano_usd, saved_nano_usd")
    assert rows == [("first", COST, 0), ("second", 0, COST), ("third", 0, COST)]


async def test_a_purge_by_a_command_is_in_force_within_a_second(cached: Cached) -> None:
    assert [await cached.says("first"), await cached.says("second")] == ["MISS", "HIT"]
    done = await asyncio.to_thread(cached.hub.manage, "cache_purge", "--all")
    assert done.returncode == 0, done.stderr
    await asyncio.sleep(1.0)

    assert await cached.says("third") == "MISS"


async def test_who_shares_an_answer_gets_all_of_it_though_the_hub_is_told_to_stop(cached: Cached) -> None:
    assert set(await cached.share(10)) == {TEXT}

    assert cached.upstream.markers == ["leader"]
    assert sorted(state for (state,) in cached.rows("state")) == ["coalesced"] * 9 + ["ok"]


async def test_who_shares_an_answer_that_takes_too_long_for_that_is_told_so(cached: Cached) -> None:
    cached.upstream.delay = LONG
    assert set(await cached.share(5)) == {"shutting_down"}

    rows = cached.rows("state, cost_nano_usd")
    assert {state for state, _ in rows} == {"shutdown"}
    assert [cost > 0 for _, cost in rows].count(True) == 1
    assert len(rows) == 5
