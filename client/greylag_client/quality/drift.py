"""How a table differs from the one that was checked before, from a small summary of that one.

The summary holds ten-percent points of each column. It lies in a private file at the firm, beside
the table or in the firm's directory, and is never sent.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from greylag_protocols.encoding import canonical_json, parse_as, parse_json
from greylag_protocols.errors import ConfigError, GreylagError
from greylag_protocols.terms import STRICT

from greylag_client.firm_files import write_private
from greylag_client.quality.columns import Column, Numbers

SUMMARY_FILE = ".greylag-quality.json"
SUMMARY_VERSION = "greylag/quality-summary/v1"
MAX_SUMMARY_BYTES = 8 << 20
SOME_DRIFT, STRONG_DRIFT = 0.1, 0.25  # the customary thresholds of credit scoring
CHANCE = 0.999  # of equal data, this share of columns stays below
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSummary:
    """Where a column's values lay.

    Attributes:
        edges: ascending; bin i holds values in (edges[i - 1], edges[i]].
        counts: rows of each of the len(edges) + 1 bins, then the gaps.
    """

    __pydantic_config__ = STRICT
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSummary:
    """One checked table."""

    __pydantic_config__ = STRICT
    content: str  # SHA-256, so that checking the same table twice keeps the one before it
    rows: int
    columns: dict[str, ColumnSummary]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The last two different tables of each data standard, newest first."""

    __pydantic_config__ = STRICT
    version: str
    standards: dict[str, tuple[TableSummary, ...]]


def summarise(columns: Sequence[Column], rows: int) -> TableSummary:
    """The summary of the plan's columns."""
    content = hashlib.sha256()
    for column in columns:
        content.update(column.name.encode() + b"\0" + (column.values + 0.0).tobytes())
    return TableSummary(
        content=content.hexdigest(),
        rows=rows,
        columns={column.name: _summarise(column) for column in columns},
    )


def stability_index(then: ColumnSummary, column: Column) -> tuple[float, float]:
    """The population stability index against ``then``, and what chance alone may reach.

    PSI = sum (p - q) ln(p / q). Of equal data it is about (1/n + 1/m) chi-square with one degree
    of freedom less than there are bins (Yurdakul, Statistical properties of population stability
    index, Western Michigan University 2018), so small tables need more before they mean anything.
    """
    from scipy.stats import chi2  # heavy

    before = np.array(then.counts, dtype=np.float64)
    now = _count(column, np.array(then.edges))
    used = (before + now) > 0
    before, now = before[used], now[used]
    n, m = before.sum(), now.sum()
    if not n or not m or len(before) < 2:
        return 0.0, 0.0
    p, q = np.maximum(before, 0.5) / n, np.maximum(now, 0.5) / m  # half a row, or ln 0
    index = float(((p - q) * np.log(p / q)).sum())
    return index, float((1 / n + 1 / m) * chi2.ppf(CHANCE, len(before) - 1))


def before_this(history: History, standard: str, summary: TableSummary) -> TableSummary | None:
    """The newest table with other content, if it has been kept."""
    kept = history.standards.get(standard, ())
    return next((item for item in kept if item.content != summary.content), None)


def read_history(path: Path) -> History:
    """What the file holds; an absent or damaged one is an empty history, said in the log."""
    empty = History(version=SUMMARY_VERSION, standards={})
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SUMMARY_BYTES + 1)
        history = parse_as(History, parse_json(raw, max_bytes=MAX_SUMMARY_BYTES), what="summary")
    except FileNotFoundError:
        return empty
    except (OSError, GreylagError):
        log.warning("%s cannot be read: drift is not told, and it is written anew", path)
        return empty
    sound = history.version == SUMMARY_VERSION and all(
        len(column.counts) == len(column.edges) + 2
        for kept in history.standards.values()
        for item in kept
        for column in item.columns.values()
    )
    return history if sound else empty


def keep(path: Path, history: History, standard: str, summary: TableSummary) -> bool:
    """Store the summary as the newest; a place that cannot be written is said in the log."""
    kept = [item for item in history.standards.get(standard, ()) if item.content != summary.content]
    standards = {**history.standards, standard: (summary, *kept[:1])}
    if history.standards.get(standard, ())[:1] == (summary,):
        return True
    newest = History(version=SUMMARY_VERSION, standards=standards)
    try:
        write_private(path, canonical_json(asdict(newest)))
    except ConfigError as error:
        log.warning("the next check will not tell drift: %s", error)
        return False
    return True


def _summarise(column: Column) -> ColumnSummary:
    known = column.known
    if column.listed:
        edges = np.arange(column.high)
    elif len(known):
        edges = np.unique(np.quantile(known, np.arange(1, 10) / 10, method="lower"))
    else:
        edges = np.zeros(0)
    counts = _count(column, edges).astype(int)
    return ColumnSummary(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()))


def _count(column: Column, edges: Numbers) -> Numbers:
    bins = np.searchsorted(edges, column.known, side="left")
    counts = np.bincount(bins, minlength=len(edges) + 1)
    gaps = len(column.values) - len(column.known)
    return np.append(counts, gaps).astype(np.float64)
