"""Answers as they are kept: read back whole or not at all, and told piece by piece without losing any."""

import json
import pickle
import uuid
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completions.answering import Result
from completions.cache.entry import (
    PIECE_CHARACTERS,
    Entry,
    chunks_of,
    fits,
    is_complete,
    packed,
    result_of,
    unpacked,
)
from completions.meter import Meter
from completions.prompts import Prompt
from providers.drivers.chunks import texts_of
from providers.types import JSON, Operation, StreamChunk, Usage, UsageSource
from tests.fakes import USAGE, completion

CHAT, COMPLETION, EMBEDDING = Operation.CHAT, Operation.COMPLETION, Operation.EMBEDDING
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
LOGPROBS = {
    "content": [{"token": "Hel", "logprob": -0.5, "bytes": [72], "top_logprobs": []}],
    "refusal": None,
}


def make(body: JSON | None = None, **changes: Any) -> Entry:
    kept = Entry(
        body=completion() if body is None else body,
        usage=Usage(9, 3, cached=2),
        cost_nano=52_500,
        finish_reason="stop",
        call=uuid.UUID(int=7),
        provider="acme",
        public_model="smart",
        project_id=1,
        api_key_id=None,
        stored=1_760_000_000.25,
        fresh_until=1_760_003_600.0,
        stale_until=1_760_007_200.0,
    )
    return kept._replace(**changes)


def answer(*choices: JSON, **more: Any) -> JSON:
    return {"id": "a1", "created": 1_760_000_000, "model": "m", **more, "choices": list(choices)}


def said(content: Any = "Hello!", finish_reason: str | None = "stop", **message: Any) -> JSON:
    """A choice."""
    whole = {"role": "assistant", "content": content, **message}
    return {"index": 0, "message": whole, "finish_reason": finish_reason}


def give(entry: Entry) -> None:
    """As whatever it can be the answer to, whole and streamed."""
    for operation in (CHAT, COMPLETION, EMBEDDING):
        if fits(entry, operation):
            result_of(entry, operation, 0)
            if operation is not EMBEDDING:
                chunks_of(entry.body, operation, entry.usage)


# --- kept and read back

texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts
plain: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
tool_calls = st.lists(
    st.fixed_dictionaries(
        {"id": texts, "type": st.just("function")},
        optional={"function": st.fixed_dictionaries({"name": texts, "arguments": texts})},
    ),
    min_size=1,
    max_size=3,
)
parts = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), max_size=2)
messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | st.text(max_size=600) | parts},
    optional={
        "reasoning_content": st.text(max_size=600),
        "reasoning": texts,
        "refusal": st.none() | texts,
        "tool_calls": tool_calls,
        "annotations": st.lists(st.fixed_dictionaries({"type": texts}), max_size=2),
        "audio": st.none() | st.fixed_dictionaries({"data": texts}),
    },
)
logprobs = st.none() | st.just(LOGPROBS)
ends = st.sampled_from(["stop", "tool_calls"])


@st.composite
def answers(draw: st.DrawFn) -> JSON:
    """Whole chat answers, of one choice or several."""
    told = draw(st.lists(st.tuples(messages, ends, logprobs), min_size=1, max_size=3))
    for message, _, _ in told:
        if "reasoning_content" in message and "reasoning" in message:  # some vendors say it twice
            message["reasoning"] = message["reasoning_content"]
        if message.get("refusal"):
            message["content"] = None
    choices = [
        {"index": index, "message": message, "finish_reason": end, "logprobs": probabilities}
        for index, (message, end, probabilities) in enumerate(told)
    ]
    return answer(*choices, usage=USAGE, system_fingerprint=draw(texts))


counts = st.integers(0, 1 << 40)
usages = st.builds(Usage, *[counts] * 7, source=st.sampled_from(list(UsageSource)), anomaly=st.just(False))
times = st.floats(0, 1e11)
entries = st.builds(
    Entry,
    body=answers() | st.builds(lambda vector: {"data": [{"index": 0, "embedding": vector}]}, texts),
    usage=st.none() | usages,
    cost_nano=st.none() | counts,
    finish_reason=st.none() | texts,
    call=st.uuids(),
    provider=texts,
    public_model=texts,
    project_id=counts,
    api_key_id=st.none() | counts,
    stored=times,
    fresh_until=times,
    stale_until=times,
)


@settings(deadline=None)
@given(entries)
def test_what_is_kept_is_read_back_as_it_was(entry: Entry) -> None:
    assert unpacked(packed(entry)) == entry


def test_an_answer_that_json_cannot_hold_is_a_miss_and_no_error() -> None:
    assert unpacked(packed(make(completion("half a pair: \ud800")))) is None


# --- what is not an entry


