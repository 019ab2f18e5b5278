"""Embeddings are kept input by input: of a batch only what is not known goes upstream."""

import base64
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from completions.cache import index
from completions.cache.entry import Entry
from completions.models import BudgetWindow, CachedResponse, State
from tests.fakes import Received, Step, response
from tests.surfaces import v1 as shared
from tests.surfaces.cached import Together, cache_of, results
from tests.surfaces.v1 import EMBEDDINGS, MODEL, PROMPT_NANO, V1, told

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

Change = Callable[[list[dict[str, Any]]], Any]


def vector(one: Any, size: int = 3) -> list[float]:
    """What the upstream makes of an input: another for each."""
    seed = len(one) if isinstance(one, str) else sum(one)
    return [float(seed), *(float(ord(one[0]) if isinstance(one, str) else one[0]),) * (size - 1)]


def tokens(one: Any) -> int:
    return len(one.split()) if isinstance(one, str) else len(one)


def inputs_of(body: Any) -> list[Any]:
    given = body["input"]
    return given if isinstance(given, list) and not isinstance(given[0], int) else [given]


def embedder(v1: V1, change: Change = lambda data: data, go: threading.Event | None = None) -> None:
    """Every request gets its vectors; `change`: what becomes of the list of them."""

    def script(request: Received) -> list[Step]:
        body = request.body
        asked = inputs_of(body)
        vectors = [vector(one, body.get("dimensions", 3)) for one in asked]
        coded: list[Any] = list(vectors)
        if body.get("encoding_format") == "base64":
            coded = [base64.b64encode(struct.pack(f"{len(one)}f", *one)).decode() for one in vectors]
        data = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(coded)]
        used = sum(map(tokens, asked))
        usage = {"prompt_tokens": used, "total_tokens": used}
        whole = {"object": "list", "model": "fake-model", "data": change(data), "usage": usage}
        return [*([go] if go is not None else []), response(200, whole)]

    v1.upstream.scripts(script)


