"""Whatever goes wrong on `/api`, the answer has one shape, and every answer has a request id."""

from datetime import datetime
from typing import Any

import pytest
import requests
from django.db import OperationalError
from django.test import override_settings
from rest_framework.exceptions import ValidationError
from rest_framework.test import APIClient

from completions.errors import LLMServiceError, RateLimitError
from completions.exceptions import exception_handler
from tests.conftest import LiveHub
from tests.factories import make_key
from tests.surfaces.api import HELLO, assert_error, bearer, client_of

pytestmark = pytest.mark.django_db

COMPLETIONS = "/api/completions/"


def handled(error: Exception) -> Any:
    return exception_handler(error, {})


def test_the_timestamp_is_utc_in_iso_format() -> None:
    body = assert_error(APIClient().get(COMPLETIONS), 401, "AUTHENTICATION_FAILED")

    offset = datetime.fromisoformat(body["timestamp"]).utcoffset()
    assert offset is not None
    assert not offset


@pytest.mark.parametrize("method", ["get", "post", "put", "delete", "patch", "options", "head"])
def test_an_unknown_address_is_a_404_whatever_the_method(method: str) -> None:
    response = getattr(APIClient(), method)("/api/nothing/here")

    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/api/", "/api/nothing/", "/api/completions/not-a-uuid/", "/api/v2"])
def test_an_unknown_address_answers_in_json(path: str) -> None:
    assert_error(client_of().get(path), 404, "NOT_FOUND")


