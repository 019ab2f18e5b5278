"""/healthz, /readyz and /metrics: what load balancers and monitoring ask."""

from collections.abc import Iterator

import pytest
import requests
from pytest_django import Settings

from completions import probes, running
from providers import database
from tests.conftest import LiveHub
from tests.factories import make_key, make_provider
from tests.fakes import FakeUpstream
from tests.surfaces.api import HELLO, bearer


@pytest.fixture(autouse=True)
def _looks_anew() -> Iterator[None]:
    probes._Looked.at = float("-inf")
    yield
    running.resume()
    database.note(away=False)


def get(hub: LiveHub, path: str, **headers: str) -> requests.Response:
    return requests.get(f"{hub.url}{path}", headers=headers, timeout=10)


def test_a_hub_that_serves_is_alive_and_ready(live_hub: LiveHub) -> None:
    assert get(live_hub, "/healthz").json() == {"status": "ok"}
    ready = get(live_hub, "/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")


def test_without_its_database_it_is_alive_but_not_ready(live_hub: LiveHub) -> None:
    database.note(away=True)
    assert get(live_hub, "/healthz").status_code == 200
    ready = get(live_hub, "/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"] == {"process": "ok", "database": "away"}


def test_a_hub_about_to_stop_is_not_ready_and_takes_no_call(live_hub: LiveHub) -> None:
    make_provider(models=("m",))
    _, key = make_key()
    running._Process.draining = True
    assert get(live_hub, "/readyz").status_code == 503
    answer = requests.post(
        f"{live_hub.url}/v1/chat/completions",
        json={"model": "m", "messages": HELLO},
        headers=bearer(key),
        timeout=10,
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert answer.headers["retry-after"] == "1"


def test_a_process_that_runs_as_many_calls_as_it_may_sheds_the_next(live_hub: LiveHub) -> None:
    with FakeUpstream() as upstream:
        upstream.hangs("idle")
        make_provider(upstream_url=upstream.url, models=("m",))
        _, key = make_key()
        running.limit(1)
        url, body = f"{live_hub.url}/v1/chat/completions", {"model": "m", "messages": HELLO, "stream": True}
        with requests.post(url, json=body, headers=bearer(key), stream=True, timeout=10) as first:
            lines = first.iter_lines()  # kept: an iterator that is dropped closes its connection
            next(lines)
            second = requests.post(url, json=body, headers=bearer(key), timeout=10)
        assert (second.status_code, second.json()["error"]["code"]) == (503, "overloaded")
        assert int(second.headers["retry-after"]) >= 1
        running.limit(10_000)


def test_other_methods_are_refused(live_hub: LiveHub) -> None:
    assert requests.post(f"{live_hub.url}/healthz", timeout=10).status_code == 405


class TestMetrics:
    def test_they_count_calls_tokens_and_dollars(self, live_hub: LiveHub) -> None:
        make_provider(slug="counted", models=("m",))
        _, key = make_key()
        requests.post(
            f"{live_hub.url}/v1/chat/completions",
            json={"model": "m", "messages": HELLO},
            headers=bearer(key),
            timeout=10,
        )
        text = get(live_hub, "/metrics").text
        where = 'model="m",operation="chat",provider="counted",state="ok"'
        assert f"llmhub_requests_total{{{where}}} 1.0" in text
        assert 'llmhub_tokens_total{kind="prompt",model="m",provider="counted"}' in text
        for name in ("in_flight", "overhead_seconds_count", "ledger_commit_seconds_count", "ledger_away"):
            assert f"llmhub_{name}" in text

    def test_errors_are_counted_by_what_callers_were_told(self, live_hub: LiveHub) -> None:
        requests.get(f"{live_hub.url}/v1/models", timeout=10)
        assert 'llmhub_errors_total{code="invalid_api_key",surface="v1"}' in get(live_hub, "/metrics").text

    def test_with_a_token_only_who_shows_it_gets_them(self, live_hub: LiveHub, settings: Settings) -> None:
        settings.LLMHUB_METRICS_TOKEN = "the right token"
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer wr\u00f6ng"}):
            refused = get(live_hub, "/metrics", **headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert get(live_hub, "/metrics", Authorization="Bearer the right token").status_code == 200

    def test_without_a_token_a_hub_that_others_reach_keeps_them_to_itself(
        self, live_hub: LiveHub, settings: Settings
    ) -> None:
        settings.LLMHUB_LISTENS_ON_LOOPBACK = False
        refused = get(live_hub, "/metrics")
        assert refused.status_code == 401
        assert "LLMHUB_METRICS_TOKEN" in refused.json()["error"]

    @pytest.mark.parametrize(
        "header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"]
    )
    def test_what_came_through_a_proxy_gets_them_with_the_token_alone(
        self, live_hub: LiveHub, settings: Settings, header: str
    ) -> None:
        refused = get(live_hub, "/metrics", **{header: "127.0.0.1"})
        assert refused.status_code == 401
        assert "LLMHUB_METRICS_TOKEN" in refused.json()["error"]
        settings.LLMHUB_METRICS_TOKEN = "right"
        shown = {header: "127.0.0.1", "Authorization": "Bearer right"}
        assert get(live_hub, "/metrics", **shown).status_code == 200
        assert get(live_hub, "/healthz", **{header: "127.0.0.1"}).status_code == 200
