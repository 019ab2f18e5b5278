"""What tests of `/v1` share: a hub between a caller and a scripted upstream, and answers read frame by frame.

The prompt HELLO has PROMPT tokens and each of PIECES one, by the model's own tokenizer: what the hub counts
where the upstream does not say is known to the token, and to the nano-dollar by `cost`.
"""

import http.client
import json
import resource
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import requests
from django.core.management import call_command
from django.db import transaction
from django.db.models import ProtectedError
from pytest_django import DjangoDbBlocker

from completions.ledger.audit import audit
from completions.models import (
    ApiKey,
    Attempt,
    Budget,
    BudgetAlert,
    BudgetWindow,
    Charge,
    Completion,
    CompletionContent,
    Project,
    State,
)
from providers.models import LanguageModel, LLMProvider, ModelPrice
from tests.conftest import LiveHub, running_hub
from tests.factories import make_key, make_project, make_provider
from tests.fakes import FakeUpstream, Received, Step
from tests.waiting import eventually

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MODEL = "gpt-4o"
HELLO = [{"role": "user", "content": "Hello"}]
PROMPT = 8
PIECES = ("one", " two", " three", " four", " five", " six")
PROMPT_NANO, OUTPUT_NANO = 2_500, 10_000  # per token
UPSTREAM_KEY = "sk-upstream-canary-7c1e5b9zyxw"  # no part of it is hexadecimal, as request ids are
DONE = "[DONE]"
PATIENCE = 10.0  # seconds
MIB = 1 << 20
ROWS = (
    Attempt, CompletionContent, Charge, Completion, BudgetAlert, BudgetWindow, Budget, ApiKey, Project,
    LLMProvider,
)  # fmt: skip


def cost(prompt: int, output: int) -> int:
    """Nano-dollars."""
    return prompt * PROMPT_NANO + output * OUTPUT_NANO


class Upstream(FakeUpstream):
    """Answers at OpenAI's other two addresses as well; knows when it was asked and how much it could send."""

    def __init__(self) -> None:
        super().__init__(models=(MODEL,))
        self.asked_at: list[float] = []  # monotonic
        self.sent = 0  # bytes

    def _script(self, request: Received) -> list[Step]:
        self.asked_at.append(time.monotonic())
        same = replace(request, path=CHAT) if request.path in (COMPLETIONS, EMBEDDINGS) else request
        return super()._script(same)

    async def _perform(self, steps: list[Step], writer: Any) -> bool:
        for step in steps:
            if not await super()._perform([step], writer):
                return False
            self.sent += len(step) if isinstance(step, bytes) else 0
        return True


class V1:
    """A hub with one provider, whose model has a price, and one key, whose project has a budget."""

    def __init__(self, hub: LiveHub, upstream: Upstream) -> None:
        self.hub, self.upstream = hub, upstream
        self.during = ExitStack()  # what lasts as long as the test
        self.provider = make_provider(
            upstream_url=upstream.url,
            models=(MODEL,),
            api_key=UPSTREAM_KEY,
            first_token_timeout_seconds=PATIENCE,
            idle_timeout_seconds=PATIENCE,
            total_timeout_seconds=2 * PATIENCE,
        )
        self.model = self.provider.models.get()
        price(self.model)
        self.project = make_project()
        self.budget = Budget.objects.create(project=self.project, amount=1000)
        self.api_key, self.key = make_key(self.project)

    def set(self, row: Any, **fields: Any) -> None:
        """Change a row as staff would."""
        for name, value in fields.items():
            setattr(row, name, value)
        row.save()

    def patient_for(self, **seconds: float) -> None:
        """The provider's deadlines: connect, first_token, idle, total."""
        self.set(self.provider, **{f"{name}_timeout_seconds": value for name, value in seconds.items()})

    # --- calls

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> requests.Response:
        """A request: `body` as JSON unless it is bytes or an iterator of them. No redirect is followed."""
        given = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"}
        raw = json.dumps(body) if isinstance(body, dict) else body
        return requests.request(
            method,
            self.hub.url + path,
            data=raw,
            headers=given | dict(headers or {}),
            timeout=PATIENCE,
            allow_redirects=False,
        )

    def post(self, path: str, body: Any, **more: Any) -> requests.Response:
        return self.send("POST", path, body, **more)

    def chat(self, headers: Mapping[str, Any] | None = None, **fields: Any) -> requests.Response:
        """A chat completion, whole or (`stream=True`) as all of its frames."""
        return self.post(CHAT, {"model": MODEL, "messages": HELLO} | fields, headers=headers)

    def stream(self, **fields: Any) -> list[Any]:
        """The frames of a streamed chat completion."""
        return frames_of(self.chat(stream=True, **fields))

    # --- the ledger

    def rows(self) -> list[Completion]:
        """Every call's row, newest first, once all are final and the ledger is true."""
        assert eventually(lambda: not Completion.objects.filter(state=State.RUNNING).exists())
        assert audit() == []
        assert not BudgetWindow.objects.exclude(held_nano=0).exists()
        return list(Completion.objects.all())

    def row(self) -> Completion:
        """The only call's."""
        [row] = self.rows()
        return row