def test_a_wrong_method_is_a_405() -> None:
    assert_error(client_of().delete("/api/models/"), 405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(
    "body", ["{", "", "[1,]", '{"messages": NaN}', '"\\ud800', "\u00ff".encode("latin-1")]
)
def test_bad_json_is_a_400(body: Any) -> None:
    response = client_of().post(COMPLETIONS, body, content_type="application/json")

    assert_error(response, 400, "INVALID_REQUEST")


def test_json_nested_without_end_is_a_400() -> None:
    response = client_of().post(COMPLETIONS, "[" * 200_000, content_type="application/json")

    assert_error(response, 400, "INVALID_REQUEST")


@pytest.mark.parametrize("body", ["[]", "5", '"text"', "null"])
def test_json_that_is_not_an_object_is_a_400(body: str) -> None:
    response = client_of().post(COMPLETIONS, body, content_type="application/json")

    assert_error(response, 400, "INVALID_REQUEST")


def test_another_media_type_is_a_415() -> None:
    response = client_of().post(COMPLETIONS, "messages=x", content_type="application/x-www-form-urlencoded")

    assert_error(response, 415, "UNSUPPORTED_MEDIA_TYPE")


def test_an_encoded_body_is_a_415() -> None:
    response = client_of().post(
        COMPLETIONS, b"\x1f\x8b", content_type="application/json", headers={"Content-Encoding": "gzip"}
    )

    assert_error(response, 415, "UNSUPPORTED_MEDIA_TYPE")


@override_settings(LLMHUB_MAX_BODY_BYTES=100)
def test_a_body_over_the_cap_is_a_413() -> None:
    response = client_of().post(COMPLETIONS, {"messages": HELLO, "user": "x" * 100}, format="json")

    assert_error(response, 413, "BODY_TOO_LARGE")


def test_a_host_name_that_is_not_ours_is_a_400_in_json() -> None:
    assert_error(APIClient().get(COMPLETIONS, headers={"Host": "evil.example"}), 400, "INVALID_REQUEST")


def test_an_sse_clients_accept_header_is_no_reason_to_refuse() -> None:
    assert client_of().get("/api/models/", headers={"Accept": "text/event-stream"}).status_code == 200


def test_a_missing_slash_at_the_end_changes_nothing() -> None:
    client = client_of()

    assert client.get("/api/models").status_code == 200
    assert client.post("/api/tokens/count", {"text": "Hi"}, format="json").status_code == 200


def test_every_answer_has_a_request_id_twice() -> None:
    response = APIClient().get("/api/nothing/")

    assert response.headers["x-request-id"] == response.headers["request-id"]
    assert len(response.headers["x-request-id"]) == 32


def test_a_harmless_request_id_of_the_client_is_kept() -> None:
    response = APIClient().get("/api/nothing/", headers={"X-Request-Id": "Job-7.a_b"})

    assert response.headers["x-request-id"] == "Job-7.a_b"


@pytest.mark.parametrize("given", ["a b", "x" * 65, "<script>", "é", ""])
def test_any_other_request_id_is_replaced(given: str) -> None:
    response = APIClient().get("/api/nothing/", headers={"X-Request-Id": given})

    assert response.headers["x-request-id"] != given


def test_an_unexpected_error_shows_nothing_of_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    response = handled(RuntimeError("the password is swordfish"))

    assert (response.status_code, response.data["code"]) == (500, "INTERNAL_ERROR")
    assert "swordfish" not in str(response.data)
    assert "swordfish" in caplog.text


def test_a_database_that_is_away_is_a_503_with_a_time_to_wait() -> None:
    response = handled(OperationalError("database is locked"))

    assert (response.status_code, response.data["code"]) == (503, "UNAVAILABLE")
    assert response["Retry-After"] == "5"


def test_a_rate_limit_says_when_to_come_back_but_never_later_than_a_minute() -> None:
    assert handled(RateLimitError("slow down", retry_after=0.2))["Retry-After"] == "1"
    assert handled(RateLimitError("slow down", retry_after=900))["Retry-After"] == "60"
    assert "Retry-After" not in handled(RateLimitError("slow down"))


def test_every_error_of_the_service_keeps_its_status_and_code() -> None:
    kinds = [LLMServiceError]
    for kind in kinds:
        kinds += [one for one in kind.__subclasses__() if one.__module__ == LLMServiceError.__module__]
        response = handled(kind("as it is", param="model"))
        assert (response.status_code, response.data["code"]) == (kind.status, kind.code)
        assert response.data["message"] == "as it is"
        assert response.data["details"] == {"param": "model"}


def test_the_message_of_a_validation_error_names_the_first_field() -> None:
    error = ValidationError({"models": [{}, {"name": ["This field is required."]}]})

    assert handled(error).data["message"] == "models[1].name: This field is required."


def upload(
    hub: LiveHub, size: int, headers: dict[str, str], *, chunked: bool, path: str = COMPLETIONS
) -> requests.Response:
    """POST `size` bytes; `chunked` sends no Content-Length."""
    piece = b"x" * 8192
    body = (piece for _ in range(size // len(piece))) if chunked else b"x" * size
    headers = {"Content-Type": "application/json"} | headers
    return requests.post(f"{hub.url}{path}", data=body, headers=headers, timeout=10)


def live_error(response: requests.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["x-request-id"]


def test_a_stranger_may_send_64_kib_and_no_more(live_hub: LiveHub) -> None:
    small = upload(live_hub, 64 << 10, {}, chunked=False)
    large = upload(live_hub, (64 << 10) + 1, {}, chunked=False)

    assert "session" not in small.json()["message"]
    live_error(large, 401, "AUTHENTICATION_FAILED")
    assert "65536 bytes" in large.json()["message"]


def test_a_wrong_key_makes_a_stranger(live_hub: LiveHub) -> None:
    response = upload(live_hub, 1 << 20, bearer("sk-llmhub-AAAAAAAAAAAA-" + "a" * 43), chunked=False)

    live_error(response, 401, "AUTHENTICATION_FAILED")


@pytest.mark.parametrize("path", [COMPLETIONS, "/api/tokens/count/"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
def test_a_refusal_is_told_however_long_the_body(live_hub: LiveHub, path: str, chunked: bool) -> None:
    for shown in (bearer("sk-llmhub-wrong"), {}):
        response = upload(live_hub, 15 << 20, shown, chunked=chunked, path=path)
        live_error(response, 401, "AUTHENTICATION_FAILED")
        assert response.headers["connection"] == "close"


def test_a_valid_key_may_send_up_to_the_cap(live_hub: LiveHub) -> None:
    _, key = make_key()
    with override_settings(LLMHUB_MAX_BODY_BYTES=1 << 20):
        within = upload(live_hub, 1 << 20, bearer(key), chunked=True)
        beyond = upload(live_hub, (1 << 20) + 1, bearer(key), chunked=False)

    assert "not valid JSON" in within.json()["message"]
    live_error(beyond, 413, "BODY_TOO_LARGE")


def test_the_cap_holds_for_a_body_without_a_length(live_hub: LiveHub) -> None:
    _, key = make_key()
    with override_settings(LLMHUB_MAX_BODY_BYTES=1 << 20):
        response = upload(live_hub, (1 << 20) + 8192, bearer(key), chunked=True)

    live_error(response, 413, "BODY_TOO_LARGE")


def test_a_body_without_a_length_is_read_all_the_same(live_hub: LiveHub) -> None:
    _, key = make_key()
    headers = bearer(key) | {"Content-Type": "application/json"}

    response = requests.post(
        f"{live_hub.url}/api/tokens/count/", data=iter([b'{"text"', b': "Hi"}']), headers=headers, timeout=10
    )

    assert response.json() == {"count": 1, "exact": False}
