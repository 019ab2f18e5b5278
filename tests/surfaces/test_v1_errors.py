"""The error table of `/v1`: what goes wrong, and what the caller is told in OpenAI's shape."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction

from completions import running
from completions.models import Completion, State
from providers import breaker, dispatch
from providers.models import LanguageModel
from providers.types import NANO
from tests.fakes import refused_url
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import DONE, MODEL, PIECES, UPSTREAM_KEY, V1, Caller, checked, told
from tests.waiting import eventually

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1


@pytest.fixture(autouse=True)
def _second_tries_come_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "PAUSE_SECONDS", (0.0, 0.01))


# --- what makes it so; what the call then asks for


def no_key(v1: V1) -> Mapping[str, Any]:
    return {"headers": {"Authorization": None}}


def wrong_key(v1: V1) -> Mapping[str, Any]:
    return {"headers": {"Authorization": f"Bearer {v1.key[:-1]}"}}


def unknown_model(v1: V1) -> Mapping[str, Any]:
    return {"model": "no-such-model"}


def model_of_others(v1: V1) -> Mapping[str, Any]:
    v1.set(v1.api_key, allowed_models=["another"])
    return {}


def bad_parameter(v1: V1) -> Mapping[str, Any]:
    return {"n": 0}


def long_prompt(v1: V1) -> Mapping[str, Any]:
    v1.set(v1.model, context_window=5)
    return {}


def too_many_requests(v1: V1) -> Mapping[str, Any]:
    v1.set(v1.api_key, requests_per_minute=1)
    assert v1.chat().status_code == 200
    return {}


def too_many_tokens(v1: V1) -> Mapping[str, Any]:
    v1.set(v1.api_key, tokens_per_minute=60)
    assert v1.chat().status_code == 200
    return {"max_tokens": 50}


def too_many_calls(v1: V1) -> Mapping[str, Any]:
    v1.set(v1.api_key, concurrent_calls=1)
    v1.upstream.hangs("headers")
    Caller(v1)
    v1.upstream.wait_for()
    return {}


def larger_than_the_limit(v1: V1) -> Mapping[str, Any]:
    v1.set(v1.api_key, tokens_per_minute=10)
    return {"max_tokens": 50}


def spent_budget(v1: V1) -> Mapping[str, Any]:
    v1.set(v1.budget, amount=0)
    return {}


def no_price(v1: V1) -> Mapping[str, Any]:
    LanguageModel.objects.create(provider=v1.provider, name="nameless")
    return {"model": "nameless"}


def key_refused(v1: V1) -> Mapping[str, Any]:
    v1.upstream.refuses(401)
    return {}


def unreachable(v1: V1) -> Mapping[str, Any]:
    v1.set(v1.provider, base_url=v1.during.enter_context(refused_url()))
    return {}


def nonsense(v1: V1) -> Mapping[str, Any]:
    v1.upstream.refuses(200, "nonsense")
    return {}


def error_in_a_200(v1: V1) -> Mapping[str, Any]:
    v1.upstream.refuses(200, {"error": {"message": "it broke"}})
    return {}


def limit_in_a_200(v1: V1) -> Mapping[str, Any]:
    v1.upstream.refuses(200, {"error": {"message": "slow down", "type": "rate_limit_error"}})
    return {}


def slow_upstream(v1: V1) -> Mapping[str, Any]:
    v1.patient_for(total=0.2)
    v1.upstream.hangs("headers")
    return {}


def overloaded_upstream(v1: V1) -> Mapping[str, Any]:
    v1.upstream.refuses(503)
    return {}


def limited_upstream(v1: V1) -> Mapping[str, Any]:
    v1.upstream.refuses(429)
    return {}


def limited_upstream_for_long(v1: V1) -> Mapping[str, Any]:
    v1.patient_for(total=5)
    v1.upstream.refuses(429, headers={"retry-after": "900"})
    return {}


def open_circuit(v1: V1) -> Mapping[str, Any]:
    v1.upstream.refuses(200, "nonsense")
    for _ in range(breaker.FAILURES):
        v1.chat()
    return {}


def busy_hub(v1: V1) -> Mapping[str, Any]:
    v1.during.callback(running.limit, running._Process.most)
    running.limit(0)
    return {}


def stopping_hub(v1: V1) -> Mapping[str, Any]:
    v1.during.callback(running.resume)
    running._Process.draining = True
    return {}


def locked_database(v1: V1) -> Mapping[str, Any]:
    v1.during.callback(eventually, lambda: v1.chat().status_code == 200)  # what waited has been written
    v1.during.enter_context(transaction.atomic())  # on SQLite nobody else writes meanwhile
    return {}


@dataclass(frozen=True)
class Row:
    """A row of the table. `waits`: it says how long; `final`: it says that no other try will help."""

    makes: Callable[[V1], Mapping[str, Any]]
    status: int
    type: str
    code: str
    param: str | None = None
    waits: bool = False
    final: bool = False


REQUEST, QUOTA, API, SERVICE = (
    "invalid_request_error",
    "insufficient_quota",
    "api_error",
    "service_unavailable_error",
)
TABLE = (
    Row(no_key, 401, REQUEST, "invalid_api_key"),
    Row(wrong_key, 401, REQUEST, "invalid_api_key"),
    Row(unknown_model, 404, REQUEST, "model_not_found", "model"),
    Row(model_of_others, 404, REQUEST, "model_not_found", "model"),
    Row(bad_parameter, 400, REQUEST, "invalid_value", "n"),
    Row(long_prompt, 400, REQUEST, "context_length_exceeded", "messages"),
    Row(too_many_requests, 429, "rate_limit_error", "rate_limit_exceeded", waits=True),
    Row(too_many_tokens, 429, "rate_limit_error", "rate_limit_exceeded", waits=True),
    Row(too_many_calls, 429, "rate_limit_error", "rate_limit_exceeded", waits=True),
    Row(larger_than_the_limit, 429, "rate_limit_error", "rate_limit_exceeded", final=True),
    Row(spent_budget, 402, QUOTA, "budget_exceeded", final=True),
    Row(no_price, 402, REQUEST, "model_not_priced", "model", final=True),
    Row(key_refused, 502, API, "upstream_auth_error"),
    Row(unreachable, 502, API, "upstream_unreachable"),
    Row(nonsense, 502, API, "upstream_invalid"),
    Row(error_in_a_200, 502, API, "upstream_invalid"),
    Row(limit_in_a_200, 429, "rate_limit_error", "rate_limit_exceeded", final=True),
    Row(slow_upstream, 504, API, "upstream_timeout"),
    Row(overloaded_upstream, 503, SERVICE, "server_is_overloaded", waits=True, final=True),
    Row(limited_upstream, 429, "rate_limit_error", "rate_limit_exceeded", final=True),
    Row(limited_upstream_for_long, 429, "rate_limit_error", "rate_limit_exceeded", waits=True),
    Row(open_circuit, 503, SERVICE, "circuit_open", waits=True),
    Row(busy_hub, 503, SERVICE, "overloaded", waits=True),
    Row(stopping_hub, 503, SERVICE, "shutting_down", waits=True),
    pytest.param(Row(locked_database, 503, SERVICE, "hub_unavailable", waits=True), marks=pytest.mark.sqlite),
)


def name_of(row: Any) -> str | None:
    return row.makes.__name__ if isinstance(row, Row) else None


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("row", TABLE, ids=name_of)
def test_each_error_has_its_status_type_code_param_and_headers(v1: V1, row: Row, stream: bool) -> None:
    asked = row.makes(v1)

    answer = v1.chat(**asked, stream=stream)

    error = told(answer)
    assert (answer.status_code, error["type"], error["code"]) == (row.status, row.type, row.code)
    assert error["param"] == row.param
    assert answer.headers.get("x-should-retry") == ("false" if row.final else None)
    assert ("retry-after" in answer.headers) == row.waits
    assert 1 <= int(answer.headers.get("retry-after", 1)) <= 60
    assert answer.headers["x-request-id"] == answer.headers["request-id"]


def test_a_refused_key_is_challenged(v1: V1) -> None:
    assert v1.chat(**no_key(v1)).headers["www-authenticate"] == "Bearer"


def test_a_model_that_is_not_this_keys_is_told_exactly_as_an_unknown_one(v1: V1) -> None:
    unknown = told(v1.chat(model="hidden"))
    LanguageModel.objects.create(provider=v1.provider, name="hidden")
    v1.set(v1.api_key, allowed_models=[MODEL])

    assert told(v1.chat(model="hidden")) == unknown
    assert told(v1.chat(model="upstream/hidden"))["message"] == unknown["message"].replace(
        "hidden", "upstream/hidden"
    )


def test_a_budgets_refusal_names_the_budget_its_limit_what_is_spent_held_and_when_it_begins_anew(
    v1: V1,
) -> None:
    v1.set(v1.budget, amount=Decimal("0.0003"), period="day")  # of which the next call spends 0.0000525
    assert v1.chat(max_tokens=10).status_code == 200
    v1.upstream.hangs("headers")
    Caller(v1, max_tokens=10)
    v1.upstream.wait_for(2)
    held = Completion.objects.get(state=State.RUNNING).hold_nano

    message = told(v1.chat(max_tokens=100))["message"]

    assert str(v1.budget) in message
    amounts = {Decimal(amount) for amount in re.findall(r"\$(\d+\.\d+)", message)}
    assert {Decimal("0.0003"), Decimal("0.0000525"), Decimal(held) / NANO} < amounts
    assert "It begins anew at 20" in message


def test_what_the_hub_refuses_never_reaches_the_upstream(v1: V1) -> None:
    for makes in (bad_parameter, unknown_model, long_prompt, spent_budget, larger_than_the_limit):
        assert v1.chat(**makes(v1)).status_code >= 400
    assert v1.upstream.requests == []
    assert v1.rows() == []


def test_an_open_circuit_leaves_the_upstream_alone(v1: V1) -> None:
    open_circuit(v1)
    before = len(v1.upstream.requests)

    assert told(v1.chat())["code"] == "circuit_open"
    assert len(v1.upstream.requests) == before


# --- the upstream's own refusals


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_the_upstream_says_of_the_request_passes(v1: V1, status: int, stream: bool) -> None:
    said = {
        "error": {"message": "top_k is unknown", "type": "x", "param": "top_k", "code": "unknown_parameter"}
    }
    v1.upstream.refuses(status, said)

    answer = v1.chat(stream=stream)

    assert answer.status_code == status
    assert told(answer) == {
        "message": "top_k is unknown",
        "type": "invalid_request_error",
        "param": "top_k",
        "code": "unknown_parameter",
    }
    assert len(v1.upstream.requests) == 1


def test_of_an_upstreams_words_at_most_2_kib_pass(v1: V1) -> None:
    v1.upstream.refuses(400, {"error": {"message": "x" * 10_000}})

    assert told(v1.chat())["message"] == "x" * 2048


LEAKS = [
    f"Incorrect API key provided: {UPSTREAM_KEY}",
    "key sk-ups***********zyxw is wrong",
    f"Bearer {UPSTREAM_KEY}",
]


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500])
def test_no_answer_holds_key_material(v1: V1, status: int) -> None:
    for said in LEAKS:
        v1.upstream.refuses(status, {"error": {"message": said, "code": said, "param": said}})
        answer = v1.chat()
        v1.upstream._scripts.clear()
        shown = answer.text + str(answer.headers)
        assert answer.status_code >= 400
        for part in (UPSTREAM_KEY, UPSTREAM_KEY[-4:], "sk-ups"):
            assert part not in shown


def test_no_error_frame_holds_key_material(v1: V1) -> None:
    v1.upstream.streams(PIECES[:1])
    said = {"error": {"message": LEAKS[0]}}
    v1.upstream._scripts.clear()
    v1.upstream.events({"choices": [{"index": 0, "delta": {"content": "one"}}]}, said)

    *_, last = v1.stream()

    assert UPSTREAM_KEY not in checked(last["error"])["message"]


# --- who failed


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_went_wrong_with_an_upstream_names_it(v1: V1, stream: bool) -> None:
    v1.set(v1.api_key, requests_per_minute=10)
    overloaded_upstream(v1)

    headers = v1.chat(stream=stream).headers

    named = {name: headers[f"x-llmhub-{name}"] for name in ("model", "provider", "attempts", "cache")}
    assert named == {"model": MODEL, "provider": "upstream", "attempts": "2", "cache": "BYPASS"}
    assert headers["x-ratelimit-limit-requests"] == "10"


def test_what_the_hub_refuses_names_nobody(v1: V1) -> None:
    assert not [name for name in v1.chat(n=0).headers if name.startswith("x-llmhub-")]


# --- trying again


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_the_hub_tried_twice_is_not_to_be_tried_again(v1: V1, status: int) -> None:
    v1.upstream.refuses(status)

    answer = v1.chat()

    assert len(v1.upstream.requests) == 2
    assert answer.status_code == (429 if status == 429 else 503)
    assert answer.headers["x-should-retry"] == "false"


def test_what_the_hub_tried_once_may_be_tried_again(v1: V1) -> None:
    assert "x-should-retry" not in v1.chat(**unreachable(v1)).headers
    assert "x-should-retry" not in v1.chat(**busy_hub(v1)).headers


# --- errors inside a stream


def test_after_the_first_byte_an_error_is_the_last_frame_and_nothing_is_done(v1: V1) -> None:
    v1.upstream.cuts(after=2)

    *pieces, last = v1.stream()

    assert len(pieces) == 2
    assert last.keys() == {"error"}
    error = checked(last["error"])
    assert (error["type"], error["code"], error["param"]) == ("api_error", "upstream_truncated", None)
    assert DONE not in pieces
