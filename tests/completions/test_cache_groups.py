"""What a process keeps of the questions that may be compared by meaning."""

from collections.abc import Iterator
from typing import Any

import numpy
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from completions.cache import index, semantic
from completions.cache.semantic import Meaning
from completions.models import CachedResponse
from tests.completions.kept import kept, store
from tests.factories import make_project

pytestmark = pytest.mark.django_db
GROUP = "g"


@pytest.fixture(autouse=True)
def _none_kept() -> Iterator[None]:
    semantic.forget()
    yield
    semantic.forget()


@pytest.fixture(autouse=True)
def _looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "FRESH_SECONDS", 0.0)


def vector(*parts: float) -> bytes:
    return numpy.asarray(parts, dtype=numpy.float32).tobytes()


def put(project: Any, **vectors: bytes) -> None:
    """Answers of the group, by the key of each."""
    store(*(kept(project, key) for key in vectors))
    index.flush()
    for key, one in vectors.items():
        CachedResponse.objects.filter(key=key).update(group=GROUP, vector=one)


def likest(one: bytes) -> str | None:
    found = semantic._likest(Meaning(GROUP, one), 0.9)
    return None if found is None else found.key


def test_an_answer_that_came_since_is_compared() -> None:
    project = make_project()
    put(project, north=vector(0, 1))
    assert (likest(vector(0, 1)), likest(vector(1, 0))) == ("north", None)

    put(project, east=vector(1, 0))
    assert (likest(vector(0, 1)), likest(vector(1, 0))) == ("north", "east")


def test_an_answer_that_went_is_not() -> None:
    put(make_project(), north=vector(0, 1), east=vector(1, 0))
    assert likest(vector(1, 0)) == "east"

    CachedResponse.objects.filter(key="east").delete()
    assert (likest(vector(0, 1)), likest(vector(1, 0))) == ("north", None)
    CachedResponse.objects.all().delete()
    assert likest(vector(0, 1)) is None


def test_a_vector_of_another_size_is_left_out() -> None:
    put(make_project(), flat=vector(0, 1), north=vector(0, 0, 1))
    assert (likest(vector(0, 0, 1)), likest(vector(0, 1))) == ("north", None)


def test_vectors_are_read_once() -> None:
    """Ten thousand of them are sixty megabytes."""
    project = make_project()
    put(project, north=vector(0, 1))
    likest(vector(0, 1))
    with CaptureQueriesContext(connection) as unchanged:
        likest(vector(0, 1))
    put(project, east=vector(1, 0))
    with CaptureQueriesContext(connection) as one_more:
        likest(vector(0, 1))

    def read(queries: CaptureQueriesContext) -> list[str]:
        head = [one["sql"].partition(" FROM ")[0] for one in queries.captured_queries]
        return [one for one in head if "vector" in one]

    assert (len(unchanged.captured_queries), read(unchanged)) == (1, [])
    assert len(read(one_more)) == 1
    pk = CachedResponse.objects.get(key="east").pk
    assert f"IN ({pk})" in one_more.captured_queries[-1]["sql"]
