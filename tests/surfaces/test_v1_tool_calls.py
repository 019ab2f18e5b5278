"""Tool calls of every shape that upstreams send: passed on as they came, gathered, and paid for."""

import json
from typing import Any

import pytest
import requests
from openai import OpenAI

from completions.models import Attempt, State
from tests.fakes import USAGE, End, chunk, completion
from tests.surfaces import v1 as shared
from tests.surfaces.api import bearer, events_of
from tests.surfaces.v1 import DONE, HELLO, MODEL, PROMPT, V1, cost, frames_of

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

FUNCTION = {"name": "look", "arguments": '{"at": 5}'}
CALL = {"index": 0, "id": "c1", "type": "function", "function": FUNCTION}
END = chunk({}, "tool_calls")
ODD: dict[str, dict[str, Any]] = {
    "arguments that are an object": CALL | {"function": FUNCTION | {"arguments": {"at": 5}}},
    "arguments that are a list": CALL | {"function": FUNCTION | {"arguments": [5]}},
    "a name that is a number": CALL | {"function": FUNCTION | {"name": 5}},
    "a function that is a text": CALL | {"function": "look"},
    "a function that is a list": CALL | {"function": ["look"]},
    "an index that is a list": CALL | {"index": [1]},
    "an index that is null": CALL | {"index": None},
    "an index that is a text": CALL | {"index": "0"},
    "an id that is an object": CALL | {"id": {"a": 1}},
    "a kind nobody knows": {"index": 0, "id": "c1", "type": "search", "search": {"query": "one two"}},
    "a custom tool with an object": {
        "id": "c1",
        "type": "custom",
        "custom": {"name": "f", "input": {"x": 1}},
    },
}
SECOND = CALL | {"index": 1, "id": "c2"}


def whole(*calls: Any, **changes: Any) -> dict[str, Any]:
    """A whole answer that calls tools."""
    message = {"role": "assistant", "content": None, "tool_calls": list(calls)}
    return completion(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}], **changes)


def gathered(v1: V1, *pieces: Any) -> Any:
    """The tool calls of `/api`'s message, where they came as `pieces` of a stream."""
    v1.upstream.events(*[chunk({"tool_calls": [piece]}) for piece in pieces], END, DONE)
    answer = requests.post(
        f"{v1.hub.url}/api/completions/",
        json={"messages": HELLO, "model": MODEL, "stream": True},
        headers=bearer(v1.key),
        timeout=10,
    )
    last = list(events_of(answer))[-1]
    assert last.name == "done", last
    return last.data["message"]["tool_calls"]


def function(own_id: str | None, name: str, arguments: str) -> dict[str, Any]:
    return {"id": own_id, "type": "function", "function": {"name": name, "arguments": arguments}}


class TestOddOnes:
    @pytest.mark.parametrize("call", ODD.values(), ids=ODD)
    def test_are_passed_on_and_the_upstreams_usage_is_believed(self, v1: V1, call: Any) -> None:
        sent = chunk({"tool_calls": [call, SECOND]})
        v1.upstream.events(sent, END, chunk(None, usage=USAGE), DONE)

        *chunks, done = v1.stream()

        assert done == DONE
        assert chunks[0]["choices"] == sent["choices"]
        row = v1.row()
        assert (row.state, row.usage_source, row.cost_nano_usd) == (State.OK, "provider", cost(9, 3))
        assert Attempt.objects.count() == 1

    @pytest.mark.parametrize("call", ODD.values(), ids=ODD)
    def test_are_counted_where_the_upstream_says_nothing(self, v1: V1, call: Any) -> None:
        v1.upstream.events(chunk({"tool_calls": [call]}), END, DONE)

        assert v1.stream()[-1] == DONE

        assert_counted(v1)

    @pytest.mark.parametrize("call", ODD.values(), ids=ODD)
    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "JSON to a stream"])
    def test_are_counted_in_an_answer_that_came_whole(self, v1: V1, call: Any, stream: bool) -> None:
        v1.upstream.refuses(200, whole(call, usage=None))

        answer = v1.chat(stream=stream)

        assert answer.status_code == 200
        if not stream:
            assert answer.json()["choices"][0]["message"]["tool_calls"] == [call]
        assert_counted(v1)

    @pytest.mark.parametrize("calls", [5, "look", {"0": CALL}, ["look"], [None, [CALL]]])
    def test_that_are_none_do_not_lose_the_usage_of_a_whole_answer(self, v1: V1, calls: Any) -> None:
        answer = whole()
        answer["choices"][0]["message"]["tool_calls"] = calls
        v1.upstream.refuses(200, answer).refuses(200, answer | {"usage": None})

        assert v1.chat().json()["choices"] == answer["choices"]
        assert v1.row().cost_nano_usd == cost(9, 3)
        assert v1.chat().status_code == 200
        assert (v1.rows()[0].cost_nano_usd or 0) > cost(PROMPT, 0)

    @pytest.mark.parametrize("calls", [5, "look", {"0": CALL}, ["look"]])
    def test_that_are_none_end_a_stream_and_what_came_is_paid_for(self, v1: V1, calls: Any) -> None:
        v1.upstream.events(chunk({"content": "one two"}), chunk({"tool_calls": calls}), END, DONE)

        *_, last = v1.stream()

        assert last["error"]["code"] == "upstream_invalid"
        row = v1.row()
        assert (row.state, row.cost_nano_usd) == (State.UPSTREAM_INVALID, cost(PROMPT, 2))
        assert Attempt.objects.count() == 1

    def test_are_kept_as_the_text_that_they_should_have_been(self, v1: V1) -> None:
        pieces = [CALL | {"function": FUNCTION | {"arguments": {"at": 5}}}, SECOND | {"function": "go"}]

        assert gathered(v1, *pieces) == [function("c1", "look", '{"at":5}'), function("c2", "go", "")]


