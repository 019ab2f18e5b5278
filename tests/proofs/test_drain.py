"""SIGTERM: what runs may finish, what is new is refused, and nothing is lost, whatever the grace."""

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.proofs.hub import Hub, hub_in, session
from tests.proofs.journal import Journal

BODY = {"model": "model", "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 100}


async def begun(hub: Hub, caller: aiohttp.ClientSession, marker: str) -> aiohttp.ClientResponse:
    """A stream of which the first frame has come."""
    asked = {**BODY, "stream": True, "user": marker}
    answer = await caller.post(f"{hub.url}/v1/chat/completions", json=asked)
    assert answer.status == 200
    assert (await answer.content.readline()).startswith(b"data: ")
    return answer


async def rest_of(answer: aiohttp.ClientResponse) -> list[Any]:
    frames = [line[6:].strip() async for line in answer.content if line.startswith(b"data: ")]
    return [frame.decode() if frame == b"[DONE]" else json.loads(frame) for frame in frames]


def states(hub: Hub) -> dict[str, str]:
    return dict(hub.query("SELECT end_user, state FROM completions_completion"))


async def test_running_streams_finish_new_calls_are_refused_and_then_it_ends(tmp_path: Path) -> None:
    with hub_in(tmp_path) as hub, Journal(pieces=10, delay=0.1) as upstream:
        hub.set_up(upstream.url)
        hub.start()
        async with session() as caller:
            stream = await begun(hub, caller, "early")
            hub.signal(signal.SIGTERM)
            refused = await until_refused(hub, caller)
            ready = await caller.get(f"{hub.url}/readyz")
            alive = await caller.get(f"{hub.url}/healthz")
            frames = await rest_of(stream)
        code = await asyncio.to_thread(hub.wait, 10)

        assert refused["error"]["code"] == "shutting_down"
        assert (ready.status, alive.status) == (503, 200)
        assert frames[-1] == "[DONE]"
        assert code in (0, -signal.SIGTERM)
        assert states(hub)["early"] == "ok"
        hub.assert_true()


async def test_a_stream_beyond_the_grace_ends_with_an_error_frame_and_a_settled_row(tmp_path: Path) -> None:
    with hub_in(tmp_path) as hub, Journal(pieces=100, delay=0.1) as upstream:
        hub.environment["LLMHUB_DRAIN_SECONDS"] = "1"
        hub.set_up(upstream.url)
        hub.start()
        async with session() as caller:
            stream = await begun(hub, caller, "long")
            began = time.monotonic()
            hub.signal(signal.SIGTERM)
            frames = await rest_of(stream)
        await asyncio.to_thread(hub.wait, 10)

        assert time.monotonic() - began < 8
        assert frames[-1]["error"]["code"] == "shutting_down"
        [(state, tokens, cost)] = hub.query(
            "SELECT state, completion_tokens, cost_nano_usd FROM completions_completion"
        )
        assert state == "shutdown"
        assert tokens > 0
        assert cost == tokens * 10_000
        hub.assert_true()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_hub_ends_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with hub_in(tmp_path) as hub, Journal() as upstream:
        hub.set_up(upstream.url)
        hub.start()
        began = time.monotonic()
        hub.signal(number)
        await asyncio.to_thread(hub.wait, 10)
        assert time.monotonic() - began < 4


async def until_refused(hub: Hub, caller: aiohttp.ClientSession) -> Any:
    for _ in range(100):
        async with caller.post(f"{hub.url}/v1/chat/completions", json={**BODY, "user": "late"}) as answer:
            if answer.status == 503:
                assert "retry-after" in answer.headers
                return await answer.json()
        await asyncio.sleep(0.02)
    raise AssertionError("new calls were taken after SIGTERM")
