"""A scripted upstream that the drivers may call."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from providers import egress
from providers.drivers import wire
from tests.fakes import (
    FakeUpstream,
)


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture(autouse=True)
async def _loop(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Loopback may be called; what the loop keeps open is closed."""
    monkeypatch.setattr(egress, "_source", lambda: egress.Policy(loopback=True))
    yield
    await wire.aclose()
    await asyncio.sleep(0.01)  # a TLS handshake that was given up closes its socket a moment later
