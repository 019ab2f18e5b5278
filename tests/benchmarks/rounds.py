"""A row's rounds: floor and hub by turns, so that a machine that slows down slows both."""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from statistics import median

from tests.benchmarks.processes import NotMeasured
from tests.benchmarks.rows import Row
from tests.benchmarks.subjects import Bench, Target
from tests.benchmarks.work import Figure, Work

COLUMNS = "{:<13}{:<26}{:>10}{:>10}{:>10}  {}"


@dataclass
class Subject:
    """The hub or the floor: what it did in each round, or why it did nothing."""

    name: str
    target: Target | None = None
    problem: str = ""
    rounds: list[dict[str, Figure]] = field(default_factory=list)

    def start(self, stack: ExitStack, serving: AbstractContextManager[Target]) -> None:
        try:
            self.target = stack.enter_context(serving)
        except NotMeasured as problem:
            self.problem = str(problem)

    def measure(self, work: Work) -> None:
        if self.target is None or self.problem:
            return
        try:
            self.rounds.append({figure.name: figure for figure in work.measure(self.target)})
        except NotMeasured as problem:
            self.problem = str(problem)

    def all_of(self, name: str) -> list[Figure]:
        """The figure in every round that has it, in their order."""
        return [found[name] for found in self.rounds if name in found]

    def one_of(self, name: str) -> Figure | None:
        """The figure that is told: the median, or the first where later rounds cannot see it."""
        found = self.all_of(name)
        if not found or found[0].first:
            return found[0] if found else None
        return replace(found[0], value=median(figure.value for figure in found))


def lines(bench: Bench, row: Row) -> list[str]:
    """The row in print. What cannot be measured says why, and stops nothing."""
    floor, hub = Subject(row.request.floor), Subject("hub")
    with ExitStack() as stack:
        floor.start(stack, bench.floor_for(row.request))
        hub.start(stack, bench.hub_for(row.request))
        for _ in range(row.work.rounds):
            floor.measure(row.work)
            hub.measure(row.work)
    names = dict.fromkeys(name for subject in (hub, floor) for found in subject.rounds for name in found)
    told = [_told_of(name, hub, floor) for name in names]
    told += [(f"{one.name} n/a: {one.problem}", *[""] * 4) for one in (hub, floor) if one.problem]
    return [
        COLUMNS.format("" if number else row.name, *columns).rstrip() for number, columns in enumerate(told)
    ]


def _told_of(name: str, hub: Subject, floor: Subject) -> tuple[str, ...]:
    """A figure's columns."""
    mine, floors = hub.one_of(name), floor.one_of(name)
    compared = [_compared(*both) for both in zip(hub.all_of(name), floor.all_of(name), strict=False)]
    told = rounds = ""
    if mine and floors and mine.compare and compared:
        told = _told(mine, compared[0] if mine.first else median(compared))
        if len(compared) > 1 and not mine.first:
            rounds = " ".join(_told(mine, value) for value in compared).replace("× ", "")
    return name, _number(mine), _number(floors), told, rounds


def _compared(hub: Figure, floor: Figure) -> float:
    if hub.compare == "difference":
        return hub.value - floor.value
    return hub.value / floor.value if floor.value > 0 else float("nan")


def _told(figure: Figure, value: float) -> str:
    return f"{value:+,.{figure.digits}f}" if figure.compare == "difference" else f"× {value:.2f}"


def _number(figure: Figure | None) -> str:
    return f"{figure.value:,.{figure.digits}f}" if figure else "n/a"
