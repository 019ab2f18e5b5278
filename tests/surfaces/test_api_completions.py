"""POST /api/completions/ without streaming, and the list of what was completed."""

import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import requests
from django.utils import timezone
from rest_framework.test import APIClient

from completions.models import Completion, Project, State
from providers.models import LLMProvider, ModelPrice
from tests.conftest import LiveHub
from tests.factories import make_key, make_project, make_provider
from tests.fakes import FakeUpstream, refused_url
from tests.surfaces.api import HELLO, assert_error, bearer, client_of

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/api/completions/"


def complete(client: APIClient | None = None, **fields: Any) -> Any:
    return (client or client_of()).post(URL, {"messages": HELLO} | fields, format="json")


def provider_at(upstream: FakeUpstream, *, priced: bool = False, **fields: Any) -> LLMProvider:
    provider = make_provider(upstream_url=upstream.url, models=("m",), **fields)
    if priced:
        ModelPrice.objects.create(
            model=provider.models.get(), prompt=Decimal("1.50"), completion=Decimal("2.00")
        )
    return provider


def row_of(project: Project, seconds_ago: int = 0, **fields: Any) -> Completion:
    """A finished call of a project."""
    values = {
        "id": uuid.uuid4(),
        "requested_model": "m",
        "state": State.OK,
        "surface": "api",
        "request_id": "r",
    }
    made = timezone.now() - timedelta(seconds=seconds_ago)
    return Completion.objects.create(project=project, created_at=made, **(values | fields))


def test_a_completion_answers_content_tokens_and_metadata() -> None:
    with FakeUpstream() as upstream:
        provider_at(upstream, priced=True)
        body = complete(model="m").json()

    assert body.keys() == {"content", "tokens", "metadata", "message"}
    assert body["content"] == "Hello!"
    assert body["tokens"] == {"prompt": 9, "completion": 3, "total": 12}
    assert body["message"] == {"role": "assistant", "content": "Hello!"}
    metadata = body["metadata"]
    assert metadata.keys() == {
        "id", "model", "provider", "timestamp", "latency_ms", "cached", "cost", "finish_reason",
    }  # fmt: skip
    assert (metadata["model"], metadata["provider"]) == ("m", "upstream")
    assert (metadata["cached"], metadata["cost"], metadata["finish_reason"]) == (False, "0.0000195", "stop")


def test_headers_name_the_model_provider_cost_attempts_and_request() -> None:
    with FakeUpstream() as upstream:
        provider_at(upstream, priced=True)
        headers = complete(model="m").headers

    assert headers["x-llmhub-model"] == "m"
    assert headers["x-llmhub-provider"] == "upstream"
    assert headers["x-llmhub-cost-usd"] == "0.0000195"
    assert headers["x-llmhub-attempts"] == "1"
    assert Completion.objects.get().request_id == headers["x-request-id"]


def test_without_a_known_price_the_cost_is_null_and_not_zero() -> None:
    with FakeUpstream() as upstream:
        provider_at(upstream)
        response = complete(model="m")

    assert response.json()["metadata"]["cost"] is None
    assert "x-llmhub-cost-usd" not in response.headers


def test_without_a_model_the_default_model_answers() -> None:
    with FakeUpstream() as upstream:
        provider_at(upstream)
        assert complete().json()["metadata"]["model"] == "m"


def test_parameters_reach_the_upstream_and_the_timeout_does_not() -> None:
    config = {"temperature": 0.2, "max_tokens": 7, "stop": ["x"], "seed": 3, "timeout": 5}
    with FakeUpstream() as upstream:
        provider_at(upstream, default_config={"top_p": 0.5, "temperature": 1})
        complete(model="m", config=config, user="ada")
        sent = upstream.requests[0].body

    assert sent["messages"] == HELLO
    assert sent["temperature"] == 0.2
    assert sent["top_p"] == 0.5
    assert (sent["stop"], sent["seed"], sent["user"]) == (["x"], 3, "ada")
    assert "timeout" not in sent
    assert not sent.get("stream")


def test_the_callers_timeout_is_used() -> None:
    with FakeUpstream() as upstream:
        upstream.hangs("headers")
        provider_at(upstream)
        response = complete(model="m", config={"timeout": 0.2})

    assert_error(response, 504, "TIMEOUT")


def test_the_whole_message_of_the_upstream_comes_back_with_its_tool_calls() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    with FakeUpstream() as upstream:
        upstream.answers(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])
        provider_at(upstream)
        body = complete(model="m").json()

    assert body["message"]["tool_calls"] == [call]
    assert (body["content"], body["metadata"]["finish_reason"]) == ("", "tool_calls")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"model": 5}, "model"),
        ({"model": "unknown"}, "model"),
        ({"config": []}, "config"),
        ({"config": {"temperature": "hot"}}, "config.temperature"),
        ({"config": {"base_url": "http://127.0.0.1"}}, "config.base_url"),
        ({"provider": ["x"]}, "provider"),
        ({"user": 7}, "user"),
    ],
)
def test_a_bad_request_is_a_400_that_names_the_field(fields: dict[str, Any], param: str) -> None:
    make_provider(slug="demo")

    body = assert_error(complete(**fields), 400, "INVALID_REQUEST")

    assert body["details"]["param"] == param
    assert not Completion.objects.exists()


@pytest.mark.parametrize("fields", [{"temperature": 1}, {"stream": "yes"}, {"stream": 1}])
def test_a_field_that_is_unknown_or_of_the_wrong_type_is_named(fields: dict[str, Any]) -> None:
    body = assert_error(complete(**fields), 400, "INVALID_REQUEST")

    (field,) = fields
    assert list(body["details"]) == [field]
    assert body["message"].startswith(f"{field}: ")


