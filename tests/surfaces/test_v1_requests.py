"""What `/v1` takes, and how it refuses the rest: routes, keys, bodies, parameters. Always in JSON."""

import asyncio
import json
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from completions.v1 import application
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import CHAT, COMPLETIONS, EMBEDDINGS, HELLO, MODEL, UPSTREAM_KEY, V1, told

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

ROUTES = [
    ("POST", CHAT),
    ("POST", COMPLETIONS),
    ("POST", EMBEDDINGS),
    ("GET", "/v1/models"),
    ("GET", f"/v1/models/{MODEL}"),
    ("GET", "/v1/models/upstream/no-such-model"),
]
WRONG_METHODS = [
    (method, right, path)
    for right, path in ROUTES
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
    if method != right
]
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": MODEL, "messages": HELLO},
    COMPLETIONS: {"model": MODEL, "prompt": "Hello"},
    EMBEDDINGS: {"model": MODEL, "input": "Hello"},
}


class TestKeys:
    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_every_route_needs_one(self, v1: V1, method: str, path: str) -> None:
        answer = v1.send(method, path, BODIES.get(path), headers={"Authorization": None})

        assert answer.status_code == 401
        assert told(answer)["code"] == "invalid_api_key"

    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_a_wrong_one_is_echoed_by_six_characters_at_most(self, v1: V1, method: str, path: str) -> None:
        for wrong in ("swordfish-is-my-password", v1.key[:-1] + "~", v1.key[:-1], "", "é" * 20):
            headers = {"Authorization": f"Bearer {wrong}".encode("latin-1")}
            answer = v1.send(method, path, BODIES.get(path), headers=headers)

            assert answer.status_code == 401
            message = told(answer)["message"].removesuffix(" Keys begin with sk-llmhub-.")
            assert wrong[:6] in message
            assert len(wrong) < 7 or wrong[:7] not in message

    def test_it_may_come_as_x_api_key(self, v1: V1) -> None:
        shown = {"Authorization": None, "x-api-key": v1.key}
        assert v1.send("GET", "/v1/models", headers=shown).status_code == 200

    def test_it_is_not_looked_for_in_the_address(self, v1: V1) -> None:
        for name in ("api_key", "key", "token", "access_token"):
            path = f"/v1/models?{name}={v1.key}"
            assert v1.send("GET", path, headers={"Authorization": None}).status_code == 401

    @pytest.mark.parametrize("why", ["revoked", "expired", "project disabled"])
    def test_one_that_is_not_in_force_is_no_key(self, v1: V1, why: str) -> None:
        now = timezone.now()
        if why == "revoked":
            v1.set(v1.api_key, revoked_at=now)
        elif why == "expired":
            v1.set(v1.api_key, expires_at=now - timedelta(seconds=1))
        else:
            v1.set(v1.project, enabled=False)

        answer = v1.chat()

        assert answer.status_code == 401
        assert told(answer)["code"] == "invalid_api_key"


class TestRoutes:
    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
    @pytest.mark.parametrize(
        "path",
        ["/v1", "/v1/", "/v1/nothing", "/v1/chat", "/v1/chat/completions/x", "/v1//models", "/v1/Models"],
    )
    def test_an_unknown_one_is_a_404_in_json(self, v1: V1, method: str, path: str) -> None:
        answer = v1.send(method, path)

        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"]
        assert method == "HEAD" or told(answer)["type"] == "invalid_request_error"

    @pytest.mark.parametrize(("method", "right", "path"), WRONG_METHODS)
    def test_a_wrong_method_is_a_405_that_names_the_right_one(
        self, v1: V1, method: str, right: str, path: str
    ) -> None:
        answer = v1.send(method, path)

        assert answer.status_code == 405
        assert answer.headers["allow"] == right
        assert answer.headers["content-type"] == "application/json"
        assert method == "HEAD" or told(answer)["type"] == "invalid_request_error"

    @pytest.mark.parametrize(("method", "path"), ROUTES[:5])
    def test_a_slash_at_the_end_changes_nothing_and_redirects_nobody(
        self, v1: V1, method: str, path: str
    ) -> None:
        v1.upstream.refuses(418)
        plain, slashed = (v1.send(method, where, BODIES.get(path)) for where in (path, f"{path}/"))

        assert slashed.status_code == plain.status_code in (200, 418)
        assert slashed.json() == plain.json()