@pytest.mark.parametrize(
    "data",
    [
        *(None, 5, 1.5, "", b"", "text", [], {}, object(), pickle.dumps({"body": {}})),
        *(b"\x00\xff", b"\xef\xbb\xbf{}", b"null", b"5", b"[]", b"{}", b'"text"', b"[" * 100_000),
        *(b'{"format": 1}', b'{"format":' + b"9" * 5000 + b"}"),
    ],
)
def test_anything_else_is_a_miss(data: Any) -> None:
    assert unpacked(data) is None


def test_what_was_cut_off_is_a_miss() -> None:
    whole = packed(make())

    assert {unpacked(whole[:length]) for length in range(len(whole))} == {None}


def test_another_format_is_a_miss() -> None:
    facts = orjson.loads(packed(make()))

    assert unpacked(orjson.dumps(facts)) == make()
    for other in (0, 2, "1", None, [1]):
        assert unpacked(orjson.dumps({**facts, "format": other})) is None


@pytest.mark.parametrize("name", [*Entry._fields, "format"])
def test_a_field_too_few_or_too_many_is_a_miss(name: str) -> None:
    facts = orjson.loads(packed(make()))
    del facts[name]

    assert unpacked(orjson.dumps(facts)) is None
    assert unpacked(packed(make())[:-1] + b',"more":1}') is None


@settings(deadline=None)
@given(st.integers(0, len(packed(make())) - 1), st.integers(0, 255))
def test_a_byte_that_changed_is_a_miss_or_another_answer_and_no_error(place: int, byte: int) -> None:
    whole = bytearray(packed(make()))
    whole[place] = byte
    if (entry := unpacked(bytes(whole))) is not None:
        give(entry)


@st.composite
def tampered(draw: st.DrawFn) -> bytes:
    """An entry with something else in one place, or in two."""
    facts = orjson.loads(packed(draw(entries)))
    for _ in range(draw(st.integers(1, 2))):
        place: Any = facts
        while True:
            name = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
            inside = place[name]
            if not isinstance(inside, dict | list) or not inside or draw(st.integers(0, 3)) == 0:
                place[name] = draw(plain)
                break
            place = inside
    return orjson.dumps(facts)


@settings(deadline=None, max_examples=300)
@given(tampered())
def test_whatever_lies_in_its_place_is_given_or_a_miss_and_never_an_error(data: bytes) -> None:
    if (entry := unpacked(data)) is not None:
        give(entry)
        assert entry.age_seconds >= 0


def test_an_answer_of_another_kind_does_not_fit() -> None:
    vectors = make({"data": [{"index": 0, "embedding": [0.5]}]})

    assert fits(make(), CHAT)
    assert not fits(make(), EMBEDDING)
    assert fits(vectors, EMBEDDING)
    assert not fits(vectors, CHAT)


# --- what is good enough to be kept


def result(body: JSON, *, anomaly: bool = False) -> Result:
    return Result(body, {}, "", Usage(9, 3, anomaly=anomaly), 1, "stop", 5)


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "function_call"])
def test_an_answer_that_came_to_its_end_is_complete(reason: str) -> None:
    assert is_complete(result(answer(said(finish_reason=reason))))
    assert is_complete(result(answer(said(), said(finish_reason=reason))))
    assert is_complete(result(answer({"text": "Hi", "finish_reason": reason})))


@pytest.mark.parametrize("reason", ["length", "content_filter", None, "", "error", 1, ["stop"]])
def test_no_other_is(reason: Any) -> None:
    assert not is_complete(result(answer(said(finish_reason=reason))))
    assert not is_complete(result(answer(said(), said(finish_reason=reason))))


@pytest.mark.parametrize(
    "choices",
    [
        *(
            None,
            [],
            {"0": said()},
            [said(), None],
            [{"finish_reason": "stop"}],
            [{**said(), "message": "Hi"}],
        ),
        *([said(tool_calls=[1])], [said(tool_calls={"0": CALL})], [said(tool_calls="call")]),
    ],
)
def test_nor_is_what_could_not_be_told_again(choices: Any) -> None:
    assert not is_complete(result({"choices": choices}))
    assert not is_complete(result({"error": {"message": "no"}}))


def test_nor_is_one_whose_usage_makes_no_sense() -> None:
    assert not is_complete(result(answer(said()), anomaly=True))


# --- told piece by piece


def joined(chunks: list[StreamChunk]) -> list[JSON]:
    """Choices, as a client puts them together."""
    choices: dict[int, JSON] = {}
    for chunk in chunks:
        for choice in chunk.body["choices"]:
            whole = choices.setdefault(
                choice["index"], {"message": {}, "logprobs": None, "finish_reason": None}
            )
            assert whole["finish_reason"] is None, "more came after the end"
            whole["finish_reason"] = choice["finish_reason"]
            whole["logprobs"] = choice.get("logprobs") or whole["logprobs"]
            _join(whole["message"], choice["delta"])
    return [choices[index] for index in sorted(choices)]


