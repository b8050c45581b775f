"""A table's cells as numbers, read leniently: what does not fit is marked instead of refused."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from greylag_protocols.terms import DataTerms
from numpy.typing import NDArray

Marks = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Role = Literal["feature", "target", "class"]
GAP = 2.0  # where a gap stands among scaled values in [0, 1]: equal to gaps, far from values


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the plan as the table has it.

    Attributes:
        values: shape (n,), numbers or class numbers; NaN for a gap or what cannot be read.
        gaps, unread, outside: shape (n,), disjoint.
        low, high: the public bounds; of a class column the first and last class number.
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
    def scaled(self) -> Numbers:
        """Places in the public range, in [0, 1], shape (n,); gaps are at ``GAP``."""
        half = self.values / 2 - self.low / 2  # halves, or a wide range overflows
        share = np.clip(half / (self.high / 2 - self.low / 2), 0.0, 1.0)
        return np.where(np.isnan(share), GAP, np.sqrt(share) if self.root else share)


def read_columns(cells: pl.DataFrame, data: DataTerms) -> tuple[list[Column], list[str]]:
    """The plan's features and targets that the table has, and the names that it lacks."""
    columns = []
    for item in data.features:
        for name in item.names:
            if name in cells.columns:
                root = item.scale == "sqrt"
                columns.append(_number(cells[name], "feature", item.range, root=root))
    for target in data.targets:
        if target.name not in cells.columns:
            continue
        if target.range is not None:
            columns.append(_number(cells[target.name], "target", target.range))
        else:
            columns.append(_classes(cells[target.name], target.classes or ()))
    wanted = [*data.feature_names, *data.target_names, *([data.group] if data.group else [])]
    return columns, [name for name in wanted if name not in cells.columns]


def parse_numbers(column: pl.Series) -> Numbers:
    """Text cells as finite numbers, shape (n,), NaN where there is none."""
    numbers = column.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    return np.where(np.isfinite(numbers), numbers, np.nan)


def scaled_features(columns: list[Column], rows: int) -> Numbers:
    """All features, each on the scale on which rows are compared, shape (rows, features)."""
    scaled = [column.scaled for column in columns if column.role == "feature"]
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


def _classes(cells: pl.Series, classes: tuple[str, ...]) -> Column:
    numbers = {label: float(number) for number, label in enumerate(classes)}
    values = np.array([numbers.get(label, np.nan) for label in cells], dtype=np.float64)
    gaps = cells.is_null().to_numpy()
    return Column(
        name=cells.name,
        role="class",
        values=values,
        gaps=gaps,
        unread=np.isnan(values) & ~gaps,
        outside=np.zeros(len(cells), dtype=np.bool_),
        low=0.0,
        high=float(len(classes) - 1),
    )
