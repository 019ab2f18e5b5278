"""Usage, in every vendor's shape or in none."""

from typing import Any

import pytest

from providers.types import (
    Usage,
)
from tests.fakes import (
    USAGE,
    FakeUpstream,
    chunk,
)
from tests.providers.drivers.calls import complete, stream


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": float("nan"), "completion_tokens": 3},
        {"prompt_tokens": 1e30, "completion_tokens": 3},
        {"prompt_tokens": "9", "completion_tokens": 3},
        {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 10}},
        {"prompt_tokens": 9, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 4}},
        {"prompt_tokens": 9, "completion_tokens": True},
        "9 tokens",
    ],
)
async def test_a_usage_that_makes_no_sense_is_flagged(upstream: FakeUpstream, raw: Any) -> None:
    upstream.answers("Hello!", usage=raw)
    answer = await complete(upstream)
    assert (answer.usage, answer.usage_anomaly) == (None, True)


async def test_a_missing_usage_is_no_anomaly(upstream: FakeUpstream) -> None:
    upstream.answers("Hello!", usage=None)
    answer = await complete(upstream)
    assert (answer.usage, answer.usage_anomaly) == (None, False)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 8,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "audio_tokens": 1},
                "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 3},
            },
            Usage(10, 8, cached=4, cache_write=2, reasoning=5, audio_prompt=1, audio_completion=3),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 2, "prompt_cache_hit_tokens": 6},
            Usage(10, 2, cached=6),
        ),
        (
            {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 5},
            Usage(8, 2, cached=5),
        ),
        (  # thought beside the output
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "total_tokens": 19,
                "completion_tokens_details": {"reasoning_tokens": 7},
            },
            Usage(10, 9, reasoning=7),
        ),
        ({"prompt_tokens": 10.0, "completion_tokens": None}, Usage(10, 0)),
    ],
)
async def test_usage_is_read_in_each_vendors_shape(
    upstream: FakeUpstream, raw: dict[str, Any], expected: Usage
) -> None:
    upstream.answers("Hello!", usage=raw)
    assert (await complete(upstream)).usage == expected


async def test_groq_puts_usage_elsewhere(upstream: FakeUpstream) -> None:
    upstream.events(chunk({"content": "a"}), chunk({}, "stop", x_groq={"usage": USAGE}), "[DONE]")
    chunks, _ = await stream(upstream)
    assert chunks[-1].usage == Usage(prompt=9, completion=3)


@pytest.mark.parametrize(
    ("later", "believed"),
    [
        (Usage(9, 3), False),
        (Usage(9, 5), False),
        (Usage(0, 0), False),
        (Usage(9, 0), False),
        (Usage(2, 7), False),
        (Usage(9, 7), True),
        (Usage(10, 8), True),
    ],
)
async def test_a_total_never_shrinks(upstream: FakeUpstream, later: Usage, believed: bool) -> None:
    totals = [
        {"prompt_tokens": one.prompt, "completion_tokens": one.completion, "total_tokens": one.total}
        for one in (Usage(20, 0), Usage(9, 6), later)
    ]
    upstream.events(chunk({"content": "a"}), *[chunk(None, usage=one) for one in totals], "[DONE]")
    chunks, error = await stream(upstream)
    assert error is None
    assert [one.usage for one in chunks[1:]] == [Usage(20, 0), Usage(9, 6), later if believed else None]
    assert chunks[-1].usage_anomaly is not believed
