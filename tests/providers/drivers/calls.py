"""Calls of the OpenAI driver, as the pipeline makes them."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from providers.drivers.openai import OpenAIDriver
from providers.errors import (
    UpstreamError,
)
from providers.types import (
    Answer,
    Endpoint,
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
FAST = Timeouts(connect=0.3, first_token=0.3, idle=0.3, total=5)  # for tests of the deadlines


def target(where: FakeUpstream | str, **changes: Any) -> Target:
    url = where if isinstance(where, str) else where.url
    quirks = Quirks(**changes.pop("quirks", {}))
    config = changes.pop("default_config", {})
    kind = changes.pop("type", ProviderType.OPENAI_COMPATIBLE)
    endpoint = Endpoint("acme", kind, url, Secret(KEY), timeouts=PATIENT, quirks=quirks)
    return Target(replace(endpoint, **changes), UUID(int=1), 1, "upstream-model", "public", config)


async def complete(where: FakeUpstream | str, body: Mapping[str, Any] = BODY, **changes: Any) -> Answer:
    deadline = asyncio.get_running_loop().time() + changes.pop("seconds", 5)
    return await OpenAIDriver().complete(target(where, **changes), dict(body), deadline=deadline)


async def stream(
    where: FakeUpstream | str, body: Mapping[str, Any] = BODY, **changes: Any
) -> tuple[list[StreamChunk], UpstreamError | None]:
    """All chunks, and the error that ended them if one did."""
    deadline = asyncio.get_running_loop().time() + changes.pop("seconds", 5)
    chunks = []
    try:
        async for one in OpenAIDriver().stream(target(where, **changes), dict(body), deadline=deadline):
            chunks.append(one)  # noqa: PERF401 - kept when an error comes
    except UpstreamError as error:
        return chunks, error
    return chunks, None


def text(chunks: list[StreamChunk]) -> str:
    return "".join(one.content for one in chunks)


async def complete_error(upstream: FakeUpstream, kind: type[UpstreamError]) -> None:
    with pytest.raises(kind):
        await complete(upstream)
