"""Whatever goes wrong in the hub itself, what a call used is settled: its tokens, its cost, its attempts."""

import gc
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from completions import ledger
from completions.ledger import progress
from completions.ledger.audit import audit
from completions.ledger.progress import Progress
from completions.meter import Meter
from completions.models import Completion, State
from completions.run import Run
from completions.service import LLMService
from completions.types import StreamingCallbacks
from providers.models import LanguageModel, ModelPrice
from providers.types import Answer, StreamChunk
from tests.factories import make_project, make_provider
from tests.fakes import FakeUpstream

pytestmark = pytest.mark.django_db(transaction=True)

ASK = {"messages": [{"role": "user", "content": "Say hello"}]}
USED = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
COST = 9 * 1_000 + 3 * 10_000


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture
def service(upstream: FakeUpstream) -> LLMService:
    priced(upstream, "local")
    make_project("default")
    return LLMService()


def priced(upstream: FakeUpstream, slug: str, priority: int = 1) -> LanguageModel:
    provider = make_provider(upstream_url=upstream.url, slug=slug, models=("m",), priority=priority)
    model = provider.models.get()
    ModelPrice.objects.create(model=model, valid_from="2020-01-01", prompt=1, completion=10)
    return model


def stream(service: LLMService) -> None:
    def ignore(_: object) -> None: ...

    service.complete_streaming(ASK, StreamingCallbacks(ignore, ignore, ignore))


class Broken(Exception):
    """What nobody foresaw."""


def breaks(*_: Any, **__: Any) -> Any:
    raise Broken


class BrokenMeter:
    """A meter that breaks at the last event of a stream, and at every whole answer, before the usage."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chunk = Meter.chunk

        def odd(meter: Meter, one: StreamChunk) -> None:
            if one.usage is not None and one.body:
                raise Broken
            chunk(meter, one)

        def answer(meter: Meter, one: Answer) -> None:
            meter.answered = True
            raise Broken

        monkeypatch.setattr(Meter, "chunk", odd)
        monkeypatch.setattr(Meter, "answer", answer)


def settled() -> Completion:
    """The one call there is: a failure of the hub, with an attempt that says the same."""
    row = Completion.objects.get()
    assert (row.state, row.error_code) == (State.UPSTREAM_ERROR, "internal_error")
    [attempt] = row.attempt_rows.all()
    assert row.attempts == 1
    assert (attempt.state, attempt.error_code) == (row.state, row.error_code)
    assert attempt.cost_nano_usd == row.cost_nano_usd
    assert audit() == []
    return row


class TestMetering:
    def test_a_whole_answer_that_cannot_be_metered_is_settled_at_the_usage_it_reports(
        self, service: LLMService, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        BrokenMeter(monkeypatch)
        upstream.answers(usage=USED)
        with pytest.raises(Broken):
            service.complete(ASK)
        row = settled()
        assert (row.cost_nano_usd, row.usage_source) == (COST, "provider")

    def test_a_stream_that_cannot_be_metered_is_settled_at_the_usage_it_reports(
        self, service: LLMService, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        BrokenMeter(monkeypatch)
        upstream.streams(usage=USED)
        with pytest.raises(Broken):
            stream(service)
        row = settled()
        assert (row.cost_nano_usd, row.usage_source) == (COST, "provider")

    def test_an_answer_that_cannot_be_counted_is_billed_by_its_size(
        self, service: LLMService, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Meter, "usage", breaks)
        upstream.streams(["x" * 400], usage=None)
        stream(service)
        row = Completion.objects.get()
        assert (row.completion_tokens, row.usage_source) == (100, "estimated")
        assert row.cost_nano_usd == row.attempt_rows.get().cost_nano_usd
        assert (row.cost_nano_usd or 0) >= 100 * 10_000

    def test_an_answer_that_cannot_be_kept_costs_what_it_costs(
        self, service: LLMService, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Meter, "message", breaks)
        upstream.answers(usage=USED)
        with pytest.raises(Broken):
            service.complete(ASK)
        assert Completion.objects.get().cost_nano_usd == COST


def test_a_fault_in_relaying_is_settled_at_what_came(
    service: LLMService, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("completions.streams.Tape.put", breaks)
    upstream.streams(["Hello"], usage=None)
    with pytest.raises(Broken):
        stream(service)
    row = settled()
    assert row.cost_nano_usd is not None
    assert row.prompt_tokens


def test_the_candidates_that_are_called_are_noted_as_their_calls_begin(
    service: LLMService, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For who recovers the row, should the process die."""
    ledger.close()
    noted: list[tuple[uuid.UUID, tuple[int, ...]]] = []
    called = Progress.called

    def note(file: Progress, completion: uuid.UUID, number: int, model: int) -> None:
        called(file, completion, number, model)
        noted.extend((call, left.models) for call, left in progress.left_in(file.path).items())

    monkeypatch.setattr(Progress, "called", note)
    with FakeUpstream() as other:
        upstream.refuses(401)
        other.answers()
        first, second = LanguageModel.objects.get().pk, priced(other, "other", priority=200).pk
        response = service.complete({**ASK, "model": "m"})
    call = uuid.UUID(str(response.metadata.id))
    assert noted == [(call, (first,)), (call, (first, second))]


def test_a_call_that_is_over_leaves_nothing_to_the_garbage_collector(
    service: LLMService, upstream: FakeUpstream
) -> None:
    """A cycle of references costs every call a fifth more."""
    upstream.answers()
    service.complete({**ASK, "model": "m"})  # what is made at first is made
    gc.collect()
    gc.disable()
    try:
        service.complete({**ASK, "model": "m"})
        assert [one for one in gc.get_objects() if type(one) is Run] == []
    finally:
        gc.enable()
