"""A canary in the provider's key and one in the caller's: neither shows in an answer, log, page or export."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from django.db import connection
from django.test import Client

from completions import keys
from completions.management.commands.serve import WEBSOCKETS
from providers import breaker
from providers.models import LLMProvider
from providers.registry import snapshot
from tests.conftest import LiveHub, running_hub
from tests.factories import make_project, make_provider, make_staff
from tests.fakes import FakeUpstream, chunk
from tests.surfaces.ws import TICKETS, Socket, cookie

pytestmark = pytest.mark.django_db(transaction=True)

PROVIDER_KEY = "sk-provider-canary-4f1d9b7a2c"
ASK = {"messages": [{"role": "user", "content": "Hello"}]}
TOLD = {"error": {"message": f"Incorrect API key provided: {PROVIDER_KEY}", "code": "invalid_api_key"}}


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream(key=PROVIDER_KEY) as fake:
        yield fake


@pytest.fixture
def hub(transactional_db: None) -> Iterator[LiveHub]:
    """Its server logs whatever the settings let it log."""
    with running_hub(log_level=None, **WEBSOCKETS) as hub:
        yield hub


def test_no_key_shows_anywhere(
    hub: LiveHub, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ada = make_staff()
    project = make_project(members=(ada,))
    provider = make_provider(upstream_url=upstream.url, slug="local", models=("m",), api_key=PROVIDER_KEY)
    _, caller_key = keys.create_key(project, "canary")
    seen = [repr(snapshot()), repr(provider), str(LLMProvider.objects.values("slug", "api_key_last4"))]

    seen += _calls(upstream, caller_key)
    seen += _v1(hub, upstream, caller_key)
    seen += _websockets(hub, upstream, caller_key, ada)
    seen += [_text(requests.get(f"{hub.url}/metrics", timeout=10))]
    seen += _pages(ada, provider)
    seen += [json.dumps(list(LogEntry.objects.values("object_repr", "change_message")))]
    seen += [_output("export_config"), _output("dumpdata", "providers", "completions")]
    seen += [record.getMessage() + str(record.exc_text) for record in caplog.records]
    seen += _rows()

    everything = "\n".join(seen)
    _, secret = keys.parse(caller_key)
    assert len(everything) > 100_000  # it did look
    assert PROVIDER_KEY not in everything
    assert PROVIDER_KEY[4:] not in everything
    assert secret not in everything


def _calls(upstream: FakeUpstream, caller_key: str) -> list[str]:
    """Every way a call can answer, upstreams that repeat our key included."""
    upstream.answers().streams().refuses(401, TOLD).refuses(500, TOLD).refuses(400, TOLD).cuts(after=1)
    headers = {"Authorization": f"Bearer {caller_key}"}
    found = []
    for body in (ASK, ASK | {"stream": True}, ASK, ASK, ASK, ASK | {"stream": True}, ASK | {"model": "none"}):
        answer = Client().post("/api/completions/", body, content_type="application/json", headers=headers)
        found.append(_text(answer))
    paths = ("completions/", "models/?provider=local", "providers/", "providers/local/status/", "budgets/")
    found += [_text(Client().get(f"/api/{path}", headers=headers)) for path in paths]
    found.append(_text(Client().get("/api/models/", HTTP_AUTHORIZATION=f"Bearer {caller_key[:-1]}!")))
    return found


def _v1(hub: LiveHub, upstream: FakeUpstream, caller_key: str) -> list[str]:
    """The same on the data plane, whole and streamed."""
    found = []
    for stream in (False, True):
        _fails_in_every_way(upstream)
        body = {**ASK, "model": "m", "stream": stream}
        found += [_text(_post(hub, caller_key, body)) for _ in range(FAILURES)]
    refused = [(caller_key[:-1] + "!", "m"), (caller_key, "none"), (PROVIDER_KEY, "m")]
    found += [_text(_post(hub, key, {**ASK, "model": model})) for key, model in refused]
    headers = {"x-api-key": caller_key}
    return [*found, _text(requests.get(f"{hub.url}/v1/models", headers=headers, timeout=10))]


FAILURES = 6


def _fails_in_every_way(upstream: FakeUpstream) -> None:
    breaker.forget()
    upstream._scripts.clear()
    upstream.refuses(401, TOLD).refuses(500, TOLD).refuses(500, TOLD).refuses(400, TOLD).refuses(200, TOLD)
    upstream.events(chunk({"content": "x"}), TOLD).cuts(after=1)


def _post(hub: LiveHub, key: str, body: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return requests.post(f"{hub.url}/v1/chat/completions", json=body, headers=headers, timeout=10)


def _websockets(hub: LiveHub, upstream: FakeUpstream, caller_key: str, ada: Any) -> list[str]:
    """Frames and close reasons: of calls that fail in every way, and of callers who are refused."""
    headers = {"Authorization": f"Bearer {caller_key}"}
    _fails_in_every_way(upstream)
    socket = Socket(hub, headers)
    found: list[Any] = []
    for number in range(FAILURES):
        socket.start(f"c{number}", model="m")
        found += socket.rest(f"c{number}")
    socket.resume(found[-1]["stream"] or "none")
    socket.start("none", model="none", api_key=PROVIDER_KEY)
    socket.send(caller_key.encode())
    socket.say("ping")
    while (frame := socket.hear())["type"] != "pong":
        found.append(frame)
    ticket = requests.post(f"{hub.url}{TICKETS}", headers=headers, timeout=10).json()["ticket"]
    sockets = [
        Socket(hub, subprotocols=[f"llmhub.ticket.{ticket}"]),
        Socket(hub, subprotocols=[f"llmhub.ticket.{ticket}"]),
        Socket(hub, {"Authorization": f"Bearer {caller_key[:-1]}"}),
        Socket(hub, {"Authorization": f"Bearer {PROVIDER_KEY}"}),
        Socket(hub, {"Cookie": cookie(ada)}),
        Socket(hub, query=f"?key={caller_key}"),
    ]
    sockets[0].pong()
    found += [one.closed() for one in sockets[1:]]
    for one in (socket, *sockets):
        one.leave()
    return [json.dumps(found)]


def _pages(ada: Any, provider: LLMProvider) -> list[str]:
    """What staff see: forms, lists, history, the administration's API; and a form saved as it is."""
    client = Client()
    client.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")
    admin = f"/admin/providers/llmprovider/{provider.pk}"
    paths = [
        *("/", "/admin/", "/admin/providers/llmprovider/", f"{admin}/change/", f"{admin}/history/"),
        *("/admin/completions/apikey/", "/admin/completions/completion/", "/admin/completions/project/"),
        *("/api/admin/providers/", "/api/admin/keys/", "/api/admin/providers/local/", "/api/schema/"),
    ]
    patched = client.patch("/api/admin/providers/local/", {"name": "Other"}, content_type="application/json")
    return [_text(client.get(path)) for path in paths] + [_text(patched)]


def _text(answer: Any) -> str:
    if isinstance(answer, requests.Response):
        return answer.text + str(dict(answer.headers))
    content = answer.getvalue() if getattr(answer, "streaming", False) else answer.content
    return str(content, "utf-8", "replace") + str(dict(answer.headers))


def _output(*command: str) -> str:
    out = io.StringIO()
    call_command(*command, stdout=out)
    return out.getvalue()


def _rows() -> list[str]:
    """Every text in every table."""
    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608 - names of our tables
            rows.append(str(cursor.fetchall()))
    return rows
