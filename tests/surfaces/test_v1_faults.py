"""What one upstream can do wrong before its answer has begun: an HTTP error, and a true ledger."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from completions.models import State
from providers import dispatch
from providers.drivers import exchange
from providers.models import Health, LLMProvider
from tests.fakes import (
    End,
    chunk,
    chunked,
    completion,
    refused_url,
    response,
    silent_url,
    sse,
    stream_head,
)
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import (
    DONE,
    MIB,
    PIECES,
    PROMPT,
    V1,
    cost,
    frames_of,
    peak_bytes,
    text_of,
    told,
)
from tests.waiting import eventually

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1


@pytest.fixture(autouse=True)
def _second_tries_come_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "PAUSE_SECONDS", (0.0, 0.01))


# --- what the upstream does


def refuses_connections(v1: V1) -> None:
    v1.set(v1.provider, base_url=v1.during.enter_context(refused_url()))


def has_no_address(v1: V1) -> None:
    v1.set(v1.provider, base_url="http://no-such-host.invalid/v1")


def lets_connections_hang(v1: V1) -> None:
    v1.patient_for(connect=0.2)
    v1.set(v1.provider, base_url=v1.during.enter_context(silent_url()))


def lets_tls_hang(v1: V1) -> None:
    v1.patient_for(connect=0.2)
    v1.set(v1.provider, base_url=v1.upstream.url.replace("http:", "https:"))


def never_answers(v1: V1) -> None:
    v1.patient_for(total=0.2)
    v1.upstream.hangs("headers")


def sends_no_head(v1: V1) -> None:
    v1.patient_for(first_token=0.2)
    v1.upstream.hangs("headers")


def sends_no_event(v1: V1) -> None:
    v1.patient_for(first_token=0.2)
    v1.upstream.hangs("first_token")


def sends_no_content(v1: V1) -> None:
    v1.patient_for(first_token=0.2)
    noise = [b": comment\n\n", sse(chunk({"role": "assistant", "content": ""})), b":", b"x", b"\n\n"]
    v1.upstream.events(*noise * 20, delay=0.02)


def refuses_our_key(v1: V1) -> None:
    v1.upstream.refuses(401)


def forbids(v1: V1) -> None:
    v1.upstream.refuses(403)


def has_no_credit_left(v1: V1) -> None:
    v1.upstream.refuses(402)


def redirects(v1: V1) -> None:
    v1.upstream.refuses(307, "", {"location": f"{v1.upstream.url}/elsewhere"})


def sends_an_error_in_a_200(v1: V1) -> None:
    v1.upstream.refuses(200, {"error": {"message": "it broke"}})


def sends_a_refusal_in_a_200(v1: V1) -> None:
    v1.upstream.refuses(200, {"error": {"message": "no such tool", "type": "invalid_request_error"}})


def sends_an_error_first(v1: V1) -> None:
    v1.upstream.events({"error": {"message": "it broke"}}, chunk({"content": "one"}), chunk({}, "stop"), DONE)


def sends_a_refusal_first(v1: V1) -> None:
    v1.upstream.events(chunk({"role": "assistant"}), {"error": {"message": "too long", "code": 400}})


def sends_done_alone(v1: V1) -> None:
    v1.upstream.events(DONE)


def sends_html(v1: V1) -> None:
    v1.upstream.refuses(200, "<html>Sign in</html>", {"content-type": "text/html"})


def sends_another_shape(v1: V1) -> None:
    v1.upstream.refuses(200, {"answer": "Hello!"})


def speaks_another_protocol(v1: V1) -> None:
    v1.upstream.sends([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"])


def leaves_at_once(v1: V1) -> None:
    v1.upstream.scripts(lambda _: [End.CLOSE])


def resets_at_once(v1: V1) -> None:
    v1.upstream.scripts(lambda _: [End.RESET])


def leaves_in_the_head(v1: V1) -> None:
    v1.upstream.sends([b"HTTP/1.1 200 OK\r\ncontent-ty"])


def cuts_its_answer(v1: V1) -> None:
    v1.upstream.sends([response(200, completion())[:-10]])


def resets_in_its_answer(v1: V1) -> None:
    v1.upstream.sends([response(200, completion())[:-10]], end=End.RESET)


def cuts_its_chunks(v1: V1) -> None:
    v1.upstream.sends([stream_head({"content-type": "application/json"}), b"100\r\n{"])


def tells_a_short_length(v1: V1) -> None:
    whole = json.dumps(completion())
    v1.upstream.refuses(200, whole, {"content-length": str(len(whole) - 10)})


def tells_a_length_that_is_none(v1: V1) -> None:
    v1.upstream.refuses(200, completion(), {"content-length": "many"})


def encodes_its_answer(v1: V1) -> None:
    encoded = gzip.compress(json.dumps(completion()).encode())
    v1.upstream.refuses(200, encoded, {"content-encoding": "gzip"})


def encodes_its_stream(v1: V1) -> None:
    v1.upstream.events(gzip.compress(sse(chunk({"content": "one"}))), headers={"content-encoding": "gzip"})


def sends_a_head_without_end(v1: V1) -> None:
    v1.upstream.sends([b"HTTP/1.1 200 OK\r\n", *[b"x-more: %b\r\n" % (b"x" * 1000)] * 200])


@dataclass(frozen=True)
class Fault:
    """What the caller is told, how the row ends, and whether the prompt is paid for: it was read."""

    makes: Callable[[V1], None]
    status: int
    code: str
    state: State
    prompt: bool = False
    attempts: int = 1


REFUSED, INVALID, CUT = State.UPSTREAM_ERROR, State.UPSTREAM_INVALID, State.UPSTREAM_TRUNCATED
ALWAYS = [
    Fault(refuses_connections, 502, "upstream_unreachable", REFUSED),
    Fault(has_no_address, 502, "upstream_unreachable", REFUSED),
    Fault(lets_connections_hang, 504, "upstream_timeout", State.TIMEOUT_CONNECT),
    Fault(lets_tls_hang, 504, "upstream_timeout", State.TIMEOUT_CONNECT),
    Fault(never_answers, 504, "upstream_timeout", State.TIMEOUT_TOTAL, prompt=True),
    Fault(refuses_our_key, 502, "upstream_auth_error", REFUSED),
    Fault(forbids, 502, "upstream_auth_error", REFUSED),
    Fault(has_no_credit_left, 502, "upstream_auth_error", REFUSED),
    Fault(redirects, 502, "upstream_invalid", REFUSED),
    Fault(sends_an_error_in_a_200, 502, "upstream_invalid", INVALID, prompt=True),
    Fault(sends_a_refusal_in_a_200, 400, "invalid_request_error", REFUSED),
    Fault(sends_html, 502, "upstream_invalid", INVALID, prompt=True),
    Fault(sends_another_shape, 502, "upstream_invalid", INVALID, prompt=True),
    Fault(speaks_another_protocol, 502, "upstream_invalid", INVALID, prompt=True),
    Fault(leaves_at_once, 502, "upstream_truncated", CUT, prompt=True),
    Fault(resets_at_once, 502, "upstream_truncated", CUT, prompt=True),
    Fault(leaves_in_the_head, 502, "upstream_truncated", CUT, prompt=True),
    Fault(cuts_its_answer, 502, "upstream_truncated", CUT, prompt=True),
    Fault(resets_in_its_answer, 502, "upstream_truncated", CUT, prompt=True),
    Fault(cuts_its_chunks, 502, "upstream_truncated", CUT, prompt=True),
    Fault(tells_a_short_length, 502, "upstream_invalid", INVALID, prompt=True),
    Fault(tells_a_length_that_is_none, 502, "upstream_invalid", INVALID, prompt=True),
    Fault(encodes_its_answer, 502, "upstream_invalid", INVALID, prompt=True),
    Fault(sends_a_head_without_end, 502, "upstream_invalid", INVALID, prompt=True),
]
STREAMED = [
    Fault(sends_no_head, 504, "upstream_timeout", State.TIMEOUT_FIRST_TOKEN, prompt=True),
    Fault(sends_no_event, 504, "upstream_timeout", State.TIMEOUT_FIRST_TOKEN, prompt=True),
    Fault(sends_no_content, 504, "upstream_timeout", State.TIMEOUT_FIRST_TOKEN, prompt=True),
    Fault(sends_an_error_first, 502, "upstream_invalid", INVALID, prompt=True),
    Fault(sends_a_refusal_first, 400, "invalid_value", REFUSED),
    Fault(sends_done_alone, 502, "upstream_invalid", INVALID, prompt=True),
    Fault(encodes_its_stream, 502, "upstream_invalid", INVALID, prompt=True),
]
CASES = [(fault, stream) for fault in ALWAYS for stream in (False, True)] + [(one, True) for one in STREAMED]


@pytest.mark.parametrize(
    ("fault", "stream"), CASES, ids=[f"{one.makes.__name__}-{'stream' if s else 'whole'}" for one, s in CASES]
)
def test_what_fails_before_the_first_content_is_an_http_error(v1: V1, fault: Fault, stream: bool) -> None:
    fault.makes(v1)

    answer = v1.chat(stream=stream)

    assert (answer.status_code, told(answer)["code"]) == (fault.status, fault.code)
    row = v1.row()
    assert (row.state, row.attempts, row.finish_reason) == (fault.state, fault.attempts, "")
    if fault.prompt:
        assert (row.prompt_tokens, row.completion_tokens, row.usage_source) == (PROMPT, 0, "counted")
    else:
        assert (row.prompt_tokens, row.completion_tokens, row.usage_source) == (None, None, "")
    assert row.cost_nano_usd == (cost(PROMPT, 0) if fault.prompt else 0)
    [attempt] = row.attempt_rows.all()
    assert (attempt.state, attempt.cost_nano_usd) == (row.state, row.cost_nano_usd)


@pytest.mark.parametrize("makes", [tells_a_short_length, cuts_its_answer, sends_html, refuses_our_key])
def test_the_next_call_is_not_harmed(v1: V1, makes: Callable[[V1], None]) -> None:
    makes(v1)
    v1.upstream.answers()

    assert v1.chat().status_code >= 400
    assert v1.chat().json()["choices"][0]["message"]["content"] == "Hello!"


# --- a second try


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_what_may_pass_is_tried_once_more(v1: V1, status: int, stream: bool) -> None:
    v1.upstream.refuses(status)

    answer = v1.chat(stream=stream)

    limited = status == 429
    assert answer.status_code == (429 if limited else 503)
    assert told(answer)["code"] == ("rate_limit_exceeded" if limited else "server_is_overloaded")
    assert answer.headers["x-should-retry"] == "false"
    assert len(v1.upstream.requests) == 2
    row = v1.row()
    assert (row.state, row.attempts, row.cost_nano_usd) == (State.UPSTREAM_ERROR, 2, 0)
    assert [one.status for one in row.attempt_rows.all()] == [status, status]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_passed_is_answered(v1: V1, stream: bool) -> None:
    v1.upstream.refuses(503)
    v1.upstream.streams(PIECES) if stream else v1.upstream.answers("one two three four five six")

    answer = v1.chat(stream=stream)

    assert answer.headers["x-llmhub-attempts"] == "2"
    assert not stream or text_of(frames_of(answer)) == "".join(PIECES)
    row = v1.row()
    assert (row.state, row.attempts, row.cost_nano_usd) == (State.OK, 2, cost(9, 3))


@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
def test_the_second_try_waits_as_long_as_the_upstream_asks(v1: V1, name: str) -> None:
    v1.upstream.refuses(503, headers={name: "0.3" if name == "retry-after" else "300"}).answers()

    assert v1.chat().status_code == 200
    first, second = v1.upstream.asked_at
    assert 0.29 < second - first < 3


def test_there_is_no_second_try_beyond_the_deadline(v1: V1) -> None:
    v1.patient_for(total=2)
    v1.upstream.refuses(503, headers={"retry-after": "30"}).answers()

    answer = v1.chat()

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert len(v1.upstream.requests) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_what_will_not_pass_is_not_tried_again(v1: V1, status: int, stream: bool) -> None:
    v1.upstream.refuses(status)

    assert v1.chat(stream=stream).status_code == (502 if status in (401, 403) else status)
    assert len(v1.upstream.requests) == 1
    row = v1.row()
    assert (row.state, row.attempts, row.cost_nano_usd) == (State.UPSTREAM_ERROR, 1, 0)


@pytest.mark.parametrize("makes", [refuses_our_key, forbids])
def test_staff_see_that_a_provider_refuses_our_key(v1: V1, makes: Callable[[V1], None]) -> None:
    makes(v1)

    v1.chat()

    assert eventually(lambda: LLMProvider.objects.get().health == Health.AUTH_FAILED)


# --- more than anyone can hold


def test_an_answer_that_says_it_is_too_long_is_not_read(v1: V1) -> None:
    v1.upstream.sends([b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n", *[b" " * MIB] * 100])

    answer = v1.chat()

    assert (answer.status_code, told(answer)["code"]) == (502, "upstream_invalid")
    assert v1.upstream.requests[0].wait_gone(1)
    assert v1.upstream.sent < 16 * MIB


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_answer_without_end_is_read_up_to_the_cap(
    v1: V1, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MAX_BODY_BYTES", MIB)
    v1.upstream.sends([stream_head({"content-type": "application/json"}), *[chunked(b" " * MIB)] * 100])
    before = peak_bytes()

    answer = v1.chat(stream=stream)

    assert (answer.status_code, told(answer)["code"]) == (502, "upstream_invalid")
    assert v1.upstream.requests[0].wait_gone(1)
    assert v1.upstream.sent < 16 * MIB
    assert peak_bytes() - before < 32 * MIB


def test_a_first_line_without_end_is_read_up_to_the_cap(v1: V1) -> None:
    v1.upstream.sends([stream_head(), chunked(b"data: "), *[chunked(b"x" * MIB)] * 100])
    before = peak_bytes()

    answer = v1.chat(stream=True)

    assert (answer.status_code, told(answer)["code"]) == (502, "upstream_invalid")
    assert v1.upstream.requests[0].wait_gone(1)
    assert v1.upstream.sent < 16 * MIB
    assert peak_bytes() - before < 32 * MIB
    assert v1.row().state == State.UPSTREAM_INVALID


def test_a_refusal_without_end_is_read_up_to_the_cap(v1: V1) -> None:
    v1.upstream.sends([stream_head(status=400), *[chunked(b"x" * MIB)] * 100])

    assert v1.chat().status_code == 400
    assert v1.upstream.requests[0].wait_gone(1)
    assert v1.upstream.sent < 16 * MIB
