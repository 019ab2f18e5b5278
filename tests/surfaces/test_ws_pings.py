"""Peers that are gone without a word: the hub asks, and who does not answer is not waited for."""

from collections.abc import Iterator

import pytest

from completions import sockets
from completions.management.commands.serve import WEBSOCKETS
from completions.sockets import Place
from tests.conftest import LiveHub, running_hub
from tests.surfaces import ws as shared
from tests.surfaces.v1 import V1
from tests.surfaces.ws import begin, connect
from tests.waiting import eventually

transactional_db, v1, nothing_left = shared.transactional_db, shared.v1, shared.nothing_left

PING_SECONDS = 0.15


@pytest.fixture(scope="module")
def hub(transactional_db: None) -> Iterator[LiveHub]:
    """One that asks soon."""
    often = {"ws_ping_interval": PING_SECONDS, "ws_ping_timeout": PING_SECONDS}
    with running_hub(**WEBSOCKETS | often) as hub, shared.frozen_heap():
        yield hub


def test_one_that_does_not_answer_is_left_and_its_streams_can_be_read_on(v1: V1) -> None:
    _, (begun, delta) = begin(v1, "one")  # and from now on it reads nothing, so it answers nothing

    assert eventually(lambda: not Place.taken)

    other = connect(v1)
    other.resume(begun["stream"], 0)
    assert other.hear() == delta


def test_one_that_answers_stays(v1: V1) -> None:
    v1.upstream.streams(["one"], delay=PING_SECONDS)
    socket = connect(v1)
    socket.start()
    assert socket.rest()[-1]["type"] == "done"


def test_a_reader_that_is_slow_has_as_long_to_answer_as_it_may_take_nothing() -> None:
    """Its answer comes after all that was sent before it was asked."""
    assert WEBSOCKETS["ws_ping_timeout"] >= sockets.SLOW_SECONDS
