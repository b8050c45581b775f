"""From views to HTML: templates that escape everything, numbers and times as people read them."""

import hashlib
import math
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from greylag_client.page.door import Session
from greylag_client.page.texts import LANGUAGES, NAMES
from greylag_client.page.view import PREFIX_CHARS, FirmView, Text
from greylag_client.spending import Account

PARTS = ("status", "budgets", "runs", "refusals", "members", "checks", "value")
NOTICES = frozenset(key for key in LANGUAGES["en"] if key.startswith("said_"))
GOOD_NOTICES = frozenset({"said_paused", "said_resumed", "said_approved"})
VERSION_CHARS = 12
DOTS = 100
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def versions(view: FirmView) -> dict[str, str]:
    """A short word for each part, another one if the part is another."""
    contents: dict[str, object] = {
        "status": view.status,
        "budgets": view.budgets,
        "runs": view.runs,
        "refusals": view.refusals,
        "members": view.members,
        "checks": view.checks,
        "value": view.releases,
    }
    return {
        part: hashlib.sha256(repr(contents[part]).encode()).hexdigest()[:VERSION_CHARS]
        for part in PARTS
    }


class Renderer:
    """The templates, loaded once."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {
            "dots": dots,
            "number": number,
            "at_most": at_most,
            "when": when,
            "moment": moment,
            "share": share,
            "prefix_chars": PREFIX_CHARS,
            "language_names": NAMES,
        }

    def page(
        self,
        language: str,
        view: FirmView,
        root: Path,
        session: Session,
        *,
        at: str,
        names: Sequence[str],
        notice: str,
    ) -> Response:
        """A firm's whole page; ``at`` is the firm's name in addresses."""
        said = f"said_{notice}"
        return self._render(
            "page.html",
            language,
            view=view,
            root=shlex.quote(str(root)),
            word=session.word,
            at=at,
            names=names,
            parts=PARTS,
            seen="-".join(versions(view).values()),
            notice=said if said in NOTICES else "",
            good=said in GOOD_NOTICES,
        )

    def part(
        self, language: str, part: str, view: FirmView, root: Path, session: Session, *, at: str
    ) -> Response:
        """One part of it."""
        return self._render(
            f"part_{part}.html",
            language,
            view=view,
            root=shlex.quote(str(root)),
            word=session.word,
            at=at,
        )

    def door(self, language: str, notice: str, status: int) -> Response:
        """What somebody without a session sees; it names no firm."""
        return self._render("door.html", language, status, notice=notice)

    def error(self, language: str, key: str, status: int, detail: str = "") -> Response:
        """Something that cannot be shown, and why."""
        return self._render("error.html", language, status, key=key, detail=detail)

    def _render(self, template: str, language: str, status: int = 200, **values: Any) -> Response:
        texts = LANGUAGES[language]

        def translate(text: str | Text, **named: object) -> str:
            if isinstance(text, Text):
                return texts[text.key].format(**dict(text.values))
            return texts[text].format(**named) if named else texts[text]

        content = self._templates.get_template(template).render(
            t=translate, language=language, **values
        )
        return HTMLResponse(content, status_code=status, headers={"content-language": language})


def number(value: float) -> str:
    """A few digits, and no more than mean anything."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits, _, exponent = f"{value:.3g}".partition("e")
    if not exponent:
        return digits
    power = str(int(exponent)).translate(SUPERSCRIPT)
    return f"10{power}" if digits == "1" else f"{digits} × 10{power}"


def at_most(odds: float) -> int:
    """Odds of 100, rounded to the side that promises less."""
    return math.ceil(odds - 1e-6)


def when(seconds: float) -> str:
    """A day and a minute in the machine's own time."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def moment(seconds: float) -> str:
    """The same for programs."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def share(part: float, whole: float) -> float:
    """Per cent, for the width of a bar."""
    return round(100.0 * min(1.0, max(0.0, part / whole)), 2) if whole else 0.0


def dots(account: Account) -> list[tuple[int, int, str]]:
    """A hundred guesses: column, row, and what makes each right, if anything."""
    spent, held = at_most(account.odds_spent), at_most(account.odds_held)
    kinds = [
        "coin" if at < 50 else "spent" if at < spent else "held" if at < held else "free"
        for at in range(DOTS)
    ]
    return [(at % 10, at // 10, kind) for at, kind in enumerate(kinds)]
