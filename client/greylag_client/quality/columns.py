"""A table's cells as numbers, read leniently: what does not fit is marked instead of refused."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from greylag_protocols.terms import DataTerms
from numpy.typing import NDArray

from greylag_client.table import with_declared_gaps

Marks = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Role = Literal["feature", "category", "target", "class"]  # the first two enter the model
GAP = 2.0  # where a gap stands among scaled values in [0, 1]: equal to gaps, far from values
STEP = 0.01  # least distance of two scaled categories: they are no near-copies


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the plan as the table has it.

    Attributes:
        values: shape (n,), numbers or those of classes and categories; NaN for a gap or what cannot
            be read.
        gaps, unread, outside: shape (n,), disjoint.
        low, high: the public bounds; of classes and categories the first and last number.
    """

    name: str
    role: Role
    values: Numbers
    gaps: Marks
    unread: Marks
    outside: Marks
    low: float
    high: float
    root: bool = False

    @property
    def known(self) -> Numbers:
        """The values that are there, shape (<= n,)."""
        return self.values[~np.isnan(self.values)]

    @property
    def constant(self) -> bool:
        known = self.known
        return len(known) > 1 and bool((known == known[0]).all())

    @property
    def enters(self) -> bool:
        """Whether it is a feature."""
        return self.role in ("feature", "category")

    @property
    def listed(self) -> bool:
        """Whether it holds names from the plan's list, so that no value is an end of anything."""
        return self.role in ("class", "category")

    @property
    def scaled(self) -> Numbers:
        """Places in the public range, in [0, 1], shape (n,); gaps are at ``GAP``. Categories stand
        ``STEP`` apart at least, beyond 1 where they are many."""
        if self.role == "category":
            places = self.values * max(STEP, 1.0 / max(1.0, self.high))
            return np.where(np.isnan(places), -GAP, places)
        half = self.values / 2 - self.low / 2  # halves, or a wide range overflows
        share = np.clip(half / (self.high / 2 - self.low / 2), 0.0, 1.0)
        return np.where(np.isnan(share), GAP, np.sqrt(share) if self.root else share)


def read_columns(cells: pl.DataFrame, data: DataTerms) -> tuple[list[Column], list[str]]:
    """The plan's features and targets that the table has, and the names that it lacks."""
    cells = with_declared_gaps(cells, data)
    columns = []
    for item in data.features:
        for name in item.names:
            if name not in cells.columns:
                continue
            if item.categories is not None:
                columns.append(_labels(cells[name], "category", item.categories, other=item.other))
            else:
                root = item.scale == "sqrt"
                columns.append(_number(cells[name], "feature", item.bounds, root=root))
    for target in data.targets:
        if target.name not in cells.columns:
            continue
        if target.range is not None:
            columns.append(_number(cells[target.name], "target", target.range))
        else:
            columns.append(_labels(cells[target.name], "class", target.classes or ()))
    wanted = [*data.feature_names, *data.target_names, *([data.group] if data.group else [])]
    return columns, [name for name in wanted if name not in cells.columns]


def parse_numbers(column: pl.Series) -> Numbers:
    """Text cells as finite numbers, shape (n,), NaN where there is none."""
    numbers = column.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    return np.where(np.isfinite(numbers), numbers, np.nan)


def scaled_features(columns: list[Column], rows: int) -> Numbers:
    """All features, each on the scale on which rows are compared, shape (rows, features)."""
    scaled = [column.scaled for column in columns if column.enters]
    return np.stack(scaled, axis=1) if scaled else np.zeros((rows, 0))


def _number(
    cells: pl.Series, role: Role, bounds: tuple[float, float], *, root: bool = False
) -> Column:
    values = parse_numbers(cells)
    gaps = cells.is_null().to_numpy()
    return Column(
        name=cells.name,
        role=role,
        values=values,
        gaps=gaps,
        unread=np.isnan(values) & ~gaps,
        outside=(values < bounds[0]) | (values > bounds[1]),
        low=bounds[0],
        high=bounds[1],
        root=root,
    )


def _labels(cells: pl.Series, role: Role, known: tuple[str, ...], *, other: bool = False) -> Column:
    numbers = {label: float(number) for number, label in enumerate(known)}
    gaps = cells.is_null().to_numpy()
    values = np.array(
        [numbers.get(label, len(known) if other else np.nan) for label in cells], dtype=np.float64
    )
    values[gaps] = np.nan
    return Column(
        name=cells.name,
        role=role,
        values=values,
        gaps=gaps,
        unread=np.isnan(values) & ~gaps,
        outside=np.zeros(len(cells), dtype=np.bool_),
        low=0.0,
        high=float(len(known) - 1 + other),
    )
