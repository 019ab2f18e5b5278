"""Server-sent events from bytes, without I/O, as the WHATWG standard parses them.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
One difference: an event that the stream's end leaves without its blank line is given out, not thrown away.
"""

from typing import NamedTuple

from providers.errors import UpstreamInvalid

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event; `event` is "message" where the stream named none."""

    event: str
    data: str
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

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes. Raises UpstreamInvalid for a line or an event over the cap."""
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not end:
            self._keep(data)
            return []
        block = bytes(self._rest) + data[:end] if self._rest else data[:end]
        self._rest.clear()
        self._keep(data[end:])
        if b"\r" in block:
            self._after_cr = end == len(data) and block.endswith(b"\r")
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return self._lines(block)

    def close(self) -> list[Event]:
        """The event that the end of the stream left unfinished, if any."""
        block = bytes(self._rest) + b"\n\n"
        self._rest.clear()
        return self._lines(block)

    def _keep(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > self.max_line_bytes:
            raise self._over_cap()

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
        return Event(self._event or "message", data.decode("utf-8", "replace"), self._id)

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

    def _over_cap(self) -> UpstreamInvalid:
        return UpstreamInvalid(f"the upstream sent an event of more than {self.max_line_bytes:,} bytes")
