"""What tests of `/api` share: a client with a key, and server-sent events read back."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests
from rest_framework.test import APIClient

from completions.models import Project
from tests.factories import make_key

HELLO = [{"role": "user", "content": "Hello"}]
ERROR_FIELDS = {"status_code", "message", "code", "timestamp", "details"}


def client_of(project: Project | None = None) -> APIClient:
    """A client that sends the key of `project`, or of a new one."""
    _, key = make_key(project)
    return client_with(key)


def client_with(key: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    return client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def assert_error(response: Any, status: int, code: str) -> dict[str, Any]:
    """The answer is an error in the one shape; its body."""
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/json"
    body: dict[str, Any] = json.loads(response.content)
    assert body.keys() == ERROR_FIELDS
    assert (body["status_code"], body["code"]) == (status, code)
    return body


@dataclass(frozen=True)
class Event:
    name: str
    data: Any


def events_of(response: requests.Response) -> Iterator[Event]:
    """Events as they come in; comments left out."""
    name = ""
    for line in response.iter_lines(chunk_size=1):
        text = line.decode()
        if text.startswith("event: "):
            name = text.removeprefix("event: ")
        elif text.startswith("data: "):
            yield Event(name, json.loads(text.removeprefix("data: ")))