def embed(v1: V1, asked: Any, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return v1.post(EMBEDDINGS, {"model": MODEL, "input": asked} | fields, headers=headers)


def vectors_of(answer: Any) -> list[Any]:
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    return [one["embedding"] for one in data]


def asked_upstream(v1: V1) -> list[Any]:
    """The input of every request that the upstream got."""
    return [request.body["input"] for request in v1.upstream.requests]


def usage_of(answer: Any) -> tuple[int, int]:
    usage = answer.json()["usage"]
    return usage["prompt_tokens"], usage["total_tokens"]


class TestAllAreKnown:
    def test_no_upstream_is_asked(self, v1: V1) -> None:
        embedder(v1)
        first, second = embed(v1, ["a", "bb c"]), embed(v1, ["a", "bb c"])

        assert (cache_of(first), cache_of(second)) == ("MISS", "HIT")
        assert first.json() == second.json()
        assert second.headers["x-llmhub-cost-usd"] == "0"
        assert len(v1.upstream.requests) == 1

    def test_in_whatever_order_and_number_they_are_asked_again(self, v1: V1) -> None:
        embedder(v1)
        embed(v1, ["a", "bb", "ccc"])

        for asked in (["ccc", "a"], ["bb"], ["a", "a", "bb", "a"], "ccc"):
            answer = embed(v1, asked)
            assert cache_of(answer) == "HIT"
            assert vectors_of(answer) == [vector(one) for one in inputs_of({"input": asked})]
        assert len(v1.upstream.requests) == 1

    def test_one_text_is_a_list_of_one(self, v1: V1) -> None:
        embedder(v1)
        answers = [embed(v1, "a"), embed(v1, ["a"]), embed(v1, [1, 2]), embed(v1, [[1, 2]])]

        assert [cache_of(answer) for answer in answers] == ["MISS", "HIT", "MISS", "HIT"]

    def test_without_asking_for_it(self, v1: V1) -> None:
        """The same text always has the same vector; where nothing may be cached, it is not."""
        embedder(v1)
        v1.set(v1.model, cache_mode="off")

        assert [cache_of(embed(v1, "a")) for _ in range(2)] == ["BYPASS", "BYPASS"]


class TestSomeAreKnown:
    def test_only_the_others_go_upstream_and_the_order_is_the_callers(self, v1: V1) -> None:
        embedder(v1)
        embed(v1, ["bb", "dddd"])
        answer = embed(v1, ["a", "bb", "ccc", "dddd", "eeeee"])

        assert cache_of(answer) == "PARTIAL"
        assert asked_upstream(v1) == [["bb", "dddd"], ["a", "ccc", "eeeee"]]
        assert vectors_of(answer) == [vector(one) for one in ("a", "bb", "ccc", "dddd", "eeeee")]
        assert cache_of(embed(v1, ["eeeee", "a", "ccc"])) == "HIT"

    def test_usage_is_the_whole_and_the_cost_is_that_of_the_others(self, v1: V1) -> None:
        embedder(v1)
        known = embed(v1, ["one two three"])
        answer = embed(v1, ["one two three", "four five"])

        assert usage_of(answer) == (5, 5)
        assert float(answer.headers["x-llmhub-cost-usd"]) == pytest.approx(2 * PROMPT_NANO / 1e9)
        row, miss = v1.rows()
        assert (row.cache, row.cost_nano_usd, row.prompt_tokens) == ("PARTIAL", 2 * PROMPT_NANO, 2)
        assert row.saved_nano_usd == miss.cost_nano_usd == 3 * PROMPT_NANO
        assert BudgetWindow.objects.get().spent_nano == 5 * PROMPT_NANO
        assert usage_of(known) == (3, 3)

    def test_each_that_was_known_was_hit(self, v1: V1) -> None:
        embedder(v1)
        embed(v1, ["a", "bb"])
        embed(v1, ["a", "ccc"])
        embed(v1, ["a", "ccc"])
        index.flush()

        assert dict(CachedResponse.objects.values_list("first_words", "hits")) == {"a": 2, "bb": 0, "ccc": 1}

    def test_a_call_that_wants_nothing_else_is_refused(self, v1: V1) -> None:
        embedder(v1)
        embed(v1, ["a"])
        refused = embed(v1, ["a", "bb"], {"x-llmhub-cache": "only"})

        assert (refused.status_code, told(refused)["code"]) == (504, "cache_miss")
        assert cache_of(embed(v1, ["a"], {"x-llmhub-cache": "only"})) == "HIT"
        assert len(v1.upstream.requests) == 1

    def test_those_that_are_older_than_the_call_wants_are_not(
        self, v1: V1, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        embedder(v1)
        embed(v1, ["a", "bb"])
        monkeypatch.setattr(Entry, "age_seconds", 61)

        assert cache_of(embed(v1, ["a", "bb"], {"Cache-Control": "max-age=61"})) == "HIT"
        assert cache_of(embed(v1, ["a", "bb"], {"Cache-Control": "max-age=60"})) == "MISS"

    def test_a_call_that_wants_them_anew_gets_all_anew(self, v1: V1) -> None:
        embedder(v1)
        embed(v1, ["a", "bb"])

        assert cache_of(embed(v1, ["a", "bb"], {"x-llmhub-cache": "refresh"})) == "MISS"
        assert asked_upstream(v1) == [["a", "bb"], ["a", "bb"]]


class TestKeptApart:
    @pytest.mark.parametrize(
        "fields", [{"encoding_format": "base64"}, {"dimensions": 2}, {"input_type": "query"}]
    )
    def test_by_what_is_asked_of_the_vectors(self, v1: V1, fields: dict[str, Any]) -> None:
        embedder(v1)
        plain, other = embed(v1, ["a"]), embed(v1, ["a"], **fields)
        again = embed(v1, ["a"], **fields)

        assert (cache_of(plain), cache_of(other), cache_of(again)) == ("MISS", "MISS", "HIT")
        assert other.json() == again.json()

    def test_by_what_an_input_is(self, v1: V1) -> None:
        embedder(v1)
        asked: list[Any] = ["1", [[1]], ["1 "], [[1, 1]], ["[1]"]]

        assert {cache_of(embed(v1, one)) for one in asked} == {"MISS"}
        assert {cache_of(embed(v1, one)) for one in asked} == {"HIT"}

    def test_tokens_are_inputs_as_texts_are(self, v1: V1) -> None:
        embedder(v1)
        embed(v1, [[1, 2], [3]])
        answer = embed(v1, [[3], [4, 5], [1, 2]])

        assert cache_of(answer) == "PARTIAL"
        assert asked_upstream(v1)[1] == [[4, 5]]
        assert vectors_of(answer) == [vector([3]), vector([4, 5]), vector([1, 2])]


class TestABatch:
    def test_with_the_same_input_twice_has_two_vectors_and_one_entry(self, v1: V1) -> None:
        embedder(v1)
        answers = [embed(v1, ["a", "bb", "a"]) for _ in range(2)]
        index.flush()

        assert [cache_of(answer) for answer in answers] == ["MISS", "HIT"]
        assert [vectors_of(answer) for answer in answers] == [[vector("a"), vector("bb"), vector("a")]] * 2
        assert dict(CachedResponse.objects.values_list("first_words", "hits")) == {"a": 2, "bb": 1}

    def test_costs_what_its_entries_save(self, v1: V1) -> None:
        """To the nano-dollar, however it is shared out."""
        embedder(v1)
        asked = ["a b c", "dd", "e f g h i", "j", "kk ll"]
        embed(v1, asked)
        hit = embed(v1, asked)
        index.flush()

        whole = sum(map(tokens, asked)) * PROMPT_NANO
        row, miss = v1.rows()
        assert usage_of(hit) == (12, 12)
        assert miss.cost_nano_usd == row.saved_nano_usd == whole
        assert (
            sum(cost or 0 for cost in CachedResponse.objects.values_list("cost_nano_usd", flat=True)) == whole
        )
        assert (row.cache, row.state, row.cost_nano_usd, row.cached_from) == ("HIT", State.OK, 0, miss.pk)

    def test_is_kept_in_the_order_of_its_indices(self, v1: V1) -> None:
        embedder(v1, lambda data: data[::-1])
        embed(v1, ["a", "bb", "ccc"])

        assert vectors_of(embed(v1, ["a", "bb", "ccc"])) == [vector("a"), vector("bb"), vector("ccc")]

    def test_that_many_send_at_once_goes_upstream_once(self, v1: V1) -> None:
        go = threading.Event()
        v1.during.callback(go.set)
        embedder(v1, go=go)
        begun = Together(v1).begin(10, lambda: embed(v1, ["a", "bb"]))
        go.set()

        assert {str(vectors_of(answer)) for answer in results(begun)} == {str([vector("a"), vector("bb")])}
        assert len(v1.upstream.requests) == 1
        assert sum(row.cost_nano_usd or 0 for row in v1.rows()) == 2 * PROMPT_NANO

    def test_partly_known_that_many_send_at_once_too(self, v1: V1) -> None:
        embedder(v1)
        embed(v1, ["bb"])
        begun = Together(v1)._pool.map(lambda _: embed(v1, ["a", "bb", "ccc"]), range(10))

        expected = str([vector("a"), vector("bb"), vector("ccc")])
        assert {str(vectors_of(answer)) for answer in begun} == {expected}
        assert sum(row.cost_nano_usd or 0 for row in v1.rows()) <= 3 * PROMPT_NANO * len(v1.upstream.requests)


def reindexed(*indices: Any) -> Change:
    return lambda data: [{**one, "index": index} for one, index in zip(data, indices, strict=False)]


NONSENSE: Sequence[Any] = [
    pytest.param(reindexed(0, 0), id="an index twice"),
    pytest.param(reindexed(1, 2), id="counted from 1"),
    pytest.param(reindexed(0, "1"), id="an index of text"),
    pytest.param(reindexed(None, None), id="no index"),
    pytest.param(reindexed(0, []), id="an index of a list"),
    pytest.param(reindexed(0.0, 1.0), id="fractions"),
    pytest.param(lambda data: data[:1], id="too few"),
    pytest.param(lambda data: [*data, {**data[0], "index": 2}], id="too many"),
    pytest.param(lambda data: [*data[:1], "vector"], id="no object"),
    pytest.param(lambda data: [{"index": one["index"]} for one in data], id="no vector"),
]


class TestNonsense:
    @pytest.mark.parametrize("change", NONSENSE)
    def test_from_an_upstream_is_passed_on_but_not_kept(self, v1: V1, change: Change) -> None:
        embedder(v1, change)
        answers = [embed(v1, ["a", "bb"]) for _ in range(2)]

        assert {answer.status_code for answer in answers} == {200}
        assert {cache_of(answer) for answer in answers} == {"MISS"}
        index.flush()
        assert not CachedResponse.objects.exists()

    @pytest.mark.parametrize("change", NONSENSE)
    def test_is_not_put_together_with_what_is_known(self, v1: V1, change: Change) -> None:
        embedder(v1)
        embedder(v1, change)
        embed(v1, ["known"])
        refused = embed(v1, ["known", "a", "bb"])

        assert (refused.status_code, told(refused)["code"]) == (502, "upstream_invalid")
        assert cache_of(embed(v1, ["known"])) == "HIT"
        v1.rows()

    def test_about_usage_is_not_kept_either(self, v1: V1) -> None:
        def script(request: Received) -> list[Step]:
            data = [{"object": "embedding", "index": 0, "embedding": [1.0]}]
            return [response(200, {"object": "list", "data": data, "usage": {"prompt_tokens": -5}})]

        v1.upstream.scripts(script)
        assert [cache_of(embed(v1, ["a"])) for _ in range(2)] == ["MISS", "MISS"]


def test_a_large_batch_is_kept_and_given_like_a_small_one(v1: V1) -> None:
    embedder(v1)
    asked = [f"{chr(97 + number % 26)}{'x' * number}" for number in range(60)]

    first, second = embed(v1, asked), embed(v1, asked[::-1])

    assert (cache_of(first), cache_of(second)) == ("MISS", "HIT")
    assert [one["embedding"] for one in second.json()["data"]] == [vector(one) for one in asked[::-1]]
    assert second.json()["usage"]["prompt_tokens"] == first.json()["usage"]["prompt_tokens"] == 60
