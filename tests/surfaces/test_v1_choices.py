"""Choices that fail alone, or never begin: no call of which one is missing looks like a success."""

from typing import Any

import pytest

from completions.models import State
from tests.fakes import USAGE, End, chunk, completion
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import COMPLETIONS, DONE, HELLO, MODEL, PROMPT, V1, checked, cost, frames_of, told

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

SAID = chunk({"role": "assistant", "content": "one two"})
TOKENS = 2
BUSY = {"code": 502, "message": "Upstream provider boom"}
# As OpenRouter sends it: https://openrouter.ai/docs/api-reference/errors
FAILED: dict[str, tuple[dict[str, Any], str]] = {
    "with a status": ({"error": BUSY, "finish_reason": "error"}, "server_is_overloaded"),
    "with words": ({"error": {"message": "boom"}, "finish_reason": "error"}, "upstream_invalid"),
    "with a text": ({"error": "boom", "finish_reason": None}, "upstream_invalid"),
    "with its end alone": ({"finish_reason": "error"}, "upstream_invalid"),
}


@pytest.mark.parametrize(("fields", "code"), FAILED.values(), ids=FAILED)
class TestAChoiceThatFailed:
    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "JSON to a stream"])
    def test_is_an_error_where_the_answer_is_whole(
        self, v1: V1, fields: dict[str, Any], code: str, stream: bool
    ) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": ""}, **fields}
        v1.upstream.answers(choices=[choice])

        answer = v1.chat(stream=stream)

        assert answer.status_code in (502, 503)
        assert told(answer)["code"] == code
        assert v1.row().state in (State.UPSTREAM_INVALID, State.UPSTREAM_ERROR)

    @pytest.mark.parametrize("content", ["", " three"])
    def test_ends_a_stream_and_what_came_is_paid_for(
        self, v1: V1, fields: dict[str, Any], code: str, content: str
    ) -> None:
        failed = {"choices": [{"index": 0, "delta": {"content": content}, **fields}]}
        v1.upstream.events(SAID, failed, DONE)

        *chunks, last = v1.stream()

        assert checked(last["error"])["code"] == code
        assert DONE not in chunks
        assert v1.row().cost_nano_usd == cost(PROMPT, TOKENS)

    def test_is_an_http_error_before_anything_came(self, v1: V1, fields: dict[str, Any], code: str) -> None:
        v1.upstream.events({"choices": [{"index": 0, "delta": {}, **fields}]}, DONE)

        assert told(v1.chat(stream=True))["code"] == code


def test_another_choice_may_fail_as_well(v1: V1) -> None:
    v1.upstream.events(SAID, {"choices": [{"index": 1, "delta": {}, "error": BUSY}]}, DONE)

    assert "error" in v1.stream(n=2)[-1]


def ends(*indexes: int) -> list[Any]:
    return [{"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]} for index in indexes]


class TestWithoutDone:
    @pytest.mark.parametrize("config", [{}, {"n": 3}], ids=["asked", "asked for less than by default"])
    @pytest.mark.parametrize("end", [None, End.CLOSE, End.RESET])
    def test_a_choice_that_never_began_is_missed(self, v1: V1, end: Any, config: dict[str, Any]) -> None:
        v1.set(v1.model, default_config=config)
        v1.upstream.events(SAID, *ends(0), end=end)

        *_, last = v1.stream(n=2)

        assert checked(last["error"])["code"] == "upstream_truncated"
        row = v1.row()
        assert (row.state, row.cost_nano_usd) == (State.UPSTREAM_TRUNCATED, cost(PROMPT, TOKENS))

    @pytest.mark.parametrize("n", [1, 2])
    def test_it_is_enough_that_each_has_its_end(self, v1: V1, n: int) -> None:
        v1.upstream.events(SAID, *ends(*range(n)), chunk(None, usage=USAGE), end=End.CLOSE)

        assert v1.stream(n=n)[-1] == DONE
        assert v1.row().state == State.OK

    def test_done_ends_them_all(self, v1: V1) -> None:
        v1.upstream.events(SAID, *ends(0), DONE)

        assert v1.stream(n=2)[-1] == DONE

    @pytest.mark.parametrize(
        ("prompt", "count"), [("a", 2), ([1, 2, 3], 2), (["a", "b"], 4), ([[1, 2], [3]], 4)]
    )
    def test_the_older_wire_answers_each_prompt(self, v1: V1, prompt: Any, count: int) -> None:
        texts = [{"choices": [{"index": n, "text": "a", "finish_reason": "stop"}]} for n in range(count)]
        v1.upstream.events(*texts, end=End.CLOSE).events(*texts[:-1], end=End.CLOSE)
        body = {"model": MODEL, "prompt": prompt, "n": 2, "stream": True}

        whole, cut = (frames_of(v1.post(COMPLETIONS, body)) for _ in range(2))

        assert whole[-1] == DONE
        assert cut[-1]["error"]["code"] == "upstream_truncated"


def test_a_whole_answer_of_good_choices_is_none_of_these(v1: V1) -> None:
    choice = completion("one")["choices"][0]
    v1.upstream.answers(choices=[choice | {"error": None}, choice | {"index": 1}])

    assert v1.chat(messages=HELLO, n=2).status_code == 200
