"""What a report is made of, whatever it is shown as: page, PDF and JSON hold the same blocks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from greylag_audit.report.drawing import Drawing

Tone = Literal["plain", "soft", "good", "bad", "look"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A paragraph."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A few numbers, large, each with what it counts."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under headings. The first cell of a row says what the row is about.

    Attributes:
        numbers: columns (from 0) that hold numbers.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A finding: its mark, what the mark means, where it is about, and the sentence."""

    state: Literal["holds", "broken", "unknown"]
    place: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The classes of evidence, side by side."""

    items: tuple[tuple[str, str, tuple[Line, ...]], ...]  # title, what it means, findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Drawings that belong together."""

    items: tuple[Drawing, ...]


Block = Words | Figures | Table | Columns | Pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report; ``id`` is its name in addresses."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole report in one language.

    Attributes:
        verdict: the outcome in one sentence.
        words: the few texts that every rendering needs, such as the names of marks.
    """

    lang: str
    title: str
    subtitle: str
    verdict: str
    tone: Tone
    sections: tuple[Section, ...]
    closing: str
    words: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> list[dict[str, Any]]:
        """All sections, for programs and for readers of the other forms."""
        return [
            {
                "id": item.id,
                "title": item.title,
                "blocks": [_block(block) for block in item.blocks],
            }
            for item in self.sections
        ]


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Words():
            return {"kind": "words", "text": block.text}
        case Figures():
            return {"kind": "figures", "items": [list(item) for item in block.items]}
        case Table():
            return {
                "kind": "table",
                "caption": block.caption,
                "columns": list(block.columns),
                "rows": [list(row) for row in block.rows],
            }
        case Columns():
            return {
                "kind": "evidence",
                "items": [
                    {"title": title, "means": means, "findings": [_line(line) for line in lines]}
                    for title, means, lines in block.items
                ],
            }
        case Pictures():
            return {"kind": "pictures", "items": [_picture(item) for item in block.items]}


def _line(line: Line) -> dict[str, str]:
    return {"state": line.state, "place": line.place, "text": line.text}


def _picture(drawing: Drawing) -> dict[str, Any]:
    values: Sequence[Sequence[Any]] = drawing.values
    return {
        "title": drawing.title,
        "description": drawing.description,
        "values": [list(item) for item in values],
    }
