"""Whatever an upstream calls a tool call or an answer: it is read, counted or refused, and never breaks."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completions.meter import Meter
from completions.prompts import Prompt
from providers.drivers.chunks import answer_of, begins, chunk_of, chunk_of_answer, open_choices
from providers.drivers.tool_calls import ToolCalls, call_text
from providers.errors import UpstreamError
from providers.types import JSON, Operation, StreamChunk
from tests.providers.drivers.calls import target

ENDPOINT = target("http://127.0.0.1/v1").endpoint
CHAT = Operation.CHAT

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[JSON]:
    """Objects with any of these fields, each of its own shape or of any other."""
    return st.fixed_dictionaries({}, optional={name: shape | anything for name, shape in fields.items()})


word = st.sampled_from(("", "a", "b"))
called = objects(name=word, arguments=word, input=word, extra=word)
calls = st.lists(
    objects(id=word, index=st.integers(-1, 2), type=word, function=called, custom=called, other=word)
    | anything,
    max_size=4,
)
message = objects(content=word, tool_calls=calls, function_call=called, audio=objects(transcript=word))
choice = objects(index=st.integers(0, 2), finish_reason=word, delta=message, message=message, error=word)
body = objects(choices=st.lists(choice | anything, max_size=3), usage=objects(prompt_tokens=word), type=word)


def sent(value: JSON) -> bytes:
    return json.dumps(value).encode()


def gathered(*pieces: JSON) -> list[JSON]:
    calls = ToolCalls()
    for piece in pieces:
        calls.add(piece)
    return calls.in_order()


@settings(deadline=None, max_examples=300)
@given(st.lists(body, max_size=3))
def test_no_stream_breaks_its_reader(bodies: list[JSON]) -> None:
    meter, known = Meter(Prompt(CHAT, {})), dict[Any, bool]()
    for event in bodies:
        try:
            chunk = chunk_of(ENDPOINT, sent(event))
        except UpstreamError:
            continue
        if chunk is not None:
            open_choices(chunk, known)
            begins(chunk)
            meter.chunk(chunk)
    assert meter.usage("gpt-4o").completion >= 0
    json.dumps(meter.body())


@settings(deadline=None, max_examples=300)
@given(body)
def test_no_whole_answer_breaks_its_reader(answer: JSON) -> None:
    for operation in Operation:
        meter, streamed = Meter(Prompt(CHAT, {})), Meter(Prompt(CHAT, {}))
        try:
            meter.answer(answer_of(ENDPOINT, sent(answer), operation))
            streamed.chunk(chunk_of_answer(ENDPOINT, sent(answer), operation))
        except UpstreamError:
            continue
        assert meter.usage("gpt-4o").completion >= 0
        assert streamed.usage("gpt-4o").completion >= 0
        json.dumps([meter.body(), streamed.body()])


@settings(deadline=None)
@given(calls)
def test_whatever_a_call_says_is_still_there_when_it_is_gathered(pieces: list[Any]) -> None:
    given = [piece for piece in pieces if isinstance(piece, dict)]
    said = [one["function"]["arguments"] for one in given if _is_plain(one)]
    told = "".join(map(call_text, gathered(*given)))
    assert all(one in told for one in said)


def _is_plain(call: JSON) -> bool:
    function = call.get("function")
    return isinstance(function, dict) and isinstance(function.get("arguments"), str)


def test_a_piece_without_an_index_continues_the_last_call() -> None:
    begun = {"index": 3, "id": "a", "function": {"name": "f", "arguments": "{"}}
    [call] = gathered(begun, {"function": {"arguments": "}"}})
    assert call == {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("index", [True, 0.5, None, [0], {"a": 0}, "x"])
def test_an_index_that_is_none_is_no_index(index: Any) -> None:
    pieces = [{"index": index, "id": own, "function": {"name": own, "arguments": own}} for own in "abab"]
    assert [call["function"]["arguments"] for call in gathered(*pieces)] == ["aa", "bb"]


def test_arguments_that_are_nested_too_deeply_to_be_written_do_not_break_it() -> None:
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    [call] = gathered({"function": {"name": "f", "arguments": deep}})
    assert call_text(call) == "f{}"


def test_the_meter_takes_every_call_of_a_chunk() -> None:
    meter = Meter(Prompt(CHAT, {}))
    first: JSON = {"index": None, "id": "a", "function": {"arguments": {}}}
    meter.chunk(StreamChunk({}, tool_calls=(first, {"index": 1, "id": "b"})))
    assert [call["id"] for call in meter.message()["tool_calls"]] == ["a", "b"]
    assert meter.received == 2
