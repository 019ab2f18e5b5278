"""What models say in tests and pictures of the playground, and an upstream that says it word by word."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.fakes import USAGE, FakeUpstream, Received, Step, chunk, chunked, sse, stream_head

SHORT = "Use a **generator**: it reads one line at a time, so memory stays flat whatever the file's size."
LONG = """\
Read it **line by line**: `max` keeps only the *longest word so far* in memory.

```python
def words(lines):
    for line in lines:
        yield from line.split()

with open("big.txt") as lines:
    print(max(words(lines), key=len))
```

| Approach | Memory | Time |
|:--|--:|--:|
| whole file | 1.9 GB | 4.1 s |
| line by line | **11 MB** | 4.4 s |
"""
OTHER = """\
A file object is an iterator of its lines, so:

```python
best = ""
with open("big.txt") as file:
    for line in file:
        words = [best, *line.split()]
        best = max(words, key=len)
print(best)
```

- constant memory
- no library needed

> If the file may hold very long lines, read pieces of [a fixed size](https://docs.python.org/3/) instead.
"""
THOUGHTS = (
    "The file is large, so reading it whole is out. Line by line is simplest. Should I mention ties? "
    "Yes: max keeps the first. A table comparing memory would make the point."
)
HOSTILE = """\
<script>window.hacked = "script"</script><img src=x onerror="window.hacked = 'image'">

<b onclick="window.hacked = 'click'">bold</b> [a link](javascript:window.hacked='link')
<javascript:window.hacked=1>
[another](data:text/html,<script>window.hacked='data'</script>) ![](https://evil.example/pixel.png)
[third](https://good.example/page "title") and `<script>window.hacked = "code"</script>`

```html
<script>window.hacked = "fence"</script>
```

| <img src=x onerror="window.hacked = 'cell'"> | b |
|---|---|
| <svg onload="window.hacked = 'svg'"> | [x](vbscript:window.hacked='vb') |
"""
PACE_SECONDS = 0.012
MIDDLE = 64  # of an answer that stops half-way
ANSWERS: dict[str, tuple[str, str]] = {  # by model: what it thinks, what it says
    "qwen3-235b": (THOUGHTS, LONG),
    "llama-4-maverick": ("", OTHER),
    "mistral-medium": ("", SHORT),
}


class Upstream(FakeUpstream):
    """FakeUpstream whose streams can wait for the test.

    go_on = upstream.says("Some words ", "and the rest.")
    ...                                    # "Some words " is all that comes
    go_on()                                # now "and the rest." does; at the end all are let go on
    """

    def __init__(self) -> None:
        super().__init__()
        self._gates: list[threading.Event] = []

    def says(self, *parts: str, reasoning: str = "") -> Callable[[], None]:
        """The next answer, which waits between any two parts: until what this gives is called."""
        gates = [threading.Event() for _ in parts[1:]]
        self._gates += gates

        steps: list[Any] = [*begin(reasoning)]
        for number, part in enumerate(parts):
            steps += [gates[number - 1]] if number else []
            steps += deltas("content", part)
        steps += end(USAGE)
        self.scripts(lambda _: steps)
        waiting = iter(gates)
        return lambda: next(waiting).set()

    def paces(self, parts: Sequence[str], seconds: float) -> None:
        """The next answer comes in these parts, each after so many seconds."""
        steps = [step for part in parts for step in (seconds, chunked(sse(chunk({"content": part}))))]
        self.scripts(lambda _: [*begin(), *steps, *end(USAGE)])

    def calls_tool(self, name: str, *arguments: str) -> None:
        """The next answer is a call of a tool, whose arguments come in parts."""
        first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
        parts = [first, *({"index": 0, "function": {"arguments": part}} for part in arguments)]
        steps = [*begin(), *(chunked(sse(chunk({"tool_calls": [part]}))) for part in parts)]
        self.scripts(lambda _: [*steps, *end(USAGE, "tool_calls")])

    def clear(self) -> None:
        """Forget what was to be said."""
        self._scripts.clear()

    @staticmethod
    def answer_of(text: str) -> list[Any]:
        """The steps of an answer that waits for nothing."""
        return [*begin(), *deltas("content", text), *end(USAGE)]

    def release(self) -> None:
        """Let every answer go on."""
        for gate in self._gates:
            gate.set()

    def __exit__(self, *error: object) -> None:
        self.release()
        super().__exit__(*error)

    async def _perform(self, steps: list[Any], writer: asyncio.StreamWriter) -> bool:
        for step in steps:
            if isinstance(step, threading.Event):
                while not step.is_set():  # noqa: ASYNC110 - set by another thread
                    await asyncio.sleep(0.005)
            elif not await super()._perform([step], writer):
                return False
        return True


def begin(reasoning: str = "") -> Iterator[Step]:
    yield stream_head()
    yield chunked(sse(chunk({"role": "assistant", "content": ""})))
    yield from deltas("reasoning_content", reasoning)


def deltas(kind: str, text: str) -> Iterator[bytes]:
    """A text as a model sends it: words with what follows them."""
    for piece in text.replace(" ", " \0").split("\0"):
        if piece:
            yield chunked(sse(chunk({kind: piece})))


def end(usage: dict[str, Any], reason: str = "stop") -> Iterator[bytes]:
    yield from (chunked(sse(event)) for event in (chunk({}, reason), chunk(None, usage=usage), "[DONE]"))
    yield chunked(b"")


def pictured(request: Received) -> list[Any]:
    """Each model's own answer, at a pace; who asks for it "slowly" gets no further than the middle."""
    reasoning, text = ANSWERS[request.body["model"]]
    tokens = (len(text) + len(reasoning)) // 4
    usage = {"prompt_tokens": 61, "completion_tokens": tokens, "total_tokens": 61 + tokens}
    steps: list[Any] = []
    for number, step in enumerate((*begin(reasoning), *deltas("content", text))):
        steps += [PACE_SECONDS, step]
        if number == MIDDLE and b"slowly" in request.raw:
            steps.append(60.0)
    return [*steps, *end(usage)]
