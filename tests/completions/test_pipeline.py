"""The pipeline gives back what it took, whatever happens between admission and the call."""

from typing import Any

import pytest

from completions import cache, pipeline
from completions.bridge import run_sync
from completions.types import Call, Caller
from tests.factories import make_key, make_project, make_provider

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_plan_that_cannot_be_made_costs_the_key_nothing_of_its_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_provider(slug="demo", models=("m",))
    project = make_project()
    key, _ = make_key(project, tokens_per_minute=60)
    call = Call(Caller(project.pk, project.slug, api_key_id=key.pk), {"messages": [], "max_tokens": 50}, "m")

    def fails(*_: Any) -> None:
        raise RecursionError

    monkeypatch.setattr(cache, "plan_of", fails)

    for _ in range(2):  # the second would be one too many, if the first had kept its tokens
        with pytest.raises(RecursionError):
            run_sync(pipeline.start, call)
