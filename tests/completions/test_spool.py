"""A spool is replayed by whoever finds it, perhaps while its own process still adds to it."""

import threading
import time
import uuid
from pathlib import Path

import pytest
from django.utils import timezone

from completions.ledger.operations import Settle
from completions.ledger.spool import Spool, call_id, epoch_of
from completions.models import State

MANY = 300


def settle() -> Settle:
    return Settle(uuid.uuid4(), {"state": State.OK, "cost_nano_usd": 1, "finished_at": timezone.now()})


def replay(folder: Path) -> list[uuid.UUID]:
    """As a process does that takes another for dead."""
    seen: list[uuid.UUID] = []
    for path in sorted(folder.iterdir()):
        spool = Spool(path)
        with spool.held() as waiting:
            seen += map(call_id, waiting)
            time.sleep(0.001)  # a commit
            if waiting:
                spool.clear()
    return seen


def test_what_is_added_while_another_replays_is_replayed_too_and_once(tmp_path: Path) -> None:
    waiting = [settle() for _ in range(MANY)]

    def add() -> None:
        for one in waiting:
            Spool(tmp_path / "1.spool").add([one])

    adding = threading.Thread(target=add)
    adding.start()
    seen: list[uuid.UUID] = []
    while adding.is_alive() or any(tmp_path.iterdir()):
        seen += replay(tmp_path)
    adding.join()

    assert sorted(seen) == sorted(one.id for one in waiting)


def test_who_adds_waits_for_nobody_and_what_was_added_is_found(tmp_path: Path) -> None:
    spool, first, second = Spool(tmp_path / "7.spool"), settle(), settle()
    spool.add([first])
    with spool.held() as waiting:
        spool.add([second])
        assert [call_id(one) for one in waiting] == [first.id]
        spool.clear()
    [path] = tmp_path.glob("*.spool")
    assert epoch_of(path) == "7"
    assert replay(tmp_path) == [second.id]


def test_who_replays_is_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "7.spool")
    spool.add([settle()])
    with spool.held() as waiting, spool.held() as again:
        assert (len(waiting), len(again)) == (1, 0)


def test_what_is_not_cleared_stays_for_the_next(tmp_path: Path) -> None:
    spool, one = Spool(tmp_path / "7.spool"), settle()
    spool.add([one])
    with pytest.raises(ZeroDivisionError), spool.held():
        raise ZeroDivisionError
    assert replay(tmp_path) == [one.id]


def test_where_nothing_was_spooled_nothing_waits(tmp_path: Path) -> None:
    with Spool(tmp_path / "7.spool").held() as waiting:
        assert not waiting


def test_a_file_in_which_nothing_is_whole_goes(tmp_path: Path) -> None:
    """Who added it was not told that it is kept."""
    path = tmp_path / "7.spool"
    path.write_bytes(b'{"id": "')
    with Spool(path).held() as waiting:
        assert not waiting
    assert not path.exists()
