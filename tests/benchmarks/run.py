"""What the hub costs, row by row, beside the floor of its stack. Five minutes; Linux only.

`make bench`, or `python -m tests.benchmarks.run [--list] [--only ROW …] [--seconds 1] [--profile]`.
"""

import argparse
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks import profiling
from tests.benchmarks.processes import LOAD_CORE, SERVER_CORE
from tests.benchmarks.rounds import COLUMNS, lines
from tests.benchmarks.rows import ROWS, Row
from tests.benchmarks.subjects import Bench


def main() -> None:
    options = arguments()
    if options.list:
        for row in ROWS:
            print(f"{row.name:<14}{row.about}")
        return
    if sys.platform != "linux":
        sys.exit("The benchmarks read /proc and use epoll: they run on Linux only.")
    os.sched_setaffinity(0, {LOAD_CORE})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmhub-bench-")))
        bench = Bench(stack, folder, options.seconds)
        wanted = options.only or ([ROWS[0].name] if options.profile else [row.name for row in ROWS])
        rows = [row for row in ROWS if row.name in wanted]
        if options.profile:
            profiling.report(bench, rows)
        else:
            table(bench, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="name the rows and measure nothing")
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=[row.name for row in ROWS], default=[])
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="how long each round of each subject takes"
    )
    parser.add_argument(
        "--profile", action="store_true", help="where the hub's time goes, in the rows of --only (or chat-32)"
    )
    return parser.parse_args()


def table(bench: Bench, rows: list[Row]) -> None:
    if SERVER_CORE == LOAD_CORE:
        print("There is one core only: server and load disturb each other, and latencies say nothing.")
    print(f"Python {platform.python_version()}, load average before the run {os.getloadavg()[0]:.1f}")
    print(COLUMNS.format("row", "figure", "hub", "floor", "compared", "rounds"), flush=True)
    for row in rows:
        for line in lines(bench, row):
            print(line, flush=True)


if __name__ == "__main__":
    main()
