"""The report as a PDF, from the same blocks as the page.

Latin text is set in Helvetica and everything else in a Chinese font, neither of which is embedded:
every PDF viewer brings them, and nothing has to be installed besides a wheel.
"""

import io
from collections.abc import Iterable, Sequence
from typing import Any
from xml.sax.saxutils import escape

from greylag_protocols.errors import ConfigError

from greylag_audit.report.blocks import (
    Block,
    Columns,
    Figures,
    Line,
    Pictures,
    Report,
    Section,
    Table,
    Words,
)
from greylag_audit.report.drawing import Box, Dot, Drawing, Shape, Stroke

PAGE_WIDTH = 482.0  # points between the margins of A4
MARGIN = 56.0
LATIN, BOLD, OTHER = "Helvetica", "Helvetica-Bold", "STSong-Light"
COLOURS = {
    "ink": "#1c2629", "soft": "#536167", "line": "#d5dcde", "spent": "#2f5d62", "held": "#90a8ac",
    "rest": "#dfe6e7", "bad": "#b03025", "card": "#ffffff", "good": "#1f6a49", "look": "#835500",
    "plain": "#1c2629",
}  # fmt: skip
MARKS = {"holds": ("✓", "good"), "broken": ("✗", "bad"), "unknown": ("?", "look")}


def to_pdf(report: Report) -> bytes:
    """The PDF; the same report always gives the same bytes.

    Raises:
        ConfigError: the library for it is not installed.
    """
    try:
        from reportlab.pdfbase import pdfmetrics
        from reportlab.pdfbase.cidfonts import UnicodeCIDFont
        from reportlab.platypus import SimpleDocTemplate
    except ImportError:
        raise ConfigError(
            "a PDF needs reportlab, which is not installed; pip install 'greylag[audit]', or ask "
            "for .html and print that"
        ) from None
    pdfmetrics.registerFont(UnicodeCIDFont(OTHER))
    target = io.BytesIO()
    document = SimpleDocTemplate(
        target,
        pagesize=(PAGE_WIDTH + 2 * MARGIN, 842.0),
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=report.title,
        author="greylag-audit",
        lang=report.lang,
        invariant=1,
    )
    document.build(_Setting(report).story())
    return target.getvalue()


