"""What the hub costs, row by row, beside the floor of its stack. Four minutes; Linux only.

`make bench`, or `python -m tests.benchmarks.run [--list] [--only ROW …] [--seconds 3] [--profile]`.
"""

import argparse
import os
import platform
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.benchmarks import profiling
from tests.benchmarks.processes import LOAD_CORE, SERVER_CORE, NotMeasured
from tests.benchmarks.rows import ROWS, Row
from tests.benchmarks.subjects import Bench, Target
from tests.benchmarks.work import Figure

COLUMNS = "{:<13}{:<26}{:>10}{:>10}{:>10}"


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
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each subject is measured")
    parser.add_argument(
        "--profile", action="store_true", help="where the hub's time goes, in the rows of --only (or chat-32)"
    )
    return parser.parse_args()


def table(bench: Bench, rows: list[Row]) -> None:
    if SERVER_CORE == LOAD_CORE:
        print("There is one core only: server and load disturb each other, and latencies say nothing.")
    print(f"Python {platform.python_version()}, load average before the run {os.getloadavg()[0]:.1f}")
    print(COLUMNS.format("row", "figure", "hub", "floor", "compared"), flush=True)
    for row in rows:
        for line in lines(bench, row):
            print(line, flush=True)


def lines(bench: Bench, row: Row) -> list[str]:
    """The row in print. What cannot be measured says why, and stops nothing."""
    floor, floor_problem = figures(bench.floor_for(row.request), row)
    hub, hub_problem = figures(bench.hub_for(row.request), row)
    names = list(dict.fromkeys(figure.name for figure in (*hub, *floor)))
    printed = [_line(name, _named(hub, name), _named(floor, name)) for name in names]
    printed += [
        f"{subject} n/a: {problem}"
        for subject, problem in (("hub", hub_problem), (row.request.floor, floor_problem))
        if problem
    ]
    return [f"{row.name if not number else '':<13}{line}" for number, line in enumerate(printed)]


def figures(subject: AbstractContextManager[Target], row: Row) -> tuple[list[Figure], str]:
    """The figures, or why there are none."""
    try:
        with subject as target:
            return row.work.measure(target), ""
    except NotMeasured as problem:
        return [], str(problem)


def _named(found: list[Figure], name: str) -> Figure | None:
    return next((figure for figure in found if figure.name == name), None)


def _line(name: str, hub: Figure | None, floor: Figure | None) -> str:
    compared = ""
    if hub and floor and hub.compare == "ratio" and floor.value > 0:
        compared = f"× {hub.value / floor.value:.2f}"
    elif hub and floor and hub.compare == "difference":
        compared = f"{hub.value - floor.value:+,.{hub.digits}f}"
    return f"{name:<26}{_number(hub):>10}{_number(floor):>10}{compared:>10}"


def _number(figure: Figure | None) -> str:
    return f"{figure.value:,.{figure.digits}f}" if figure else "n/a"


if __name__ == "__main__":
    main()
