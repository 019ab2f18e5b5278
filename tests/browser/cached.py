"""The cache's pages in pictures: answers in every state, and two calls that differ in a time."""

import json
import uuid
from datetime import timedelta
from typing import Any

QUESTIONS = (  # model, question, answer, hits, what the call cost (nano-dollars), hours since it was stored
    ("gpt-4o", "What is your return policy for opened items?", "", 1842, 2_410_000, 3),
    ("gpt-4o", "How long does delivery to Austria take?", "Two to four working days.", 911, 1_980_000, 5),
    ("gpt-4o-mini", "Classify: 'The parcel arrived damaged.'", '{"topic": "damage"}', 640, 91_000, 7),
    ("gpt-4o-mini", "Classify: 'Where is my invoice?'", '{"topic": "billing"}', 377, 88_500, 8),
    ("gpt-4o", "Translate to German: Your order has been shipped.", "Ihre Bestellung …", 96, 640_000, 9),
    ("text-embedding-3-small", "waterproof hiking boots, size 43", "", 58, 160, 11),
    ("text-embedding-3-small", "vegan leather backpack 20 l", "", 41, 140, 12),
    ("gpt-4o", "Summarise the attached terms in three sentences.", "1. You may …", 12, 9_300_000, 14),
    ("gpt-4o", "Write alt text for the product photo.", "A pair of brown boots …", 0, 3_120_000, 30),
)  # fmt: skip
ANSWER = (
    "You can return opened items within 30 days, as long as they are complete and undamaged.\n\n"
    "1. Start the return in your account under “Orders”.\n"
    "2. Print the label and hand the parcel over at any post office.\n"
    "3. We refund the price within five working days of its arrival.\n\n"
    "Earphones, swimwear and cosmetics are taken back only if their seal is intact."
)


def sample_answers(project: Any, key: Any) -> dict[str, str]:
    """The answers; the pages to picture, by name."""
    from django.utils import timezone

    from completions.models import CachedResponse, Job

    now = timezone.now()
    # Else the worker deletes what is expired before it is pictured.
    Job.objects.create(name="prune", due_at=now + timedelta(hours=1))
    rows = [_answer(project, key, number, *facts) for number, facts in enumerate(QUESTIONS)]
    stale, expired, pinned = rows[3], rows[-1], rows[1]
    day = timedelta(days=1)
    CachedResponse.objects.filter(pk=stale.pk).update(expires_at=now - day / 24, stale_until=now + day / 12)
    CachedResponse.objects.filter(pk=expired.pk).update(expires_at=now - day / 4, stale_until=now - day / 4)
    CachedResponse.objects.filter(pk=pinned.pk).update(pinned=True)
    _hits(project, key, rows[0])
    first, second = _almost_equal(project, key)
    best, list_page = rows[0].pk, "/admin/completions/cachedresponse/"
    compare = "/admin/completions/completion/compare/"
    return {
        "cached": list_page,
        "cached-search": f"{list_page}?q=classify",
        "cached-answer": f"{list_page}{best}/change/",
        "cached-embedding": f"{list_page}{rows[5].pk}/change/",
        "cached-pinned": f"{list_page}{pinned.pk}/change/",
        "cached-purge-asked": f"{list_page}{best}/purge_this/",
        "cached-purge": f"{list_page}purge/",
        "cached-purge-counted": f"{list_page}purge/?project={project.slug}&model=gpt-4o",
        "cached-purge-refused": f"{list_page}purge/?project=&model=&provider=",
        "miss-diff": f"{compare}?a={second}",
        "miss-no-diff": f"{compare}?a={first}&b={_equal(project, key)}",
        "miss-empty": compare,
        "call-hit": f"/admin/completions/completion/{_newest_hit()}/change/",
        "call-miss": f"/admin/completions/completion/{second}/change/",
        "calls-cached": "/admin/completions/completion/?cache=any",
    }