class TestStrangersBodies:
    """Without a valid key nothing of a long body is kept; what comes of it is dropped."""

    def test_no_part_of_one_is_asked_for(self, v1: V1) -> None:
        asked: list[str] = []
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            asked.append("a part")
            return {"type": "http.request", "body": b"x" * 65_536, "more_body": True}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        for method, path in [*ROUTES, ("POST", "/v1/nothing"), ("PUT", CHAT)]:
            scope = {"type": "http", "method": method, "path": path, "headers": []}
            asyncio.run(application(scope, receive, send))

        assert {message.get("status") for message in sent} == {401, 404, 405, None}
        assert asked == []

    @pytest.mark.parametrize(
        ("path", "key", "status"),
        [(CHAT, "sk-llmhub-wrong", 401), ("/v1/nothing", "", 404), ("/v1/models", "", 405)],
    )
    def test_the_answer_comes_before_the_body_and_the_connection_closes(
        self, v1: V1, path: str, key: str, status: int
    ) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {key}\r\n"
        head += f"Content-Length: {64 << 20}\r\n\r\n"
        pushed = 0
        with socket.create_connection((v1.hub.host, v1.hub.port), timeout=5) as stranger:
            stranger.sendall(head.encode() + b"{")
            assert stranger.recv(12) == f"HTTP/1.1 {status}".encode()
            try:
                while pushed < 64 << 20:
                    pushed += stranger.send(b"x" * 65_536)
            except ConnectionError:
                pass  # as it should be

        assert pushed < 8 << 20  # what the kernel takes before it tells

    def test_one_that_was_sent_all_the_same_gets_its_401(self, v1: V1) -> None:
        answer = v1.post(CHAT, b"x" * (1 << 20), key="sk-llmhub-wrong")

        assert answer.status_code == 401
        assert told(answer)["code"] == "invalid_api_key"


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"[1,]",
            b"",
            b'{"model": NaN}',
            b'{"n": Infinity}',
            b'"\\ud800"',
            b'{"\xff": 1}',
            b"[" * 200_000,
        ],
        ids=["open", "comma", "empty", "NaN", "Infinity", "surrogate", "latin-1", "deep"],
    )
    @pytest.mark.parametrize("path", BODIES)
    def test_bad_json_is_a_400(self, v1: V1, path: str, body: bytes) -> None:
        answer = v1.post(path, body)

        assert answer.status_code == 400
        error = told(answer)
        assert (error["code"], error["param"]) == ("invalid_value", None)
        assert "JSON" in error["message"]

    @pytest.mark.parametrize("body", [b"[]", b"5", b'"text"', b"null"])
    def test_json_that_is_no_object_is_a_400(self, v1: V1, body: bytes) -> None:
        answer = v1.post(CHAT, body)

        assert answer.status_code == 400
        assert "object" in told(answer)["message"]

    def test_over_the_cap_it_is_a_413_whether_its_length_is_told_or_not(
        self, v1: V1, settings: Settings
    ) -> None:
        settings.LLMHUB_MAX_BODY_BYTES = 1000
        long = json.dumps(BODIES[CHAT] | {"user": "x" * 1000}).encode()

        for body in (long, in_parts(long), in_parts(b"x" * (1 << 20))):
            answer = v1.post(CHAT, body)
            assert answer.status_code == 413
            assert told(answer)["code"] == "body_too_large"

    def test_up_to_the_cap_it_is_taken_in_one_piece_or_in_many(self, v1: V1, settings: Settings) -> None:
        body = json.dumps(BODIES[CHAT]).encode()
        settings.LLMHUB_MAX_BODY_BYTES = len(body)

        assert v1.post(CHAT, body).status_code == 200
        assert v1.post(CHAT, in_parts(body)).status_code == 200

    def test_a_length_over_the_cap_is_refused_before_the_body_comes(self, v1: V1) -> None:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {v1.key}\r\n"
        with socket.create_connection((v1.hub.host, v1.hub.port), timeout=5) as caller:
            caller.sendall(f"{head}Content-Length: {1 << 40}\r\n\r\n".encode())
            assert caller.recv(12) == b"HTTP/1.1 413"

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP", "gzip, identity"])
    def test_an_encoded_one_is_a_415(self, v1: V1, encoding: str) -> None:
        answer = v1.post(CHAT, BODIES[CHAT], headers={"Content-Encoding": encoding})

        assert answer.status_code == 415
        assert told(answer)["type"] == "invalid_request_error"

    def test_identity_is_no_encoding(self, v1: V1) -> None:
        assert v1.post(CHAT, BODIES[CHAT], headers={"Content-Encoding": "identity"}).status_code == 200

    def test_its_media_type_is_not_asked_for(self, v1: V1) -> None:
        assert v1.post(CHAT, BODIES[CHAT], headers={"Content-Type": None}).status_code == 200


