"""Inline SVG of the page: predictions against the target's band, and what recipes consist of."""

from html import escape
from typing import Any

WIDTH, ROW, LEFT, RIGHT = 760, 26, 40, 20
# Of colour-blind safe hues (Okabe and Ito 2008), then paler ones; further components are grey.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a500",
           "#7f6bb3", "#8c5a3c", "#4f9d9d")  # fmt: skip
REST = "#8a929b"


def clean(said: str) -> str:
    """Any text as text of the page: no markup, nothing that cannot be seen."""
    return escape("".join(c if c.isprintable() else "\ufffd" for c in said), quote=True)


def prediction_plot(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """One row a proposal: interval, prediction, and what was measured nearby, over the band."""
    name, unit = wanted["name"], wanted["unit"]
    said = [item["predictions"][name] for item in found["proposals"]]
    near = [(item["nearest"] or {"measured": {}})["measured"].get(name)
            for item in found["proposals"]]  # fmt: skip
    ends = [wanted["low"], wanted["high"], *(item["predicted"] for item in said)]
    ends += [item[end] for item in said for end in ("low", "high") if item[end] is not None]
    ends += [value for value in near if value is not None]
    margin = 0.05 * (max(ends) - min(ends) or 1.0)
    first, last = min(ends) - margin, max(ends) + margin

    def at(value: float) -> float:
        return float(LEFT + (value - first) / (last - first) * (WIDTH - LEFT - RIGHT))

    height = ROW * len(said) + 34
    foot = height - 24
    low, high = at(wanted["low"]), at(wanted["high"])
    label = f"{name}: predictions of {len(said)} proposals against the target"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{clean(label)}">',
        f'<rect class="band" x="{low:.1f}" y="0" width="{max(high - low, 2):.1f}" '
        f'height="{foot}"/>',
        *(f'<line class="edge" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{foot}"/>'
          for x in (low, high)),
        f'<line class="line" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{foot}" y2="{foot}"/>',
    ]  # fmt: skip
    parts += [
        f'<text class="soft" x="{at(tick):.1f}" y="{foot + 17}" text-anchor="middle">'
        f"{tick:g}</text>"
        for tick in _ticks(first, last)
    ]
    parts.append(f'<text class="soft" x="4" y="{foot + 17}">{clean(unit)}</text>')
    for index, (item, measured) in enumerate(zip(said, near, strict=True)):
        y = ROW * index + ROW / 2
        parts.append(f'<text x="4" y="{y + 4:.1f}">{index + 1}</text>')
        if item["low"] is not None:
            x1, x2 = at(item["low"]), at(item["high"])
            parts.append(
                f'<line class="reach" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
        if measured is not None:
            parts.append(f'<circle class="ring" cx="{at(measured):.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(f'<circle class="dot" cx="{at(item["predicted"]):.1f}" cy="{y:.1f}" r="6"/>')
    return "".join([*parts, "</svg>"])


def _ticks(first: float, last: float) -> list[float]:
    """Four to nine round numbers inside."""
    span = (last - first) or 1.0
    step = 10.0 ** len(f"{int(span)}") if span >= 1 else 1.0
    while span / step < 4:
        step /= 2 if f"{step:e}"[0] in "12" else 2.5
    start = int(first / step) * step
    ticks = [start + step * number for number in range(-1, 12)]
    return [round(tick, 10) for tick in ticks if first <= tick <= last]


def colours_of(found: dict[str, Any]) -> dict[str, str]:
    """A colour of each component, those that make up most of all proposals first."""
    shares: dict[str, float] = {}
    for item in found["proposals"]:
        for name, amount in _amounts(found, item["recipe"]).items():
            shares[name] = shares.get(name, 0.0) + amount
    ranked = sorted(shares, key=lambda name: -shares[name])
    return {name: (*COLOURS, *[REST] * len(ranked))[index] for index, name in enumerate(ranked)}


def _amounts(found: dict[str, Any], recipe: dict[str, Any]) -> dict[str, float]:
    summed = set(found["constraints"]["sum_of"])
    return {name: amount for name, amount in recipe.items() if name in summed and amount > 0}


def legend(found: dict[str, Any]) -> str:
    """What the colours of the bars mean."""
    named = "".join(
        f'<span><i style="background:{colour}"></i>{clean(name)}</span>'
        for name, colour in colours_of(found).items()
    )
    return f'<div class="legend">{named}</div>' if named else ""


def bars(found: dict[str, Any], item: dict[str, Any]) -> str:
    """The proposal's composition, and below it that of the nearest known recipe."""
    total = found["constraints"]["sum"]
    if total is None:
        return ""
    rows = [(str(item["rank"]), item["recipe"])]
    if item["nearest"] is not None:
        rows.append(("≈", item["nearest"]["recipe"]))
    height = 30 * len(rows)
    label = f"composition of proposal {item['rank']}" + (
        " and, below, of the nearest known recipe" if len(rows) > 1 else ""
    )
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{clean(label)}">']
    for index, (mark, recipe) in enumerate(rows):
        parts.append(f'<text x="4" y="{30 * index + 18}">{mark}</text>')
        parts.append(_bar(found, recipe, 30 * index + 2, total))
    return "".join([*parts, "</svg>"])


def _bar(found: dict[str, Any], recipe: dict[str, Any], y: int, total: float) -> str:
    colours, x, parts = colours_of(found), float(LEFT), []
    for name, amount in _amounts(found, recipe).items():
        width = amount / total * (WIDTH - LEFT - RIGHT)
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="24" stroke="var(--card)" '
            f'fill="{colours.get(name, REST)}"><title>{clean(name)} {amount:g}</title></rect>'
        )
        x += width
    return "".join(parts)
