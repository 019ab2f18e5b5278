"""Why two requests have one key, or two; and why an equal request was not answered from the cache.

differences(one, other)   the parts of the key that differ, dearest to look at first; none: one key
same(one, other)          the names of those that do not
likeness(one, other)      how much of two requests is the same, for finding the one to compare with
reasons(story)            why the later of two equal calls was no hit
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from completions.cache.entry import GOOD_ENDS
from completions.models import SPARED, State
from completions.wording import counted
from providers.types import JSON, CacheMode, Operation
from providers.wire_json import dumped

ABSENT = object()  # a field that one of two requests does not have
AROUND = 60  # characters shown before and after what differs
LONGEST = 400  # of what differs
CHANGING = re.compile(r"[\d\s:.,/TZ+-]*|[0-9a-fA-F-]{6,}")  # a time, a number, an id
IN_ORDER = ("shared by", "operation", "provider", "model")


class Request(NamedTuple):
    """What the key of a call is made of, as far as it is known."""

    scope: str  # who shares the answer, as `policy.scope_of` has it
    operation: Operation
    provider: str
    model: str  # as the upstream calls it
    asked: JSON | None  # canonical; None: its content is not kept


class Shown(NamedTuple):
    """A value with what differs in it."""

    before: str
    changed: str
    after: str


class Difference(NamedTuple):
    """One part of the key that is not the same in both."""

    name: str
    at: str  # where inside, e.g. messages[1].content, character 17; the name itself where it is small
    one: Shown
    other: Shown
    changes: bool  # it looks like what is another each time: a time, a number, an id


def _equal(one: Any, other: Any) -> bool:
    """As a key has it: 1 and true are two."""
    if one is ABSENT or other is ABSENT:
        return one is other
    return dumped(one, sort_keys=True) == dumped(other, sort_keys=True)


def differences(one: Request, other: Request) -> list[Difference]:
    """None: as far as both are known, their keys are equal."""
    parts, others = _parts(one), _parts(other)
    both = {name: (parts.get(name, ABSENT), others.get(name, ABSENT)) for name in {**parts, **others}}
    names = [name for name, (mine, theirs) in both.items() if not _equal(mine, theirs)]
    return [_difference(name, parts.get(name, ABSENT), others.get(name, ABSENT)) for name in names]


def same(one: Request, other: Request) -> list[str]:
    """Names of the parts that are equal."""
    parts, others = _parts(one), _parts(other)
    return [name for name, value in parts.items() if _equal(others.get(name, ABSENT), value)]


def likeness(one: JSON, other: JSON) -> float:
    """From 0, nothing alike, to 1, the same. What both say counts as much as all the rest."""
    names = (one.keys() | other.keys()) - {"messages", "prompt", "input"}
    rest = [bool(one.get(name, ABSENT) == other.get(name, ABSENT)) for name in names] or [True]
    return _alike(_said(one), _said(other)) / 2 + sum(rest) / len(rest) / 2


def _parts(request: Request) -> JSON:
    """The parts of a key by name: those that are no field of the body first."""
    values = (request.scope, request.operation.value, request.provider, request.model)
    return {**dict(zip(IN_ORDER, values, strict=True)), **(request.asked or {})}


def _said(asked: JSON) -> Any:
    return asked.get("messages") or asked.get("prompt") or asked.get("input")


def _alike(one: Any, other: Any) -> float:
    if one == other:
        return 1.0
    if isinstance(one, str) and isinstance(other, str):
        return _common(one, other) / max(len(one), len(other), 1)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list) and isinstance(other, list):
        return sum(map(_alike, one, other)) / max(len(one), len(other), 1)
    return 0.0


# --- what differs, and where


def _difference(name: str, one: Any, other: Any) -> Difference:
    at, one, other = _first(name, one, other)
    if not isinstance(one, str) or not isinstance(other, str):
        left, right = Shown("", _text(one), ""), Shown("", _text(other), "")
        return Difference(name, at, left, right, _changes(left, right))
    start = _common(one, other)
    end = _common(one[start:][::-1], other[start:][::-1])
    before, after = _word_end(one[:start][::-1]), _word_end(one[len(one) - end :])
    left, right = (_cut(text, start - before, end - after) for text in (one, other))
    if start and name not in IN_ORDER:
        at = f"{at}, character {start + 1:,}"
    return Difference(name, at, left, right, _changes(left, right))


def _first(at: str, one: Any, other: Any) -> tuple[str, Any, Any]:
    """The innermost place where two values differ first."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in {**one, **other}:
            if not _equal(one.get(name, ABSENT), other.get(name, ABSENT)):
                return _first(f"{at}.{name}", one.get(name, ABSENT), other.get(name, ABSENT))
    if isinstance(one, list) and isinstance(other, list):
        for number in range(max(len(one), len(other))):
            mine, theirs = (value[number] if number < len(value) else ABSENT for value in (one, other))
            if not _equal(mine, theirs):
                return _first(f"{at}[{number}]", mine, theirs)
    return at, one, other


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    most = min(len(one), len(other))
    return next((index for index in range(most) if one[index] != other[index]), most)


