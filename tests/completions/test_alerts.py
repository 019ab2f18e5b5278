"""Alerts at their webhooks: signed, tried until they arrive, and never posted where the hub may not call."""

import hashlib
import hmac
import json
import logging
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests
import responses
from django.utils import timezone
from pytest_django import Settings

from completions import alerts, jobs
from completions.models import Budget, BudgetAlert, BudgetWindow, Job
from tests.factories import make_key, make_project

pytestmark = pytest.mark.django_db

URL = "https://hooks.example.com/T000/the-secret-path"
SECRET = "the webhook's secret"
START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def webhook() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def make_alert(
    threshold: int = 80, budget: Budget | None = None, subject: str = "", **facts: Any
) -> BudgetAlert:
    if budget is None:
        budget = make_budget()
    window, _ = BudgetWindow.objects.get_or_create(
        budget=budget, subject=subject, starts_at=START, ends_at=datetime(2026, 4, 1, tzinfo=UTC)
    )
    return BudgetAlert.objects.create(
        window=window,
        threshold=threshold,
        spent_nano=4_010_000_000,
        amount_nano=5_000_000_000,
        **({"deliver_at": timezone.now()} | facts),
    )


def make_budget(slug: str = "web", **facts: Any) -> Budget:
    values: dict[str, Any] = {"amount": 5, "webhook_url": URL, "webhook_secret": SECRET}
    return Budget.objects.create(project=make_project(slug), **(values | facts))


def run() -> None:
    """The worker's next run of the job."""
    Job.objects.filter(name="alerts").update(due_at=timezone.now())
    assert jobs.run_due(["alerts"]) == ["alerts"]
    assert jobs.last_error("alerts") == ""


def test_an_alert_says_what_was_crossed_and_is_delivered_once(webhook: responses.RequestsMock) -> None:
    webhook.post(URL, status=204)
    alert = make_alert()
    run()
    run()

    assert len(webhook.calls) == 1
    assert json.loads(webhook.calls[0].request.body or "") == {
        "id": str(alert.pk),
        "type": "budget.threshold",
        "created_at": alert.created_at.isoformat(),
        "budget": str(alert.window.budget.pk),
        "project": "web",
        "key": None,
        "end_user": None,
        "threshold": 80,
        "amount": "5",
        "spent": "4.01",
        "hard": True,
        "period": {
            "kind": "month",
            "start": "2026-03-01T00:00:00+00:00",
            "end": "2026-04-01T00:00:00+00:00",
        },
    }
    alert.refresh_from_db()
    assert alert.delivered_at is not None
    assert (alert.deliver_at, alert.tries, alert.last_error) == (None, 1, "")


def test_the_alert_of_a_key_and_an_end_user_names_them(webhook: responses.RequestsMock) -> None:
    webhook.post(URL)
    key, _ = make_key(make_project("shop"), "checkout")
    budget = Budget.objects.create(
        project=key.project, api_key=key, per_end_user=True, amount=5, webhook_url=URL
    )
    make_alert(budget=budget, subject="kim")
    run()

    body = json.loads(webhook.calls[0].request.body or "")
    assert (body["key"], body["end_user"]) == ("checkout", "kim")


def test_the_signature_is_of_the_time_and_the_body(webhook: responses.RequestsMock) -> None:
    webhook.post(URL)
    make_alert()
    run()

    request = webhook.calls[0].request
    at, digest = (part.split("=")[1] for part in request.headers["X-LLMHub-Signature"].split(","))
    body = request.body if isinstance(request.body, bytes) else (request.body or "").encode()
    assert digest == hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert abs(int(at) - timezone.now().timestamp()) < 60


def test_without_a_secret_nothing_is_signed(webhook: responses.RequestsMock) -> None:
    webhook.post(URL)
    make_alert(budget=make_budget(webhook_secret=""))
    run()

    assert "X-LLMHub-Signature" not in webhook.calls[0].request.headers


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"status": 500}, "The webhook answered 500."),
        (
            {"status": 302, "headers": {"Location": "http://169.254.169.254/"}},
            "The webhook answered 302; redirects are not followed.",
        ),
        ({"body": requests.ConnectTimeout("secret")}, "No connection to the webhook within 5 s."),
        ({"body": requests.ReadTimeout("secret")}, "No answer of the webhook within 10 s."),
        ({"body": requests.exceptions.SSLError("secret")}, "The webhook's TLS certificate is not accepted."),
        ({"body": requests.ConnectionError("secret")}, "The webhook cannot be reached."),
        ({"body": requests.TooManyRedirects("secret")}, "The webhook cannot be called (TooManyRedirects)."),
    ],
)
def test_what_goes_wrong_is_noted_without_the_address_and_tried_again(
    webhook: responses.RequestsMock, caplog: pytest.LogCaptureFixture, answer: dict[str, Any], says: str
) -> None:
    webhook.post(URL, **answer)
    alert = make_alert()
    with caplog.at_level(logging.INFO):
        run()

    alert.refresh_from_db()
    assert (alert.last_error, alert.tries, alert.delivered_at) == (says, 1, None)
    assert alert.deliver_at is not None
    assert timedelta(seconds=50) < alert.deliver_at - timezone.now() <= timedelta(minutes=1)
    assert says in caplog.text
    assert "secret" not in caplog.text


