"""What a cached answer leaves behind: its call's row and limits, and no word that may not be kept."""

from typing import Any

import pytest
from django.core.cache import caches
from django.db.models import Sum

from completions.cache import index, stores
from completions.cache.entry import unpacked
from completions.models import BudgetWindow, CachedResponse, CompletionContent, State, UsageRollup
from completions.rollups import sum_hour
from tests.factories import make_provider
from tests.surfaces import v1 as shared
from tests.surfaces.cached import (
    COST,
    TEXT,
    Together,
    ask,
    cache_of,
    caller,
    results,
    says,
    text_of_whole,
    waits,
)
from tests.surfaces.v1 import V1, frames_of, told
from tests.waiting import eventually

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1


def left(answer: Any, what: str) -> int:
    return int(answer.headers[f"x-ratelimit-remaining-{what}"])


class TestLimits:
    def test_a_hit_counts_as_a_request(self, v1: V1) -> None:
        v1.set(v1.api_key, requests_per_minute=3)
        answers = [ask(v1) for _ in range(4)]

        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [cache_of(answer) for answer in answers[:3]] == ["MISS", "HIT", "HIT"]
        assert told(answers[3])["code"] == "rate_limit_exceeded"

    def test_a_hit_gives_back_the_tokens_it_did_not_use(self, v1: V1) -> None:
        v1.set(v1.api_key, tokens_per_minute=1000)
        ask(v1, max_tokens=100)
        hits = [ask(v1, max_tokens=100) for _ in range(30)]  # for which it would have paid thrice the limit

        assert {cache_of(hit) for hit in hits} == {"HIT"}
        assert left(hits[-1], "tokens") > 800

    @pytest.mark.parametrize("stream", [True, False])
    def test_a_hit_frees_its_slot(self, v1: V1, stream: bool) -> None:
        v1.set(v1.api_key, concurrent_calls=1)
        ask(v1)

        assert {cache_of(ask(v1, stream=stream)) for _ in range(5)} == {"HIT"}

    def test_followers_take_slots_and_free_them(self, v1: V1) -> None:
        v1.set(v1.api_key, concurrent_calls=3)
        go = waits(v1)
        leader = caller(v1)
        leader.frames(2)
        others = Together(v1).begin(2, lambda: ask(v1))
        assert ask(v1).status_code == 429
        go.set()

        assert {text_of_whole(one) for one in results(others)} == {TEXT}
        assert eventually(lambda: all(ask(v1).status_code == 200 for _ in range(5)))

    @pytest.mark.parametrize("mode", ["", "off"])
    def test_a_refusal_for_want_of_an_answer_costs_nothing(self, v1: V1, mode: str) -> None:
        v1.set(v1.model, cache_mode=mode)
        v1.set(v1.api_key, concurrent_calls=1, tokens_per_minute=1000)
        refused = [ask(v1, {"x-llmhub-cache": "only"}, max_tokens=400) for _ in range(5)]

        assert {(one.status_code, told(one)["code"]) for one in refused} == {(504, "cache_miss")}
        assert v1.upstream.requests == []
        assert v1.rows() == []


class TestMoney:
    def test_neither_hits_nor_followers_are_charged(self, v1: V1) -> None:
        go = waits(v1)
        begun = Together(v1).begin(10, lambda: ask(v1))
        go.set()
        results(begun)
        for _ in range(10):
            ask(v1)

        rows = v1.rows()
        assert sum(row.cost_nano_usd or 0 for row in rows) == COST
        assert sum(row.saved_nano_usd for row in rows) == 19 * COST
        assert BudgetWindow.objects.get().spent_nano == COST

    def test_hourly_sums_have_them_as_calls_that_cost_nothing(self, v1: V1) -> None:
        go = waits(v1)
        begun = Together(v1).begin(4, lambda: ask(v1))
        go.set()
        results(begun)
        ask(v1)
        for row in v1.rows():
            sum_hour(row.created_at.replace(minute=0, second=0, microsecond=0))

        sums = UsageRollup.objects.values_list("state").annotate(
            calls=Sum("calls"), cost=Sum("cost_nano_usd")
        )
        assert set(sums) == {(State.OK, 2, COST), (State.COALESCED, 3, 0)}

    def test_an_answer_whose_price_is_not_known_saves_what_is_not_known(self, v1: V1) -> None:
        v1.budget.delete()
        make_provider(slug="other", upstream_url=v1.upstream.url, models=("without-price",))
        answers = [ask(v1, model="without-price") for _ in range(2)]

        assert [cache_of(answer) for answer in answers] == ["MISS", "HIT"]
        row, miss = v1.rows()
        assert (miss.cost_nano_usd, row.cost_nano_usd, row.saved_nano_usd) == (None, 0, 0)


class TestWords:
    def test_of_a_hit_are_kept_as_those_of_any_call(self, v1: V1) -> None:
        ask(v1)
        ask(v1)

        v1.rows()
        contents = list(CompletionContent.objects.values_list("request", "response"))
        assert len(contents) == 2
        assert contents[0] == contents[1]

    @pytest.mark.parametrize("which", ["project", "key"])
    def test_are_kept_nowhere_where_they_may_not_be(self, v1: V1, which: str) -> None:
        if which == "project":
            v1.set(v1.project, content_days=0)
        else:
            v1.set(v1.api_key, log_content=False)
        v1.upstream.answers("A secret answer.")
        asked = [{"role": "user", "content": "A secret question."}]
        answers = [ask(v1, messages=asked) for _ in range(2)]
        index.flush()

        assert [cache_of(answer) for answer in answers] == ["MISS", "HIT"]  # it lies in memory
        row = CachedResponse.objects.get()
        assert (row.request, row.response, row.first_words, row.vector) == ("", "", "", None)
        assert "secret" not in row.facts
        assert row.hits == 1
        assert not CompletionContent.objects.exists()


class TestWhatIsBroken:
    @pytest.mark.parametrize(
        "value",
        [b"", b"\x00\xff", b"{}", b"null", "text", 5, None, ["a"], b'{"format":1,"body":{}}', b"{" * 10_000],
    )
    @pytest.mark.parametrize("stream", [True, False])
    def test_in_the_store_is_a_miss_and_replaced(self, v1: V1, value: Any, stream: bool) -> None:
        ask(v1)
        index.flush()
        key = CachedResponse.objects.get().key
        caches["default"].set(stores.PREFIX + key, value)

        assert ask(v1, stream=stream).headers["x-llmhub-cache"] == "MISS"
        assert eventually(lambda: unpacked(caches["default"].get(stores.PREFIX + key)) is not None)
        assert cache_of(ask(v1)) == "HIT"

    def test_in_an_upstreams_answer_is_not_kept(self, v1: V1) -> None:
        """What could not be told as a stream."""
        message = {"role": "assistant", "content": None, "tool_calls": ["no call"]}
        odd = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
        v1.upstream.answers(choices=odd).answers("Whole.")

        assert ask(v1).status_code == 200
        assert says(v1) == "Whole."

    def test_content_in_parts_is_given_again_as_it_is(self, v1: V1) -> None:
        parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
        choice = {"index": 0, "message": {"role": "assistant", "content": parts}, "finish_reason": "stop"}
        v1.upstream.answers(choices=[choice])
        whole, again = ask(v1), ask(v1)
        frames = frames_of(ask(v1, stream=True))

        assert cache_of(again) == "HIT"
        assert whole.json()["choices"] == again.json()["choices"] == [choice]
        assert frames[0]["choices"][0]["delta"]["content"] == parts