class _Setting:
    """Sets one report in type."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._wrap = "CJK" if report.lang.startswith("zh") else None

    def story(self) -> list[Any]:
        """All that stands on the pages."""
        from reportlab.platypus import Spacer

        report = self._report
        parts: list[Any] = [
            self._text(report.title, size=19, bold=True),
            self._text(report.subtitle, size=9, tone="soft"),
            Spacer(1, 6),
            self._framed([self._text(report.verdict, size=12, tone=report.tone)], report.tone),
        ]
        for section in report.sections:
            parts += self._section(section)
        return [*parts, Spacer(1, 14), self._text(report.closing, size=8, tone="soft")]

    def _section(self, section: Section) -> list[Any]:
        from reportlab.platypus import CondPageBreak, Spacer

        parts = [Spacer(1, 14), CondPageBreak(270)]
        parts += [self._text(section.title, size=14, bold=True), Spacer(1, 3)]
        for block in section.blocks:
            parts += [*self._block(block), Spacer(1, 6)]
        return parts

    def _block(self, block: Block) -> list[Any]:
        match block:
            case Words():
                return [self._text(block.text, tone=block.tone)]
            case Figures():
                return [self._figures(block)]
            case Table():
                return [self._text(block.caption, bold=True), self._table(block)]
            case Columns():
                return list(self._columns(block))
            case Pictures():
                return [part for item in block.items for part in self._picture(item)]

    def _text(
        self,
        text: str,
        *,
        size: float = 9.5,
        tone: str = "plain",
        bold: bool = False,
        right: bool = False,
    ) -> Any:
        from reportlab.lib.styles import ParagraphStyle
        from reportlab.platypus import Paragraph

        style = ParagraphStyle(
            "text",
            fontName=BOLD if bold else LATIN,
            fontSize=size,
            leading=size * 1.4,
            textColor=COLOURS[tone],
            wordWrap=self._wrap,
            splitLongWords=1,
            alignment=2 if right else 0,
            spaceAfter=2,
        )
        return Paragraph(marked(text), style)

    def _figures(self, block: Figures) -> Any:
        cells = [
            [self._text(value, size=17, bold=True), self._text(label, size=8, tone="soft")]
            for value, label in block.items
        ]
        return self._grid([cells], [PAGE_WIDTH / len(cells)] * len(cells), ruled=False)

    def _table(self, block: Table) -> Any:
        count = len(block.columns)
        head = [
            self._text(name, size=7.5, tone="soft", right=place in block.numbers)
            for place, name in enumerate(block.columns)
        ]
        rows = [
            [
                self._text(cell, size=8, bold=not place, right=place in block.numbers)
                for place, cell in enumerate(row)
            ]
            for row in block.rows
        ]
        return self._grid([head, *rows], widths(block, count), repeat=1)

    def _columns(self, block: Columns) -> Iterable[Any]:
        """Side by side on paper would be three narrow strips: one class after the other."""
        from reportlab.platypus import Spacer

        for title, means, lines in block.items:
            yield Spacer(1, 6)
            yield self._text(title, size=11, bold=True)
            yield self._text(means, size=8.5, tone="soft")
            for line in lines:
                yield self._line(line)

    def _line(self, line: Line) -> Any:
        mark, tone = MARKS[line.state]
        place = f"{line.place}: " if line.place else ""
        cells = [self._text(mark, size=9, tone=tone, bold=True)]
        cells.append(self._text(place + line.text, size=8.5))
        return self._grid([cells], [14, PAGE_WIDTH - 14], ruled=False, tight=True)

    def _picture(self, drawing: Drawing) -> list[Any]:
        from reportlab.platypus import KeepTogether

        words = [self._text(drawing.title, bold=True), _canvas(drawing)]
        return [KeepTogether([*words, self._text(drawing.description, size=8.5, tone="soft")])]

    def _framed(self, parts: list[Any], tone: str) -> Any:
        from reportlab.platypus import Table as Grid

        style = [
            ("LINEBEFORE", (0, 0), (0, -1), 4, COLOURS[tone]),
            ("LEFTPADDING", (0, 0), (-1, -1), 12),
        ]
        return Grid([[parts]], colWidths=[PAGE_WIDTH], style=style)

    def _grid(
        self,
        rows: list[list[Any]],
        columns: Sequence[float],
        *,
        repeat: int = 0,
        ruled: bool = True,
        tight: bool = False,
    ) -> Any:
        from reportlab.platypus import Table as Grid

        style: list[tuple[Any, ...]] = [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("RIGHTPADDING", (0, 0), (-1, -1), 6),
            ("TOPPADDING", (0, 0), (-1, -1), 0 if tight else 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 0 if tight else 2),
        ]
        if ruled:
            style.append(("LINEBELOW", (0, 0), (-1, -1), 0.5, COLOURS["line"]))
        return Grid(rows, colWidths=list(columns), repeatRows=repeat, style=style, hAlign="LEFT")


def widths(block: Table, count: int) -> list[float]:
    """Columns of numbers are narrow; the others share the rest by the length of what they hold."""
    weights = []
    for column in range(count):
        longest = max((len(row[column]) for row in block.rows), default=1)
        weights.append(7.0 if column in block.numbers else min(max(longest, 10), 60) ** 0.75)
    return [PAGE_WIDTH * weight / sum(weights) for weight in weights]


def marked(text: str) -> str:
    """Text as the library's markup: escaped, and what Helvetica lacks in the other font."""
    parts: list[str] = []
    run, at = "", LATIN
    for char in text:
        font = _font_of(char)
        if font != at:
            parts.append(_run(run, at))
            run, at = "", font
        run += char
    return "".join([*parts, _run(run, at)])


def _font_of(char: str) -> str:
    if char in "✓✗":
        return "ZapfDingbats"
    return LATIN if ord(char) < 0x100 or char in "–—‘’“”…€" else OTHER


def _run(text: str, font: str) -> str:
    if font == LATIN or not text:
        return escape(text)
    return f'<font name="{font}">{escape(text)}</font>'


def _canvas(drawing: Drawing) -> Any:
    from reportlab.graphics.shapes import Drawing as Sheet

    factor = 0.75
    sheet = Sheet(drawing.width * factor, drawing.height * factor)
    sheet.scale(factor, factor)
    for shape in drawing.shapes:
        sheet.add(_shape(shape, drawing.height))
    return sheet


def _shape(item: Shape, height: float) -> Any:
    """The library counts upwards."""
    from reportlab.graphics import shapes
    from reportlab.lib.colors import HexColor

    colour = HexColor(COLOURS[item.role])
    if isinstance(item, Stroke):
        points = [value for x, y in item.points for value in (x, height - y)]
        dashes = [4, 4] if item.dashed else None
        return shapes.PolyLine(
            points, strokeColor=colour, strokeWidth=item.width, strokeDashArray=dashes
        )
    if isinstance(item, Box):
        return shapes.Rect(
            item.x, height - item.y - item.height, item.width, item.height,
            fillColor=colour, strokeColor=None,
        )  # fmt: skip
    if isinstance(item, Dot):
        fill, rim = (HexColor(COLOURS["card"]), colour) if item.hollow else (colour, None)
        return shapes.Circle(
            item.x, height - item.y, item.radius, fillColor=fill, strokeColor=rim, strokeWidth=2
        )
    font = LATIN if all(_font_of(char) == LATIN for char in item.text) else OTHER
    return shapes.String(
        item.x, height - item.y, item.text,
        fontName=font, fontSize=item.size, fillColor=colour, textAnchor=item.anchor,
    )  # fmt: skip
