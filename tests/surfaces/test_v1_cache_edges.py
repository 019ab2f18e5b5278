"""What the cache must not do: keep what it could not give again, outlast a call's time, leave traces."""

from typing import Any

import pytest
import requests

from completions.cache import index
from completions.cache.erasing import erase
from completions.content import Scope
from completions.models import CachedResponse, State
from tests.factories import make_key
from tests.fakes import USAGE, chunk
from tests.surfaces import v1 as shared
from tests.surfaces.cached import ask, by, cache_of, caller, in_flight, says, waits
from tests.surfaces.test_v1_cache_embeddings import embed, embedder
from tests.surfaces.v1 import V1, told
from tests.waiting import eventually

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1


class TestStreamsOfToolCalls:
    @pytest.mark.parametrize(
        "call",
        [
            {"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": "select 1"}},
            {
                "index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "s"}},
            },
            {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}", "x": 1}},
            {"index": 0, "id": "c", "type": "function", "function": "f"},
            {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
        ],
        ids=["another kind", "signature", "field", "a text", "an object"],
    )  # fmt: skip
    def test_that_cannot_be_put_together_again_are_not_kept(self, v1: V1, call: dict[str, Any]) -> None:
        v1.upstream.events(chunk({"tool_calls": [call]}), chunk({}, "tool_calls"), chunk(None, usage=USAGE))
        ask(v1, stream=True)
        index.flush()

        assert not CachedResponse.objects.exists()
        assert cache_of(ask(v1)) == "MISS"

    def test_of_functions_are(self, v1: V1) -> None:
        call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        v1.upstream.events(chunk({"tool_calls": [call]}), chunk({}, "tool_calls"), chunk(None, usage=USAGE))
        ask(v1, stream=True)

        answer = ask(v1)
        assert cache_of(answer) == "HIT"
        assert answer.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "f"


@pytest.mark.parametrize("stream", [True, False])
def test_an_empty_answer_is_not_kept(v1: V1, stream: bool) -> None:
    v1.upstream.answers("")
    ask(v1, stream=stream)
    assert cache_of(ask(v1)) == "MISS"


def test_only_what_is_kept_calls_no_upstream_though_it_is_stale(v1: V1) -> None:
    v1.set(v1.model, cache_ttl_seconds=1, cache_stale_seconds=60)
    ask(v1)
    wish = {"x-llmhub-cache": "only"}
    assert eventually(lambda: cache_of(ask(v1, wish)) == "STALE")
    running = in_flight()
    ask(v1, wish)

    assert in_flight() == running
    assert len(v1.upstream.requests) == 1


@pytest.mark.parametrize("ttl", ["\u00b2", "9" * 5000, "+5", "1.5", "-1"])
def test_a_nonsense_time_is_said_to_be_one(v1: V1, ttl: str) -> None:
    answer = ask(v1, {"x-llmhub-cache-ttl": ttl.encode("latin-1")})  # type: ignore[dict-item]

    assert answer.status_code == 400
    assert told(answer)["param"] == "x-llmhub-cache-ttl"


@pytest.mark.parametrize("stream", [True, False])
def test_who_rides_on_an_equal_call_waits_no_longer_than_its_own_time(v1: V1, stream: bool) -> None:
    go = waits(v1, first=0)
    leader = caller(v1)
    assert v1.upstream.wait_for(1)
    asked = {"messages": shared.HELLO, "model": shared.MODEL, "config": {"temperature": 0, "timeout": 0.5}}
    answer = v1.post("/api/completions/", asked | {"stream": stream})

    assert answer.status_code == 504, answer.text
    assert "equal call" in answer.text
    go.set()
    leader.answer()
    rows = v1.rows()
    assert sorted(row.state for row in rows) == [State.OK, State.UPSTREAM_ERROR]
    assert len(v1.upstream.requests) == 1


def test_a_key_with_answers_of_its_own_purges_no_others(v1: V1) -> None:
    v1.set(v1.project, cache_scope="key")
    _, other_key = make_key(v1.project, "other")
    other = by(v1, other_key)
    ask(v1)
    ask(other)

    url = f"{v1.hub.url}/api/cache/"
    purged = requests.delete(url, headers={"Authorization": f"Bearer {v1.key}"}, timeout=10)
    assert purged.json() == {"purged": 1}
    assert (cache_of(ask(other)), cache_of(ask(v1))) == ("HIT", "MISS")


def test_erasing_a_call_takes_the_answer_that_others_fetched_anew_since(v1: V1) -> None:
    ask(v1, {"x-request-id": "mine"})
    v1.upstream.answers("Newer.")
    ask(v1, {"cache-control": "no-cache"})
    v1.rows()
    assert says(v1) == "Newer."

    assert erase(Scope(request_id="mine")).answers == 1
    assert cache_of(ask(v1)) == "MISS"


def test_erasing_a_batch_takes_all_of_its_vectors(v1: V1) -> None:
    embedder(v1)
    for text in ("a", "b"):
        embed(v1, text)
    embed(v1, ["a", "b"], {"x-request-id": "both"})
    v1.rows()

    assert erase(Scope(request_id="both")).answers == 2
    assert not CachedResponse.objects.exists()
