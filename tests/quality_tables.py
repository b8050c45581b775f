"""Tables with and without defects, and the short ways to examine one, for the quality tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from greylag_client.quality import drift
from greylag_client.quality.checks import Dates, Examination, examine
from greylag_client.quality.findings import Finding
from greylag_client.quality.report import Report
from greylag_client.quality.scores import score
from greylag_client.table import parse_table, read_cells
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import DataTerms, Feature, Target

NAMES = ["melt", "copper", "nickel", "heat", "strength"]
TERMS = DataTerms(
    standard="alloys@1.0",
    task="regression",
    targets=(Target(name="strength", unit="MPa", range=(0, 1000)),),
    features=(
        Feature(names=("copper", "nickel"), unit="wt%", range=(0, 100)),
        Feature(names=("heat",), unit="K", range=(200, 1500)),
    ),
    group="melt",
    holdout=0.3,
    expected_records=1000,
    max_records_per_firm=2000,
)
CLASSES = replace(
    TERMS, task="classification", targets=(Target(name="strength", classes=("no", "yes", "?")),)
)
Lines = list[list[str]]


def clean_rows(count: int = 60, seed: int = 1) -> Lines:
    random = np.random.default_rng(seed)
    return [
        [
            f"M{row // 3}",
            f"{random.uniform(1, 90):.3f}",
            f"{random.uniform(1, 90):.3f}",
            f"{random.uniform(300, 1400):.2f}",
            f"{random.uniform(10, 900):.2f}",
        ]
        for row in range(count)
    ]


def write(path: Path, rows: Lines, names: list[str] = NAMES) -> Path:
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in [names, *rows]]
    path.write_text("\n".join(",".join(row) for row in quoted) + "\n", encoding="utf-8")
    return path


def examined(
    path: Path,
    terms: DataTerms = TERMS,
    *,
    dates: Dates | None = None,
    before: drift.TableSummary | None = None,
) -> Examination:
    cells = read_cells(path)
    try:
        table = parse_table(cells, terms, what=path.name)
    except ConfigError:
        table = None
    return examine(cells, terms, table, dates=dates, before=before)


def found(examination: Examination, kind: str) -> Finding:
    return next(item for item in examination.findings if item.kind == kind)


def kinds(examination: Examination) -> set[str]:
    return {item.kind for item in examination.findings}


def scores(examination: Examination) -> dict[str, float]:
    return {item.dimension: item.value for item in score(examination)}


def report(examination: Examination, *, name: str = "a.csv", misfit: str = "") -> Report:
    return Report(
        name=name,
        misfit=misfit,
        unit="record",
        examined=examination,
        scores=score(examination),
    )


def near_copies(count: int = 120) -> Lines:
    """Rows of three that differ in the third decimal alone."""
    rows = clean_rows(count)
    for at, row in enumerate(rows):
        row[1:4] = [f"{float(cell) + 0.001 * (at % 3):.3f}" for cell in rows[at - at % 3][1:4]]
    return rows
