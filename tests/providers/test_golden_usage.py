"""What vendors' usage comes to, in whole and streamed answers, to the nano-dollar.

A file of `golden/` holds an answer and the events of a stream in a vendor's shape (see its `source`), the
prices, and by hand the usage and the cost they come to.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from providers import egress, pricing
from providers.drivers import wire
from providers.types import Usage
from tests.fakes import FakeUpstream
from tests.providers.drivers.calls import complete, stream

FILES = sorted((Path(__file__).parent / "golden").glob("*.json"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> Any:
    return json.loads(request.param.read_text())


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture(autouse=True)
async def _loopback(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(egress, "_source", lambda: egress.Policy(loopback=True))
    yield
    await wire.aclose()
    await asyncio.sleep(0.01)


def test_every_vendor_of_the_brief_has_a_golden_answer() -> None:
    vendors = {path.stem.split("_")[0] for path in FILES}
    assert vendors == {
        "openai", "azure", "anthropic", "gemini", "deepseek", "groq", "xai", "mistral", "openrouter", "vllm",
        "llamacpp",
    }  # fmt: skip


async def test_a_whole_answer_is_read_exactly(upstream: FakeUpstream, golden: Any) -> None:
    upstream.refuses(200, golden["answer"])
    answer = await complete(upstream)
    assert (answer.usage, answer.usage_anomaly) == (Usage(**golden["usage"]), False)


async def test_a_stream_comes_to_the_same_usage(upstream: FakeUpstream, golden: Any) -> None:
    events = [event if isinstance(event, dict) else f"{event}\n\n".encode() for event in golden["events"]]
    upstream.events(*events, "[DONE]")
    chunks, error = await stream(upstream)
    assert error is None
    reported = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert reported[-1] == Usage(**golden["usage"])
    assert not any(chunk.usage_anomaly for chunk in chunks)


def test_the_cost_is_exact_to_the_nano_dollar(golden: Any) -> None:
    price = pricing.load(json.dumps(golden["prices"]))
    usage = Usage(**golden["usage"])
    assert pricing.fault(usage) == ""
    assert pricing.cost(usage, price) == golden["cost_nano"]
