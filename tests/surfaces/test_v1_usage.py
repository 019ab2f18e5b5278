"""What an upstream says it used: believed where it can be, else counted by the hub and flagged."""

import json
from decimal import Decimal
from typing import Any

import pytest
import requests

from tests.fakes import USAGE, chunk, completion
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import DONE, EMBEDDINGS, MODEL, PIECES, PROMPT, V1, cost, frames_of

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

TEXT = "".join(PIECES)
TOKENS = len(PIECES)
ASKED = {"include_usage": True}
NONSENSE: dict[str, Any] = {
    "negative": USAGE | {"completion_tokens": -3},
    "negative prompt": USAGE | {"prompt_tokens": -1},
    "NaN": USAGE | {"completion_tokens": float("nan")},
    "infinite": USAGE | {"completion_tokens": float("inf")},
    "1e30": USAGE | {"completion_tokens": 1e30},
    "ten to the thirty": USAGE | {"prompt_tokens": 10**30},
    "a string": USAGE | {"completion_tokens": "3"},
    "half a token": USAGE | {"completion_tokens": 2.5},
    "a truth": USAGE | {"completion_tokens": True},
    "a list": [9, 3],
    "a word": "many",
    "a part above its whole": USAGE | {"prompt_tokens_details": {"cached_tokens": 10}},
    "more thought than output": USAGE | {"completion_tokens_details": {"reasoning_tokens": 4}},
    "an output alone": {"completion_tokens": 3},
    "details that are none": USAGE | {"prompt_tokens_details": 5},
    "nothing at all": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "no output": {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9},
    "a prompt alone": {"prompt_tokens": 9},
}


def streamed(v1: V1, *usages: Any) -> requests.Response:
    """A stream of TEXT whose end states each of `usages`."""
    pieces = [chunk({"content": piece}) for piece in PIECES]
    v1.upstream.events(*pieces, chunk({}, "stop"), *[chunk(None, usage=one) for one in usages], DONE)
    return v1.chat(stream=True, stream_options=ASKED)


