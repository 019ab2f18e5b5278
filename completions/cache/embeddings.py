"""Embeddings, kept one by one: of a request with many inputs only the unknown ones go upstream.

The answer is put together in the order of the inputs. A vector that was kept costs nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from completions.admission import Admission
from completions.answering import Answering, Cached, Result
from completions.cache import index
from completions.cache.entry import Entry, fits
from completions.cache.fingerprint import key_of
from completions.cache.flights import Question, new_entry
from completions.cache.given import Hit, Rider
from completions.cache.index import Kept
from completions.cache.policy import Plan
from completions.cache.stores import store
from completions.errors import CacheMissError, ProviderError
from completions.prompts import Prompt, inputs
from completions.run import Run
from completions.types import Call
from providers.types import JSON, Operation, Usage

EMBEDDING = Operation.EMBEDDING


async def start(call: Call, admitted: Admission, began: float, plan: Plan) -> Answering:
    """As `cache.start`, of embeddings."""
    asked = inputs(call.body["input"])
    keys = [_key(plan, one) for one in asked]
    found = await store().get(keys) if plan.reads else [None] * len(keys)
    known = [entry if entry is not None and _is_usable(entry, plan) else None for entry in found]
    missing = [number for number, entry in enumerate(known) if entry is None]
    if not missing:
        entries = [entry for entry in known if entry is not None]
        result = _whole(entries)
        return Hit(call, admitted, began, None, (keys, entries, result))
    if plan.only:
        raise CacheMissError("Not all of these inputs are cached, and the request asked for nothing else.")
    if len(missing) == len(keys):
        return Rider(call, _question(call, admitted, plan, keys), began, None)
    fewer = call._replace(body={**call.body, "input": [asked[number] for number in missing]})
    admitted = admitted._replace(prompt=Prompt(EMBEDDING, fewer.body))
    question = _question(fewer, admitted, plan, [keys[number] for number in missing])
    hit = [(key, entry) for key, entry in zip(keys, known, strict=True) if entry is not None]
    question = question._replace(saved_nano=sum(entry.cost_nano or 0 for _, entry in hit))

    def dress(fetched: Result) -> Result:
        whole = _joined(fetched, known)
        index.note_hits(hit)
        return whole

    return Rider(call, question, began, None, Cached.PARTIAL, dress)


def _is_usable(entry: Entry, plan: Plan) -> bool:
    return entry.fresh_until > time.time() and fits(entry, EMBEDDING) and not plan.is_too_old(entry)


def _key(plan: Plan, one: object) -> str:
    """An input has one key, alone or among others."""
    return key_of(plan.scope, plan.target, EMBEDDING, {**plan.asked, "input": one})


def _question(call: Call, admitted: Admission, plan: Plan, keys: Sequence[str]) -> Question:
    key = key_of(plan.scope, plan.target, EMBEDDING, {**plan.asked, "input": call.body["input"]})

    def given(entries: Sequence[Entry]) -> Result:
        return _whole(entries)

    return Question(key, keys, call, admitted, plan, given, _kept)


def _kept(question: Question, run: Run, result: Result) -> list[Kept]:
    """An entry for each input; nothing where the upstream's list does not match them."""
    call, plan = question.call, question.plan
    asked, vectors = inputs(call.body["input"]), vectors_of(result.body)
    if len(vectors) != len(asked) or (result.usage is not None and result.usage.anomaly):
        return []
    weights = [max(Prompt(EMBEDDING, {"input": one}).size, 1) for one in asked]
    prompts = _shares(result.usage.prompt if result.usage else 0, weights)
    costs = _shares(result.cost_nano or 0, weights)
    head = {name: value for name, value in result.body.items() if name not in ("data", "usage")}
    return [
        Kept(
            key,
            new_entry(
                question,
                run,
                {**head, "data": [{**vector, "index": 0}]},
                Usage(prompt=prompt, source=result.usage.source) if result.usage else None,
                None if result.cost_nano is None else cost,
            ),
            EMBEDDING,
            plan.target.upstream_model,
            {**plan.asked, "input": one},
            call.end_user,
            bool(plan.kept_days),
            by_staff=call.cache.by_staff,
        )
        for key, vector, prompt, cost, one in zip(question.parts, vectors, prompts, costs, asked, strict=True)
    ]


def vectors_of(body: JSON) -> list[JSON]:
    """The vectors in the order of their inputs; none where the list is not one of all indices."""
    data = body.get("data")
    if not isinstance(data, list) or not all(map(_is_vector, data)):
        return []
    ordered = sorted(data, key=lambda one: int(one["index"]))
    return ordered if [one["index"] for one in ordered] == list(range(len(ordered))) else []


def _is_vector(one: object) -> bool:
    if not isinstance(one, dict) or type(one.get("index")) is not int:
        return False
    vector = one.get("embedding")
    return isinstance(vector, str | list) and bool(vector)


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """`total` by weight, in whole numbers whose sum it is."""
    ends = [total * upto // sum(weights) for upto in accumulate(weights)]
    return [end - begin for begin, end in pairwise([0, *ends])]


def _whole(entries: Sequence[Entry]) -> Result:
    """One answer of kept vectors."""
    data = [{**entry.body["data"][0], "index": number} for number, entry in enumerate(entries)]
    prompt = sum(entry.usage.prompt for entry in entries if entry.usage is not None)
    usage = Usage(prompt=prompt)
    told = {"prompt_tokens": prompt, "total_tokens": prompt}
    body = {**entries[0].body, "data": data, "usage": told}
    return Result(body, {}, "", usage, 0, None, 0)


def _joined(fetched: Result, known: Sequence[Entry | None]) -> Result:
    """The fetched vectors where the kept ones left gaps."""
    vectors, missing = vectors_of(fetched.body), known.count(None)
    if len(vectors) != missing:
        raise ProviderError(
            f"The provider sent {len(vectors)} vectors for {missing} inputs.", reason="upstream_invalid"
        )
    fresh = iter(vectors)
    data = [
        {**(entry.body["data"][0] if entry is not None else next(fresh)), "index": number}
        for number, entry in enumerate(known)
    ]
    kept = sum(entry.usage.prompt for entry in known if entry is not None and entry.usage is not None)
    prompt = kept + (fetched.usage.prompt if fetched.usage is not None else 0)
    told = {"prompt_tokens": prompt, "total_tokens": prompt}
    return replace(fetched, body={**fetched.body, "data": data, "usage": told})