def test_an_alert_is_tried_later_and_later_then_given_up(webhook: responses.RequestsMock) -> None:
    webhook.post(URL, status=503)
    alert = make_alert()
    pauses = []
    for _ in range(10):
        BudgetAlert.objects.update(deliver_at=timezone.now())
        before = timezone.now()
        run()
        alert.refresh_from_db()
        pauses.append(alert.deliver_at and round((alert.deliver_at - before).total_seconds() / 60))

    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, None]
    assert (alert.tries, alert.delivered_at) == (10, None)
    run()
    assert len(webhook.calls) == 10


def test_an_alert_that_arrived_at_last_is_done(webhook: responses.RequestsMock) -> None:
    webhook.post(URL, status=503)
    webhook.post(URL, status=200)
    alert = make_alert()
    run()
    BudgetAlert.objects.update(deliver_at=timezone.now())
    run()

    alert.refresh_from_db()
    assert (alert.tries, alert.last_error, alert.deliver_at) == (2, "", None)
    first, second = (json.loads(call.request.body or "")["id"] for call in webhook.calls)
    assert first == second


def test_a_webhook_that_fails_delays_only_its_own_budget(webhook: responses.RequestsMock) -> None:
    webhook.post(URL, status=500)
    webhook.post("https://other.example.com/", status=200)
    broken = make_budget("web")
    make_alert(50, broken)
    make_alert(80, broken)
    fine = make_alert(budget=make_budget("app", webhook_url="https://other.example.com/"))
    run()

    fine.refresh_from_db()
    assert fine.delivered_at is not None
    assert [call.request.url for call in webhook.calls] == [URL, "https://other.example.com/"]


def test_an_alert_that_is_not_due_waits(webhook: responses.RequestsMock) -> None:
    make_alert(deliver_at=timezone.now() + timedelta(minutes=1))
    make_alert(90, make_budget("app"), deliver_at=None)
    run()

    assert len(webhook.calls) == 0


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"webhook_url": ""}, "The budget has no webhook any more."),
        ({"enabled": False}, "The budget is disabled."),
    ],
)
def test_an_alert_whose_webhook_is_gone_is_not_posted(
    webhook: responses.RequestsMock, facts: dict[str, Any], says: str
) -> None:
    alert = make_alert(budget=make_budget(**facts))
    run()

    alert.refresh_from_db()
    assert (alert.deliver_at, alert.last_error) == (None, says)
    assert len(webhook.calls) == 0


def test_a_secret_that_cannot_be_read_is_said(settings: Settings, webhook: responses.RequestsMock) -> None:
    alert = make_alert()
    settings.LLMHUB_ENCRYPTION_KEYS = ["another key altogether, long enough"]
    run()

    alert.refresh_from_db()
    assert "LLMHUB_ENCRYPTION_KEYS" in alert.last_error
    assert len(webhook.calls) == 0


# --- where the hub may call, on real sockets


class Receiver(BaseHTTPRequestHandler):
    """Takes posts; what came is in the server's `got`."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, self.headers["Host"], json.loads(body)))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    server.got = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_on_this_machine_is_called_while_the_hub_is_for_this_machine(receiver: HTTPServer) -> None:
    port = receiver.server_port
    alerts.post(f"http://127.0.0.1:{port}/hook", {"id": "7"}, "")

    assert receiver.got == [("/hook", f"127.0.0.1:{port}", {"id": "7"})]  # type: ignore[attr-defined]


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://10.0.0.7/", "http://169.254.169.254/latest/"])
def test_a_private_address_is_not_called(settings: Settings, url: str) -> None:
    settings.LLMHUB_LISTENS_ON_LOOPBACK = False

    with pytest.raises(alerts.NotDelivered, match="which the hub may not call"):
        alerts.post(url, {}, "")


def test_a_public_name_that_leads_to_a_private_address_is_not_called(
    settings: Settings, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LLMHUB_LISTENS_ON_LOOPBACK = False
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", receiver.server_port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)  # the outside's answer

    with pytest.raises(alerts.NotDelivered, match=r"hooks\.example\.com leads to 127\.0\.0\.1"):
        alerts.post(f"http://hooks.example.com:{receiver.server_port}/", {}, "")
    assert receiver.got == []  # type: ignore[attr-defined]


def test_a_proxy_of_the_environment_is_not_asked(
    receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    alerts.post(f"http://127.0.0.1:{receiver.server_port}/", {}, "")

    assert len(receiver.got) == 1  # type: ignore[attr-defined]


def test_nobody_who_listens_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(alerts.NotDelivered, match="cannot be reached"):
        alerts.post(f"http://127.0.0.1:{port}/", {}, "")
