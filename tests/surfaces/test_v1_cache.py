"""The cache as callers of `/v1` see it: when it answers, what it says of that, what the ledger has of it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from completions.cache import index
from completions.cache.entry import Entry
from completions.cache.purge import Selection, purge
from completions.models import CachedResponse, State
from tests.factories import make_key, make_project
from tests.fakes import chunk, completion, response
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import (
    CHAT,
    HELLO,
    MODEL,
    PIECES,
    V1,
    Caller,
    cost,
    frames_of,
    text_of,
    told,
)
from tests.waiting import eventually

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

COST = cost(9, 3)  # of the upstream's usual answer


def cache_of(response: Any) -> str:
    return str(response.headers["x-llmhub-cache"])


def ask(v1: V1, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """A call that is deterministic by intent."""
    return v1.chat(headers, **({"temperature": 0} | fields))


def says(v1: V1, **fields: Any) -> str:
    return str(ask(v1, **fields).json()["choices"][0]["message"]["content"])


class TestAHit:
    def test_comes_for_an_equal_request_and_asks_no_upstream(self, v1: V1) -> None:
        first, second = ask(v1), ask(v1)

        assert (cache_of(first), cache_of(second)) == ("MISS", "HIT")
        assert first.json() == second.json()
        assert len(v1.upstream.requests) == 1

    def test_costs_nothing_and_its_row_says_what_it_saved(self, v1: V1) -> None:
        ask(v1)
        hit = ask(v1)

        row, miss = v1.rows()
        assert (row.cache, row.state, row.cost_nano_usd, row.saved_nano_usd) == ("HIT", State.OK, 0, COST)
        assert (miss.cache, miss.cost_nano_usd, miss.saved_nano_usd) == ("MISS", COST, 0)
        assert (row.attempts, row.cached_from) == (0, miss.id)
        assert hit.headers["x-llmhub-cost-usd"] == "0"
        assert int(hit.headers["age"]) >= 0

    def test_is_counted_in_the_entrys_row(self, v1: V1) -> None:
        for _ in range(4):
            ask(v1)
        index.flush()

        entry = CachedResponse.objects.get()
        assert (entry.hits, entry.saved_nano_usd, entry.first_words) == (3, 3 * COST, "Hello")

    def test_answers_a_stream_in_frames_as_a_client_expects(self, v1: V1) -> None:
        content = "word " * 200
        v1.upstream.answers(content)
        ask(v1)
        options = {"include_usage": True}
        frames = frames_of(ask(v1, stream=True, stream_options=options))

        assert text_of(frames) == content
        assert frames[0]["choices"][0]["delta"]["role"] == "assistant"
        assert frames[-3]["choices"][0]["finish_reason"] == "stop"
        assert frames[-2]["usage"]["prompt_tokens"] == 9
        assert frames[-2]["usage"]["cost_usd"] == "0"
        assert frames[-1] == "[DONE]"
        assert {frame["object"] for frame in frames[:-1]} == {"chat.completion.chunk"}
        assert len(v1.upstream.requests) == 1

    def test_answers_whole_what_was_streamed_first(self, v1: V1) -> None:
        v1.upstream.streams(PIECES)
        streamed = text_of(frames_of(ask(v1, stream=True)))
        whole = ask(v1)

        assert cache_of(whole) == "HIT"
        assert whole.json()["choices"][0]["message"]["content"] == streamed == "".join(PIECES)
        assert whole.json()["object"] == "chat.completion"
        assert len(v1.upstream.requests) == 1

    def test_says_whole_by_whom_it_was_streamed(self, v1: V1) -> None:
        """A seed promises the same answer for the same fingerprint only."""
        v1.upstream.events(
            chunk({"content": "Hi"}, system_fingerprint="fp_1", service_tier="flex"),
            chunk({}, "stop", system_fingerprint="fp_1"),
            "[DONE]",
        )
        ask(v1, stream=True)
        whole = ask(v1).json()

        assert (whole["system_fingerprint"], whole["service_tier"]) == ("fp_1", "flex")

    def test_is_refused_to_nobody_whose_budget_is_spent(self, v1: V1) -> None:
        ask(v1)
        v1.set(v1.budget, amount="0.000001")

        assert cache_of(ask(v1)) == "HIT"
        assert ask(v1, temperature=0, top_p=0.5).status_code == 402


class TestAnAnswerIsKept:
    @pytest.mark.parametrize(
        "fields", [{"temperature": 0}, {"temperature": 0.0}, {"seed": 7}, {"seed": 0, "temperature": 1}]
    )
    def test_where_the_request_is_deterministic_by_intent(self, v1: V1, fields: dict[str, Any]) -> None:
        v1.chat(**fields)

        assert cache_of(v1.chat(**fields)) == "HIT"

    def test_by_default_for_no_other_request(self, v1: V1) -> None:
        assert [cache_of(v1.chat(temperature=0.7)) for _ in range(2)] == ["BYPASS", "BYPASS"]
        assert {row.cache for row in v1.rows()} == {""}

    @pytest.mark.parametrize("reason", ["length", "content_filter", None])
    def test_only_when_it_is_complete(self, v1: V1, reason: str | None) -> None:
        v1.upstream.answers(finish_reason=reason)
        ask(v1)

        assert cache_of(ask(v1)) == "MISS"

    def test_not_when_its_stream_was_cut(self, v1: V1) -> None:
        v1.upstream.cuts(after=2).answers("Whole.")
        ask(v1, stream=True)

        assert says(v1) == "Whole."

    def test_not_when_its_usage_made_no_sense(self, v1: V1) -> None:
        v1.upstream.answers(usage={"prompt_tokens": -1, "completion_tokens": 3})
        ask(v1)

        assert cache_of(ask(v1)) == "MISS"

    def test_not_when_it_is_too_large(self, v1: V1, settings: Any) -> None:
        settings.LLMHUB_CACHE_ENTRY_BYTES = 1024
        v1.upstream.answers("x" * 2000)
        ask(v1)

        assert cache_of(ask(v1)) == "MISS"

    def test_with_tool_calls(self, v1: V1) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        v1.upstream.answers(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])
        ask(v1)
        frames = frames_of(ask(v1, stream=True))

        deltas = [frame["choices"][0]["delta"] for frame in frames[:-1]]
        assert [delta["tool_calls"] for delta in deltas if "tool_calls" in delta] == [[{"index": 0, **call}]]


class TestARequestSays:
    @pytest.mark.parametrize("headers", [{"Cache-Control": "no-store"}, {"x-llmhub-cache": "off"}])
    def test_that_it_is_neither_answered_nor_kept(self, v1: V1, headers: dict[str, str]) -> None:
        assert cache_of(ask(v1, headers)) == "BYPASS"
        assert cache_of(ask(v1)) == "MISS"
        assert cache_of(ask(v1, headers)) == "BYPASS"

    @pytest.mark.parametrize("headers", [{"Cache-Control": "no-cache"}, {"x-llmhub-cache": "refresh"}])
    def test_that_a_fresh_answer_is_wanted_and_kept(self, v1: V1, headers: dict[str, str]) -> None:
        v1.upstream.answers("Old.").answers("New.")
        ask(v1)

        assert cache_of(ask(v1, headers)) == "MISS"
        assert says(v1) == "New."

    @pytest.mark.parametrize("headers", [{"Cache-Control": "only-if-cached"}, {"x-llmhub-cache": "only"}])
    def test_that_nothing_else_is_wanted(self, v1: V1, headers: dict[str, str]) -> None:
        refused = ask(v1, headers)
        ask(v1)

        assert (refused.status_code, told(refused)["code"]) == (504, "cache_miss")
        assert refused.headers["x-should-retry"] == "false"
        assert cache_of(ask(v1, headers)) == "HIT"

    @pytest.mark.parametrize(
        ("word", "cached"),
        [("max-age=60", "MISS"), ("private, max-age=61", "HIT"), ("max-age=61, Max-Age=9", "MISS"),
         ("max-age=soon", "HIT"), ("max-age=60, only-if-cached", None)],
    )  # fmt: skip
    def test_how_old_an_answer_may_be(
        self, v1: V1, monkeypatch: pytest.MonkeyPatch, word: str, cached: str | None
    ) -> None:
        ask(v1)
        monkeypatch.setattr(Entry, "age_seconds", 61)
        answer = ask(v1, {"Cache-Control": word})

        assert (answer.status_code if cached is None else cache_of(answer)) == (cached or 504)

    def test_nothing_of_its_age_where_staff_force_it(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        v1.set(v1.model, cache_mode="forced")
        ask(v1)
        monkeypatch.setattr(Entry, "age_seconds", 61)

        assert cache_of(ask(v1, {"Cache-Control": "max-age=60"})) == "HIT"

    def test_that_it_is_cached_though_it_is_not_deterministic(self, v1: V1) -> None:
        on = {"x-llmhub-cache": "on"}

        assert [cache_of(v1.chat(on)) for _ in range(2)] == ["MISS", "HIT"]

    def test_how_long_its_answer_is_kept(self, v1: V1) -> None:
        ask(v1, {"x-llmhub-cache-ttl": "1000"})
        index.flush()

        entry = CachedResponse.objects.get()
        assert 900 <= (entry.expires_at - entry.created_at).total_seconds() <= 1000

    @pytest.mark.parametrize(
        "headers", [{"x-llmhub-cache": "maybe"}, {"x-llmhub-cache-ttl": "-1"}, {"x-llmhub-cache-ttl": "0"}]
    )
    def test_nothing_that_cannot_be_understood(self, v1: V1, headers: dict[str, str]) -> None:
        refused = ask(v1, headers)

        assert refused.status_code == 400
        assert "cache" in told(refused)["message"]
        assert v1.upstream.requests == []


class TestModelAndKeySay:
    def test_that_nothing_is_cached(self, v1: V1) -> None:
        v1.set(v1.model, cache_mode="off")
        assert cache_of(ask(v1)) == "BYPASS"
        v1.set(v1.model, cache_mode="forced")
        v1.set(v1.api_key, cache_mode="off")
        assert cache_of(ask(v1)) == "BYPASS"

    def test_that_everything_is(self, v1: V1) -> None:
        v1.set(v1.model, cache_mode="on")

        assert [cache_of(v1.chat()) for _ in range(2)] == ["MISS", "HIT"]
        assert cache_of(v1.chat({"x-llmhub-cache": "off"})) == "BYPASS"

    def test_that_everything_is_whatever_the_request_says(self, v1: V1) -> None:
        v1.set(v1.api_key, cache_mode="forced")
        off = {"Cache-Control": "no-store"}

        assert [cache_of(v1.chat(off)) for _ in range(2)] == ["MISS", "HIT"]

    def test_how_long_an_answer_is_given(self, v1: V1) -> None:
        v1.set(v1.model, cache_ttl_seconds=1)
        ask(v1)
        assert cache_of(ask(v1)) == "HIT"

        assert eventually(lambda: cache_of(ask(v1)) == "MISS")

    def test_that_a_stale_answer_is_given_while_a_fresh_one_is_fetched(self, v1: V1) -> None:
        v1.set(v1.model, cache_ttl_seconds=1, cache_stale_seconds=60)
        v1.upstream.answers("Old.").answers("New.")
        ask(v1)

        assert eventually(lambda: cache_of(ask(v1)) == "STALE")
        assert eventually(lambda: says(v1) == "New.")


class TestNobodyElse:
    def test_of_another_project_gets_it(self, v1: V1) -> None:
        ask(v1)
        _, other = make_key(make_project("other"))
        answer = v1.post(CHAT, {"model": MODEL, "messages": HELLO, "temperature": 0}, key=other)

        assert cache_of(answer) == "MISS"
        assert len(v1.upstream.requests) == 2

    def test_but_projects_of_one_group_do(self, v1: V1) -> None:
        v1.set(v1.project, cache_group="shop")
        _, other = make_key(make_project("other", cache_group="shop"))
        ask(v1)

        answer = v1.post(CHAT, {"model": MODEL, "messages": HELLO, "temperature": 0}, key=other)
        assert cache_of(answer) == "HIT"

    def test_with_another_key_where_each_has_its_own(self, v1: V1) -> None:
        v1.set(v1.project, cache_scope="key")
        _, other = make_key(v1.project, "other")
        ask(v1)

        answer = v1.post(CHAT, {"model": MODEL, "messages": HELLO, "temperature": 0}, key=other)
        assert cache_of(answer) == "MISS"

    def test_gets_it_once_it_was_purged(self, v1: V1) -> None:
        ask(v1)

        assert purge(Selection(project_id=v1.project.pk)) == 1
        assert cache_of(ask(v1)) == "MISS"


class TestEqualCallsAtOnce:
    def test_share_one_upstream_call(self, v1: V1) -> None:
        v1.upstream.scripts(lambda _: [0.3, response(200, completion("Shared."))])
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda _: ask(v1), range(100)))

        assert {answer.json()["choices"][0]["message"]["content"] for answer in answers} == {"Shared."}
        assert len(v1.upstream.requests) == 1
        rows = v1.rows()
        assert len(rows) == 100
        assert sum(row.cost_nano_usd or 0 for row in rows) == COST
        assert {row.state for row in rows} == {State.OK, State.COALESCED}

    def test_get_all_of_a_stream_that_they_join_late(self, v1: V1) -> None:
        v1.upstream.streams(PIECES, delay=0.1)
        leader = Caller(v1, temperature=0)
        leader.frames(3)
        follower = frames_of(ask(v1, stream=True))

        assert cache_of_caller(leader) == "MISS"
        assert text_of(follower) == "".join(PIECES)
        assert len(v1.upstream.requests) == 1

    def test_are_not_stopped_by_the_leaders_hang_up(self, v1: V1) -> None:
        v1.upstream.streams(PIECES, delay=0.1)
        leader = Caller(v1, temperature=0)
        leader.frames(2)
        with ThreadPoolExecutor(9) as pool:
            others = [pool.submit(ask, v1, stream=True) for _ in range(9)]
            assert eventually(lambda: len(v1.upstream.requests) == 1)
            leader.frame()
            leader.leave()
            texts = {text_of(frames_of(other.result())) for other in others}

        assert texts == {"".join(PIECES)}
        assert len(v1.upstream.requests) == 1

    def test_end_the_upstream_call_when_all_have_left(self, v1: V1) -> None:
        v1.upstream.streams(PIECES, delay=0.3)
        callers = [Caller(v1, temperature=0) for _ in range(3)]
        for caller in callers:
            caller.frames(2)
        for caller in callers:
            caller.leave()

        assert v1.upstream.requests[0].wait_gone(5)
        assert {row.state for row in v1.rows()} == {State.CLIENT_GONE}

    def test_try_again_when_the_leader_fails_before_anything_came(self, v1: V1) -> None:
        v1.upstream.scripts(lambda _: [0.3, response(500, {})])
        v1.upstream.refuses(500)
        v1.upstream.answers("At last.")
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda _: ask(v1), range(5)))

        assert [answer.status_code for answer in answers].count(200) == 4
        assert {row.state for row in v1.rows()} == {State.OK, State.COALESCED, State.UPSTREAM_ERROR}


def cache_of_caller(caller: Caller) -> str | None:
    return caller.answer().getheader("x-llmhub-cache")
