"""Where content is not kept, neither are a provider's words, which may quote it."""

from typing import Any

import pytest

from completions.models import Attempt, Completion
from completions.outcome import WORDS_NOT_KEPT
from tests.fakes import response
from tests.surfaces import v1 as shared
from tests.surfaces.cached import Together, ask, results, waits
from tests.surfaces.v1 import V1

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1
QUOTE = {"error": {"message": "Invalid prompt: 'my secret'", "code": "invalid_value"}}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_of_a_refusal_the_code_stays(v1: V1, kept: bool, stream: bool) -> None:
    v1.set(v1.api_key, log_content=kept)
    v1.upstream.refuses(400, QUOTE)
    answer = v1.chat(stream=stream)
    assert "my secret" in answer.text  # whoever asked is told

    [row], [attempt] = v1.rows(), Attempt.objects.all()
    for one in (row, attempt):
        assert one.error_code
        assert ("my secret" in one.error_message) is kept
        assert kept or one.error_message == WORDS_NOT_KEPT


def test_who_shared_the_call_keeps_them_no_more_than_who_made_it(v1: V1) -> None:
    v1.set(v1.api_key, log_content=False)
    go = waits(v1, end=response(400, QUOTE))
    begun = Together(v1).begin(2, lambda: ask(v1))
    go.set()
    assert all("my secret" in one.text for one in results(begun))

    rows: list[Any] = v1.rows()
    assert len(rows) == 2
    assert not any("my secret" in row.error_message for row in rows)
    assert Completion.objects.exclude(error_code="").count() == 2
