"""Calls of the OpenAI driver, as the pipeline makes them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from completions.streams import Tape
from providers.drivers.base import Sink
from providers.drivers.openai import OpenAIDriver
from providers.errors import (
    UpstreamError,
)
from providers.types import (
    Answer,
    Endpoint,
    Operation,
    ProviderType,
    Quirks,
    Secret,
    StreamChunk,
    Target,
    Timeouts,
)
from tests.fakes import (
    FakeUpstream,
)

KEY = "sk-canary-0123456789abcdefghij"
BODY = {"model": "public", "messages": [{"role": "user", "content": "Hi"}]}
PATIENT = Timeouts(connect=5, first_token=5, idle=5, total=10)
FAST = Timeouts(connect=0.5, first_token=0.5, idle=0.5, total=10)  # for tests of the deadlines


def target(where: FakeUpstream | str, **changes: Any) -> Target:
    url = where if isinstance(where, str) else where.url
    quirks = Quirks(**changes.pop("quirks", {}))
    config = changes.pop("default_config", {})
    kind = changes.pop("type", ProviderType.OPENAI_COMPATIBLE)
    endpoint = Endpoint("acme", kind, url, Secret(KEY), timeouts=PATIENT, quirks=quirks)
    return Target(replace(endpoint, **changes), UUID(int=1), 1, "upstream-model", "public", config)


async def complete(where: FakeUpstream | str, body: Mapping[str, Any] = BODY, **changes: Any) -> Answer:
    deadline = asyncio.get_running_loop().time() + changes.pop("seconds", 5)
    operation = changes.pop("operation", Operation.CHAT)
    return await OpenAIDriver().complete(target(where, **changes), operation, dict(body), deadline=deadline)


class Collected(Tape):
    """Every chunk that a driver brought."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[StreamChunk] = []

    def put(self, chunks: Sequence[StreamChunk]) -> bool:
        self.chunks += chunks
        return super().put(chunks)


async def stream(
    where: FakeUpstream | str, body: Mapping[str, Any] = BODY, **changes: Any
) -> tuple[list[StreamChunk], UpstreamError | None]:
    """All chunks, and the error that ended them if one did."""
    got = Collected()
    try:
        await bring(where, got, body, **changes)
    except UpstreamError as error:
        return got.chunks, error
    return got.chunks, None


async def bring(
    where: FakeUpstream | str, sink: Sink, body: Mapping[str, Any] = BODY, **changes: Any
) -> None:
    deadline = asyncio.get_running_loop().time() + changes.pop("seconds", 5)
    operation = changes.pop("operation", Operation.CHAT)
    await OpenAIDriver().stream(target(where, **changes), operation, dict(body), sink, deadline=deadline)


def text(chunks: list[StreamChunk]) -> str:
    return "".join(one.content for one in chunks)


async def complete_error(upstream: FakeUpstream, kind: type[UpstreamError]) -> None:
    with pytest.raises(kind):
        await complete(upstream)
