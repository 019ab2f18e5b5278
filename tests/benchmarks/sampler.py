"""A profiler inside the process it looks at: `python -m tests.benchmarks.sampler FILE manage.py serve`.

SIGUSR1 starts it and stops it. In between a timer that counts the process's CPU time interrupts the main
thread every few milliseconds, and each thread's stack is noted unless that thread waits. At the stop FILE
gets collapsed stacks, as flame graphs are made of: frames parted by semicolons, then microseconds of CPU. How
much CPU a thread used is the kernel's word; the samples only share it out.
"""

import linecache
import re
import runpy
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

EVERY_SECONDS = 0.002
# Python cannot say that a thread waits: the line that it is at does.
WAITS = re.compile(r"\.(get|wait|acquire|join|select|poll|recv|accept)\(")


class Sampler:
    """Counts stacks while it is on."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.on = False
        self.stacks: dict[int, Counter[str]] = {}
        self.used: dict[int, float] = {}
        self.used_in_all = 0.0

    def install(self) -> None:
        signal.signal(signal.SIGPROF, self.sample)
        signal.signal(signal.SIGUSR1, self.turn)

    def turn(self, number: int, frame: FrameType | None) -> None:
        self.on = not self.on
        every = EVERY_SECONDS if self.on else 0
        signal.setitimer(signal.ITIMER_PROF, every, every)
        if self.on:
            self.stacks = {}
            self.used = {thread.native_id or 0: cpu_of(thread) for thread in threading.enumerate()}
            self.used_in_all = time.process_time()
        else:
            self.write()

    def sample(self, number: int, frame: FrameType | None) -> None:
        main = threading.get_ident()
        for ident, other in sys._current_frames().items():
            top = frame if ident == main else other
            if top is not None and (ident == main or not waits(top)):
                self.stacks.setdefault(ident, Counter())[stack_of(top)] += 1

    def write(self) -> None:
        rest = time.process_time() - self.used_in_all
        lines = []
        for thread in threading.enumerate():
            spent = cpu_of(thread) - self.used.get(thread.native_id or 0, 0.0)
            rest -= spent
            lines += shared_out(thread.name, spent, self.stacks.pop(thread.ident or 0, Counter()))
        ended = sum(self.stacks.values(), Counter())
        lines += shared_out("threads that ended", rest if ended else 0.0, ended)
        part = self.file.with_suffix(".part")
        part.write_text("\n".join(lines))
        part.rename(self.file)


def shared_out(name: str, seconds: float, stacks: Counter[str]) -> list[str]:
    """A thread's CPU time among the stacks it was seen with."""
    seen = stacks or Counter({"(waiting)": 1})
    each = seconds * 1e6 / seen.total()
    return [f"{name};{stack} {round(count * each)}" for stack, count in seen.items()]


def waits(frame: FrameType) -> bool:
    return WAITS.search(linecache.getline(frame.f_code.co_filename, frame.f_lineno)) is not None


def cpu_of(thread: threading.Thread) -> float:
    """Its CPU time: Linux makes a clock's number out of a thread's."""
    try:
        return time.clock_gettime(~(thread.native_id or 0) << 3 | 6)
    except OSError:  # it has ended
        return 0.0


def stack_of(frame: FrameType | None) -> str:
    """Its frames, outermost first."""
    found: list[str] = []
    while frame is not None:
        code = frame.f_code
        found.append(f"{code.co_name} ({code.co_filename}:{frame.f_lineno})".replace(";", ","))
        frame = frame.f_back
    return ";".join(reversed(found))


if __name__ == "__main__":
    Sampler(Path(sys.argv[1])).install()
    del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name="__main__")
