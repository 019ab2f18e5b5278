"""A canary in the provider's key and one in the caller's: neither shows in an answer, log, page or export."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from django.db import connection
from django.test import Client

from completions import keys
from providers.models import LLMProvider
from providers.registry import snapshot
from tests.factories import make_project, make_provider, make_staff
from tests.fakes import FakeUpstream

pytestmark = pytest.mark.django_db(transaction=True)

PROVIDER_KEY = "sk-provider-canary-4f1d9b7a2c"
ASK = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream(key=PROVIDER_KEY) as fake:
        yield fake


def test_no_key_shows_anywhere(upstream: FakeUpstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ada = make_staff()
    project = make_project(members=(ada,))
    provider = make_provider(upstream_url=upstream.url, slug="local", models=("m",), api_key=PROVIDER_KEY)
    _, caller_key = keys.create_key(project, "canary")
    seen = [repr(snapshot()), repr(provider), str(LLMProvider.objects.values("slug", "api_key_last4"))]

    seen += _calls(upstream, caller_key)
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
    told = {"error": {"message": f"Incorrect API key provided: {PROVIDER_KEY}", "code": "invalid_api_key"}}
    upstream.answers().streams().refuses(401, told).refuses(500, told).refuses(400, told).cuts(after=1)
    headers = {"HTTP_AUTHORIZATION": f"Bearer {caller_key}"}
    found = []
    for body in (ASK, ASK | {"stream": True}, ASK, ASK, ASK, ASK | {"stream": True}, ASK | {"model": "none"}):
        answer = Client().post("/api/completions/", body, content_type="application/json", **headers)
        found.append(_text(answer))
    paths = ("completions/", "models/?provider=local", "providers/", "providers/local/status/", "budgets/")
    found += [_text(Client().get(f"/api/{path}", **headers)) for path in paths]
    found.append(_text(Client().get("/api/models/", HTTP_AUTHORIZATION=f"Bearer {caller_key[:-1]}!")))
    return found


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


def _text(answer: object) -> str:
    content = answer.getvalue() if getattr(answer, "streaming", False) else answer.content  # type: ignore[attr-defined]
    return str(content, "utf-8", "replace") + str(dict(answer.headers))  # type: ignore[attr-defined]


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
