"""POST /api/completions/ with `stream: true`, on real sockets."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from rest_framework.test import APIClient

from completions import sse
from completions.models import Completion, State
from tests.conftest import LiveHub
from tests.factories import make_key, make_provider
from tests.fakes import FakeUpstream, refused_url
from tests.surfaces.api import HELLO, assert_error, bearer, client_with, events_of
from tests.waiting import eventually

URL = "/api/completions/"


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture
def key(live_hub: LiveHub, upstream: FakeUpstream) -> str:
    """A caller's key; the hub has one provider, whose model is m."""
    make_provider(upstream_url=upstream.url, models=("m",))
    return make_key()[1]


def stream(hub: LiveHub, key: str, **fields: Any) -> requests.Response:
    return requests.post(
        f"{hub.url}{URL}",
        json={"messages": HELLO, "model": "m", "stream": True} | fields,
        headers=bearer(key),
        stream=True,
        timeout=10,
    )


def state_is(state: State) -> bool:
    return Completion.objects.get().state == state


def test_a_stream_is_started_then_deltas_then_usage_then_done(
    live_hub: LiveHub, key: str, upstream: FakeUpstream
) -> None:
    upstream.streams(("Hel", "lo", "!"))

    events = list(events_of(stream(live_hub, key)))

    assert [event.name for event in events] == ["started", "delta", "delta", "delta", "usage", "done"]
    started, *deltas, usage, done = events
    assert started.data == {"id": str(Completion.objects.get().pk), "model": "m", "provider": "upstream"}
    assert [delta.data for delta in deltas] == [{"content": "Hel"}, {"content": "lo"}, {"content": "!"}]
    assert usage.data == {
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "total_tokens": 12,
        "cost_usd": None,
    }
    assert (done.data["finish_reason"], done.data["content"]) == ("stop", "Hello!")
    assert done.data.keys() == {"finish_reason", "content", "tokens", "metadata", "message"}


def test_the_headers_keep_proxies_from_holding_it_back(live_hub: LiveHub, key: str) -> None:
    headers = stream(live_hub, key).headers

    assert headers["Content-Type"] == "text/event-stream"
    assert headers["Cache-Control"] == "no-cache"
    assert headers["X-Accel-Buffering"] == "no"
    assert (headers["x-llmhub-model"], headers["x-llmhub-provider"]) == ("m", "upstream")
    assert headers["x-request-id"]


def test_each_token_arrives_when_the_upstream_sends_it(
    live_hub: LiveHub, key: str, upstream: FakeUpstream
) -> None:
    upstream.streams(("a", "b", "c", "d"), delay=0.15)

    arrived = [time.monotonic() for event in events_of(stream(live_hub, key)) if event.name == "delta"]

    assert len(arrived) == 4
    assert arrived[-1] - arrived[0] > 0.3


def test_what_fails_before_the_first_event_is_an_http_error(live_hub: LiveHub, key: str) -> None:
    response = stream(live_hub, key, model="unknown")

    assert_error(response, 400, "INVALID_REQUEST")


def test_an_unreachable_upstream_is_a_502_and_not_a_stream(live_hub: LiveHub) -> None:
    with refused_url() as url:
        make_provider(upstream_url=url, models=("m",))
        response = stream(live_hub, make_key()[1])

    assert_error(response, 502, "PROVIDER_ERROR")
    assert (response.headers["x-llmhub-provider"], response.headers["x-llmhub-attempts"]) == ("upstream", "1")
    assert response.headers["x-request-id"] == Completion.objects.get().request_id


def test_what_fails_later_is_the_last_event(live_hub: LiveHub, key: str, upstream: FakeUpstream) -> None:
    upstream.cuts(after=2)

    events = list(events_of(stream(live_hub, key)))

    assert [event.name for event in events] == ["started", "delta", "delta", "error"]
    error = events[-1].data
    assert error.keys() == {"status_code", "message", "code", "timestamp", "details"}
    assert (error["status_code"], error["code"]) == (502, "PROVIDER_ERROR")
    assert error["details"]["reason"] == "upstream_truncated"


def test_silence_is_filled_with_comments(
    live_hub: LiveHub, key: str, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEPALIVE_SECONDS", 0.1)
    upstream.streams(("a", "b"), delay=0.3)

    text = stream(live_hub, key).text

    assert ": keepalive\n\n" in text
    assert text.endswith("\n\n")
    assert "event: done" in text


def test_tool_calls_are_streamed_in_the_wires_shape(
    live_hub: LiveHub, key: str, upstream: FakeUpstream
) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    upstream.events({"choices": [choice]}, {"choices": [last]}, "[DONE]")

    events = list(events_of(stream(live_hub, key)))

    assert events[1].data == {"tool_calls": [call]}
    assert events[-1].data["finish_reason"] == "tool_calls"


def test_a_reader_who_leaves_mid_stream_closes_the_upstream_and_pays_for_what_came(
    live_hub: LiveHub, key: str, upstream: FakeUpstream
) -> None:
    upstream.hangs("idle")
    response = stream(live_hub, key)
    events = events_of(response)
    assert [next(events).name for _ in range(3)] == ["started", "delta", "delta"]

    response.close()

    assert upstream.requests[0].wait_gone(1)
    assert eventually(lambda: state_is(State.CLIENT_GONE))
    assert (Completion.objects.get().completion_tokens or 0) > 0


def test_a_reader_who_leaves_before_the_first_event_closes_the_upstream(
    live_hub: LiveHub, key: str, upstream: FakeUpstream
) -> None:
    upstream.hangs("headers")
    body = json.dumps({"messages": HELLO, "model": "m", "stream": True}).encode()
    with socket.create_connection((live_hub.host, live_hub.port)) as connection:
        head = f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        asked = upstream.wait_for()

    assert asked.wait_gone(1)
    assert eventually(lambda: state_is(State.CLIENT_GONE))


def test_the_hub_serves_on_after_a_reader_left(live_hub: LiveHub, key: str, upstream: FakeUpstream) -> None:
    upstream.hangs("idle").streams(("ok",))
    first = stream(live_hub, key)
    next(events_of(first))
    first.close()

    assert [event.name for event in events_of(stream(live_hub, key))][-1] == "done"


@pytest.mark.django_db(transaction=True)
def test_a_wsgi_server_streams_too(upstream: FakeUpstream) -> None:
    make_provider(upstream_url=upstream.url, models=("m",))
    client: APIClient = client_with(make_key()[1])

    response = client.post(URL, {"messages": HELLO, "model": "m", "stream": True}, format="json")

    text = b"".join(response.streaming_content).decode()  # type: ignore[attr-defined]
    assert text.startswith("event: started\n")
    assert "event: done\n" in text
