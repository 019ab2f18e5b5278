"""Server-sent events from bytes, without I/O, as the WHATWG standard parses them.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
One difference: an event that the stream's end leaves without its blank line is given out, not thrown away.
"""

from typing import NamedTuple

from providers.errors import UpstreamTooLarge

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event; `event` is "message" where the stream named none."""

    event: str
    data: bytes  # UTF-8, as far as the upstream keeps to the standard
    id: str


class SSEParser:
    """Feed it bytes as they come, however they are split. `close()` gives what the end of the stream left."""

    def __init__(self, max_line_bytes: int = 1 << 20) -> None:
        self.max_line_bytes = max_line_bytes  # of one line, and of one event's data
        self._rest = bytearray()  # the beginning of a line whose end has not come
        self._after_cr = False  # a LF that follows belongs to the CR before it
        self._at_start = True
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = ""
        self._id = ""
        self._clean = False  # between two events, and not before the first
        self._too_long = False  # the line whose end has not come is

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes. Raises UpstreamTooLarge for a line or an event over the cap."""
        whole = self._clean and data.endswith(b"\n\n") and len(data) <= self.max_line_bytes
        if whole and (plain := _plain(data)):
            return [Event("message", line[6:], self._id) for line in plain]
        self._clean = False
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if self._too_long:
            raise self._over_cap()
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not end:
            self._keep(data)
            return self._unless_too_long([])
        block = bytes(self._rest) + data[:end] if self._rest else data[:end]
        self._rest.clear()
        self._keep(data[end:])
        if b"\r" in block:
            self._after_cr = end == len(data) and block.endswith(b"\r")
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events = self._lines(block)
        self._clean = not (self._rest or self._data or self._event or self._after_cr)
        return self._unless_too_long(events)

    def close(self) -> list[Event]:
        """The event that the end of the stream left unfinished, if any."""
        if self._too_long:
            raise self._over_cap()
        block = bytes(self._rest) + b"\n\n"
        self._rest.clear()
        return self._lines(block)

    def _keep(self, data: bytes) -> None:
        self._rest += data
        self._too_long = len(self._rest) > self.max_line_bytes

    def _unless_too_long(self, events: list[Event]) -> list[Event]:
        """The events before a line that is too long are given out; the next look at it raises."""
        if self._too_long and not events:
            raise self._over_cap()
        return events

    def _lines(self, block: bytes) -> list[Event]:
        if self._at_start:
            self._at_start = False
            block = block.removeprefix(BOM)
        events: list[Event] = []
        lines = block.split(b"\n")
        lines.pop()  # nothing follows the last line's end
        for line in lines:
            if not line:
                if self._data:
                    events.append(self._dispatch())
                self._event = ""
            elif line.startswith(b"data:"):
                self._add_data(line[6:] if line.startswith(b"data: ") else line[5:])
            else:
                self._field(line)
        return events

    def _add_data(self, value: bytes) -> None:
        self._data.append(value)
        self._data_bytes += len(value)
        if self._data_bytes > self.max_line_bytes:
            raise self._over_cap()

    def _dispatch(self) -> Event:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data = []
        self._data_bytes = 0
        return Event(self._event or "message", data, self._id)

    def _field(self, line: bytes) -> None:
        if len(line) > self.max_line_bytes:
            raise self._over_cap()
        name, _, value = line.partition(b":")  # a comment has no name
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        if name == b"data":
            self._add_data(b"")
        elif name == b"event":
            self._event = text
        elif name == b"id" and "\0" not in text:
            self._id = text

    def _over_cap(self) -> UpstreamTooLarge:
        return UpstreamTooLarge(f"the upstream sent an event of more than {self.max_line_bytes:,} bytes")


def _plain(data: bytes) -> list[bytes]:
    """The events of a read that holds nothing but whole ones of a single data line each; else none."""
    if b"\r" in data:
        return []
    lines = data[:-2].split(b"\n\n")
    for line in lines:
        if not line.startswith(b"data: ") or b"\n" in line:
            return []
    return lines
