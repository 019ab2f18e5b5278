"""The other routes of `/v1`: the older completions, embeddings, and models."""

from decimal import Decimal
from typing import Any

import pytest

from completions.models import State
from providers.models import LanguageModel
from tests.factories import make_provider
from tests.fakes import CREATED, USAGE
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import COMPLETIONS, DONE, EMBEDDINGS, MODEL, V1, cost, frames_of, text_of, told

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

TEXT = "one two three"


def text_completion(*texts: str, **changes: Any) -> dict[str, Any]:
    choices = [
        {"index": index, "text": text, "logprobs": None, "finish_reason": "length"}
        for index, text in enumerate(texts)
    ]
    body = {"id": "cmpl-fake", "object": "text_completion", "created": CREATED, "model": "its-own"}
    return body | {"choices": choices, "usage": USAGE} | changes


def text_chunk(text: str, finish_reason: str | None = None, **changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
    return {"id": "cmpl-fake", "object": "text_completion", "created": CREATED, "choices": [choice]} | changes


PROMPTS = {
    "text": ("Hello", 1),
    "texts": (["one two", "three"], 3),
    "tokens": ([1, 2, 3, 4], 4),
    "lists of tokens": ([[1, 2], [3, 4, 5]], 5),
}


class TestCompletions:
    @pytest.mark.parametrize("prompt", [given for given, _ in PROMPTS.values()], ids=PROMPTS)
    def test_are_answered_by_the_upstreams_body(self, v1: V1, prompt: Any) -> None:
        said = text_completion(TEXT)
        v1.upstream.refuses(200, said)
        asked = {"model": MODEL, "prompt": prompt, "max_tokens": 5, "echo": True, "suffix": "."}

        answer = v1.post(COMPLETIONS, asked)

        assert answer.json() == said | {"model": MODEL}
        [request] = v1.upstream.requests
        assert (request.path, request.body) == (COMPLETIONS, asked)
        assert answer.headers["x-llmhub-provider"] == "upstream"
        assert Decimal(answer.headers["x-llmhub-cost-usd"]) == Decimal(cost(9, 3)) / 10**9
        row = v1.row()
        assert (row.state, row.surface, row.cost_nano_usd) == (State.OK, "v1", cost(9, 3))
        assert row.finish_reason == "length"

    @pytest.mark.parametrize(("prompt", "tokens"), PROMPTS.values(), ids=PROMPTS)
    def test_are_counted_where_the_upstream_says_nothing(self, v1: V1, prompt: Any, tokens: int) -> None:
        v1.upstream.refuses(200, text_completion(TEXT, usage=None))

        v1.post(COMPLETIONS, {"model": MODEL, "prompt": prompt})

        row = v1.row()
        assert (row.prompt_tokens, row.completion_tokens) == (tokens, 3)
        assert (row.usage_source, row.cost_nano_usd) == ("counted", cost(tokens, 3))

    def test_to_several_prompts_are_counted_together(self, v1: V1) -> None:
        v1.upstream.refuses(200, text_completion("one two", "three four five", usage=None))

        v1.post(COMPLETIONS, {"model": MODEL, "prompt": ["a", "b"]})

        assert v1.row().completion_tokens == 5

    def test_come_as_a_stream(self, v1: V1) -> None:
        parts = [text_chunk(piece) for piece in ("one", " two", " three")]
        end = text_chunk("", "stop")
        v1.upstream.events(*parts, end, text_chunk("", choices=[], usage=USAGE), DONE)
        asked = {"model": MODEL, "prompt": "Hello", "stream": True}

        *chunks, done = frames_of(v1.post(COMPLETIONS, asked))

        assert (done, text_of(chunks)) == (DONE, TEXT)
        assert chunks == [one | {"model": MODEL} for one in (*parts, end)]
        assert v1.upstream.requests[0].body["stream_options"] == {"include_usage": True}
        row = v1.row()
        assert (row.state, row.stream, row.cost_nano_usd) == (State.OK, True, cost(9, 3))

    def test_come_as_a_stream_with_usage_where_it_is_asked_for(self, v1: V1) -> None:
        v1.upstream.events(text_chunk(TEXT), text_chunk("", "stop"), DONE)
        asked = {"model": MODEL, "prompt": "Hello", "stream": True, "stream_options": {"include_usage": True}}

        *_, usage, done = frames_of(v1.post(COMPLETIONS, asked))

        assert done == DONE
        assert (usage["object"], usage["choices"]) == ("text_completion", [])
        assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == (1, 3)
        assert Decimal(usage["usage"]["cost_usd"]) == Decimal(cost(1, 3)) / 10**9

    def test_are_made_of_a_whole_answer_to_a_stream_too(self, v1: V1) -> None:
        v1.upstream.refuses(200, text_completion(TEXT))

        *chunks, done = frames_of(v1.post(COMPLETIONS, {"model": MODEL, "prompt": "Hello", "stream": True}))

        assert (done, text_of(chunks)) == (DONE, TEXT)
        assert {one["object"] for one in chunks} == {"text_completion"}

    def test_without_text_are_no_answer(self, v1: V1) -> None:
        v1.upstream.refuses(200, text_completion(TEXT, choices=[{"index": 0}]))

        answer = v1.post(COMPLETIONS, {"model": MODEL, "prompt": "Hello"})

        assert (answer.status_code, told(answer)["code"]) == (502, "upstream_invalid")
        assert v1.row().state == State.UPSTREAM_INVALID


def vectors(*values: Any, **changes: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "index": n, "embedding": value} for n, value in enumerate(values)]
    usage = {"prompt_tokens": 6, "total_tokens": 6}
    return {"object": "list", "data": data, "model": "its-own", "usage": usage} | changes