def _answer(project: Any, key: Any, number: int, *facts: Any) -> Any:
    """`facts`: a row of QUESTIONS."""
    from django.utils import timezone

    from completions.ledger import new_id
    from completions.models import CachedResponse

    model, question, answer, hits, cost, hours = facts
    embedding = model.startswith("text-embedding")
    stored = timezone.now() - timedelta(hours=hours)
    asked: dict[str, Any] = {"input": question, "encoding_format": "float"}
    body: dict[str, Any] = {
        "object": "list",
        "data": [{"embedding": [0.0123 * (n % 17 - 8) for n in range(1536)]}],
    }
    if not embedding:
        system = {"role": "system", "content": "You are the assistant of a web shop. Answer briefly."}
        asked = {
            "messages": [system, {"role": "user", "content": question}], "temperature": 0, "max_tokens": 400,
        }  # fmt: skip
        message = {"role": "assistant", "content": answer if number else ANSWER}
        body = {
            "id": f"chatcmpl-{number}", "object": "chat.completion", "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }  # fmt: skip
    return CachedResponse.objects.create(
        key=f"{number:x}" + uuid.uuid5(uuid.NAMESPACE_URL, question).hex + "7" * 31,
        project=project, api_key=key, end_user="u-17" if number == 0 else "", completion_id=new_id(),
        operation="embedding" if embedding else "chat", provider_slug="openai", model=model,
        upstream_model=f"{model}-2024-08-06" if model == "gpt-4o" else model, first_words=question,
        request=json.dumps(asked), response=json.dumps(body),
        facts='{"usage": [61, 212, 0, 0, 0, 0, 0, "provider"], "finish_reason": "stop"}', cost_nano_usd=cost,
        size_bytes=900 + 210 * number + (6200 if embedding else 0), hits=hits, saved_nano_usd=hits * cost,
        last_hit_at=stored + timedelta(hours=hours * 0.97) if hits else None, created_at=stored,
        expires_at=stored + timedelta(hours=24), stale_until=stored + timedelta(hours=24),
    )  # fmt: skip


def _call(project: Any, key: Any, *, minutes: int, **facts: Any) -> Any:
    from django.utils import timezone

    from completions.ids import first_id
    from completions.models import Completion, State

    at = timezone.now() - timedelta(minutes=minutes)
    values: dict[str, Any] = {
        "id": type(first_id(at))(int=first_id(at).int | uuid.uuid4().int & ((1 << 70) - 1)),
        "request_id": uuid.uuid4().hex[:12], "project": project, "api_key": key, "surface": "v1",
        "requested_model": "gpt-4o", "provider_slug": "openai", "model": "gpt-4o", "state": State.OK,
        "finish_reason": "stop", "prompt_tokens": 61, "completion_tokens": 212, "cost_nano_usd": 0,
        "created_at": at, "finished_at": at + timedelta(seconds=2), "latency_ms": 1840, "attempts": 1,
    }  # fmt: skip
    return Completion.objects.create(**(values | facts))


def _hits(project: Any, key: Any, row: Any) -> None:
    """The call that brought an answer, and some that were given it."""
    cost = row.cost_nano_usd
    brought = _call(project, key, minutes=180, cache="MISS", cost_nano_usd=cost, end_user="u-17")
    row.completion_id = brought.pk
    row.save()
    for number, word in enumerate(("HIT", "HIT", "COALESCED", "HIT", "SEMANTIC", "HIT", "STALE", "HIT")):
        state = "coalesced" if word == "COALESCED" else "ok"
        _call(
            project, key, minutes=4 + 13 * number, cache=word, state=state, cached_from=brought.pk,
            saved_nano_usd=cost, latency_ms=2 + number % 3, prompt_tokens=0,
            completion_tokens=0, end_user=f"u-{20 + number * 7}", attempts=0,
        )  # fmt: skip


def _asked(day: str, **more: Any) -> str:
    system = (
        f"You are the assistant of a web shop. Answer briefly, politely and in the customer's language. "
        f"Today is {day}. Never promise a refund."
    )
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": "What is your return policy for opened items?"},
    ]
    return json.dumps({"model": "gpt-4o", "messages": messages, "temperature": 0} | more)


def _with_content(call: Any, request: str) -> Any:
    from completions.models import CompletionContent

    CompletionContent.objects.create(
        completion=call, request=request, expires_at=call.created_at + timedelta(days=30),
        response=json.dumps({"role": "assistant", "content": ANSWER}),
    )  # fmt: skip
    return call.pk


def _almost_equal(project: Any, key: Any) -> tuple[Any, Any]:
    """Two calls that differ in a time within the system prompt, and in the bound of their answers."""
    cost = {"cost_nano_usd": 2_410_000, "cache": "MISS"}
    other = _call(project, key, minutes=25, **cost)
    _with_content(other, json.dumps({"messages": [{"role": "user", "content": "Hello"}], "temperature": 0}))
    first = _with_content(_call(project, key, minutes=21, **cost), _asked("2026-11-25 08:14", max_tokens=400))
    second = _with_content(
        _call(project, key, minutes=20, **cost), _asked("2026-11-25 08:15", max_tokens=500)
    )
    return first, second


def _equal(project: Any, key: Any) -> Any:
    """The same as the first, but cut off."""
    call = _call(project, key, minutes=22, cache="MISS", cost_nano_usd=2_410_000, finish_reason="length")
    return _with_content(call, _asked("2026-11-25 08:14", max_tokens=400))


def _newest_hit() -> Any:
    from completions.models import Completion

    return Completion.objects.filter(cache="HIT").order_by("-pk").values_list("pk", flat=True).first()