def _word_end(text: str) -> int:
    """How far the word goes that a text begins in: a whole time is better to read than its last digit."""
    whole = len(text) if len(text) < AROUND else 0
    return next((index for index, letter in enumerate(text[:AROUND]) if letter.isspace()), whole)


def _cut(text: str, start: int, end: int) -> Shown:
    """What differs, with some of what surrounds it; `end` characters at the end are the same."""
    stop = len(text) - end
    before, after = text[max(0, start - AROUND) : start], text[stop : stop + AROUND]
    return Shown(
        f"…{before}" if start > AROUND else before,
        _shortened(text[start:stop]),
        f"{after}…" if end > AROUND else after,
    )


def _text(value: Any) -> str:
    if value is ABSENT:
        return ""
    return _shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1))


def _shortened(text: str) -> str:
    rest = len(text) - LONGEST
    return text if rest <= 0 else f"{text[:LONGEST]}… {rest:,} more characters"


def _changes(one: Shown, other: Shown) -> bool:
    both = (one.changed, other.changed)
    surrounded = any((one.before, one.after))
    return (
        surrounded
        and all(any(letter.isdigit() for letter in text) for text in both)
        and all(CHANGING.fullmatch(text) for text in both)
    )


# --- why an equal request was no hit


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a call: `cache` is what the cache did for it, empty where it was not asked."""

    cache: str
    state: State
    finish_reason: str
    anomaly: bool  # its usage made no sense
    stream: bool
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Story:
    """Two calls with one key, and the rules that hold for them now."""

    earlier: Past
    later: Past
    operation: Operation
    deterministic: bool
    mode: CacheMode  # of model and key; OFF, DEFAULT (deterministic calls), ON, FORCED
    ttl: timedelta  # how long an answer is given
    rebuilt: bool  # a stream of it is put together at its end


def reasons(story: Story) -> list[str]:
    """The likeliest first; none where the later call was answered from the cache."""
    if story.later.cache in SPARED:
        return []
    if not story.later.cache:
        return [_not_asked(story)]
    found = [reason for reason in (_nothing_kept(story), _over(story)) if reason]
    return found or [
        "The later call wanted a fresh answer (Cache-Control: no-cache, or x-llmhub-cache: refresh).",
        "The answer was purged or erased, was too large to be kept, or gave way to others in a full memory.",
        "The hot store was away or began anew, and the project keeps no content to fill it from.",
    ]


def _not_asked(story: Story) -> str:
    if story.mode is CacheMode.OFF:
        return "The cache was not asked: the model or the key has it switched off."
    if story.mode is CacheMode.DEFAULT and not story.deterministic:
        return (
            "The cache was not asked: nothing says that the same answer is wanted again. Send temperature 0 "
            "or a seed, or the header x-llmhub-cache: on; or switch the cache on for the model or the key."
        )
    return (
        "The cache was not asked: the request said so (Cache-Control: no-store, or x-llmhub-cache: off), or "
        "the cache was switched off then."
    )


def _nothing_kept(story: Story) -> str:
    """Why the earlier call left no answer, or left it too late."""
    earlier = story.earlier
    if earlier.state is State.RUNNING or (earlier.ended_at and earlier.ended_at > story.later.created_at):
        return (
            "The earlier call was still under way. Equal calls share an answer while all of it is held; its "
            "stream was too long for that, or the call ran in another process while Redis was away."
        )
    if earlier.cache in SPARED:
        return ""
    if earlier.state is not State.OK:
        return f"The earlier call brought no whole answer: it ended as “{earlier.state.label}”."
    if not earlier.cache:
        return "The earlier call did not ask the cache, so its answer was not kept."
    if story.operation is not Operation.EMBEDDING and earlier.finish_reason not in GOOD_ENDS:
        ended = f"“{earlier.finish_reason}”" if earlier.finish_reason else "no reason given"
        return f"The earlier answer is not whole: it ended with {ended}. Only whole answers are kept."
    if earlier.anomaly:
        return "The usage that the provider stated for the earlier answer made no sense: such are not kept."
    if earlier.stream and not story.rebuilt:
        return (
            "The earlier answer was streamed, and streams with several choices, log probabilities or other "
            "kinds of output are not put together again."
        )
    return ""


def _over(story: Story) -> str:
    ended = story.earlier.ended_at
    if ended is None or story.later.created_at - ended <= story.ttl * 0.9:  # up to a tenth is taken off
        return ""
    return (
        f"The earlier answer's time was over: those of this model are given for {_span(story.ttl)}, and the "
        f"later call came {_span(story.later.created_at - ended)} after it."
    )


def _span(time: timedelta) -> str:
    seconds = int(time.total_seconds())
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            return counted(seconds // size, name)
    return "less than a second"
