"""`POST /v1/chat/completions` with `stream: true`: the frames that come, and when."""

import threading
import time
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction

from completions.models import Completion, State
from completions.v1 import answers
from providers.models import LanguageModel
from tests.fakes import USAGE, End, chunk, completion
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import DONE, MODEL, PIECES, PROMPT, V1, Caller, cost, frames_of, text_of

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

ASKED = {"include_usage": True}
FINISH = chunk({}, "stop")


def pieces(count: int = len(PIECES)) -> list[dict[str, Any]]:
    return [chunk({"content": piece}) for piece in PIECES[:count]]


class TestFrames:
    def test_are_chunks_and_then_done(self, v1: V1) -> None:
        v1.upstream.streams(PIECES)

        *chunks, done = v1.stream()

        assert done == DONE
        assert text_of(chunks) == "one two three four five six"
        assert {one["object"] for one in chunks} == {"chat.completion.chunk"}
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"

    def test_have_headers_that_keep_proxies_from_holding_them_back(self, v1: V1) -> None:
        headers = v1.chat(stream=True).headers

        assert headers["content-type"] == "text/event-stream"
        assert headers["cache-control"] == "no-cache"
        assert headers["x-accel-buffering"] == "no"
        assert (headers["x-llmhub-model"], headers["x-llmhub-provider"]) == (MODEL, "upstream")
        assert (headers["x-llmhub-cache"], headers["x-llmhub-attempts"]) == ("BYPASS", "1")
        assert headers["x-request-id"] == headers["request-id"]

    def test_come_when_the_upstream_sends_them(self, v1: V1) -> None:
        v1.upstream.events(*pieces(2), end=End.HOLD)
        caller = Caller(v1)

        assert text_of(caller.frames(2)) == "one two"

    @pytest.mark.parametrize(
        "first", [{"id": "", "created": 0, "model": ""}, {"id": "a", "created": 5, "model": "x"}]
    )
    def test_have_one_id_time_and_model_whatever_the_upstream_says(
        self, v1: V1, first: dict[str, Any]
    ) -> None:
        rest = [one | {"id": f"c{n}", "created": 100 + n, "model": f"m{n}"} for n, one in enumerate(pieces())]
        v1.upstream.events(
            chunk({"role": "assistant"}) | first, *rest, FINISH, chunk(None, usage=USAGE), DONE
        )

        *chunks, _ = v1.stream(model=f"upstream/{MODEL}", stream_options=ASKED)

        [(name, created, model)] = {(one["id"], one["created"], one["model"]) for one in chunks}
        assert model == f"upstream/{MODEL}"
        assert name == (first["id"] or "c0")
        assert created == (first["created"] or 100)

    def test_get_an_id_and_a_time_where_the_upstream_gives_none(self, v1: V1) -> None:
        bare = [{"choices": one["choices"]} for one in (*pieces(), FINISH)]
        v1.upstream.events(*bare, DONE)

        *chunks, _ = v1.stream()

        [(name, created)] = {(one["id"], one["created"]) for one in chunks}
        assert name.startswith("chatcmpl-")
        assert abs(created - time.time()) < 60

    def test_hold_tool_calls_piece_by_piece(self, v1: V1) -> None:
        parts: list[Any] = [
            {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}},
            {"index": 0, "function": {"arguments": '{"at":'}},
            {"index": 0, "function": {"arguments": ' "é"}'}},
            {"index": 1, "id": "c2", "type": "function", "function": {"name": "go", "arguments": "{}"}},
        ]
        v1.upstream.events(*[chunk({"tool_calls": [part]}) for part in parts], chunk({}, "tool_calls"), DONE)

        *chunks, _ = v1.stream()

        deltas = [one["choices"][0]["delta"] for one in chunks]
        assert [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta] == parts
        row = v1.row()
        assert (row.state, row.finish_reason) == (State.OK, "tool_calls")
        assert row.completion_tokens
        assert row.usage_source == "estimated"

    def test_hold_every_choice_in_the_order_it_came(self, v1: V1) -> None:
        sent: list[Any] = [
            {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]}
            for index, text in [(0, "a"), (1, "b"), (1, "c"), (0, "d")]
        ]
        ends: list[Any] = [
            {"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]} for index in (1, 0)
        ]
        v1.upstream.events(*sent, *ends, DONE)

        *chunks, done = v1.stream(n=2)

        assert [one["choices"] for one in chunks] == [one["choices"] for one in [*sent, *ends]]
        assert done == DONE

    def test_hold_logprobs_reasoning_refusals_and_fields_nobody_knows(self, v1: V1) -> None:
        logprobs = {"content": [{"token": "x", "logprob": -0.25, "bytes": [120], "top_logprobs": []}]}
        deltas: list[Any] = [
            {"reasoning_content": "Hm."},
            {"reasoning": "Hm?", "reasoning_details": [{"type": "text"}]},
            {"refusal": "No."},
            {"content": "x", "audio": {"id": "a1"}, "a_field_of_2031": [None]},
        ]
        sent = [chunk(delta) for delta in deltas]
        sent[-1]["choices"][0]["logprobs"] = logprobs
        sent[-1]["system_fingerprint"] = "fp_1"
        v1.upstream.events(*sent, FINISH, DONE)

        *chunks, _ = v1.stream()

        assert [one["choices"] for one in chunks[:4]] == [one["choices"] for one in sent]
        assert chunks[3]["system_fingerprint"] == "fp_1"

    def test_are_made_of_an_answer_that_came_whole(self, v1: V1) -> None:
        v1.upstream.refuses(200, completion("one two three"))

        *chunks, usage, done = v1.stream(stream_options=ASKED)

        assert done == DONE
        assert text_of(chunks) == "one two three"
        assert {one["object"] for one in chunks} == {"chat.completion.chunk"}
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        assert usage["usage"]["total_tokens"] == USAGE["total_tokens"]
        assert v1.row().state == State.OK

    def test_are_interspersed_with_comments_while_the_upstream_is_silent(
        self, v1: V1, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(answers, "KEEPALIVE_SECONDS", 0.05)
        v1.upstream.streams(PIECES[:2], delay=0.2)

        answer = v1.chat(stream=True)

        comments = answer.content.count(b": keepalive\n\n")
        assert 4 <= comments <= 20
        assert text_of(frames_of(answer)) == "one two"

    def test_are_not_interspersed_while_it_speaks(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(answers, "KEEPALIVE_SECONDS", 0.5)
        v1.upstream.streams(PIECES * 5, delay=0.02)

        assert b"keepalive" not in v1.chat(stream=True).content


class TestUsage:
    def test_is_asked_of_the_upstream_always_and_beside_what_the_caller_asks(self, v1: V1) -> None:
        v1.stream()
        v1.stream(stream_options={"include_usage": False, "include_obfuscation": False})

        first, second = (request.body for request in v1.upstream.requests)
        assert (first["stream"], first["stream_options"]) == (True, ASKED)
        assert second["stream_options"] == ASKED | {"include_obfuscation": False}

    @pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}])
    def test_is_taken_out_where_the_caller_did_not_ask(self, v1: V1, options: dict[str, Any]) -> None:
        marked = [one | {"usage": None} for one in (*pieces(), FINISH)]
        v1.upstream.events(*marked, chunk(None, usage=USAGE), DONE)

        *chunks, done = v1.stream(**options)

        assert done == DONE
        assert all("usage" not in one and one["choices"] for one in chunks)
        assert (v1.row().prompt_tokens, v1.row().usage_source) == (9, "provider")

    def test_is_null_on_every_chunk_and_then_one_of_its_own(self, v1: V1) -> None:
        details = USAGE | {"prompt_tokens_details": {"cached_tokens": 4}, "of_2031": 1}
        v1.upstream.events(*pieces(), FINISH, chunk(None, usage=details), DONE)

        *chunks, usage, done = v1.stream(stream_options=ASKED)

        assert done == DONE
        assert len(chunks) == len(PIECES) + 1
        assert all("usage" in one and one["usage"] is None and one["choices"] for one in chunks)
        assert usage["choices"] == []
        told = dict(usage["usage"])
        assert Decimal(told.pop("cost_usd")) == Decimal(v1.row().cost_nano_usd or 0) / 10**9
        assert told == details
        assert {name: usage[name] for name in ("id", "object", "created", "model")} == {
            name: chunks[0][name] for name in ("id", "object", "created", "model")
        }

    def test_on_the_last_chunk_of_content_is_moved_to_one_of_its_own(self, v1: V1) -> None:
        v1.upstream.events(*pieces(), chunk({}, "stop", usage=USAGE), DONE)

        *chunks, usage, _ = v1.stream(stream_options=ASKED)

        assert all(one["usage"] is None for one in chunks)
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        assert usage["usage"]["total_tokens"] == 12
        assert v1.row().usage_source == "provider"

    def test_on_the_last_chunk_of_content_is_taken_out_where_the_caller_did_not_ask(self, v1: V1) -> None:
        v1.upstream.events(*pieces(), chunk({}, "stop", usage=USAGE), DONE)

        *chunks, _ = v1.stream()

        assert all("usage" not in one for one in chunks)
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"

    def test_is_told_once_and_as_the_last_word_where_it_came_twice(self, v1: V1) -> None:
        first = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        v1.upstream.events(*pieces(), FINISH, chunk(None, usage=first), chunk(None, usage=USAGE), DONE)

        *_, before, usage, _ = v1.stream(stream_options=ASKED)

        assert before["choices"]
        assert usage["usage"]["completion_tokens"] == 3
        assert v1.row().completion_tokens == 3

    def test_is_counted_where_the_upstream_says_nothing(self, v1: V1) -> None:
        v1.upstream.streams(PIECES, usage=None)

        *_, usage, _ = v1.stream(stream_options=ASKED)

        assert usage["usage"]["prompt_tokens"] == PROMPT
        assert usage["usage"]["completion_tokens"] == 6
        row = v1.row()
        assert (row.usage_source, row.cost_nano_usd) == ("counted", cost(PROMPT, 6))
        assert Decimal(usage["usage"]["cost_usd"]) == Decimal(cost(PROMPT, 6)) / 10**9

    def test_has_no_cost_where_none_is_known(self, v1: V1) -> None:
        LanguageModel.objects.create(provider=v1.provider, name="nameless")
        v1.budget.delete()

        *_, usage, _ = v1.stream(model="nameless", stream_options=ASKED)

        assert "cost_usd" not in usage["usage"]


class TestDone:
    def test_comes_when_the_row_is_final(self, v1: V1) -> None:
        for count in range(1, 9):
            caller = Caller(v1)
            while caller.frame() != DONE:
                pass
            states = list(
                Completion.objects.values_list("state", flat=True)
            )  # at once: nothing is waited for
            assert states == [State.OK] * count

    @pytest.mark.sqlite
    def test_waits_while_the_row_cannot_be_written(self, v1: V1) -> None:
        v1.upstream.events(*pieces(), FINISH, DONE, delay=0.02)
        caller = Caller(v1)
        frames = [caller.frame()]

        with transaction.atomic():  # on SQLite nobody else writes meanwhile
            reading = threading.Thread(target=lambda: frames.extend(iter(caller.frame, None)))
            reading.start()
            reading.join(0.5)
            assert len(frames) == len(PIECES) + 1
            assert DONE not in frames
        reading.join(5)

        assert frames[-1] == DONE
        assert v1.row().state == State.OK