class TestEmbeddings:
    @pytest.mark.parametrize("given", [given for given, _ in PROMPTS.values()], ids=PROMPTS)
    def test_are_answered_by_the_upstreams_body(self, v1: V1, given: Any) -> None:
        said = vectors([0.125, -1.5e-7, 1.0])
        v1.upstream.refuses(200, said)
        asked = {"model": MODEL, "input": given, "dimensions": 3, "user": "ada", "input_type": "query"}

        answer = v1.post(EMBEDDINGS, asked)

        assert answer.json() == said | {"model": MODEL}
        [request] = v1.upstream.requests
        assert (request.path, request.body) == (EMBEDDINGS, asked)

    def test_in_base64_stay_as_they_are(self, v1: V1) -> None:
        said = vectors("zczMPQAAgL8=", "AACAPwAAAEA=")
        v1.upstream.refuses(200, said)

        answer = v1.post(EMBEDDINGS, {"model": MODEL, "input": ["a", "b"], "encoding_format": "base64"})

        assert answer.json()["data"] == said["data"]
        assert v1.upstream.requests[0].body["encoding_format"] == "base64"

    def test_cost_their_input_and_have_a_row(self, v1: V1) -> None:
        v1.upstream.refuses(200, vectors([0.5]))

        headers = v1.post(EMBEDDINGS, {"model": MODEL, "input": "Hello", "user": "ada"}).headers

        row = v1.row()
        assert (row.state, row.surface, row.stream, row.end_user) == (State.OK, "v1", False, "ada")
        assert (row.prompt_tokens, row.completion_tokens, row.usage_source) == (6, 0, "provider")
        assert row.cost_nano_usd == cost(6, 0)
        assert Decimal(headers["x-llmhub-cost-usd"]) == Decimal(cost(6, 0)) / 10**9
        assert v1.budget.windows.get().spent_nano == cost(6, 0)

    @pytest.mark.parametrize(("given", "tokens"), PROMPTS.values(), ids=PROMPTS)
    def test_are_counted_where_the_upstream_says_nothing(self, v1: V1, given: Any, tokens: int) -> None:
        v1.upstream.refuses(200, vectors([0.5], usage=None))

        answer = v1.post(EMBEDDINGS, {"model": MODEL, "input": given})

        row = v1.row()
        assert (row.prompt_tokens, row.completion_tokens, row.usage_source) == (tokens, 0, "counted")
        assert row.cost_nano_usd == cost(tokens, 0)
        assert answer.json()["usage"]["prompt_tokens"] == tokens

    def test_get_no_parameters_of_generated_text(self, v1: V1) -> None:
        v1.set(v1.provider, default_config={"temperature": 0.5})
        v1.upstream.refuses(200, vectors([0.5]))

        v1.post(EMBEDDINGS, {"model": MODEL, "input": "Hello"})

        assert v1.upstream.requests[0].body == {"model": MODEL, "input": "Hello"}

    @pytest.mark.parametrize("said", [{}, {"data": []}, {"data": 5}])
    def test_without_data_are_no_answer(self, v1: V1, said: Any) -> None:
        v1.upstream.refuses(200, said)

        answer = v1.post(EMBEDDINGS, {"model": MODEL, "input": "Hello"})

        assert (answer.status_code, told(answer)["code"]) == (502, "upstream_invalid")
        assert v1.row().state == State.UPSTREAM_INVALID

    def test_of_a_model_that_is_not_this_keys_are_a_404(self, v1: V1) -> None:
        v1.set(v1.api_key, allowed_models=["another"])

        assert v1.post(EMBEDDINGS, {"model": MODEL, "input": "Hello"}).status_code == 404


