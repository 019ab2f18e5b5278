"""What starts and stops with a server process."""

import logging
from typing import Any

import pytest
from pytest_django import Settings

from llmhub import lifespan as module
from llmhub.lifespan import lifespan

STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}


async def live(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    """What a server that sends these messages is told."""
    waiting, told = list(messages), []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    await lifespan({"type": "lifespan"}, receive, send)
    return told


async def test_a_hub_whose_settings_contradict_each_other_does_not_start_under_any_server(
    settings: Settings,
) -> None:
    settings.WEB_CONCURRENCY = 2
    settings.LLMHUB_EMBEDDED = False
    settings.REDIS_URL = ""
    told = await live(STARTUP)
    assert [message["type"] for message in told] == ["lifespan.startup.failed"]
    assert "llmhub.E002" in told[0]["message"]
    assert "Set REDIS_URL=redis://…" in told[0]["message"]


async def test_every_stop_step_runs_though_one_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ran = []

    async def breaks() -> None:
        raise OSError("the disk is gone")

    async def runs() -> None:
        ran.append("second")

    monkeypatch.setattr(module, "START", ())
    monkeypatch.setattr(module, "STOP", (breaks, runs))
    with caplog.at_level(logging.ERROR):
        told = await live(STARTUP, SHUTDOWN)
    assert ran == ["second"]
    assert [message["type"] for message in told] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert "Shutdown step breaks failed" in caplog.text
