"""Answers that are fetched anew: because a call asks for it, or because what is kept is past its time."""

from typing import Any

import pytest

from tests.fakes import chunk, completion
from tests.surfaces import v1 as shared
from tests.surfaces.cached import TEXT, Together, ask, cache_of, results, says, text_of_whole, waits
from tests.surfaces.v1 import COMPLETIONS, DONE, V1, frames_of, text_of
from tests.waiting import eventually

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1


class TestRefreshes:
    def test_share_a_call_and_what_it_brings_is_kept(self, v1: V1) -> None:
        v1.upstream.answers("Old.")
        go = waits(v1)
        ask(v1)
        wish = {"x-llmhub-cache": "refresh"}
        begun = Together(v1).begin(5, lambda: ask(v1, wish))
        assert says(v1) == "Old."  # it is there until there is another
        go.set()

        assert {text_of_whole(answer) for answer in results(begun)} == {TEXT}
        assert sorted(map(cache_of, results(begun))) == ["COALESCED"] * 4 + ["MISS"]
        assert says(v1) == TEXT
        assert len(v1.upstream.requests) == 2

    @pytest.mark.parametrize("stream", [True, False])
    def test_of_what_is_stale_are_made_once_at_a_time(self, v1: V1, stream: bool) -> None:
        v1.set(v1.api_key, concurrent_calls=50)
        v1.set(v1.model, cache_ttl_seconds=1, cache_stale_seconds=60)
        v1.upstream.answers("Old.")
        go = waits(v1)
        ask(v1)
        options: Any = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        assert eventually(lambda: cache_of(ask(v1, **options)) == "STALE")
        answers = results([one for _ in range(3) for one in _at_once(v1, 10, options)])
        assert {cache_of(answer) for answer in answers} == {"STALE"}
        v1.upstream.wait_for(2)
        go.set()

        assert eventually(lambda: cache_of(ask(v1)) == "HIT")
        assert says(v1) == TEXT
        assert len(v1.upstream.requests) == 2
        fetched = v1.upstream.requests[1].body
        assert "stream" not in fetched
        assert "stream_options" not in fetched
        v1.rows()

    def test_that_fail_leave_the_stale_answer(self, v1: V1) -> None:
        v1.set(v1.model, cache_ttl_seconds=1, cache_stale_seconds=60)
        v1.upstream.answers("Old.")
        v1.upstream.refuses(500)
        ask(v1)

        assert eventually(lambda: cache_of(ask(v1)) == "STALE")
        assert v1.upstream.wait_for(2)
        assert says(v1) == "Old."
        assert eventually(lambda: says(v1) == "Old." and len(v1.upstream.requests) > 3)  # it is tried again

    def test_of_a_text_on_the_older_wire_keep_it(self, v1: V1) -> None:
        v1.set(v1.model, cache_ttl_seconds=1, cache_stale_seconds=60)
        asked = {"model": "gpt-4o", "prompt": "Once", "temperature": 0}
        choice = {"index": 0, "text": "upon a time", "logprobs": None, "finish_reason": "stop"}
        v1.upstream.refuses(200, {**completion(), "object": "text_completion", "choices": [choice]})
        v1.post(COMPLETIONS, asked)
        assert eventually(lambda: cache_of(v1.post(COMPLETIONS, {**asked, "stream": True})) == "STALE")

        assert eventually(lambda: len(v1.upstream.requests) == 2)
        assert eventually(lambda: cache_of(v1.post(COMPLETIONS, asked)) == "HIT")
        streamed = v1.post(COMPLETIONS, {**asked, "stream": True})
        assert text_of(frames_of(streamed)) == "upon a time"


def _at_once(v1: V1, count: int, options: dict[str, Any]) -> Any:
    pool = Together(v1)._pool
    return [pool.submit(lambda: ask(v1, **options)) for _ in range(count)]


def test_a_refusal_that_was_streamed_is_not_kept_as_an_empty_answer(v1: V1) -> None:
    refusal = [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"refusal": "I will not."}),
    ]
    v1.upstream.events(*refusal, chunk({}, "stop"), DONE).answers("Whole.")
    frames = frames_of(ask(v1, stream=True))

    assert [frame["choices"][0]["delta"].get("refusal") for frame in frames[:2]] == [None, "I will not."]
    assert cache_of(ask(v1)) == "MISS"
