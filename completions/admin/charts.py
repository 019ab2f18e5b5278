"""Stacked bars as inline SVG: geometry in whole user units, drawn by `admin/chart.html`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

LEFT, RIGHT, TOP, BOTTOM = 76, 20, 22, 46  # room for the labels of the axes
LABEL_WIDTH = 62  # of a label below the bars
GAP = 0.22  # of a bar's share of the width
TICKS = 5  # steps of the axis at most


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of the chart; a value for each bar, none negative."""

    name: str
    values: Sequence[int]


@dataclass(frozen=True, slots=True)
class Segment:
    y: float
    height: float
    colour: int  # from 1, see ledger.css
    title: str


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    width: float
    middle: float
    label: str  # empty where there is no room for one
    segments: Sequence[Segment]


@dataclass(frozen=True, slots=True)
class Tick:
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    width: int
    height: int
    left: int
    right: int  # where the plot ends
    bottom: int  # the base line
    bars: Sequence[Bar]
    ticks: Sequence[Tick]


def stacked(
    labels: Sequence[str], series: Sequence[Series], size: tuple[int, int], amount: Callable[[int], str]
) -> Chart:
    """A bar for each label, its series one above the other; `amount` writes a value for people."""
    width, height = size
    right, bottom = width - RIGHT, height - BOTTOM
    tops = [sum(one.values[index] for one in series) for index in range(len(labels))]
    marks = ticks(max(tops, default=0))
    scale = (bottom - TOP) / marks[-1]
    share = (right - LEFT) / max(len(labels), 1)
    every = max(1, -(-LABEL_WIDTH // max(int(share), 1))) if share < LABEL_WIDTH else 1
    bars = []
    for index, label in enumerate(labels):
        middle = LEFT + share * (index + 0.5)
        bars.append(
            Bar(
                x=round(middle - share * (1 - GAP) / 2, 2),
                width=round(share * (1 - GAP), 2),
                middle=round(middle, 2),
                label="" if (len(labels) - 1 - index) % every else label,
                segments=_segments(label, index, series, (bottom, scale), amount),
            )
        )
    lines = [Tick(round(bottom - mark * scale, 2), amount(mark)) for mark in marks]
    return Chart(width, height, LEFT, right, bottom, bars, lines)


def ticks(most: int) -> list[int]:
    """Round values from 0 to `most` or just above: steps of 1, 2 or 5 times a power of ten."""
    step = 1
    while step * TICKS < most:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return [step * number for number in range(max(1, -(-most // step)) + 1)]


def _segments(
    label: str,
    index: int,
    series: Sequence[Series],
    ground: tuple[int, float],
    amount: Callable[[int], str],
) -> list[Segment]:
    y, scale = float(ground[0]), ground[1]
    found = []
    for colour, one in enumerate(series, start=1):
        if value := one.values[index]:
            y -= value * scale
            title = f"{label}, {one.name}: {amount(value)}"
            found.append(Segment(round(y, 2), round(value * scale, 2), colour, title))
    return found