def in_parts(body: bytes) -> Iterator[bytes]:
    """Makes a client send it in chunks, without a length."""
    return (body[start : start + 4096] for start in range(0, len(body), 4096))


def each(param: str, *values: Any) -> list[tuple[str, Any]]:
    return [(param, value) for value in values]


LONG = "x" * 201
WRONG_ANYWHERE = [
    *each("model", None, "", 5, "a\nb", LONG, ["m"]),
    *each("user", 5, "a\0b", LONG, {}),
    *each("stream", "yes", 1, []),
    *each("stream_options", "yes", 5, []),
    *each("n", 0, -1, 129, "1", 1.5, True),
    *each("max_tokens", -5, "5", 1.5, True, 10**9),
    *each("models", ["other"], None),
    *each("route", "fallback", None),
    *each("preset", "a"),
    *each("fallbacks", ["a"]),
]
WRONG = {
    CHAT: [
        *WRONG_ANYWHERE,
        *each("messages", None, [], "Hello", {}, [5], [{}], [{"role": 5}], [HELLO]),
        *each("max_tokens", 0),
        *each("max_completion_tokens", 0, "5", 1.5),
        *each("tools", "x", {}, [5]),
    ],
    COMPLETIONS: [
        *WRONG_ANYWHERE,
        *each("prompt", 5, [], {}, [5, "a"], [[]], [[5], "a"], [-1], [1.5], [True]),
        *each("best_of", 0, "2", 129),
    ],
    EMBEDDINGS: [
        *each("input", None, 5, [], {}, [5, "a"], [[]], [[5], "a"], [-1], ["a"] * 2049),
        *each("encoding_format", "hex", 5),
        *each("dimensions", 0, "5", 1.5),
        *each("model", None, ""),
        *each("user", 5),
        *each("models", ["other"]),
    ],
}


class TestParameters:
    @pytest.mark.parametrize("path", BODIES)
    def test_a_wrong_one_is_a_400_that_names_it(self, v1: V1, path: str) -> None:
        for param, value in WRONG[path]:
            answer = v1.post(path, BODIES[path] | {param: value})

            assert answer.status_code == 400, (param, value)
            error = told(answer)
            assert (error["code"], error["param"]) == ("invalid_value", param), value
            assert error["message"].startswith(param)
        assert v1.upstream.requests == []

    @pytest.mark.parametrize("path", BODIES)
    def test_a_missing_one_that_is_needed_is_named(self, v1: V1, path: str) -> None:
        for param in BODIES[path].keys() - {"prompt"}:
            body = {name: value for name, value in BODIES[path].items() if name != param}
            assert told(v1.post(path, body))["param"] == param

    def test_null_is_as_good_as_left_out(self, v1: V1) -> None:
        unset: dict[str, Any] = dict.fromkeys(
            ("n", "max_tokens", "stream", "stream_options", "user", "tools")
        )

        assert v1.chat(**unset).status_code == 200

    @pytest.mark.parametrize("path", BODIES)
    @pytest.mark.parametrize(
        "field",
        ["api_base", "base_url", "api_key", "extra_headers", "organization", "custom_llm_provider"],
    )
    def test_one_that_would_choose_the_upstream_is_refused(self, v1: V1, path: str, field: str) -> None:
        values: tuple[Any, ...] = ("http://127.0.0.1/", None, {})
        for value in values:
            answer = v1.post(path, BODIES[path] | {field: value})

            assert answer.status_code == 400
            error = told(answer)
            assert (error["code"], error["param"]) == ("invalid_value", field)
        assert v1.upstream.requests == []


class TestAddressesWithoutV1:
    @pytest.mark.parametrize(
        "path", ["/chat/completions", "/completions", "/embeddings", "/models", "/models/"]
    )
    @pytest.mark.parametrize("method", ["POST", "GET"])
    def test_they_say_what_the_base_url_lacks(self, v1: V1, method: str, path: str) -> None:
        answer = v1.send(method, path, BODIES[CHAT] if method == "POST" else None)

        assert answer.status_code == 404
        error = told(answer)
        assert error["code"] == "unknown_url"
        assert "Add /v1 to the base URL" in error["message"]

    def test_no_other_address_does(self, v1: V1) -> None:
        assert "/v1 to the base" not in told(v1.post("/v1/nothing", {}))["message"]


def test_no_header_of_the_caller_reaches_the_upstream(v1: V1) -> None:
    v1.chat(
        headers={"OpenAI-Organization": "mine", "X-Custom": "mine", "Cookie": "mine=1", "x-api-key": "mine"}
    )

    headers = v1.upstream.requests[0].headers
    assert headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert "mine" not in str(headers)
    assert v1.key not in str(headers)
