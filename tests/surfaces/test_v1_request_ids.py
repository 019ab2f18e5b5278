"""One id names a request everywhere: in both headers of its answer and in its ledger row."""

from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.surfaces import v1 as shared
from tests.surfaces.v1 import CHAT, EMBEDDINGS, V1

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

Ask = Callable[..., requests.Response]


def whole(v1: V1, **more: Any) -> requests.Response:
    return v1.chat(**more)


def stream(v1: V1, **more: Any) -> requests.Response:
    return v1.chat(stream=True, **more)


def refused_by_the_upstream(v1: V1, **more: Any) -> requests.Response:
    v1.upstream.refuses(400)
    return v1.chat(**more)


def stream_that_fails_at_once(v1: V1, **more: Any) -> requests.Response:
    v1.upstream.refuses(200, "nonsense")
    return v1.chat(stream=True, **more)


def stream_that_fails_later(v1: V1, **more: Any) -> requests.Response:
    v1.upstream.cuts(after=2)
    return v1.chat(stream=True, **more)


def spent_budget(v1: V1, **more: Any) -> requests.Response:
    v1.set(v1.budget, amount=0)
    return v1.chat(**more)


def bad_parameter(v1: V1, **more: Any) -> requests.Response:
    return v1.chat(n=0, **more)


def no_key(v1: V1, headers: Any = None) -> requests.Response:
    return v1.chat(headers={"Authorization": None} | (headers or {}))


def unknown_route(v1: V1, **more: Any) -> requests.Response:
    return v1.send("GET", "/v1/nothing", **more)


def wrong_method(v1: V1, **more: Any) -> requests.Response:
    return v1.send("GET", CHAT, **more)


def models(v1: V1, **more: Any) -> requests.Response:
    return v1.send("GET", "/v1/models", **more)


def embeddings(v1: V1, **more: Any) -> requests.Response:
    v1.upstream.refuses(200, {"data": [{"index": 0, "embedding": [0.5]}]})
    return v1.post(EMBEDDINGS, {"model": "gpt-4o", "input": "Hello"}, **more)


CALLS: list[Ask] = [
    whole,
    stream,
    embeddings,
    refused_by_the_upstream,
    stream_that_fails_at_once,
    stream_that_fails_later,
]
OTHERS: list[Ask] = [spent_budget, bad_parameter, no_key, unknown_route, wrong_method, models]
KEPT = ["Job-7.a_b", "x" * 64, "0"]
REPLACED = ["a b", "x" * 65, "<script>", "é".encode("latin-1"), "", "a/b", "a\tb"]


@pytest.mark.parametrize("ask", CALLS + OTHERS)
def test_every_answer_has_it_twice(v1: V1, ask: Ask) -> None:
    headers = ask(v1).headers

    assert headers["x-request-id"] == headers["request-id"]
    assert len(headers["x-request-id"]) == 32


@pytest.mark.parametrize("given", KEPT)
@pytest.mark.parametrize("ask", CALLS + OTHERS)
def test_a_harmless_one_of_the_callers_is_kept(v1: V1, ask: Ask, given: str) -> None:
    headers = ask(v1, headers={"X-Request-Id": given}).headers

    assert headers["x-request-id"] == headers["request-id"] == given


@pytest.mark.parametrize("ask", [whole, stream, refused_by_the_upstream, no_key])
def test_any_other_is_replaced(v1: V1, ask: Ask) -> None:
    for given in REPLACED:
        headers = ask(v1, headers={"X-Request-Id": given}).headers
        assert len(headers["x-request-id"]) == 32
        assert headers["x-request-id"] == headers["request-id"]


@pytest.mark.parametrize("ask", CALLS)
def test_the_ledger_keeps_the_callers(v1: V1, ask: Ask) -> None:
    ask(v1, headers={"X-Request-Id": "mine"})

    assert v1.row().request_id == "mine"


@pytest.mark.parametrize("ask", CALLS)
def test_the_ledger_has_the_one_that_the_caller_was_told(v1: V1, ask: Ask) -> None:
    answer = ask(v1)

    assert v1.row().request_id == answer.headers["x-request-id"]