def test_missing_messages_are_named() -> None:
    body = assert_error(client_of().post(URL, {}, format="json"), 400, "INVALID_REQUEST")

    assert body["details"] == {"messages": ["This field is required."]}


def test_an_unreachable_upstream_is_a_502() -> None:
    with refused_url() as url:
        make_provider(upstream_url=url, models=("m",))
        response = complete(model="m")

    assert_error(response, 502, "PROVIDER_ERROR")
    assert Completion.objects.get().state == State.UPSTREAM_ERROR


def test_an_upstream_that_refuses_our_key_is_a_502_without_the_key() -> None:
    with FakeUpstream(key="another") as upstream:
        provider_at(upstream, api_key="sk-canary-0123456789")
        response = complete(model="m")

    assert_error(response, 502, "PROVIDER_ERROR")
    assert "canary" not in response.content.decode()


def test_a_400_with_the_word_token_in_it_is_not_a_token_limit() -> None:
    with FakeUpstream() as upstream:
        upstream.refuses(400, {"error": {"message": "invalid token in field x", "code": "invalid_value"}})
        provider_at(upstream)
        response = complete(model="m")

    assert_error(response, 400, "INVALID_REQUEST")


def test_the_upstreams_context_length_error_is_a_token_limit() -> None:
    with FakeUpstream() as upstream:
        upstream.refuses(400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
        provider_at(upstream)
        response = complete(model="m")

    assert_error(response, 400, "TOKEN_LIMIT_EXCEEDED")


def test_a_caller_who_hangs_up_closes_the_upstream_within_a_second(live_hub: LiveHub) -> None:
    _, key = make_key()
    with FakeUpstream() as upstream:
        upstream.hangs("headers")
        provider_at(upstream)
        with pytest.raises(requests.Timeout):
            requests.post(
                f"{live_hub.url}{URL}",
                json={"messages": HELLO, "model": "m"},
                headers=bearer(key),
                timeout=(5, 0.5),
            )
        assert upstream.wait_for().wait_gone(1)


def test_the_list_shows_ones_own_completions_newest_first() -> None:
    project = make_project()
    first, second = (row_of(project, id=uuid.UUID(int=number)) for number in (1, 2))
    row_of(make_project("other"))

    rows = client_of(project).get(URL).json()["results"]

    assert [row["id"] for row in rows] == [str(second.pk), str(first.pk)]


def test_the_list_is_paged_by_cursor() -> None:
    project = make_project()
    made = {str(row_of(project).pk) for _ in range(5)}
    client = client_of(project)

    seen: list[str] = []
    url = f"{URL}?limit=2"
    while url:
        page = client.get(url).json()
        seen += [row["id"] for row in page["results"]]
        url = page["next"]

    assert seen == sorted(made, reverse=True)
    back = client.get(page["previous"]).json()
    assert [row["id"] for row in back["results"]] == seen[2:4]
    assert [row["id"] for row in client.get(back["previous"]).json()["results"]] == seen[:2]


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "limit=-1", "limit=1e2", "cursor=%00"])
def test_a_bad_page_is_not_guessed_at(query: str) -> None:
    assert_error(client_of().get(f"{URL}?{query}"), 400, "INVALID_REQUEST")


@pytest.mark.parametrize("position", ["nonsense", "1", "\x00"])
def test_a_forged_cursor_is_refused(position: str) -> None:
    from base64 import b64encode
    from urllib.parse import urlencode

    cursor = b64encode(urlencode({"p": position}).encode()).decode()

    assert_error(client_of().get(URL, {"cursor": cursor}), 400, "INVALID_REQUEST")


def test_the_list_is_filtered_by_model_state_and_time() -> None:
    project = make_project()
    old = row_of(project, seconds_ago=7200)
    failed = row_of(project, state=State.UPSTREAM_ERROR)
    other = row_of(project, requested_model="big", model="gpt-4o")
    hour_ago = (timezone.now() - timedelta(hours=1)).isoformat()
    client = client_of(project)

    def ids(**query: str) -> set[str]:
        return {row["id"] for row in client.get(URL, query).json()["results"]}

    assert ids(until=hour_ago) == {str(old.pk)}
    assert ids(since=hour_ago) == {str(failed.pk), str(other.pk)}
    assert ids(state="upstream_error") == {str(failed.pk)}
    assert ids(model="big") == ids(model="gpt-4o") == {str(other.pk)}


@pytest.mark.parametrize("query", [{"state": "great"}, {"since": "yesterday"}, {"stat": "ok"}])
def test_a_bad_filter_is_named(query: dict[str, str]) -> None:
    body = assert_error(client_of().get(URL, query), 400, "INVALID_REQUEST")

    assert body["details"].keys() == query.keys()


def test_one_completion_shows_its_tokens_cost_and_outcome() -> None:
    project = make_project()
    row = row_of(project, prompt_tokens=9, completion_tokens=3, cost_nano_usd=12_500, end_user="ada")

    body = client_of(project).get(f"{URL}{row.pk}/").json()

    assert (body["prompt_tokens"], body["completion_tokens"], body["total_tokens"]) == (9, 3, 12)
    assert (body["cost"], body["state"], body["user"]) == ("0.0000125", "ok", "ada")


def test_a_completion_of_another_project_is_as_absent_as_one_that_never_was() -> None:
    row = row_of(make_project("other"))
    client = client_of(make_project("web"))

    foreign = assert_error(client.get(f"{URL}{row.pk}/"), 404, "NOT_FOUND")
    absent = assert_error(client.get(f"{URL}{uuid.uuid4()}/"), 404, "NOT_FOUND")

    assert foreign | {"timestamp": ""} == absent | {"timestamp": ""}
