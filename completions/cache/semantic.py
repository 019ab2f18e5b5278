"""Answers to other questions that mean the same: by vectors of an embedding model, asked through the hub.

Only single questions are compared, and only with those that share everything else: who shares the answer, the
model, the system prompt, tools and parameters (`group_of`). The vectors lie in the rows of what is cached; a
process keeps those of the groups it works with, MOST_COMPARED of each, and looks anew every FRESH_SECONDS.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from completions.cache.fingerprint import key_of
from completions.cache.policy import Plan
from completions.models import CachedResponse
from completions.types import Call
from providers import database
from providers.types import JSON, Operation

if TYPE_CHECKING:
    import numpy

    Matrix = numpy.ndarray[Any, numpy.dtype[numpy.float32]]
    Vector = numpy.ndarray[Any, numpy.dtype[numpy.float32]]

MOST_COMPARED = 10_000  # answers of one group, the newest
MOST_GROUPS = 64  # that a process keeps
FRESH_SECONDS = 2.0
LONGEST_QUESTION = 8000  # characters: longer ones are documents rather than questions

Embed = Callable[[Call, str], Awaitable[list[float] | None]]


class Meaning(NamedTuple):
    """A question to be compared: what it must share with others, and its vector (32-bit floats)."""

    group: str
    vector: bytes


class Likeness(NamedTuple):
    """The answer of the likest question, and how like it is: 1 is the same."""

    key: str
    similarity: float


class _Group(NamedTuple):
    """The comparable answers of a group, newest first; `seen` are their rows, also of those left out."""

    seen: list[int]
    keys: dict[int, str]
    vectors: "Matrix | None"  # a row for each of `keys`
    loaded_at: float


_groups: OrderedDict[str, _Group] = OrderedDict()


def is_wanted(plan: Plan, operation: Operation) -> bool:
    """Whether answers of this model may be given to like questions. A vector tells of its question, so there
    is none where content may not be kept.
    """
    if plan.target.cache.least_similarity is None or operation is not Operation.CHAT:
        return False
    return bool(settings.LLMHUB_SEMANTIC_CACHE) and plan.kept_days > 0


async def meaning_of(call: Call, plan: Plan, embed: Embed) -> Meaning | None:
    """None: it is no single question, or its vector cannot be had."""
    question = question_of(plan.asked)
    if question is None:
        return None
    vector = await embed(call, question)
    if not vector:
        return None
    group = group_of(plan)
    packed = await sync_to_async(_packed, thread_sensitive=False)(vector)
    return None if packed is None else Meaning(group, packed)


def question_of(asked: JSON) -> str | None:
    """The one user message of a request, where there is nothing else but what the system says."""
    messages = asked.get("messages") or []
    *before, last = messages
    if last.get("role") != "user" or any(one.get("role") not in ("system", "developer") for one in before):
        return None
    content = last.get("content")
    return content if isinstance(content, str) and 0 < len(content) <= LONGEST_QUESTION else None


def group_of(plan: Plan) -> str:
    """What questions must share: all of the request but the question itself, and the project.

    What is merely alike never crosses projects, not even those that share equal answers.
    """
    *before, last = plan.asked["messages"]
    alike = {**plan.asked, "messages": [*before, {**last, "content": None}]}
    model = f"{plan.own_scope} by {settings.LLMHUB_SEMANTIC_CACHE}"
    return key_of(model, plan.target, Operation.CHAT, alike)


async def likest(meaning: Meaning, least: float) -> Likeness | None:
    """The likest question whose answer is kept, if it is like enough."""
    return await sync_to_async(_likest, thread_sensitive=False)(meaning, least)


def forget() -> None:
    """Keep no group: for tests."""
    _groups.clear()


# --- in threads


def _packed(vector: list[float]) -> bytes | None:
    """The vector, of length 1; None for what is none, whatever an upstream calls so."""
    import numpy

    try:
        with numpy.errstate(over="ignore"):
            made = numpy.asarray(vector, dtype=numpy.float32)
            length = float(numpy.linalg.norm(made))
    except (ValueError, TypeError, OverflowError):
        return None
    if made.ndim != 1 or not numpy.isfinite(length) or not length:
        return None
    return bytes((made / length).tobytes())


def _likest(meaning: Meaning, least: float) -> Likeness | None:
    import numpy

    group = _group(meaning.group)
    mine = numpy.frombuffer(meaning.vector, dtype=numpy.float32)
    if group.vectors is None or group.vectors.shape[1] != len(mine):
        return None
    similarities = group.vectors @ mine
    best = int(similarities.argmax())
    similarity = min(float(similarities[best]), 1.0)
    return Likeness(list(group.keys.values())[best], similarity) if similarity >= least else None


def _group(name: str) -> _Group:
    known = _groups.get(name, _Group([], {}, None, float("-inf")))
    if time.monotonic() - known.loaded_at < FRESH_SECONDS:
        return known
    with database.glance():
        loaded = _groups[name] = _looked_at_again(name, known)
    _groups.move_to_end(name)
    while len(_groups) > MOST_GROUPS:
        _groups.popitem(last=False)
    return loaded


def _looked_at_again(name: str, known: _Group) -> _Group:
    """The group as it is now. Vectors are read once: a question's does not change."""
    import numpy

    now = time.monotonic()
    lasting = Q(pinned=True) | Q(expires_at__gt=timezone.now())
    rows = CachedResponse.objects.filter(lasting, group=name).exclude(vector=None)
    newest = list(rows.order_by("-created_at", "-pk").values_list("pk", flat=True)[:MOST_COMPARED])
    if newest == known.seen:
        return known._replace(loaded_at=now)
    old = set(known.seen)
    new = rows.filter(pk__in=[pk for pk in newest if pk not in old]).values_list("pk", "key", "vector")
    keys = dict(known.keys)
    vectors: dict[int, Vector] = {}
    if known.vectors is not None:
        vectors = dict(zip(known.keys, known.vectors, strict=True))
    for pk, key, vector in new:
        keys[pk], vectors[pk] = key, numpy.frombuffer(bytes(vector or b""), dtype=numpy.float32)
    size = max((len(vectors[pk]) for pk in newest if pk in vectors), default=0)
    same = {pk: keys[pk] for pk in newest if pk in vectors and len(vectors[pk]) == size}
    return _Group(newest, same, numpy.stack([vectors[pk] for pk in same]) if size else None, now)
