"""The drawings of a report. Each says in words what it shows."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from greylag_audit.report.drawing import Box, Dot, Drawing, Label, Role, Shape, Stroke
from greylag_audit.report.facts import FirmRow, Step

WIDTH = 440.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 16.0, 26.0, 46.0
MOST_BARS = 16
MOST_MARKS = 120  # more marks of releases would be a band
BAR, GAP = 14.0, 12.0
Say = Callable[..., str]


def dots(percent: float, say: Say) -> Drawing:
    """A hundred guesses: those right anyhow, those right only because of the run, the wrong."""
    right = min(100, math.ceil(percent - 1e-9))
    shapes: list[Shape] = []
    for number in range(100):
        column, row = number % 10, number // 10
        role: Role = "held" if number < 50 else ("bad" if number < right else "rest")
        shapes.append(Dot(x=12 + 22 * column, y=12 + 22 * row, radius=8, role=role))
    return Drawing(
        id="dots",
        title=say("plot.dots", right=right),
        description=say("plot.dots.desc", right=right, more=right - 50, wrong=100 - right),
        width=222,
        height=222,
        shapes=tuple(shapes),
        values=((50, right - 50, 100 - right),),
    )


def spending(rows: Sequence[FirmRow], say: Say) -> Drawing:
    """Bars of what firms spent, against the most that the run may cost."""
    shown = rows[:MOST_BARS]
    most = max((max(row.limit + row.before, row.after) for row in rows), default=1.0) or 1.0
    name_width = 118.0
    room = WIDTH - name_width - 64
    shapes: list[Shape] = []
    for place, row in enumerate(shown):
        y = 8 + place * (BAR + GAP)
        scale = room / most
        x = name_width
        shapes += [
            Label(x=name_width - 8, y=y + BAR - 2, text=short(row.firm), role="ink", anchor="end"),
            Box(x=x, y=y, width=(row.before + row.limit) * scale, height=BAR, role="rest"),
            Box(x=x, y=y, width=row.before * scale, height=BAR, role="held"),
            Box(x=x + row.before * scale, y=y, width=row.spent * scale, height=BAR, role="spent"),
            Label(x=x + room + 8, y=y + BAR - 2, text=number(row.after), role="ink"),
        ]
        edge = x + (row.before + row.limit) * scale
        shapes.append(Stroke(points=((edge, y - 3), (edge, y + BAR + 3)), width=2))
    height = 8 + len(shown) * (BAR + GAP)
    more = len(rows) - len(shown)
    if more > 0:
        shapes.append(Label(x=name_width, y=height + 10, text=say("plot.more", count=more)))
        height += 20
    legend: list[tuple[Role, str]] = [("spent", say("plot.spent"))]
    if any(row.before for row in rows):
        legend.insert(0, ("held", say("plot.before")))
    if any(row.spent < row.limit for row in rows):
        legend.append(("rest", say("plot.left")))
    height = _legend(shapes, height, legend)
    shapes.append(Label(x=WIDTH - RIGHT, y=height - 9, text=say("plot.line"), anchor="end"))
    return Drawing(
        id="spending",
        title=say("plot.spending"),
        description=say("plot.spending.desc", count=len(rows)),
        width=WIDTH,
        height=height,
        shapes=tuple(shapes),
        values=tuple((row.firm, row.before, row.spent, row.limit) for row in rows),
    )


def cumulative(
    points: Sequence[tuple[int, float]], steps: Sequence[Step], limit: float, most: int, say: Say
) -> Drawing:
    """Epsilon as it grew with every attempt, up to the line of the terms."""
    axes = _Axes(across=max(most, 1), up=limit * 1.12, height=250.0)
    shapes = axes.frame(say("plot.attempts"), say("plot.epsilon"))
    shapes.append(axes.stroke([(0, limit), (most, limit)], role="bad", dashed=True))
    x, y = axes.at(0, limit)
    shapes.append(Label(x=x + 6, y=y - 5, text=say("plot.limit", limit=number(limit)), role="bad"))
    shapes.append(axes.stroke(points, role="spent", width=2.5))
    if len(steps) <= MOST_MARKS:
        for step in steps:
            x, y = axes.at(step.attempt, _between(points, step.attempt))
            role: Role = "spent" if step.completed else "bad"
            shapes.append(Dot(x=x, y=y, radius=3, role=role, hollow=not step.completed))
    voids = sum(not step.completed for step in steps)
    reached = points[-1][1] if points else 0.0
    return Drawing(
        id="cumulative",
        title=say("plot.cumulative"),
        description=say(
            "plot.cumulative.desc",
            count=len(steps),
            voids=voids,
            reached=number(reached),
            limit=number(limit),
        ),
        width=WIDTH,
        height=axes.height,
        shapes=tuple(shapes),
        values=tuple(points),
    )


def rosters(steps: Sequence[Step], least: int, say: Say) -> Drawing:
    """How many firms took part in each attempt, against the fewest that the terms allow."""
    most = max((step.firms for step in steps), default=least)
    last = max((step.attempt for step in steps), default=1)
    axes = _Axes(across=last, up=max(most, least) * 1.2, height=250.0, whole=True)
    shapes = axes.frame(say("plot.attempts"), say("plot.firms"))
    line: list[tuple[float, float]] = []
    for step in steps:  # only where it changes: there may be many thousand attempts
        if line and line[-1][1] == step.firms:
            line[-1] = (step.attempt, step.firms)
        else:
            line += [(step.attempt - 1, step.firms), (step.attempt, step.firms)]
    shapes.append(axes.stroke(line, role="spent", width=2.5))
    shapes.append(axes.stroke([(0, least), (last, least)], role="bad", dashed=True))
    x, y = axes.at(0, least)
    shapes.append(Label(x=x + 6, y=y + 14, text=say("plot.least", least=least), role="bad"))
    return Drawing(
        id="rosters",
        title=say("plot.rosters"),
        description=say(
            "plot.rosters.desc",
            smallest=min((step.firms for step in steps), default=0),
            largest=most,
            least=least,
        ),
        width=WIDTH,
        height=axes.height,
        shapes=tuple(shapes),
        values=tuple(line),
    )


def detection(curve: Sequence[tuple[float, float]], say: Say) -> Drawing:
    """The best that any attacker's test can do: its curve of detections against false alarms."""
    axes = _Axes(across=100, up=100, height=300.0)
    shapes = axes.frame(say("plot.alarms"), say("plot.detections"))
    shapes.append(axes.stroke([(0, 0), (100, 100)], role="soft", dashed=True))
    x, y = axes.at(58, 44)
    shapes.append(Label(x=x, y=y, text=say("plot.guessing")))
    scaled = [(100 * alarm, 100 * found) for alarm, found in curve]
    shapes.append(axes.stroke(scaled, role="bad", width=2.5))
    x, y = axes.at(6, 88)
    shapes.append(Label(x=x, y=y, text=say("plot.attacker"), role="bad"))
    at_five = max((found for alarm, found in scaled if alarm <= 5), default=0.0)
    return Drawing(
        id="detection",
        title=say("plot.detection"),
        description=say("plot.detection.desc", found=f"{at_five:.0f}"),
        width=WIDTH,
        height=axes.height,
        shapes=tuple(shapes),
        values=tuple((round(alarm, 6), round(found, 6)) for alarm, found in curve),
    )


