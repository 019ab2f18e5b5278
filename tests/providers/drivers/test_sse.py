"""Server-sent events, parsed as the standard says, however the bytes are split."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.drivers.sse import Event, SSEParser
from providers.errors import UpstreamInvalid


def parse(*parts: bytes) -> list[Event]:
    parser = SSEParser()
    return [event for part in parts for event in parser.feed(part)] + parser.close()


def texts(*parts: bytes) -> list[str]:
    return [event.data.decode() for event in parse(*parts)]


def test_an_event_ends_at_a_blank_line() -> None:
    parser = SSEParser()
    assert parser.feed(b'data: {"a": 1}\n') == []
    assert parser.feed(b"\ndata: two") == [Event("message", b'{"a": 1}', "")]


def test_several_events_in_one_read() -> None:
    assert texts(b"data: 1\n\ndata: 2\n\ndata: 3\n\n") == ["1", "2", "3"]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_end_in_lf_cr_or_crlf(end: bytes) -> None:
    assert texts(b"data: a" + end + b"data: b" + end + end + b"data: c" + end + end) == ["a\nb", "c"]


def test_line_ends_may_be_mixed() -> None:
    assert texts(b"data: a\r\ndata: b\rdata: c\n\r\ndata: d\r\r") == ["a\nb\nc", "d"]


def test_a_crlf_split_between_reads_is_one_line_end() -> None:
    assert texts(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == ["a\nb"]


def test_an_event_after_cr_cr_is_given_out_at_once() -> None:
    assert SSEParser().feed(b"data: a\r\r") == [Event("message", b"a", "")]


def test_a_bom_at_the_start_is_dropped_and_kept_elsewhere() -> None:
    assert texts(b"\xef\xbb", b"\xbfdata: a\n\n") == ["a"]
    assert texts(b"data: a\n\n\xef\xbb\xbfdata: b\n\n") == ["a"]


def test_comments_and_unknown_fields_are_ignored() -> None:
    assert texts(b": OPENROUTER PROCESSING\n\n:\n\nretry: 5\nfoo: bar\nbaz\ndata: a\n:x\n\n") == ["a"]


def test_several_data_lines_are_joined_by_line_feeds() -> None:
    assert texts(b"data: a\ndata:\ndata:  b\ndata\n\n") == ["a\n\n b\n"]


def test_only_one_space_after_the_colon_is_dropped() -> None:
    assert texts(b"data:x\n\ndata: x\n\ndata:  x\n\n") == ["x", "x", " x"]


def test_an_event_without_data_is_none_and_its_name_is_forgotten() -> None:
    assert parse(b"event: ping\n\ndata: a\n\n") == [Event("message", b"a", "")]


def test_names_hold_for_one_event_and_ids_until_the_next() -> None:
    wire = b"event: error\nid: 7\ndata: a\n\ndata: b\n\nid\ndata: c\n\nid: 8\0\ndata: d\n\n"
    assert parse(wire) == [
        Event("error", b"a", "7"),
        Event("message", b"b", "7"),
        Event("message", b"c", ""),
        Event("message", b"d", ""),
    ]


@pytest.mark.parametrize("wire", [b"data: a\n\ndata: b", b"data: a\n\ndata: b\n", b"data: a\n\ndata: b\r"])
def test_a_last_event_without_its_blank_line_is_not_lost(wire: bytes) -> None:
    assert texts(wire) == ["a", "b"]


def test_a_character_split_between_reads_stays_whole() -> None:
    wire = "data: 🦊é\n\n".encode()
    assert texts(*(wire[index : index + 1] for index in range(len(wire)))) == ["🦊é"]


def test_bytes_are_given_as_they_came_whatever_they_are() -> None:
    assert [event.data for event in parse(b"data: a\xff\xf0\x9f\x98b\n\n")] == [b"a\xff\xf0\x9f\x98b"]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("field", [b"data: ", b": ", b"foo"])
def test_a_line_over_the_cap_stops_the_stream(whole: bool, field: bytes) -> None:
    parser = SSEParser(max_line_bytes=100)
    with pytest.raises(UpstreamInvalid, match="more than 100 bytes"):
        parser.feed(field + b"x" * 200 + (b"\n" if whole else b""))


def test_a_line_without_end_is_never_kept_beyond_the_cap() -> None:
    parser = SSEParser(max_line_bytes=100)
    assert parser.feed(b"x" * 50) == parser.feed(b"x" * 50) == []
    with pytest.raises(UpstreamInvalid):
        parser.feed(b"x")


def test_an_event_of_many_lines_is_capped_too() -> None:
    parser = SSEParser(max_line_bytes=100)
    with pytest.raises(UpstreamInvalid):
        parser.feed(b"data: 0123456789\n" * 11)


PIECES = [
    b"data: a",
    b"data:b",
    b"data",
    b"event: e",
    b"id: 1",
    b":c",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\xef\xbb\xbf",
]
WIRES = st.lists(st.one_of(st.sampled_from([*PIECES, "é🦊".encode()]), st.binary(max_size=3)), max_size=30)


@given(WIRES.map(b"".join), st.lists(st.integers(0, 200), max_size=12))
def test_any_split_gives_the_same_events(wire: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    assert parse(*(wire[start:end] for start, end in pairwise(edges))) == parse(wire)
    assert parse(*(wire[index : index + 1] for index in range(len(wire)))) == parse(wire)
