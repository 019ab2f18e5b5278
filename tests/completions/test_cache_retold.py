"""Past calls as the cache saw them: keys worked out anew, and the earlier call that is most like one."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from completions.cache import compare
from completions.cache.retold import likest_earlier, retold, story_of
from completions.models import Completion, State
from providers import registry
from providers.models import LLMProvider
from tests.completions.calls import make_attempt, make_call, make_content
from tests.factories import make_key, make_provider

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(autouse=True)
def provider() -> LLMProvider:
    return make_provider(models=("test-model",))


def asked(
    minute: int, *, content: bool = True, body: dict[str, Any] | None = None, **fields: Any
) -> Completion:
    """A call `minute` minutes after noon; with content `body`."""
    call = make_call(
        NOON + timedelta(minutes=minute), **({"cache": "MISS", "finish_reason": "stop"} | fields)
    )
    if content:
        request = {"model": "test-model", "messages": HELLO, "temperature": 0, "stream": True} | (body or {})
        make_content(call, request=json.dumps(request))
    return call


def says(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def test_equal_requests_have_one_key_however_they_were_delivered() -> None:
    one, other = asked(0), asked(1, body={"stream": False, "user": "kim", "temperature": 0.0})

    assert compare.differences(retold(one).request, retold(other).request) == []
    assert retold(one).key == retold(other).key is not None


def test_who_shares_the_answer_is_part_of_it() -> None:
    one, other = asked(0), asked(1, project="app")

    assert [found.name for found in compare.differences(retold(one).request, retold(other).request)] == [
        "shared by"
    ]
    assert retold(one).key != retold(other).key


def test_keys_apart_where_each_has_its_own_answers() -> None:
    key, _ = make_key(asked(0).project)
    one, other = asked(1), asked(2, api_key=key)
    assert retold(one).key == retold(other).key

    one.project.cache_scope = "key"
    one.project.save()
    assert retold(one).key != retold(other).key


def test_the_defaults_of_the_provider_are_part_of_what_was_asked(provider: LLMProvider) -> None:
    one, other = asked(0), asked(1, body={"top_p": 0.5})
    assert compare.differences(retold(one).request, retold(other).request) != []

    provider.default_config = {"top_p": 0.5}
    provider.save()
    registry.forget()
    assert compare.differences(retold(one).request, retold(other).request) == []


def test_the_key_is_of_the_provider_that_was_meant_first_whoever_answered() -> None:
    call = asked(0, provider_slug="second", attempts=2)
    make_attempt(call, 1, provider_slug="upstream", state=State.UPSTREAM_ERROR)
    make_attempt(call, 2, provider_slug="second")

    assert retold(call).request.provider == "upstream"
    assert retold(call).key == retold(asked(1)).key


def test_a_call_whose_content_or_model_is_gone_has_no_key() -> None:
    assert retold(asked(0, content=False)).request.asked is None
    assert retold(asked(1, content=False)).key is None
    assert retold(asked(2, model="gone")).key is None


def test_content_that_cannot_be_read_is_none() -> None:
    call = asked(0, content=False)
    make_content(call, request="nonsense")

    assert retold(call).request.asked is None


def test_the_likest_of_the_earlier_calls_is_found() -> None:
    near = asked(1, body=says("What is the weather in Paris now?"))
    asked(2, body=says("Bake bread."))
    call = asked(3, body=says("What is the weather in Paris today?"))
    asked(4, body=says("What is the weather in Paris today?"))  # later

    assert likest_earlier(call) == near


def test_of_equal_ones_the_newest_is_found() -> None:
    asked(1)
    newest = asked(2)

    assert likest_earlier(asked(3)) == newest


@pytest.mark.parametrize(
    "other", [{"project": "app"}, {"requested_model": "other"}, {"operation": "embedding"}]
)
def test_a_call_of_another_project_model_or_kind_is_not_looked_at(other: dict[str, Any]) -> None:
    asked(1, **other)

    assert likest_earlier(asked(2)) is None


def test_where_nothing_can_be_compared_the_newest_is_taken() -> None:
    asked(1, content=False)
    newest = asked(2, content=False)

    assert likest_earlier(asked(3, content=False)) == newest


def test_a_story_goes_by_the_rules_of_now(provider: LLMProvider) -> None:
    provider.models.update(cache_mode="off", cache_ttl_seconds=60, cache_stale_seconds=30)
    registry.forget()
    story = story_of(retold(asked(0, latency_ms=2000)), retold(asked(1, cache="")))

    assert (story.mode, story.ttl, story.deterministic) == ("off", timedelta(seconds=90), True)
    assert story.earlier.ended_at == NOON + timedelta(seconds=2)
    assert "switched off" in compare.reasons(story)[0]