class _Axes:
    """A frame with its scale."""

    def __init__(self, *, across: float, up: float, height: float, whole: bool = False) -> None:
        self._across, self._up, self.height, self._whole = across, up, height, whole

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in the drawing."""
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * x / self._across,
            self.height - BOTTOM - (self.height - TOP - BOTTOM) * y / self._up,
        )

    def stroke(
        self,
        points: Sequence[tuple[float, float]],
        *,
        role: Role,
        width: float = 1.5,
        dashed: bool = False,
    ) -> Stroke:
        """A line through points of the scale."""
        placed = tuple(self.at(x, y) for x, y in points)
        return Stroke(points=placed, role=role, width=width, dashed=dashed)

    def frame(self, across: str, up: str) -> list[Shape]:
        """Grid, numbers, and what they count."""
        shapes: list[Shape] = [Label(x=4, y=14, text=up)]
        for value in ticks(self._up, whole=self._whole):
            x, y = self.at(0, value)
            shapes.append(self.stroke([(0, value), (self._across, value)], role="line", width=1))
            shapes.append(Label(x=x - 6, y=y + 4, text=number(value), anchor="end"))
        for value in ticks(self._across, whole=True):
            x, y = self.at(value, 0)
            shapes.append(Label(x=x, y=y + 17, text=number(value), anchor="middle"))
        shapes.append(self.stroke([(0, 0), (self._across, 0)], role="soft"))
        shapes.append(Label(x=WIDTH - RIGHT, y=self.height - 8, text=across, anchor="end"))
        return shapes


def ticks(most: float, *, whole: bool = False) -> list[float]:
    """Round numbers from 0 to ``most``, about five."""
    if not most > 0:
        return [0.0]
    raw = most / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    if whole:
        step = max(1.0, step)
    return [step * count for count in range(int(most / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number as people read it: three digits at most, no exponent."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def short(name: str) -> str:
    """A firm's name that fits beside a bar."""
    return name if len(name) <= 16 else f"{name[:15]}…"


def _between(points: Sequence[tuple[int, float]], at: int) -> float:
    """On the line through ``points``."""
    for (left, low), (right, high) in pairwise(points):
        if left <= at <= right:
            return low + (high - low) * (at - left) / (right - left)
    return points[-1][1] if points else 0.0


def _legend(shapes: list[Shape], height: float, items: list[tuple[Role, str]]) -> float:
    """One line each; gives the new height."""
    for role, text in items:
        shapes.append(Box(x=8, y=height + 6, width=11, height=11, role=role))
        shapes.append(Label(x=26, y=height + 16, text=text))
        height += 19
    return height + 6
