"""Pages of other origins: none may call the hub but those that are listed."""

from typing import Any

import pytest

from completions.cors import CORS
from completions.limits import Standing, Standings, rate_limit_headers

LISTED = "https://app.example.com"


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"answer"})


async def ask(method: str = "POST", **headers: str) -> tuple[int, dict[str, str]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await CORS(application, [LISTED])({"type": "http", "method": method, "headers": named}, None, send)  # type: ignore[arg-type]
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


async def test_a_listed_origin_may_read_the_answer() -> None:
    _, headers = await ask(origin=LISTED)
    assert headers["access-control-allow-origin"] == LISTED
    assert headers["vary"] == "origin"
    assert "x-request-id" in headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://app.example.com.evil", "http://app.example.com", "null"]
)
async def test_any_other_origin_is_answered_without_leave_to_read(origin: str) -> None:
    _, headers = await ask(origin=origin)
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "name",
    [
        *("x-should-retry", "retry-after", "request-id", "x-request-id", "age"),
        *("x-llmhub-attempts", "x-llmhub-cache-similarity", "x-llmhub-cache", "x-llmhub-cost-usd"),
        *rate_limit_headers(Standings(*[Standing(1, 1, 1.0)] * 2)),
    ],
)
async def test_every_header_that_the_hub_has_for_callers_may_be_read(name: str) -> None:
    _, headers = await ask(origin=LISTED)
    assert name in headers["access-control-expose-headers"].split(", ")


async def test_a_page_may_say_what_it_wants_of_the_cache() -> None:
    asked = "cache-control, x-llmhub-cache"
    _, headers = await ask(
        "OPTIONS",
        origin=LISTED,
        access_control_request_method="POST",
        access_control_request_headers=asked,
    )
    assert headers["access-control-allow-headers"] == asked


async def test_a_preflight_grants_what_the_sdks_send_and_nothing_else() -> None:
    status, headers = await ask(
        "OPTIONS",
        origin=LISTED,
        access_control_request_method="POST",
        access_control_request_headers="authorization, content-type, X-Stainless-Lang, x-evil",
    )
    assert status == 204
    assert headers["access-control-allow-headers"] == "authorization, content-type, x-stainless-lang"


async def test_a_preflight_of_any_other_origin_is_no_preflight() -> None:
    status, headers = await ask(
        "OPTIONS", origin="https://evil.example", access_control_request_method="POST"
    )
    assert status == 200
    assert "access-control-allow-origin" not in headers