def ids(v1: V1) -> list[str]:
    return [model["id"] for model in v1.send("GET", "/v1/models").json()["data"]]


class TestModels:
    def test_are_listed_as_openai_does(self, v1: V1) -> None:
        v1.set(v1.model, context_window=128_000, max_output=4096)

        answer = v1.send("GET", "/v1/models")

        assert answer.headers["content-type"] == "application/json"
        body = answer.json()
        assert body["object"] == "list"
        [model] = body["data"]
        assert model == {
            "id": MODEL,
            "object": "model",
            "created": int(v1.provider.created_at.timestamp()),
            "owned_by": "upstream",
            "context_window": 128_000,
            "max_output_tokens": 4096,
        }

    def test_are_one_each_however_many_providers_offer_it(self, v1: V1) -> None:
        make_provider(slug="second", models=(MODEL, "other"), priority=1)

        assert sorted(ids(v1)) == [MODEL, "other"]

    def test_are_those_that_are_enabled(self, v1: V1) -> None:
        LanguageModel.objects.create(provider=v1.provider, name="off", enabled=False)
        make_provider(slug="second", models=("asleep",), enabled=False)

        assert ids(v1) == [MODEL]

    def test_are_those_that_the_key_may_call(self, v1: V1) -> None:
        LanguageModel.objects.create(provider=v1.provider, name="other")
        make_provider(slug="second", models=("third",))

        for allowed in (["other"], ["upstream/other"], ["second/third"], [MODEL, "third"], ["nothing"]):
            v1.set(v1.api_key, allowed_models=allowed)
            assert sorted(ids(v1)) == sorted(name.rpartition("/")[2] for name in allowed if name != "nothing")

    @pytest.mark.parametrize("name", [MODEL, f"upstream/{MODEL}", "meta/llama-4", "upstream/meta/llama-4"])
    def test_are_found_by_name_and_by_provider_and_name(self, v1: V1, name: str) -> None:
        LanguageModel.objects.create(provider=v1.provider, name="llama", public_name="meta/llama-4")

        for path in (f"/v1/models/{name}", f"/v1/models/{name.replace('/', '%2F')}"):
            answer = v1.send("GET", path)
            assert answer.status_code == 200
            assert answer.json()["id"] == name
            assert answer.json()["owned_by"] == "upstream"

    @pytest.mark.parametrize("name", ["hidden", "upstream/hidden", "a/b/c/d", "%E2%98%83", "x y"])
    def test_that_are_not_this_keys_are_told_exactly_as_unknown_ones(self, v1: V1, name: str) -> None:
        unknown = v1.send("GET", f"/v1/models/{name}")
        LanguageModel.objects.create(provider=v1.provider, name="hidden")
        v1.set(v1.api_key, allowed_models=[MODEL])

        hidden = v1.send("GET", f"/v1/models/{name}")

        assert unknown.status_code == hidden.status_code == 404
        assert told(hidden) == told(unknown)
        assert (told(hidden)["code"], told(hidden)["param"]) == ("model_not_found", "model")
