"""What starts and stops with a server process."""

import asyncio
import logging
import threading
from typing import Any

import pytest
from pytest_django import Settings

from completions import tokens
from llmhub import lifespan as module
from llmhub.lifespan import lifespan
from tests.factories import make_provider

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


async def test_what_counting_needs_is_loaded_beside_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = threading.Event()
    monkeypatch.setattr(module, "_encodings", loaded.set)
    await module._load_encodings()
    assert await asyncio.to_thread(loaded.wait, 5)


@pytest.mark.django_db
def test_only_what_the_hubs_models_are_counted_by_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: set[str] = set()
    monkeypatch.setattr(tokens, "_load", loaded.add)
    make_provider(slug="demo", models=("demo-chat",))
    make_provider(upstream_url="http://127.0.0.1:1/v1", models=("gpt-4", "text-embedding-3-small"))
    module._encodings()
    assert loaded == {"cl100k_base"}
