"""Errors an upstream states, by status or inside a 200: each becomes its own, without our key."""

from typing import Any

import pytest

from providers.errors import (
    UpstreamAuthError,
    UpstreamError,
    UpstreamInvalid,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamRedirect,
    UpstreamRejected,
)
from tests.fakes import (
    FakeUpstream,
    chunk,
    sse,
)
from tests.providers.drivers.calls import KEY, complete, stream, text

# --- refusals


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UpstreamAuthError),
        (402, UpstreamAuthError),
        (403, UpstreamAuthError),
        (429, UpstreamRateLimited),
        (408, UpstreamOverloaded),
        (409, UpstreamOverloaded),
        (500, UpstreamOverloaded),
        (529, UpstreamOverloaded),
        (400, UpstreamRejected),
        (404, UpstreamRejected),
        (422, UpstreamRejected),
    ],
)
async def test_an_error_status_becomes_its_error(
    upstream: FakeUpstream, status: int, kind: type[UpstreamError]
) -> None:
    upstream.refuses(status)
    with pytest.raises(kind) as caught:
        await complete(upstream)
    assert caught.value.status == status  # type: ignore[attr-defined]
    assert caught.value.retryable == (kind is not UpstreamRejected)
    _, error = await stream(upstream)
    assert type(error) is kind


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "bad thing", "code": "c", "param": "p"}}, "bad thing"),
        ({"error": "bad thing"}, "bad thing"),
        ({"detail": "bad thing"}, "bad thing"),
        ({"message": "bad thing"}, "bad thing"),
        ([{"error": {"code": 422, "message": "bad thing", "status": "INVALID_ARGUMENT"}}], "bad thing"),
        ("bad thing", "bad thing"),
        ({"detail": [{"loc": ["body"], "msg": "bad thing"}]}, "bad thing"),
        ("<html>Bad Gateway</html>", "without a message"),
        (b"\xff\xfe", "\ufffd"),
        ("", "without a message"),
    ],
)
async def test_the_upstreams_own_words_are_found_in_any_shape(
    upstream: FakeUpstream, body: Any, message: str
) -> None:
    upstream.refuses(422, body)
    with pytest.raises(UpstreamRejected, match=message) as caught:
        await complete(upstream)
    assert len(caught.value.message) <= 2048


async def test_code_and_param_pass(upstream: FakeUpstream) -> None:
    upstream.refuses(400, {"error": {"message": "m", "code": "context_length_exceeded", "param": "messages"}})
    with pytest.raises(UpstreamRejected) as caught:
        await complete(upstream)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_no_error_repeats_the_key_or_part_of_it(upstream: FakeUpstream, status: int) -> None:
    said = f"Incorrect key {KEY}, that is {KEY[:10]}...{KEY[-8:]} or sk-cana*****ghij or Bearer {KEY}"
    upstream.refuses(status, {"error": {"message": said, "code": KEY, "param": KEY}})
    with pytest.raises(UpstreamError) as caught:
        await complete(upstream)
    shown = f"{caught.value} {vars(caught.value)} {caught.value.__cause__!r}"
    assert "canary" not in shown
    assert KEY[-8:] not in shown
    assert "ghij" not in shown


async def test_a_wrong_key_behind_a_400_is_an_auth_error(upstream: FakeUpstream) -> None:
    details = [{"reason": "API_KEY_INVALID"}]
    upstream.refuses(400, [{"error": {"code": 400, "message": "API key not valid.", "details": details}}])
    with pytest.raises(UpstreamAuthError):
        await complete(upstream)


@pytest.mark.parametrize(
    "said",
    [
        {"error": {"message": "no", "code": "invalid_api_key"}},
        {"error": {"message": "no", "code": "API_KEY_INVALID"}},
        {"error": {"message": "no", "type": "authentication_error"}},
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***."},
        {
            "error": {
                "code": 400,
                "message": "API key not valid. Please pass one.",
                "status": "INVALID_ARGUMENT",
            }
        },
        "Invalid API key",
    ],
)
async def test_so_are_its_codes_and_messages_that_begin_so(upstream: FakeUpstream, said: Any) -> None:
    upstream.refuses(400, said)
    with pytest.raises(UpstreamAuthError):
        await complete(upstream)


