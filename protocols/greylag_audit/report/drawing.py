"""Drawings of a few plain shapes, which the page shows as SVG and the PDF by its own means.

Units are those of SVG; colours are roles, so that each rendering can follow its reader's wishes.
"""

from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

Role = Literal["ink", "soft", "line", "spent", "held", "rest", "bad", "card"]
Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """A line through points."""

    points: tuple[tuple[float, float], ...]
    role: Role = "ink"
    width: float = 1.5
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A filled circle; ``hollow``: only its rim."""

    x: float
    y: float
    radius: float
    role: Role
    hollow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A line of text; ``y`` is its base line."""

    x: float
    y: float
    text: str
    role: Role = "soft"
    size: float = 12.0
    anchor: Anchor = "start"


Shape = Stroke | Box | Dot | Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A drawing with the words for those who do not see it.

    Attributes:
        values: what is drawn, as numbers.
    """

    id: str
    title: str
    description: str
    width: float
    height: float
    shapes: tuple[Shape, ...]
    values: tuple[tuple[float | str, ...], ...]


def to_svg(drawing: Drawing) -> Markup:
    """The drawing as an SVG element; everything in it is escaped."""
    parts = [
        Markup(
            '<svg viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d">'
            '<title id="{}-t">{}</title><desc id="{}-d">{}</desc>'
        ).format(
            _n(drawing.width),
            _n(drawing.height),
            *(drawing.id,) * 3,
            drawing.title,
            drawing.id,
            drawing.description,
        ),
        *(_shape(item) for item in drawing.shapes),
        Markup("</svg>"),
    ]
    return Markup("").join(parts)


def _shape(item: Shape) -> Markup:
    match item:
        case Stroke():
            points = " ".join(f"{_n(x)},{_n(y)}" for x, y in item.points)
            dashes = Markup(' stroke-dasharray="4 4"') if item.dashed else ""
            return Markup(
                '<polyline class="s-{}" points="{}" stroke-width="{}"{} aria-hidden="true"/>'
            ).format(item.role, points, _n(item.width), dashes)
        case Box():
            numbers = [_n(value) for value in (item.x, item.y, item.width, item.height)]
            return Markup('<rect class="f-{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                item.role, *numbers
            )
        case Dot():
            kind = "s" if item.hollow else "f"
            return Markup('<circle class="{}-{}" cx="{}" cy="{}" r="{}"/>').format(
                kind, item.role, _n(item.x), _n(item.y), _n(item.radius)
            )
        case Label():
            return Markup(
                '<text class="f-{}" x="{}" y="{}" font-size="{}" text-anchor="{}" '
                'aria-hidden="true">{}</text>'
            ).format(item.role, _n(item.x), _n(item.y), _n(item.size), item.anchor, item.text)


def _n(value: float) -> str:
    """Two decimals at most: the same bytes wherever it is drawn."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