@pytest.mark.parametrize("usage", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_in_a_whole_answer_is_replaced_by_the_hubs_own_count(v1: V1, usage: Any) -> None:
    v1.upstream.answers(TEXT, usage=usage)

    answer = v1.chat()

    assert answer.status_code == 200
    told = json.loads(answer.content, parse_constant=pytest.fail)["usage"]  # JSON, and no NaN in it
    assert (told["prompt_tokens"], told["completion_tokens"]) == (PROMPT, TOKENS)
    assert Decimal(answer.headers["x-llmhub-cost-usd"]) == Decimal(cost(PROMPT, TOKENS)) / 10**9
    assert_counted(v1, anomaly=True)


@pytest.mark.parametrize("usage", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_in_a_stream_is_replaced_by_the_hubs_own_count(v1: V1, usage: Any) -> None:
    answer = streamed(v1, usage)

    assert frames_of(answer)[-1] == DONE
    assert_counted(v1, anomaly=True)


@pytest.mark.parametrize("usage", NONSENSE.values(), ids=NONSENSE)
def test_a_stream_never_tells_nonsense_but_what_is_paid_for(v1: V1, usage: Any) -> None:
    told = frames_of(streamed(v1, usage))[-2]["usage"]

    assert (told["prompt_tokens"], told["completion_tokens"]) == (PROMPT, TOKENS)
    assert Decimal(told["cost_usd"]) == Decimal(cost(PROMPT, TOKENS)) / 10**9


@pytest.mark.parametrize("usage", [None, {}], ids=["null", "empty"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_where_nothing_is_said_the_hub_counts(v1: V1, stream: bool, usage: Any) -> None:
    if stream:
        frames = frames_of(streamed(v1, usage))
        told = frames[-2]["usage"]
    else:
        v1.upstream.answers(TEXT, usage=usage)
        told = v1.chat().json()["usage"]

    assert (told["prompt_tokens"], told["completion_tokens"]) == (PROMPT, TOKENS)
    assert_counted(v1, anomaly=False)


def assert_counted(v1: V1, *, anomaly: bool) -> None:
    row = v1.row()
    assert (row.prompt_tokens, row.completion_tokens) == (PROMPT, TOKENS)
    assert (row.usage_source, row.usage_anomaly) == ("counted", anomaly)
    assert row.cost_nano_usd == cost(PROMPT, TOKENS)


def test_an_answer_without_the_field_is_counted(v1: V1) -> None:
    body = completion(TEXT)
    del body["usage"]
    v1.upstream.refuses(200, body)

    assert v1.chat().json()["usage"]["completion_tokens"] == TOKENS
    assert_counted(v1, anomaly=False)


def total(output: int) -> dict[str, int]:
    return {"prompt_tokens": 9, "completion_tokens": output, "total_tokens": 9 + output}


def test_totals_that_grow_are_never_summed(v1: V1) -> None:
    marked = [chunk({"content": piece}, usage=total(n + 1)) for n, piece in enumerate(PIECES)]
    v1.upstream.events(*marked, chunk({}, "stop", usage=total(7)), DONE)

    *chunks, usage, _ = v1.stream(stream_options=ASKED)

    assert all(one["usage"] is None for one in chunks)
    assert usage["usage"]["completion_tokens"] == 7
    assert_believed(v1, 7)


def test_said_twice_the_last_word_counts(v1: V1) -> None:
    usage = frames_of(streamed(v1, total(5), total(7)))[-2]["usage"]

    assert usage["completion_tokens"] == 7
    assert_believed(v1, 7)


def test_nonsense_after_a_good_word_does_not_undo_it(v1: V1) -> None:
    usage = frames_of(streamed(v1, total(7), USAGE | {"completion_tokens": -1}))[-2]["usage"]

    assert usage["completion_tokens"] == 7
    assert_believed(v1, 7)


def test_a_good_word_after_nonsense_counts(v1: V1) -> None:
    usage = frames_of(streamed(v1, USAGE | {"completion_tokens": -1}, total(7)))[-2]["usage"]

    assert usage["completion_tokens"] == 7
    assert_believed(v1, 7)


@pytest.mark.parametrize("late", [{"prompt_tokens": 9}, total(0), total(3), total(0) | {"prompt_tokens": 0}])
def test_less_after_a_good_word_does_not_undo_it(v1: V1, late: Any) -> None:
    usage = frames_of(streamed(v1, total(7), late))[-2]["usage"]

    assert usage["completion_tokens"] == 7
    assert_believed(v1, 7)


def test_a_good_word_after_one_of_nothing_counts(v1: V1) -> None:
    usage = frames_of(streamed(v1, total(0), total(7)))[-2]["usage"]

    assert usage["completion_tokens"] == 7
    assert_believed(v1, 7)


def test_no_output_said_before_any_came_is_no_word_on_it(v1: V1) -> None:
    first = chunk({"role": "assistant", "content": ""}, usage=total(0))
    v1.upstream.events(first, chunk({"content": TEXT}), chunk({}, "stop"), DONE)

    assert v1.stream(stream_options=ASKED)[-2]["usage"]["completion_tokens"] == TOKENS
    assert_counted(v1, anomaly=True)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_empty_answer_has_no_output(v1: V1, stream: bool) -> None:
    if stream:
        v1.upstream.events(chunk({"role": "assistant", "content": ""}, "stop", usage=total(0)), DONE)
    else:
        v1.upstream.answers("", usage=total(0))

    assert v1.chat(stream=stream).status_code == 200

    assert_believed(v1, 0)


def test_vectors_are_no_output(v1: V1) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    v1.upstream.refuses(200, {"object": "list", "data": data, "usage": usage})

    answer = v1.post(EMBEDDINGS, {"model": MODEL, "input": "Hello"})

    assert answer.json()["usage"] == usage
    assert_believed(v1, 0)


def test_a_word_after_done_comes_too_late(v1: V1) -> None:
    v1.upstream.events(chunk({"content": TEXT}), chunk({}, "stop"), DONE, chunk(None, usage=total(7)))

    assert v1.stream()[-1] == DONE
    assert_counted(v1, anomaly=False)


def assert_believed(v1: V1, output: int) -> None:
    row = v1.row()
    assert (row.prompt_tokens, row.completion_tokens, row.usage_source) == (9, output, "provider")
    assert row.cost_nano_usd == cost(9, output)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_every_answer_of_several_is_counted(v1: V1, stream: bool) -> None:
    if stream:
        sent = [
            {"choices": [{"index": index, "delta": {"content": TEXT}, "finish_reason": "stop"}]}
            for index in range(3)
        ]
        v1.upstream.events(*sent, DONE)
    else:
        choices = [
            {"index": index, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
            for index in range(3)
        ]
        v1.upstream.answers(choices=choices, usage=None)

    assert v1.chat(stream=stream, n=3).status_code == 200

    assert v1.row().completion_tokens == 3 * TOKENS


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_thought_and_tool_calls_are_counted_too(v1: V1, stream: bool) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    message = {"reasoning_content": "one two three", "content": None, "tool_calls": [call]}
    if stream:
        v1.upstream.events(chunk(message, "tool_calls"), DONE)
    else:
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        v1.upstream.answers(choices=[choice], usage=None)

    assert v1.chat(stream=stream).status_code == 200

    row = v1.row()
    assert row.reasoning_tokens == 3
    assert (row.completion_tokens or 0) > 3
    assert row.usage_source == "estimated"


BESIDE: dict[str, dict[str, Any]] = {
    "a function call": {"function_call": {"name": "one", "arguments": " two three"}},
    "a function call of an object": {"function_call": {"name": "one", "arguments": {"two": "three"}}},
    "a function call of another shape": {"function_call": "one two three"},
    "spoken words": {"audio": {"id": "a1", "data": "AAAA", "transcript": "one two three"}},
}


@pytest.mark.parametrize("message", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("usage", [None, total(0)], ids=["nothing said", "no output"])
@pytest.mark.parametrize("how", ["whole", "stream", "JSON to a stream"])
@pytest.mark.parametrize("index", [0, 1])
def test_what_is_said_beside_content_is_counted(
    v1: V1, index: int, how: str, usage: Any, message: dict[str, Any]
) -> None:
    shape = "delta" if how == "stream" else "message"
    empty, said = {"role": "assistant", "content": None}, {"role": "assistant", "content": None, **message}
    choices = [{"index": n, shape: said if n == index else empty, "finish_reason": "stop"} for n in range(2)]
    if how == "stream":
        v1.upstream.events(*[chunk(None, choices=[one]) for one in choices], chunk(None, usage=usage), DONE)
    else:
        v1.upstream.answers(choices=choices, usage=usage)

    assert v1.chat(stream=how != "whole", n=2).status_code == 200

    row = v1.row()
    assert (row.completion_tokens or 0) >= 3
    assert row.usage_anomaly is (usage is not None)
    assert row.cost_nano_usd == cost(PROMPT, row.completion_tokens or 0)


def test_the_pieces_of_a_function_call_are_counted_together(v1: V1) -> None:
    pieces = [{"name": "one", "arguments": ""}, {"arguments": " two"}, {"arguments": " three"}]
    v1.upstream.events(*[chunk({"function_call": one}) for one in pieces], chunk({}, "function_call"), DONE)

    assert v1.stream()[-1] == DONE

    assert v1.row().completion_tokens == 3
