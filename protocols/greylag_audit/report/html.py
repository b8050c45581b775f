"""The report as one page that asks for nothing: no script, no outside file, one inline style."""

import base64
import hashlib
from importlib.resources import files

import jinja2
from markupsafe import Markup

from greylag_audit.report.blocks import Block, Report
from greylag_audit.report.drawing import to_svg

MARKS = {"holds": "✓", "broken": "✗", "unknown": "?"}


def to_html(report: Report) -> str:
    """The page. Whatever comes from the bundle is escaped by the template."""
    place = files("greylag_audit.report")
    style = (place / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((place / "page.html").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        style=Markup(style),  # noqa: S704 - our own file
        style_hash=f"sha256-{digest}",
        marks=MARKS,
        to_svg=to_svg,
        kind_of=_kind_of,
    )


def _kind_of(block: Block) -> str:
    return type(block).__name__
