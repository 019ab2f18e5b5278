"""Bodies of `/v1` at their edges: the older wire's, and those nested too deeply."""

import json
import timeit
from typing import Any

import orjson
import pytest

from completions.types import Caller
from completions.v1.bodies import call_of
from providers.types import Operation
from tests.surfaces import v1 as shared
from tests.surfaces.test_v1_others import text_completion
from tests.surfaces.test_v1_requests import BODIES
from tests.surfaces.v1 import COMPLETIONS, MODEL, V1, told

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1


class TestTheOlderWire:
    def test_no_output_may_be_asked_for_as_evaluations_do(self, v1: V1) -> None:
        asked = {"model": MODEL, "prompt": "Hello", "max_tokens": 0, "echo": True, "logprobs": 5}
        v1.upstream.refuses(200, text_completion("Hello", usage={"prompt_tokens": 1, "completion_tokens": 0}))
        assert v1.post(COMPLETIONS, asked).status_code == 200
        sent = v1.upstream.requests[0].body
        assert (sent["max_tokens"], sent["echo"], sent["logprobs"]) == (0, True, 5)
        assert v1.row().hold_nano < 10_000 * 10  # of output nothing is held

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    def test_a_prompt_may_be_missing(self, v1: V1, stream: bool) -> None:
        v1.set(v1.project, content_days=1)
        v1.upstream.refuses(200, text_completion("Once"))
        assert v1.post(COMPLETIONS, {"model": MODEL, "stream": stream, "temperature": 0}).status_code == 200
        assert "prompt" not in v1.upstream.requests[0].body
        assert v1.row().state == "ok"


def nested(levels: int, *, objects: bool = False) -> Any:
    """Lists, or objects, in one another."""
    value: Any = 1
    for _ in range(levels):
        value = {"a": value} if objects else [value]
    return value


class TestNesting:
    @pytest.mark.parametrize("path", BODIES)
    @pytest.mark.parametrize("levels", [100, 900, 1000, 1020])
    @pytest.mark.parametrize("objects", [False, True], ids=["lists", "objects"])
    def test_a_body_that_is_nested_too_deeply_is_a_400_that_names_the_field(
        self, v1: V1, path: str, levels: int, objects: bool
    ) -> None:
        odd = [name for name in ("x", "prompt", "input") if name not in BODIES[path]]
        for field in odd:
            deep = json.dumps(BODIES[path] | {"temperature": 0, field: "DEEP"})
            opening, closing = ('{"a":', "}") if objects else ("[", "]")
            answer = v1.post(path, deep.replace('"DEEP"', f"{opening * levels}1{closing * levels}").encode())

            assert answer.status_code == 400, field
            error = told(answer)
            assert error["param"] == field or levels > 1000, error
            assert "nested" in error["message"] or "JSON" in error["message"]
        assert v1.upstream.requests == []

    def test_in_the_messages_it_is_as_well(self, v1: V1) -> None:
        answer = v1.chat(messages=[{"role": "user", "content": [nested(200)]}])
        assert told(answer)["param"] == "messages"

    @pytest.mark.parametrize("objects", [False, True], ids=["lists", "objects"])
    def test_up_to_100_levels_it_is_taken(self, v1: V1, objects: bool) -> None:
        assert v1.chat(x=nested(99, objects=objects), temperature=0).status_code == 200

    def test_brackets_beside_one_another_or_in_texts_are_no_nesting(self, v1: V1) -> None:
        assert v1.chat(x=[[1]] * 500, messages=[{"role": "user", "content": "[" * 5000}]).status_code == 200

    def test_looking_costs_a_long_prompt_nothing(self) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "a [word] " * 100}] * 110}
        raw = json.dumps(body).encode()
        assert len(raw) > 100_000
        caller = Caller(1, "p")
        took = min(timeit.repeat(lambda: call_of(caller, Operation.CHAT, raw), number=20, repeat=5))
        parsing = min(timeit.repeat(lambda: orjson.loads(raw), number=20, repeat=5))
        assert took < parsing + 20 * 0.001
