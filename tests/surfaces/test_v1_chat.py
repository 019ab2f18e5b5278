"""`POST /v1/chat/completions` answered whole: what reaches the upstream, what comes back, what is written."""

import copy
import http.client
import json
from decimal import Decimal
from typing import Any

import pytest

from completions.models import State
from providers.models import LanguageModel, ModelPrice
from tests.fakes import completion
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import CHAT, HELLO, MODEL, PROMPT, V1, cost, told

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}


class TestTheUpstreamIsAsked:
    def test_for_every_field_the_caller_sent_known_or_not(self, v1: V1) -> None:
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "ada"},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", **TOOL}]},
                {"role": "tool", "tool_call_id": "c1", "content": "42"},
            ],
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
            "reasoning_effort": "low",
            "temperature": 0.5,
            "stop": ["\n"],
            "seed": -1,
            "logit_bias": {"50256": -100},
            "metadata": {"a": "b"},
            "user": "ada",
            "a_parameter_of_2031": {"deep": [1, None, {"x": "é\u2028😀"}]},
        }
        v1.post(CHAT, body)

        assert v1.upstream.requests[0].body == body

    def test_with_the_model_it_knows(self, v1: V1) -> None:
        v1.set(v1.model, name="its-own-name")

        assert v1.chat().status_code == 200
        assert v1.upstream.requests[0].body == {"model": "its-own-name", "messages": HELLO}

    def test_once_and_nobody_else_for_what_a_message_points_to(self, v1: V1) -> None:
        image = {"type": "image_url", "image_url": {"url": v1.upstream.url + "/cat.png"}}
        v1.chat(messages=[{"role": "user", "content": [image]}])

        [only] = v1.upstream.requests
        assert (only.method, only.path) == ("POST", CHAT)
        assert only.body["messages"][0]["content"] == [image]

    def test_for_no_stream_where_the_caller_wants_none(self, v1: V1) -> None:
        v1.chat(stream=False, stream_options={"include_usage": True})

        assert "stream" not in v1.upstream.requests[0].body
        assert "stream_options" not in v1.upstream.requests[0].body

    def test_for_plain_bytes(self, v1: V1) -> None:
        v1.chat()

        assert v1.upstream.requests[0].headers["accept-encoding"] == "identity"


class TestTheAnswer:
    def test_is_the_upstreams_but_for_the_models_name(self, v1: V1) -> None:
        said = completion(
            "Hello!",
            model="its-own-name-2026-01-01",
            system_fingerprint="fp_1",
            service_tier="default",
            a_field_of_2031=[1, {"x": None}],
            usage={
                "prompt_tokens": 9,
                "completion_tokens": 3,
                "total_tokens": 12,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 2},
                "cost_in_credits": 7,
            },
        )
        v1.set(v1.model, name="its-own-name")
        v1.upstream.refuses(200, said)

        answer = v1.chat()

        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == said | {"model": MODEL}

    def test_names_the_model_as_the_caller_did(self, v1: V1) -> None:
        assert v1.chat(model=f"upstream/{MODEL}").json()["model"] == f"upstream/{MODEL}"
        assert v1.upstream.requests[0].body["model"] == MODEL
        assert v1.row().requested_model == f"upstream/{MODEL}"

    def test_holds_tool_calls_reasoning_refusals_and_logprobs_as_they_came(self, v1: V1) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "é"}'}}
        message = {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "reasoning_content": "Let me look.",
            "tool_calls": [call],
            "annotations": [],
        }
        logprobs = {"content": [{"token": "x", "logprob": -0.125, "bytes": [120], "top_logprobs": []}]}
        choices = [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "tool_calls"}]
        v1.upstream.answers(choices=copy.deepcopy(choices))

        assert v1.chat(tools=[TOOL]).json()["choices"] == choices
        assert v1.row().finish_reason == "tool_calls"

    def test_holds_every_choice(self, v1: V1) -> None:
        choices = [
            {"index": n, "message": {"role": "assistant", "content": f"answer {n}"}, "finish_reason": "stop"}
            for n in range(2)
        ]
        v1.upstream.answers(choices=choices)

        assert v1.chat(n=2).json()["choices"] == choices

    def test_keeps_numbers_that_few_parsers_can(self, v1: V1) -> None:
        v1.upstream.answers(system_fingerprint=2**70)

        assert v1.chat().json()["system_fingerprint"] == 2**70

    def test_tells_what_the_hub_counted_where_the_upstream_says_nothing_of_usage(self, v1: V1) -> None:
        v1.upstream.answers("one two three", usage=None)

        usage = v1.chat().json()["usage"]

        assert usage == {"prompt_tokens": PROMPT, "completion_tokens": 3, "total_tokens": PROMPT + 3}
        assert v1.row().usage_source == "counted"