@pytest.mark.parametrize(
    "said",
    [
        {"error": {"message": "Invalid value: 'incorrect api key'", "code": "invalid_value"}},
        {"error": {"message": "'incorrect api key' is no role"}},
        {"error": {"message": "Unknown tool API_KEY_INVALID", "code": "invalid_value"}},
        {"error": {"message": "bad", "details": [{"description": "API_KEY_INVALID: api key not valid"}]}},
        {"error": {"message": "bad", "details": "of invalid api key"}},
        {"detail": [{"msg": "invalid api key", "input": "incorrect api key"}]},
    ],
)
async def test_a_400_that_repeats_the_callers_words_is_not(upstream: FakeUpstream, said: Any) -> None:
    upstream.refuses(400, said)
    with pytest.raises(UpstreamRejected) as caught:
        await complete(upstream)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Your input was flagged: this model requires moderation", None),
        ("Blocked", "content_policy_violation"),
        ("Country, region, or territory not supported", "unsupported_country_region_territory"),
        ("Violates our usage policies.", None),
        ("Blocked", "moderation_blocked"),
    ],
)
async def test_a_403_that_is_about_the_request_is_told_in_its_own_words(
    upstream: FakeUpstream, message: str, code: str | None
) -> None:
    upstream.refuses(403, {"error": {"message": message, "code": code}})
    with pytest.raises(UpstreamRejected) as caught:
        await complete(upstream)
    assert (caught.value.status, caught.value.message, caught.value.code) == (403, message, code)


@pytest.mark.parametrize(
    "said",
    [
        {"message": "Not authorized, because no identity-based policy allows it", "code": "permission_error"},
        {"message": "Invalid API key for content generation"},
        {"message": "This region", "code": "invalid_api_key"},
        {"message": "Project does not have access"},
    ],
)
async def test_a_403_that_is_about_the_key_is_an_auth_error(upstream: FakeUpstream, said: Any) -> None:
    upstream.refuses(403, {"error": said})
    with pytest.raises(UpstreamAuthError):
        await complete(upstream)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("999999", 3600),
        ("Mon, 01 Jan 2024 00:00:00 GMT", 1),
        ("soon", None),
        ("nan", None),
    ],
)
async def test_retry_after_is_read_and_capped(
    upstream: FakeUpstream, header: str, seconds: float | None
) -> None:
    upstream.refuses(429, headers={"retry-after": header})
    with pytest.raises(UpstreamRateLimited) as caught:
        await complete(upstream)
    assert caught.value.retry_after == seconds


async def test_redirects_are_not_followed(upstream: FakeUpstream) -> None:
    upstream.refuses(307, "", headers={"location": f"{upstream.url}/elsewhere"})
    with pytest.raises(UpstreamRedirect, match="redirects are not followed"):
        await complete(upstream)
    assert len(upstream.requests) == 1


# --- errors inside a 200


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "boom"}, UpstreamInvalid),
        ({"message": "slow down", "code": 429}, UpstreamRateLimited),
        ({"message": "slow down", "type": "rate_limit_error"}, UpstreamRateLimited),
        ({"message": "busy", "type": "overloaded_error"}, UpstreamOverloaded),
        ({"message": "bad", "code": "400"}, UpstreamRejected),
        ("boom", UpstreamInvalid),
    ],
)
async def test_an_error_inside_a_200_is_that_error(
    upstream: FakeUpstream, error: Any, kind: type[UpstreamError]
) -> None:
    upstream.refuses(200, {"error": error})
    with pytest.raises(kind):
        await complete(upstream)
    chunks, raised = await stream(upstream)
    assert (chunks, type(raised)) == ([], kind)


@pytest.mark.parametrize(
    "event", [sse({"error": {"message": "busy", "code": 503}}), b'event: error\ndata: {"status": 503}\n\n']
)
async def test_an_error_event_before_the_first_content_leaves_nothing_begun(
    upstream: FakeUpstream, event: bytes
) -> None:
    upstream.events(chunk({"role": "assistant", "content": ""}), event)
    chunks, error = await stream(upstream)
    assert (chunks, type(error)) == ([], UpstreamOverloaded)


async def test_an_error_event_mid_stream_comes_after_the_content_before_it(upstream: FakeUpstream) -> None:
    upstream.events(sse(chunk({"content": "a"}), {"error": {"message": "boom"}}, chunk({"content": "b"})))
    chunks, error = await stream(upstream)
    assert text(chunks) == "a"
    assert type(error) is UpstreamInvalid
    assert "boom" in error.message
