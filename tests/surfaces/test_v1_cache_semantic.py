"""Questions that mean the same, asked on `/v1`. Their vectors come from the demo provider."""

from typing import Any

import pytest

from completions.cache import index, semantic
from completions.models import CachedResponse, Completion
from tests.factories import make_key, make_project, make_provider
from tests.fakes import USAGE, completion, response
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import CHAT, MODEL, V1

transactional_db, hub = shared.transactional_db, shared.hub
plain = shared.v1

ASKED = "What is the capital of France?"
ALIKE = "What is the capital city of France?"
OTHER = "How do I bake bread with sourdough?"


@pytest.fixture
def v1(plain: V1, settings: Any) -> V1:
    """A hub whose model may answer like questions."""
    settings.LLMHUB_SEMANTIC_CACHE = "demo-embedding"
    shared.price(make_provider(slug="demo", models=("demo-embedding",)).models.get())
    plain.set(plain.model, cache_least_similarity=0.8)
    return plain


def ask(v1: V1, question: str, *, key: str | None = None, **fields: Any) -> Any:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    body = {"model": MODEL, "messages": messages, "temperature": 0}
    answer = v1.post(CHAT, body | fields, key=key)
    index.flush()
    semantic.forget()
    return answer


def cache_of(answer: Any) -> str:
    return str(answer.headers["x-llmhub-cache"])


def test_a_like_question_gets_the_same_answer_and_is_told_how_like_it_is(v1: V1) -> None:
    first = ask(v1, ASKED)
    second = ask(v1, ALIKE)

    assert (cache_of(first), cache_of(second)) == ("MISS", "SEMANTIC")
    assert 0.8 <= float(second.headers["x-llmhub-cache-similarity"]) <= 1
    assert second.json()["choices"] == first.json()["choices"]
    assert len(v1.upstream.requests) == 1


def test_an_equal_question_needs_no_vector(v1: V1) -> None:
    ask(v1, ASKED)

    assert cache_of(ask(v1, ASKED)) == "HIT"
    assert Completion.objects.filter(operation="embedding").count() == 1


def test_the_vectors_call_is_in_the_ledger_as_the_callers(v1: V1) -> None:
    ask(v1, ASKED)

    row = Completion.objects.get(operation="embedding")
    assert (row.project, row.api_key, row.surface) == (v1.project, v1.api_key, "v1")


def test_a_semantic_hit_costs_nothing_and_says_what_it_saved(v1: V1) -> None:
    ask(v1, ASKED)
    ask(v1, ALIKE)

    row = Completion.objects.get(cache="SEMANTIC")
    miss = Completion.objects.get(operation="chat", cache="MISS")
    assert (row.cost_nano_usd, row.saved_nano_usd, row.cached_from) == (0, miss.cost_nano_usd, miss.id)


def test_another_question_is_another(v1: V1) -> None:
    ask(v1, ASKED)

    assert cache_of(ask(v1, OTHER)) == "MISS"


@pytest.mark.parametrize(
    "fields",
    [
        {"top_p": 0.5},
        {"tools": [{"type": "function", "function": {"name": "look"}}]},
        {"messages": [{"role": "user", "content": ALIKE}]},
        {"messages": [{"role": "system", "content": "Be long."}, {"role": "user", "content": ALIKE}]},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi"},
                {"role": "user", "content": ALIKE},
            ]
        },
    ],
    ids=["parameters", "tools", "no system prompt", "another system prompt", "a conversation"],
)
def test_what_surrounds_the_question_must_be_equal(v1: V1, fields: dict[str, Any]) -> None:
    ask(v1, ASKED)

    assert cache_of(ask(v1, ALIKE, **fields)) == "MISS"


def test_another_project_never_gets_it(v1: V1) -> None:
    ask(v1, ASKED)
    _, other = make_key(make_project("other"))

    assert cache_of(ask(v1, ALIKE, key=other)) == "MISS"


def test_a_model_that_does_not_allow_it_compares_nothing(v1: V1) -> None:
    v1.set(v1.model, cache_least_similarity=None)
    ask(v1, ASKED)

    assert cache_of(ask(v1, ALIKE)) == "MISS"
    assert not Completion.objects.filter(operation="embedding").exists()


def test_a_purged_answer_is_not_given(v1: V1) -> None:
    ask(v1, ASKED)
    CachedResponse.objects.filter(operation="chat").delete()

    assert cache_of(ask(v1, ALIKE)) == "MISS"


def test_without_a_vector_it_is_asked_as_it_is(v1: V1, settings: Any) -> None:
    settings.LLMHUB_SEMANTIC_CACHE = "no-such-model"

    assert cache_of(ask(v1, ASKED)) == "MISS"
    assert ask(v1, ALIKE).status_code == 200


@pytest.mark.parametrize("vector", [None, "text", [], ["a"], [[1.0]], [0, 0], [1e300], {"x": 1}, [None], 5])
def test_a_vector_that_is_none_is_as_if_there_were_no_vector(v1: V1, settings: Any, vector: Any) -> None:
    settings.LLMHUB_SEMANTIC_CACHE = MODEL
    embedded = {"object": "list", "data": [{"index": 0, "embedding": vector}], "usage": USAGE}
    v1.upstream.scripts(lambda asked: [response(200, embedded if "input" in asked.body else completion())])

    assert [cache_of(ask(v1, question)) for question in (ASKED, ALIKE, ASKED)] == ["MISS", "MISS", "HIT"]


def test_nothing_is_compared_where_content_is_not_kept(v1: V1) -> None:
    v1.set(v1.api_key, log_content=False)
    ask(v1, ASKED)

    assert cache_of(ask(v1, ALIKE)) == "MISS"
    assert not CachedResponse.objects.exclude(vector=None).exists()
