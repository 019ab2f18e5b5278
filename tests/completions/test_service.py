"""LLMService, row by row of the Python API, against an upstream on a real socket."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from completions.errors import (
    InvalidRequestError,
    LLMServiceError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    TokenLimitError,
    UnpricedModelError,
)
from completions.errors import (
    TimeoutError as TimedOut,
)
from completions.models import Completion, State
from completions.service import LLMService
from completions.types import CompletionRequest, Delta, Done, LLMResponse, Started, StreamingCallbacks
from providers.models import Health, LanguageModel, LLMProvider, ModelPrice
from providers.types import Usage
from tests.factories import make_project, make_provider
from tests.fakes import FakeUpstream

pytestmark = pytest.mark.django_db(transaction=True)

ASK = {"messages": [{"role": "user", "content": "Say hello"}]}


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture
def provider(upstream: FakeUpstream) -> LLMProvider:
    provider = make_provider(
        upstream_url=upstream.url, slug="local", models=("test-model",), api_key="sk-upstream-secret-0123"
    )
    ModelPrice.objects.create(
        model=provider.models.get(),
        valid_from="2020-01-01",
        prompt=Decimal("2.50"),
        completion=Decimal(10),
        cached=Decimal("1.25"),
    )
    return provider


@pytest.fixture
def service(provider: LLMProvider) -> LLMService:
    make_project("default")
    return LLMService()


class Heard(StreamingCallbacks):
    """Callbacks that remember what they were told."""

    def __init__(self) -> None:
        object.__setattr__(self, "tokens", [])
        object.__setattr__(self, "completed", [])
        object.__setattr__(self, "errors", [])

    tokens: list[str]
    completed: list[LLMResponse]
    errors: list[LLMServiceError]
    on_token = property(lambda self: self.tokens.append)
    on_complete = property(lambda self: self.completed.append)
    on_error = property(lambda self: self.errors.append)


class TestComplete:
    def test_it_answers_with_content_tokens_and_metadata(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        upstream.answers("Hello!", usage={"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12})
        response = service.complete(ASK)

        assert response.content == "Hello!"
        assert (response.tokens.prompt, response.tokens.completion, response.tokens.total) == (9, 3, 12)
        metadata = response.metadata
        assert (metadata.model, metadata.provider, metadata.finish_reason) == ("test-model", "local", "stop")
        assert metadata.cost == Decimal("0.0000525")  # 9 x $2.50 + 3 x $10 a million
        assert metadata.cached is False
        assert metadata.latency_ms >= 0

    def test_its_row_is_the_id_it_returns(self, service: LLMService) -> None:
        response = service.complete(ASK)

        row = Completion.objects.get(pk=response.metadata.id)
        assert (row.state, row.surface, row.provider_slug, row.model) == (
            State.OK,
            "python",
            "local",
            "test-model",
        )
        assert (row.prompt_tokens, row.completion_tokens, row.usage_source) == (9, 3, "provider")
        assert row.cost_nano_usd == 52_500
        assert row.price_source == "override 2020-01-01"

    async def test_its_async_twin_answers_the_same(self, service: LLMService) -> None:
        response = await service.acomplete(CompletionRequest([{"role": "user", "content": "Hi"}]))
        assert response.content == "Hello!"

    async def test_the_sync_one_refuses_to_block_a_running_loop(self, service: LLMService) -> None:
        with pytest.raises(RuntimeError, match="async twin"):
            service.complete(ASK)

    def test_the_config_reaches_the_upstream_above_the_providers_defaults(
        self, service: LLMService, upstream: FakeUpstream, provider: LLMProvider
    ) -> None:
        provider.default_config = {"temperature": 0.7, "top_p": 0.9}
        provider.save()
        service.complete({**ASK, "config": {"temperature": 0.1, "max_tokens": 5, "stop": ["x"]}})

        body = upstream.requests[-1].body
        assert (body["temperature"], body["top_p"], body["max_tokens"], body["stop"]) == (0.1, 0.9, 5, ["x"])
        assert body["model"] == "test-model"

    def test_the_providers_base_url_and_key_are_the_ones_used(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        service.complete(ASK)
        assert upstream.requests[-1].headers["authorization"] == "Bearer sk-upstream-secret-0123"

    def test_a_timeout_in_the_config_ends_the_call(self, service: LLMService, upstream: FakeUpstream) -> None:
        upstream.hangs("headers")
        with pytest.raises(TimedOut):
            service.complete({**ASK, "config": {"timeout": 0.2}})
        assert Completion.objects.get().state == State.TIMEOUT_TOTAL

    def test_tool_calls_come_back_in_the_message(self, service: LLMService, upstream: FakeUpstream) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        upstream.answers(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])

        response = service.complete(ASK)
        assert response.message["tool_calls"] == [call]
        assert response.metadata.finish_reason == "tool_calls"

    def test_an_unknown_model_is_an_error_and_never_another_model(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        with pytest.raises(ModelNotFoundError) as caught:
            service.complete({**ASK, "model": "test-model-2"})
        assert caught.value.details["param"] == "model"
        assert not upstream.requests

    def test_a_field_that_is_none_of_its_own_is_refused_by_name(self, service: LLMService) -> None:
        with pytest.raises(InvalidRequestError, match="prompt"):
            service.complete({"prompt": "hi"})

    def test_without_a_project_to_pay_it_says_what_to_do(self, provider: LLMProvider) -> None:
        with pytest.raises(PermissionDeniedError, match="LLMHUB_DEFAULT_PROJECT"):
            LLMService().complete(ASK)

    def test_a_named_project_pays(self, provider: LLMProvider) -> None:
        make_project("shop")
        response = LLMService(project="shop").complete(ASK)
        assert Completion.objects.get(pk=response.metadata.id).project.slug == "shop"


class TestCompleteStreaming:
    def test_every_token_and_then_completion_are_told(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        upstream.streams(
            ["Hel", "lo", "!"], usage={"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
        )
        heard = Heard()
        response = service.complete_streaming(ASK, heard)

        assert heard.tokens == ["Hel", "lo", "!"]
        assert heard.completed == [response]
        assert heard.errors == []
        assert response.content == "Hello!"

    def test_usage_is_the_upstreams_and_not_the_number_of_chunks(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        upstream.streams(
            ["Hel", "lo", "!"], usage={"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
        )
        response = service.complete_streaming(ASK, Heard())
        assert (response.tokens.prompt, response.tokens.completion) == (7, 2)

    def test_without_the_upstreams_usage_prompt_and_answer_are_counted(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        upstream.streams(["Hello", " there", " friend"], usage=None)
        response = service.complete_streaming(ASK, Heard())

        assert response.tokens.prompt > 0
        assert response.tokens.completion == 3
        assert Completion.objects.get().usage_source in ("counted", "estimated")

    def test_an_error_is_told_once_and_raised(self, service: LLMService, upstream: FakeUpstream) -> None:
        upstream.refuses(500)
        heard = Heard()
        with pytest.raises(ProviderError):
            service.complete_streaming(ASK, heard)
        assert len(heard.errors) == 1
        assert heard.completed == []

    def test_a_stream_cut_short_is_an_error_and_never_a_completion(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        upstream.cuts(after=2)
        heard = Heard()
        with pytest.raises(ProviderError):
            service.complete_streaming(ASK, heard)
        assert "".join(heard.tokens) == "piece0 piece1 "
        assert len(heard.errors) == 1
        assert heard.completed == []
        row = Completion.objects.get()
        assert row.state == State.UPSTREAM_TRUNCATED
        assert row.completion_tokens

    async def test_async_callbacks_are_awaited(self, service: LLMService) -> None:
        told: list[str] = []

        async def token(text: str) -> None:
            told.append(text)

        async def ended(outcome: object) -> None:
            told.append(type(outcome).__name__)

        await service.acomplete_streaming(ASK, StreamingCallbacks(token, ended, ended))
        assert told == ["Hel", "lo", "!", "LLMResponse"]

    async def test_astream_begins_with_started_and_ends_with_done(self, service: LLMService) -> None:
        events = [event async for event in service.astream(ASK)]

        assert isinstance(events[0], Started)
        assert [event.content for event in events[1:-1] if isinstance(event, Delta)] == ["Hel", "lo", "!"]
        assert isinstance(events[-1], Done)
        assert events[0].id == events[-1].response.metadata.id

    async def test_leaving_a_stream_closes_the_upstream_and_settles_what_came(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        upstream.hangs("idle")
        events = service.astream(ASK)
        async for event in events:
            if isinstance(event, Delta):
                break
        await events.aclose()

        assert upstream.requests[0].wait_gone(1.0)
        row = await Completion.objects.aget()
        assert row.state == State.CLIENT_GONE
        assert row.completion_tokens
        assert row.cost_nano_usd


class TestErrors:
    def test_only_the_upstreams_own_code_makes_a_400_a_token_limit(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        upstream.refuses(400, {"error": {"message": "invalid token in schema", "code": "invalid_schema"}})
        upstream.refuses(400, {"error": {"message": "too long", "code": "context_length_exceeded"}})

        with pytest.raises(InvalidRequestError) as first:
            service.complete(ASK)
        assert not isinstance(first.value, TokenLimitError)
        with pytest.raises(TokenLimitError):
            service.complete(ASK)

    def test_an_upstreams_401_is_a_502_without_key_material(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        upstream.refuses(401, {"error": {"message": "Incorrect API key: sk-upstream-secret-0123"}})
        with pytest.raises(ProviderError) as caught:
            service.complete(ASK)
        assert caught.value.status == 502
        assert caught.value.details["reason"] == "upstream_auth_error"
        assert "sk-upstream" not in repr(caught.value) + str(Completion.objects.values())

    def test_an_upstreams_rate_limit_is_a_429_with_its_own_wait(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        upstream.refuses(429, None, {"retry-after": "1"})
        with pytest.raises(RateLimitError) as caught:
            service.complete(ASK)
        assert caught.value.details["retry_after"] == 1

    def test_a_prompt_beyond_the_models_window_never_reaches_the_upstream(
        self, service: LLMService, upstream: FakeUpstream, provider: LLMProvider
    ) -> None:
        LanguageModel.objects.create(provider=provider, name="gpt-4o-mini", context_window=50)
        long = [{"role": "user", "content": "word " * 200}]
        with pytest.raises(TokenLimitError) as caught:
            service.complete({"messages": long, "model": "gpt-4o-mini"})
        assert caught.value.details["context_window"] == 50
        assert caught.value.details["prompt_tokens"] > 200
        assert not upstream.requests
        assert not Completion.objects.exists()


class TestProviders:
    def test_get_provider_shows_everything_but_the_key(
        self, service: LLMService, provider: LLMProvider
    ) -> None:
        info = service.get_provider("local")

        assert (info.slug, info.type, info.default_model) == ("local", "openai_compatible", "test-model")
        assert info.models == ("test-model",)
        assert "sk-upstream" not in repr(info)

    def test_get_provider_without_a_name_is_the_first_by_priority(self, service: LLMService) -> None:
        make_provider(slug="first", priority=1)
        assert service.get_provider().slug == "first"

    def test_an_unknown_provider_is_refused_by_name(self, service: LLMService) -> None:
        with pytest.raises(InvalidRequestError, match="nowhere"):
            service.get_provider("nowhere")

    def test_available_models_merge_what_is_offered_with_what_is_enabled(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        upstream.models = ["test-model", "other-model"]
        models = {model.id: model for model in service.get_available_models("local")}

        assert models["test-model"].enabled
        assert models["test-model"].offered is True
        assert not models["other-model"].enabled

    def test_available_models_of_an_unreachable_provider_are_those_enabled(
        self, service: LLMService, provider: LLMProvider
    ) -> None:
        provider.base_url = "http://127.0.0.1:9/v1"
        provider.save()
        (model,) = service.get_available_models("local")
        assert (model.id, model.offered) == ("test-model", None)

    def test_validation_is_a_real_call_with_the_stored_key(
        self, service: LLMService, upstream: FakeUpstream, provider: LLMProvider
    ) -> None:
        upstream.key = "sk-upstream-secret-0123"
        assert service.validate_provider("local").ok
        assert LLMProvider.objects.get().health == Health.OK

        upstream.key = "another"
        outcome = service.validate_provider("local")
        assert (outcome.ok, outcome.auth_failed) == (False, True)
        assert LLMProvider.objects.get().health == Health.AUTH_FAILED

    def test_the_rate_limit_status_is_what_the_providers_headers_said(
        self, service: LLMService, upstream: FakeUpstream
    ) -> None:
        upstream.answers(
            headers={"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "42"}
        )
        service.complete(ASK)

        status = service.get_rate_limit_status("local")
        assert status is not None
        assert status.requests is not None
        assert (status.requests.limit, status.requests.remaining) == (100, 42)
        assert status.requests.reset is None  # never said, so never invented
        assert status.tokens is None

    def test_the_rate_limit_status_is_none_where_the_provider_never_said(self, service: LLMService) -> None:
        make_provider(slug="silent")
        assert service.get_rate_limit_status("silent") is None


class TestTokensAndCost:
    def test_count_tokens_is_exact_for_the_models_own_tokenizer(self, service: LLMService) -> None:
        assert service.count_tokens("tiktoken is great!", "gpt-4o") == 6

    def test_the_cost_prices_prompt_cached_and_completion_apart(self, service: LLMService) -> None:
        usage = Usage(prompt=1_000_000, cached=400_000, completion=100_000)
        assert service.calculate_cost(usage, "test-model") == Decimal(
            "3.00"
        )  # 0.6 x 2.5 + 0.4 x 1.25 + 0.1 x 10

    def test_the_cost_of_an_unknown_model_is_an_error(self, service: LLMService) -> None:
        with pytest.raises(ModelNotFoundError):
            service.calculate_cost(Usage(prompt=1), "test-model-mini")

    def test_the_cost_of_a_model_without_a_price_is_an_error(self, service: LLMService) -> None:
        make_provider(slug="free", models=("nameless",))
        with pytest.raises(UnpricedModelError):
            service.calculate_cost(Usage(prompt=1), "nameless")

    def test_a_call_to_a_model_without_a_price_costs_null_and_not_zero(
        self, service: LLMService, provider: LLMProvider
    ) -> None:
        ModelPrice.objects.all().delete()
        response = service.complete(ASK)
        assert response.metadata.cost is None
        assert Completion.objects.get().cost_nano_usd is None
