"""Metric against epsilon, a panel for each table: SVG by hand, no library."""

from collections.abc import Mapping, Sequence
from html import escape
from math import log2
from typing import Any

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 34, 44  # around a panel's axes
COLOURS = {
    "alone": "#888888", "pooled": "#222222", "trusted": "#56b4e9", "central": "#0072b2",
    "record": "#d55e00", "personalised": "#009e73", "group": "#cc79a7", "firm": "#b8860b",
    "client_level": "#7a5c00", "full_noise": "#e69f00",
}  # fmt: skip
FLAT = ("alone", "pooled")  # cost no epsilon


def draw(tables: Mapping[str, Any]) -> str:
    """All tables below one another."""
    panels = [
        f'<g transform="translate(0 {number * HEIGHT})">{"".join(_panel(name, facts))}</g>'
        for number, (name, facts) in enumerate(tables.items())
    ]
    height = HEIGHT * max(1, len(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>\n'
    )


def _panel(name: str, facts: Mapping[str, Any]) -> list[str]:
    by_epsilon = facts["epsilons"]
    epsilons = [item["epsilon"] for item in by_epsilon]
    models = list(dict.fromkeys(model for item in by_epsilon for model in item["models"]))
    points = [item["models"][model] for item in by_epsilon for model in item["models"]]
    low, high = _limits(points)

    def x_of(epsilon: float) -> float:
        span = log2(max(epsilons)) - log2(min(epsilons))
        share = (log2(epsilon) - log2(min(epsilons))) / span if span else 0.5
        return LEFT + 12 + share * (WIDTH - LEFT - RIGHT - 24)

    def y_of(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    unit = next((f" ({item['unit']})" for item in points if item["unit"]), "")
    better = "lower is better" if facts["lower_is_better"] else "higher is better"
    title = escape(f"{name}: {facts['metric']}{unit}, {better}; 95 % intervals")
    parts = [f'<text x="{LEFT}" y="20" font-weight="bold">{title}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = low + share * (high - low)
        parts += [
            _line(LEFT, y_of(value), WIDTH - RIGHT, y_of(value), "#dddddd"),
            f'<text x="{LEFT - 6}" y="{y_of(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>',
        ]
    for epsilon in epsilons:
        at = f'x="{x_of(epsilon):.1f}" y="{HEIGHT - BOTTOM + 18}"'
        parts.append(f'<text {at} text-anchor="middle">{epsilon:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">epsilon</text>')
    for number, model in enumerate(models):
        found = [
            (x_of(item["epsilon"]), item["models"][model])
            for item in by_epsilon
            if model in item["models"]
        ]
        # Side by side, so that intervals do not hide one another.
        parts += _series(model, found, y_of, shift=3.0 * (number - len(models) / 2))
        parts += _legend(model, number)
    return parts


def _limits(points: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """So that the middle of every model is seen, but no endless interval squeezes the rest."""
    values = [item["value"] for item in points]
    span = max(values) - min(values) or abs(values[0]) or 1.0
    low = max(min(item["low"] for item in points), min(values) - span / 2)
    high = min(max(item["high"] for item in points), max(values) + span / 2)
    return low, max(high, low + 1e-9)


def _series(model: str, found: Sequence[tuple[float, Any]], y_of: Any, shift: float) -> list[str]:
    colour = COLOURS[model]
    if model in FLAT:
        y = y_of(found[0][1]["value"])
        return [_line(LEFT, y, WIDTH - RIGHT, y, colour, "6 4")]
    line = " ".join(f"{x + shift:.1f},{y_of(item['value']):.1f}" for x, item in found)
    parts = [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>']
    for x, item in found:
        at = x + shift
        parts += [
            _line(at, y_of(item["low"]), at, y_of(item["high"]), colour),
            f'<circle cx="{at:.1f}" cy="{y_of(item["value"]):.1f}" r="3" fill="{colour}"/>',
        ]
    return parts


def _legend(model: str, number: int) -> list[str]:
    x, y = WIDTH - RIGHT + 14, TOP + 10 + 20 * number
    dash = "6 4" if model in FLAT else ""
    return [
        _line(x, y, x + 22, y, COLOURS[model], dash),
        f'<text x="{x + 28}" y="{y + 4}">{escape(model.replace("_", " "))}</text>',
    ]


def _line(x: float, y: float, to_x: float, to_y: float, colour: str, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    at = f'x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"'
    return f'<line {at} stroke="{colour}" stroke-width="1.2"{dashed}/>'