def assert_counted(v1: V1) -> None:
    row = v1.row()
    assert (row.state, row.usage_source, row.usage_anomaly) == (State.OK, "estimated", False)
    assert (row.completion_tokens or 0) > 0
    assert row.cost_nano_usd == cost(PROMPT, row.completion_tokens or 0)


class TestGathered:
    @pytest.mark.parametrize("index", [{}, {"index": None}, {"index": 0}], ids=["none", "null", "always 0"])
    def test_another_id_begins_another_call(self, v1: V1, index: dict[str, Any]) -> None:
        """As Gemini sends them: https://ai.google.dev/gemini-api/docs/openai."""
        pieces = [
            function("a", "look", '{"at":') | index,
            {"function": {"arguments": " 5}"}} | index,
            function("b", "go", "{}") | index,
            {"id": "a", "function": {"arguments": " "}} | index,
        ]

        assert gathered(v1, *pieces) == [function("a", "look", '{"at": 5} '), function("b", "go", "{}")]

    def test_without_ids_and_indexes_another_name_begins_another_call(self, v1: V1) -> None:
        pieces = [function("", name, "{}") for name in ("look", "go")]

        assert gathered(v1, *pieces) == [function(None, name, "{}") for name in ("look", "go")]

    def test_an_id_that_is_said_late_or_again_begins_none(self, v1: V1) -> None:
        pieces = [{"index": 0, "function": {"name": "look"}}, CALL, {"index": 0, "id": "c1"}, {"index": "0"}]

        assert gathered(v1, *pieces) == [function("c1", "look", FUNCTION["arguments"])]

    def test_they_are_told_in_the_order_of_their_indexes(self, v1: V1) -> None:
        assert [call["id"] for call in gathered(v1, SECOND, CALL)] == ["c1", "c2"]

    def test_a_signature_beside_a_call_and_other_fields_are_kept(self, v1: V1) -> None:
        signed = {"extra_content": {"google": {"thought_signature": "abc"}}}
        first = CALL | signed | {"function": FUNCTION | {"strict": True}}

        [call] = gathered(v1, first, {"index": 0, "function": {"arguments": " "}, "note": 1})

        arguments = FUNCTION["arguments"] + " "
        assert call == {
            **function("c1", "look", ""),
            **signed,
            "function": {"name": "look", "arguments": arguments, "strict": True},
            "note": 1,
        }

    def test_the_input_of_a_custom_tool_is_joined(self, v1: V1) -> None:
        begun = {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "sql", "input": "select "}}

        calls = gathered(v1, begun, {"index": 0, "custom": {"input": "one"}})

        assert calls == [{"id": "c1", "type": "custom", "custom": {"name": "sql", "input": "select one"}}]
        assert (v1.row().completion_tokens or 0) >= 3

    def test_two_calls_are_counted_though_they_share_an_index(self, v1: V1) -> None:
        v1.upstream.events(chunk({"tool_calls": [CALL]}), chunk({"tool_calls": [CALL | {"id": "c2"}]}), END)
        v1.upstream.events(chunk({"tool_calls": [CALL]}), END)

        v1.stream()
        v1.stream()

        one, two = (row.completion_tokens or 0 for row in v1.rows())
        assert two == 2 * one > 0


class TestWholeOnesToAStream:
    @pytest.mark.parametrize("index", [{}, {"index": None}, {"index": [1]}], ids=["none", "null", "a list"])
    def test_are_numbered(self, v1: V1, index: dict[str, Any]) -> None:
        given = [function("c1", "look", "{}") | index, function("c2", "go", "{}") | index]
        v1.upstream.refuses(200, whole(*given))

        first, done = frames_of(v1.chat(stream=True))

        assert done == DONE
        calls = first["choices"][0]["delta"]["tool_calls"]
        assert calls == [call | {"index": number} for number, call in enumerate(given)]

    def test_are_read_by_openais_own_helper(self, v1: V1) -> None:
        v1.upstream.refuses(200, whole(function("c1", "look", "{}"), function("c2", "go", "{}")))
        client = OpenAI(base_url=f"{v1.hub.url}/v1", api_key=v1.key, max_retries=0)

        with client, client.chat.completions.stream(model=MODEL, messages=HELLO) as stream:  # type: ignore[arg-type]
            message = stream.get_final_completion().choices[0].message

        assert [call.function.name for call in message.tool_calls or ()] == ["look", "go"]


def test_a_call_that_is_cut_is_paid_for(v1: V1) -> None:
    odd = CALL | {"function": FUNCTION | {"arguments": json.loads(FUNCTION["arguments"])}}
    v1.upstream.events(chunk({"tool_calls": [odd]}), end=End.CLOSE)

    *_, last = v1.stream()

    assert last["error"]["code"] == "upstream_truncated"
    assert (v1.row().cost_nano_usd or 0) > cost(PROMPT, 0)