class TestItsHeaders:
    def test_say_who_answered_and_what_it_cost(self, v1: V1) -> None:
        headers = v1.chat().headers

        assert headers["x-llmhub-model"] == MODEL
        assert headers["x-llmhub-provider"] == "upstream"
        assert headers["x-llmhub-cache"] == "BYPASS"
        assert headers["x-llmhub-attempts"] == "1"
        assert Decimal(headers["x-llmhub-cost-usd"]) == Decimal(cost(9, 3)) / 10**9

    def test_say_how_often_the_upstream_was_asked(self, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("providers.dispatch.PAUSE_SECONDS", (0.0, 0.01))
        v1.upstream.refuses(503).answers()

        assert v1.chat().headers["x-llmhub-attempts"] == "2"

    def test_say_nothing_of_a_cost_that_is_not_known(self, v1: V1) -> None:
        LanguageModel.objects.create(provider=v1.provider, name="nameless")
        v1.budget.delete()

        assert "x-llmhub-cost-usd" not in v1.chat(model="nameless").headers
        assert v1.row().cost_nano_usd is None

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    def test_say_where_the_keys_limits_stand(self, v1: V1, stream: bool) -> None:
        v1.set(v1.api_key, requests_per_minute=60, tokens_per_minute=6000)

        headers = v1.chat(stream=stream, max_tokens=97).headers

        assert headers["x-ratelimit-limit-requests"] == "60"
        assert headers["x-ratelimit-remaining-requests"] == "59"
        assert headers["x-ratelimit-reset-requests"] == "1s"
        assert headers["x-ratelimit-limit-tokens"] == "6000"
        assert headers["x-ratelimit-remaining-tokens"] == "5900"
        assert headers["x-ratelimit-reset-tokens"] == "1s"

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    def test_say_so_too_when_a_limit_refuses(self, v1: V1, stream: bool) -> None:
        v1.set(v1.api_key, requests_per_minute=1)
        v1.chat()

        answer = v1.chat(stream=stream)

        assert told(answer)["code"] == "rate_limit_exceeded"
        assert answer.headers["x-ratelimit-limit-requests"] == "1"
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert 50 < float(answer.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
        assert 50 < int(answer.headers["retry-after"]) <= 60

    def test_say_nothing_of_limits_that_are_not_set(self, v1: V1) -> None:
        assert not [name for name in v1.chat().headers if name.startswith("x-ratelimit")]

    def test_are_ascii_whatever_a_models_name_is(self, v1: V1) -> None:
        v1.set(v1.model, public_name="模型-é")

        answer = v1.chat(model="模型-é")

        assert answer.json()["model"] == "模型-é"
        assert answer.headers["x-llmhub-model"].isascii()


class TestItsConnection:
    def test_serves_call_after_call_whole_streamed_and_refused(self, v1: V1) -> None:
        bodies: list[dict[str, Any]] = [
            {},
            {"stream": True},
            {"n": 0},
            {"model": "none"},
            {"stream": True},
            {},
        ]
        connection = http.client.HTTPConnection(v1.hub.host, v1.hub.port, timeout=5)
        connection.connect()
        own = connection.sock.getsockname()

        statuses = []
        for body in bodies:
            asked = json.dumps({"model": MODEL, "messages": HELLO} | body)
            connection.request("POST", CHAT, asked, {"Authorization": f"Bearer {v1.key}"})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
            assert connection.sock.getsockname() == own
        connection.close()

        assert statuses == [200, 200, 400, 404, 200, 200]
        assert [row.state for row in v1.rows()] == [State.OK] * 4


class TestItsRow:
    def test_has_who_asked_for_what_and_what_it_used_and_cost(self, v1: V1) -> None:
        v1.chat(user="ada")

        row = v1.row()
        assert (row.state, row.surface, row.stream, row.attempts) == (State.OK, "v1", False, 1)
        assert (row.project, row.api_key, row.end_user) == (v1.project, v1.api_key, "ada")
        assert (row.requested_model, row.model, row.provider_slug) == (MODEL, MODEL, "upstream")
        assert (row.prompt_tokens, row.completion_tokens, row.usage_source) == (9, 3, "provider")
        assert (row.cost_nano_usd, row.finish_reason) == (cost(9, 3), "stop")

    def test_is_final_when_the_answer_is_there(self, v1: V1) -> None:
        for count in range(1, 6):
            v1.chat()
            assert [row.state for row in v1.project.completions.all()] == [State.OK] * count

    def test_prices_each_class_of_tokens_apart(self, v1: V1) -> None:
        ModelPrice.objects.update(cached=Decimal("0.25"), reasoning=Decimal(20))
        v1.upstream.answers(
            usage={
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 60},
                "completion_tokens_details": {"reasoning_tokens": 30},
            }
        )
        v1.set(v1.model)  # prices are read again

        v1.chat()

        row = v1.row()
        assert (row.cached_tokens, row.reasoning_tokens) == (60, 30)
        assert row.cost_nano_usd == 40 * 2_500 + 60 * 250 + 20 * 10_000 + 30 * 20_000

    def test_charges_the_budget_what_it_cost(self, v1: V1) -> None:
        v1.chat(max_tokens=1000)

        assert v1.row().hold_nano > cost(0, 1000)
        assert v1.budget.windows.get().spent_nano == cost(9, 3)
