"""The official Python client, unmodified: keys, models and requests that are refused, each told once."""

from typing import Any

import pytest
from openai import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
    UnprocessableEntityError,
)

from completions import keys
from completions.models import ApiKey
from tests.clients.conftest import Ask
from tests.clients.wire import ASK, MODEL, FrontDoor, Upstream
from tests.factories import make_key, make_project, make_provider

# --- keys and models


def test_a_bad_key_is_told_once(ask: Ask, client: OpenAI, door: FrontDoor, upstream: Upstream) -> None:
    bad = client.api_key[:-4] + "beef"

    with pytest.raises(AuthenticationError) as caught:
        ask(client.with_options(api_key=bad))

    assert caught.value.code == "invalid_api_key"
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id
    assert bad[len("sk-llmhub-") :][:6] not in caught.value.message
    assert door.statuses == [401]
    assert upstream.requests == []


def test_a_revoked_key_is_an_authentication_error(client: OpenAI, door: FrontDoor) -> None:
    keys.revoke(ApiKey.objects.get())

    with pytest.raises(AuthenticationError, match="revoked"):
        client.chat.completions.create(**ASK)

    assert door.statuses == [401]


def test_a_forbidden_model_looks_like_an_unknown_one(client: OpenAI) -> None:
    client = client.with_options(api_key=make_key(make_project("narrow"), allowed_models=["other"])[1])

    with pytest.raises(NotFoundError) as forbidden:
        client.chat.completions.create(**ASK)
    with pytest.raises(NotFoundError) as unknown:
        client.chat.completions.create(**ASK | {"model": "unknown"})

    assert forbidden.value.message.replace(f"'{MODEL}'", "'unknown'") == unknown.value.message


def test_a_model_that_is_not_there_cannot_be_retrieved(client: OpenAI, door: FrontDoor) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.models.retrieve("acme/unknown")

    assert caught.value.code == "model_not_found"
    assert door.statuses == [404]


def test_what_is_not_there_is_told_once_and_the_client_goes_on(client: OpenAI, door: FrontDoor) -> None:
    with pytest.raises(NotFoundError) as unknown:
        client.chat.completions.create(**ASK | {"model": "gpt-unknown"})
    with pytest.raises(NotFoundError) as elsewhere:
        client.images.generate(prompt="a cat")
    with pytest.raises(AuthenticationError):
        client.with_options(api_key="sk-proj-not-of-this-hub").models.list()

    assert client.chat.completions.create(**ASK).choices[0].message.content == "Hello!"
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert "gpt-unknown" in unknown.value.message
    assert elsewhere.value.code == "unknown_url"
    assert door.statuses == [404, 404, 401, 200]


# --- requests that are wrong


def test_a_bad_parameter_is_named(client: OpenAI, door: FrontDoor, upstream: Upstream) -> None:
    bad: dict[str, dict[str, Any]] = {
        "n": {"n": 0},
        "messages": {"messages": [{"content": "no role"}]},
        "api_base": {"extra_body": {"api_base": "http://evil.example"}},
    }

    for param, fields in bad.items():
        with pytest.raises(BadRequestError) as caught:
            client.chat.completions.create(**ASK | fields)
        assert (caught.value.param, caught.value.code) == (param, "invalid_value")

    assert door.statuses == [400, 400, 400]
    assert upstream.requests == []


def test_a_prompt_beyond_the_window_is_told(client: OpenAI, upstream: Upstream, door: FrontDoor) -> None:
    make_provider(
        upstream_url=upstream.url, slug="small", models=({"name": "gpt-4o-mini", "context_window": 50},)
    )

    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "word " * 200}]
        )

    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert door.statuses == [400]


def test_the_upstreams_own_refusal_passes(client: OpenAI, upstream: Upstream, door: FrontDoor) -> None:
    said = {
        "message": "Unsupported value: 'x'",
        "type": "invalid_request_error",
        "param": "x",
        "code": "bad_x",
    }
    upstream.refuses(422, {"error": said})

    with pytest.raises(UnprocessableEntityError) as caught:
        client.chat.completions.create(**ASK)

    assert caught.value.body == said
    assert door.statuses == [422]
    assert len(upstream.requests) == 1


# --- bodies that are not read to their end: what the hub says must arrive all the same

LONG: Any = {"model": MODEL, "messages": [{"role": "user", "content": "word " * 1_000_000}]}


def test_a_bad_key_is_told_however_long_the_prompt(client: OpenAI, door: FrontDoor) -> None:
    with pytest.raises(AuthenticationError):
        client.with_options(api_key=client.api_key[:-4] + "beef").chat.completions.create(**LONG)

    assert door.statuses == [401]


def test_a_body_that_is_too_large_is_told_once(client: OpenAI, door: FrontDoor, settings: Any) -> None:
    settings.LLMHUB_MAX_BODY_BYTES = 100_000

    with pytest.raises(APIStatusError) as caught:
        client.chat.completions.create(**LONG)

    assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")
    assert door.statuses == [413]


def test_an_upload_to_a_route_that_is_not_there_is_not_found(client: OpenAI, door: FrontDoor) -> None:
    with pytest.raises(NotFoundError):
        client.files.create(file=("data.jsonl", b"x" * 5_000_000), purpose="batch")

    assert door.statuses == [404]
