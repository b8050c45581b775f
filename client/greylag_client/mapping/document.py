"""``mapping.toml``: how one firm's table becomes the plan's. It names columns and holds no data."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from greylag_protocols.encoding import parse_as, parse_toml
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import STRICT
from pydantic import Field

from greylag_client.mapping.cells import DecimalMark
from greylag_client.mapping.reading import Kind, Separator

Finite = Annotated[float, Field(allow_inf_nan=False)]
RowNumber = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Where one column of the plan comes from.

    Attributes:
        source: the heading of the firm's column; without one, every row has ``constant``, or a gap
            if that is absent too.
        unit: of the source, for the reader: what counts is ``value * factor + offset``.
        text: taken as it is (groups, classes and categories), not as a number; without a source a
            group is the number of the row, and a category a gap.
        gaps: whether an empty cell stays one or is a zero.
    """

    __pydantic_config__ = STRICT
    name: str
    source: str | None = None
    constant: Finite | None = None
    unit: str = ""
    factor: Finite = 1.0
    offset: Finite = 0.0
    text: bool = False
    gaps: Literal["keep", "zero"] = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A whole mapping, as the file holds it."""

    __pydantic_config__ = STRICT
    version: Literal["mapping/v1"] = "mapping/v1"
    standard: str
    kind: Kind
    sheet: str = ""
    encoding: str = ""
    separator: Separator = ""
    decimal: DecimalMark = "."
    header_rows: tuple[RowNumber, RowNumber]
    normalise: bool = False
    columns: Annotated[tuple[Rule, ...], Field(min_length=1)]


_HEAD = """\
# How a table becomes one that fits the plan. Written by `greylag-client map`; correct what is wrong
# and run it again with --mapping. A value enters as value * factor + offset. `gaps = "zero"` makes
# an empty cell a zero; `normalise = true` scales the shares of each row so that they add up to 100.
"""


def write_mapping(mapping: Mapping) -> str:
    """The file's text."""
    lines = [_HEAD]
    keys = ("version", "standard", "kind", "sheet", "encoding", "separator", "decimal")
    lines += [f"{key} = {_quoted(value)}" for key in keys if (value := getattr(mapping, key))]
    lines.append(f"header_rows = [{mapping.header_rows[0]}, {mapping.header_rows[1]}]")
    lines.append(f"normalise = {str(mapping.normalise).lower()}")
    for rule in mapping.columns:
        lines += ["", "[[columns]]", f"name = {_quoted(rule.name)}"]
        if rule.source is None:
            lines += [f"constant = {rule.constant!r}"] if rule.constant is not None else []
            lines += ["text = true  # a group of its own, or of a category a gap"] * rule.text
            continue
        lines.append(f"source = {_quoted(rule.source)}")
        if rule.text:
            lines.append("text = true")
            continue
        lines += [f"unit = {_quoted(rule.unit)}"] if rule.unit else []
        if (rule.factor, rule.offset) != (1.0, 0.0):
            lines += [f"factor = {rule.factor!r}", f"offset = {rule.offset!r}"]
        lines += [f"gaps = {_quoted(rule.gaps)}"] if rule.gaps != "keep" else []
    return "\n".join(lines) + "\n"


def read_mapping(path: Path) -> Mapping:
    """A mapping from a file.

    Raises:
        ConfigError: the file is missing, not TOML, or holds unknown or wrong keys.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"no mapping at {path}; leave --mapping out to be asked and to have one written"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    return parse_as(Mapping, parse_toml(content, what=path.name), what=path.name)


def _quoted(text: str) -> str:
    # TOML's basic strings are JSON's but for DEL, which headings cannot hold (see cells.plain).
    return json.dumps(text, ensure_ascii=False)
