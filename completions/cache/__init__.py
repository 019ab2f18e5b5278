"""The cache: answers that are given again, to whom they may be given.

A call that may be answered from it (`policy`) is looked up by its key (`fingerprint`) in the hot store
(`stores`: this process's memory, or Redis). A hit is a row in the ledger that costs nothing (`given`). A miss
shares one upstream call with all equal calls of that moment (`flights`). Its answer is kept if it is whole
and good (`entry`). The rows of what is kept (`index`) are what staff see; `purge` takes them away.
"""

import asyncio
import logging
import time
from collections.abc import Sequence

from django.conf import settings

from completions import ledger
from completions.admission import Admission, admission
from completions.answering import Answering, Cached, Result
from completions.cache import embeddings, index, semantic, stores
from completions.cache.entry import Entry, fits, is_complete, result_of
from completions.cache.flights import Question, flight_of, is_under_way, new_entry
from completions.cache.given import Hit, Rider
from completions.cache.index import Kept
from completions.cache.policy import Plan, plan_of
from completions.cache.stores import store
from completions.errors import CacheMissError, LLMServiceError
from completions.limits import limiter
from completions.pumped import OutletOf
from completions.run import Run
from completions.tasks import background
from completions.types import Call
from providers.loops import PerLoop
from providers.types import Operation

__all__ = ("plan_of", "start")

logger = logging.getLogger(__name__)

MEANING_SECONDS = 5.0  # that a call waits for its question's vector

stores.when_cleared(index.load)
_refreshing: PerLoop[set[str]] = PerLoop(set)  # keys of stale answers


async def start(
    call: Call, admitted: Admission, began: float, plan: Plan, outlet: OutletOf | None = None
) -> Answering:
    """The call on its way: answered from the cache, with an equal call, or by the upstream.

    Raises CacheMissError where the call wants nothing but a kept answer and there is none.
    """
    try:
        return await _started(call, admitted, began, plan, outlet)
    except BaseException:
        limiter().give_back(admitted.grant, 0)
        raise


async def _started(
    call: Call, admitted: Admission, began: float, plan: Plan, outlet: OutletOf | None
) -> Answering:
    if call.operation is Operation.EMBEDDING:
        return await embeddings.start(call, admitted, began, plan)
    if plan.reads:
        (entry,) = await store().get([plan.key])
        if entry is not None and (cached := _usable(entry, call.operation, plan)):
            if cached is Cached.STALE and not plan.only:
                _refresh(call, plan)
            result = result_of(entry, call.operation, 0)
            return Hit(call, admitted, began, outlet, ([plan.key], [entry], result), cached)
    meaning = await _meaning(call, plan)
    if meaning is not None and plan.reads:
        like = await _like(call, plan, meaning)
        if like is not None:
            (key, similarity), entry = like
            result = result_of(entry, call.operation, 0)
            hit = Hit(call, admitted, began, outlet, ([key], [entry], result), Cached.SEMANTIC)
            hit.similarity = similarity
            return hit
    if plan.only:
        raise CacheMissError("No answer to this request is cached, and it asked for nothing else.")
    if not plan.shares:
        run = Run(call, admitted, began, outlet)
        run.cached = Cached.MISS
        return run
    return Rider(call, _question(call, admitted, plan, meaning), began, outlet)


def _usable(entry: Entry, operation: Operation, plan: Plan) -> Cached | None:
    now = time.time()
    if not fits(entry, operation) or plan.is_too_old(entry):
        return None
    if entry.fresh_until > now:
        return Cached.HIT
    return Cached.STALE if entry.stale_until > now else None


def _question(
    call: Call, admitted: Admission, plan: Plan, meaning: semantic.Meaning | None = None
) -> Question:
    def given(entries: Sequence[Entry]) -> Result:
        return result_of(entries[0], call.operation, 0)

    def kept(question: Question, run: Run, result: Result) -> list[Kept]:
        return _kept(question, run, result, meaning)

    return Question(plan.key, [plan.key], call, admitted, plan, given, kept)


def _kept(question: Question, run: Run, result: Result, meaning: semantic.Meaning | None) -> list[Kept]:
    """What is kept of an answer: all of it, or nothing."""
    call, plan = question.call, question.plan
    if not is_complete(result):
        return []
    entry = new_entry(question, run, result.body, result.usage, result.cost_nano)
    return [
        Kept(
            plan.key,
            entry,
            call.operation,
            plan.target.upstream_model,
            plan.asked,
            call.end_user,
            bool(plan.kept_days),
            meaning.group if meaning is not None else "",
            meaning.vector if meaning is not None else None,
            by_staff=call.cache.by_staff,
        )
    ]


async def _meaning(call: Call, plan: Plan) -> semantic.Meaning | None:
    if not semantic.is_wanted(plan, call.operation):
        return None
    return await semantic.meaning_of(call, plan, _embedded)


async def _like(call: Call, plan: Plan, meaning: semantic.Meaning) -> tuple[semantic.Likeness, Entry] | None:
    """The answer to a question that means the same, if one is kept."""
    found = await semantic.likest(meaning, plan.target.cache.least_similarity or 1.0)
    if found is None:
        return None
    (entry,) = await store().get([found.key])
    if entry is None or _usable(entry, call.operation, plan) is not Cached.HIT:
        return None
    return found, entry


async def _embedded(call: Call, question: str) -> list[float] | None:
    """The question's vector, by a call of the same caller to the embedding model: the ledger has it."""
    body = {"input": question, "encoding_format": "float"}
    asked = Call(
        call.caller,
        body,
        settings.LLMHUB_SEMANTIC_CACHE,
        timeout_seconds=MEANING_SECONDS,
        end_user=call.end_user,
        operation=Operation.EMBEDDING,
    )
    try:
        admitted = await admission(asked, ledger.new_id())
        plan = plan_of(asked, admitted)
        began = time.monotonic()
        run = Run(asked, admitted, began) if plan is None else await start(asked, admitted, began, plan)
        result = await run.outcome()
    except LLMServiceError as error:
        logger.warning("A question's meaning could not be had, so it is asked as it is: %s", error)
        return None
    vectors = embeddings.vectors_of(result.body)
    return vectors[0]["embedding"] if vectors else None


def _refresh(call: Call, plan: Plan) -> None:
    """Fetch a fresh answer beside a stale one, once at a time. The call's project pays for it."""
    refreshing = _refreshing.get()
    if plan.key not in refreshing and not is_under_way(plan.key):
        refreshing.add(plan.key)
        task = background(_refreshed(_whole(call), plan._replace(reads=False)))
        task.add_done_callback(lambda _: refreshing.discard(plan.key))


async def _refreshed(call: Call, plan: Plan) -> None:
    try:
        admitted = await admission(call, ledger.new_id())
    except LLMServiceError:
        return  # what is stale stays so until its time is over
    question = _question(call, admitted, plan, await _meaning(call, plan))
    flight = flight_of(question, time.monotonic(), Cached.MISS)
    if flight.question is not question:  # a call came first that wanted nothing kept
        limiter().give_back(admitted.grant, 0)
        return
    flight.join()
    await asyncio.wait([flight.task])


def _whole(call: Call) -> Call:
    """The call for an answer in one piece."""
    body = {name: value for name, value in call.body.items() if name != "stream_options"}
    return call._replace(stream=False, body=body)