def _join(message: JSON, delta: JSON) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            calls = message.setdefault(name, [])
            for piece in value:
                assert piece["index"] == len(calls)
                calls.append({key: one for key, one in piece.items() if key != "index"})
        elif isinstance(value, str) and isinstance(message.get(name), str):
            message[name] += value
        else:
            assert name not in message
            message[name] = value


@settings(deadline=None)
@given(answers())
def test_the_pieces_joined_are_the_whole_answer(body: JSON) -> None:
    pieces = joined(chunks_of(body, CHAT, Usage(9, 3)))

    assert [piece["message"] for piece in pieces] == [choice["message"] for choice in body["choices"]]
    assert [piece["finish_reason"] for piece in pieces] == [one["finish_reason"] for one in body["choices"]]
    assert [piece["logprobs"] for piece in pieces] == [choice["logprobs"] for choice in body["choices"]]


@settings(deadline=None)
@given(answers())
def test_the_hub_itself_reads_the_pieces_as_the_answer(body: JSON) -> None:
    meter, message = Meter(Prompt(CHAT, {})), body["choices"][0]["message"]
    for chunk in chunks_of(body, CHAT, Usage(9, 3)):
        meter.chunk(chunk)

    assert (meter.text, "".join(meter.reasoning)) == texts_of(message)
    assert meter.finish_reason == body["choices"][0]["finish_reason"]
    assert meter.reported == Usage(9, 3)
    assert list(meter.tool_calls) == list(range(len(message.get("tool_calls", ()))))


def test_they_are_what_a_client_expects() -> None:
    text = "x" * (2 * PIECE_CHARACTERS + 1)
    first, *middle, last, usage = chunks_of(
        answer(said(text), object="chat.completion", usage=USAGE), CHAT, Usage()
    )

    assert first.body["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [len(chunk.content) for chunk in middle] == [PIECE_CHARACTERS, PIECE_CHARACTERS, 1]
    assert last.body["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert usage.body["choices"] == []
    assert usage.body["usage"] == USAGE
    for chunk in (first, *middle, last, usage):
        assert chunk.body["object"] == "chat.completion.chunk"
        assert (chunk.body["id"], chunk.body["model"], chunk.body["created"]) == ("a1", "m", 1_760_000_000)
        assert ("usage" in chunk.body) is (chunk is usage)


def test_every_choice_begins_with_its_role_and_ends_with_its_reason() -> None:
    chunks = chunks_of(
        answer(said("a"), {**said("b", "tool_calls", tool_calls=[CALL]), "index": 1}), CHAT, None
    )

    for index, reason in enumerate(("stop", "tool_calls")):
        mine = [chunk.body["choices"][0] for chunk in chunks if chunk.body["choices"][0]["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant"
        assert [choice["finish_reason"] for choice in mine] == [None] * (len(mine) - 1) + [reason]


def test_only_the_first_choice_is_metered() -> None:
    chunks = chunks_of(answer(said("a"), {**said("b"), "index": 1}), CHAT, None)

    assert "".join(chunk.content for chunk in chunks) == "a"


def test_probabilities_come_with_the_text_they_are_of() -> None:
    text = "x" * 1000
    chunks = chunks_of(answer({**said(text), "logprobs": LOGPROBS}), CHAT, None)

    [told] = [chunk for chunk in chunks if chunk.body["choices"][0].get("logprobs")]
    assert told.content == text


def test_the_older_wire_has_texts() -> None:
    choices = [
        {"index": 0, "text": "a" * 300, "logprobs": None, "finish_reason": "stop"},
        {"index": 1, "text": "", "logprobs": None, "finish_reason": "stop"},
        {"index": 2, "text": "c" * 300, "logprobs": {"tokens": ["c"]}, "finish_reason": "stop"},
    ]
    *chunks, usage = chunks_of(answer(*choices, usage=USAGE), COMPLETION, Usage(9, 3))

    told = [chunk.body["choices"][0] for chunk in chunks]
    for choice in choices:
        mine = [one for one in told if one["index"] == choice["index"]]
        assert "".join(one["text"] for one in mine) == choice["text"]
        assert [one["finish_reason"] for one in mine if one["finish_reason"]] == ["stop"]
        assert [one["logprobs"] for one in mine if one.get("logprobs")] == [
            each for each in (choice["logprobs"],) if each
        ]
    assert {chunk.body["object"] for chunk in (*chunks, usage)} == {"text_completion"}
    assert usage.usage == Usage(9, 3)


def test_a_whole_answer_costs_nothing_and_is_the_same() -> None:
    entry = make(answer(said("Hi", tool_calls=[CALL])))
    given_again = result_of(entry, CHAT, 5)

    assert json.loads(json.dumps(given_again.body)) == entry.body
    assert (given_again.text, given_again.message["tool_calls"]) == ("Hi", [CALL])
    assert (given_again.cost_nano, given_again.usage, given_again.latency_ms) == (0, entry.usage, 5)