def price(model: LanguageModel) -> ModelPrice:
    """PROMPT_NANO and OUTPUT_NANO, in dollars per million tokens."""
    return ModelPrice.objects.create(
        model=model, valid_from="2020-01-01", prompt=Decimal("2.50"), completion=10
    )


class Caller:
    """A streamed call on a connection of its own: frames one by one, by someone who may leave at any time."""

    def __init__(
        self, v1: V1, path: str = CHAT, *, stream: bool = True, buffer: int = 0, **fields: Any
    ) -> None:
        self.connection = http.client.HTTPConnection(v1.hub.host, v1.hub.port, timeout=PATIENCE)
        if buffer:  # bytes that its machine takes before it reads them
            self.connection.sock = sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.settimeout(PATIENCE)
            sock.connect((v1.hub.host, v1.hub.port))
        v1.during.callback(self.leave)
        asked = {} if path in (COMPLETIONS, EMBEDDINGS) else {"messages": HELLO}
        body = {"model": MODEL, "stream": stream} | asked | fields
        headers = {"Authorization": f"Bearer {v1.key}", "Content-Type": "application/json"}
        self.connection.request("POST", path, json.dumps(body), headers)
        self.response: http.client.HTTPResponse | None = None

    def answer(self) -> http.client.HTTPResponse:
        """Status and headers, waited for."""
        if self.response is None:
            self.response = self.connection.getresponse()
        return self.response

    def frame(self) -> Any:
        """The next frame, waited for; None at the end."""
        while line := self.answer().readline().rstrip(b"\n"):
            self.answer().readline()
            if line.startswith(b"data: "):
                return _payload(line[6:])
        return None

    def frames(self, count: int) -> list[Any]:
        return [self.frame() for _ in range(count)]

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection, whatever is on its way."""
        sock = self.connection.sock
        if reset and sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self.response is not None:
            self.response.close()
        self.connection.close()


def frames_of(response: requests.Response) -> list[Any]:
    """The frames of an SSE answer: JSON as objects, [DONE] as text; comments left out."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream"
    *blocks, rest = response.content.split(b"\n\n")
    assert rest == b""
    frames = [block for block in blocks if not block.startswith(b":")]
    assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in frames), frames
    return [_payload(frame[6:]) for frame in frames]


def _payload(data: bytes) -> Any:
    return DONE if data == DONE.encode() else json.loads(data)


def text_of(frames: Sequence[Any]) -> str:
    """What choice 0 says."""
    choices = [choice for frame in frames if frame != DONE for choice in frame.get("choices", ())]
    return "".join(
        choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
        for choice in choices
        if not choice["index"]
    )


def told(response: requests.Response) -> dict[str, Any]:
    """The error of an answer, in OpenAI's shape and no other."""
    assert response.headers["content-type"] == "application/json", response.text
    body = response.json()
    assert body.keys() == {"error"}
    return checked(body["error"])


def checked(error: dict[str, Any]) -> dict[str, Any]:
    """An error object that has OpenAI's four fields."""
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    return error


def peak_bytes() -> int:
    """The most memory that this process, the hub in it, ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- fixtures: a module of tests takes them by name, `transactional_db, hub, v1 = shared.transactional_db, …`


@pytest.fixture(scope="module")
def transactional_db(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The database for all tests of a module, in place of pytest-django's for each. Emptied at the end."""
    with django_db_blocker.unblock():
        yield
        call_command("flush", verbosity=0, interactive=False)


@pytest.fixture(scope="module")
def hub(transactional_db: None) -> Iterator[LiveHub]:
    """One hub for all tests of a module. `live_hub` starts one for each, which takes ten times as long."""
    with running_hub() as hub:
        yield hub


@pytest.fixture
def v1(hub: LiveHub) -> Iterator[V1]:
    """The hub with a scripted upstream behind it; the rows of one test go with it."""
    with Upstream() as upstream:
        made = V1(hub, upstream)
        with made.during:
            yield made
    eventually(lambda: not Completion.objects.filter(state=State.RUNNING).exists())
    assert eventually(_are_gone)


def _are_gone() -> bool:
    """Deletes a test's rows, all or none."""
    try:
        with transaction.atomic():
            for rows in ROWS:
                rows._default_manager.all().delete()
    except ProtectedError:  # the row of a call that its caller has left came between
        return False
    return True
