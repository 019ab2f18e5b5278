"""Errors of `/v1` in the metrics, and what an absent cached answer is called."""

import re

import pytest

from completions import running
from providers.types import CacheMode
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import V1, told

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1


def counted(v1: V1, code: str) -> float:
    """How many callers of /v1 were told so."""
    text = v1.send("GET", "/metrics").text
    found = re.search(rf'^llmhub_errors_total{{code="{code}",surface="v1"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_upstreams_own_code_is_no_label(v1: V1, stream: bool) -> None:
    code = "weird code 77 éé"
    v1.upstream.refuses(400, {"error": {"message": "no", "code": code}})
    before = counted(v1, "other")

    assert told(v1.chat(stream=stream))["code"] == code
    assert counted(v1, "other") == before + 1
    assert "weird" not in v1.send("GET", "/metrics").text


def test_the_hubs_own_codes_are_labels(v1: V1) -> None:
    before = counted(v1, "invalid_value"), counted(v1, "overloaded")
    v1.chat(n=0)
    v1.during.callback(running.limit, running._Process.most)
    running.limit(0)
    v1.chat()
    assert (counted(v1, "invalid_value"), counted(v1, "overloaded")) == (before[0] + 1, before[1] + 1)


def test_an_error_that_is_the_last_frame_of_a_stream_counts(v1: V1) -> None:
    before = counted(v1, "upstream_truncated")
    v1.upstream.cuts(after=2)

    assert v1.stream()[-1]["error"]["code"] == "upstream_truncated"
    assert counted(v1, "upstream_truncated") == before + 1


# --- the cache


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("mode", [CacheMode.OFF, CacheMode.ON])
def test_where_only_a_cached_answer_was_wanted_its_absence_is_a_miss(
    v1: V1, mode: CacheMode, stream: bool
) -> None:
    v1.set(v1.model, cache_mode=mode)

    answer = v1.chat({"x-llmhub-cache": "only"}, stream=stream)

    assert (answer.status_code, told(answer)["code"]) == (504, "cache_miss")
    assert answer.headers["x-llmhub-cache"] == "MISS"
