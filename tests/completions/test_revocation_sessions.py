"""Where a session's key goes: with its caller, and nowhere where it could be read."""

import json
import pickle
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.utils import timezone

from completions import revocation, tickets
from completions.ledger.operations import Opening, Post
from completions.ledger.spool import Spool
from completions.types import Caller, Session

KEY = "a-secret-session-key-of-the-suite"
CALLER = Caller(1, "web", None, 7, "api", session=Session(KEY))


def test_it_is_not_shown_with_its_caller() -> None:
    for text in (repr(CALLER), str(CALLER.session), json.dumps(CALLER._asdict(), default=str)):
        assert KEY not in text


def test_a_row_that_waits_in_a_file_does_not_have_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    opening = Opening(uuid.uuid4(), CALLER, "m", stream=False)

    spool.add([Post(opening, timezone.now(), {"state": "ok"})])

    assert KEY not in spool.path.read_text()
    [read] = spool.read()
    assert isinstance(read, Post)
    assert read.opening.caller[:6] == CALLER[:6]


def test_a_ticket_carries_it_and_the_cache_cannot_be_read_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    keep = cache.set

    def set_noted(*given: Any) -> None:
        kept.append(given)
        keep(*given)

    monkeypatch.setattr(cache, "set", set_noted)

    text = tickets.issue(CALLER).text

    stored = pickle.dumps(kept)
    assert KEY.encode() not in stored
    assert text.encode() not in stored
    assert tickets.redeem(text) == CALLER._replace(surface="ws")


def test_the_ticket_of_a_key_has_none() -> None:
    caller = Caller(1, "web", 5, None, "ws")
    assert tickets.redeem(tickets.issue(caller).text) == caller


def test_what_calls_depend_on() -> None:
    assert revocation.bond_of(Caller(1, "web", 5, None)) == 5
    assert revocation.bond_of(CALLER) == revocation.Person(7, 1, Session(KEY))
    assert revocation.bond_of(Caller(1, "web")) is None
    assert revocation.bond_of(Caller(1, "web", None, 7, "admin")) is None
