"""From views to HTML: templates that escape everything, numbers and times as people read them."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from greylag_server.page.texts import LANGUAGES, NAMES

POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def version(view: object) -> str:
    """A short word for a view; another one if it is another."""
    return hashlib.sha256(repr(view).encode()).hexdigest()[:12]


class Renderer:
    """The templates, loaded once."""

    def __init__(self) -> None:
        here = FileSystemLoader(Path(__file__).parent / "templates")
        self._templates = Environment(
            loader=here, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        helpers = (number, day, when, moment, share, span, chart)
        self._templates.globals |= {item.__name__: item for item in helpers}
        self._templates.globals["language_names"] = NAMES

    def answer(
        self, template: str, language: str, values: Mapping[str, Any], status: int = 200
    ) -> Response:
        """A page, or a part of one, in a language."""
        texts = LANGUAGES[language]

        def translate(key: str, **named: object) -> str:
            return texts[key].format(**named)

        def has(key: str) -> bool:
            return key in texts

        content = self._templates.get_template(template).render(
            t=translate, has=has, language=language, **values
        )
        return HTMLResponse(content, status, headers={"content-language": language})


def number(value: float) -> str:
    """A few digits, and no more than mean anything."""
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    digits, exponent, power = f"{value:.3g}".partition("e")
    if not exponent:
        return digits
    times = "" if digits == "1" else f"{digits} × "
    return f"{times}10{str(int(power)).translate(POWERS)}"


def _local(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone()


def day(seconds: float) -> str:
    """A day in the machine's own time."""
    return _local(seconds).strftime("%Y-%m-%d")


def when(seconds: float) -> str:
    """A day and a minute."""
    return _local(seconds).strftime("%Y-%m-%d %H:%M")


def moment(seconds: float) -> str:
    """The same for programs."""
    return _local(seconds).isoformat()


def share(part: float, whole: float) -> float:
    """Per cent, for the width of a bar."""
    return round(max(0.0, min(100.0, 100.0 * part / whole)), 2) if whole else 0.0


def span(seconds: float) -> tuple[str, int, int]:
    """A length of time: the key of its text, and its two parts."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return "span_s", rest, 0
    hours, minutes_left = divmod(minutes, 60)
    return ("span_h", hours, minutes_left) if hours else ("span_m", minutes, rest)


def chart(points: tuple[tuple[int, float, bool], ...]) -> str:
    """The columns that the chart's script draws: attempts, seconds, seconds of void ones."""
    return json.dumps(
        [
            [at for at, _, _ in points],
            [seconds for _, seconds, _ in points],
            [seconds if void else None for _, seconds, void in points],
        ]
    )
