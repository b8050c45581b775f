"""The caller's own recipes: what is near to a proposal, and what has been made before."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import Matrix, spread_categories
from greylag_protocols.terms import DataTerms
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from greylag_client.suggest.wishes import Wishes
from greylag_client.table import (
    FIRST_ROW,
    Problems,
    Table,
    check_columns,
    parse_features,
    parse_table,
    read_cells,
    with_declared_gaps,
)

SAMPLED = 500  # recipes by which distances are calibrated
LEAST_FAR = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How different two recipes are: the share of the total that has to be exchanged, plus, of
    each other number, the difference in parts of its range, plus 1 for each category that
    differs."""

    data: DataTerms
    weights: Matrix  # shape (spread columns,)

    @classmethod
    def of(cls, data: DataTerms, wishes: Wishes) -> "Metric":
        weights: list[float] = []
        for name, kind in data.by_feature.items():
            low, high = kind.bounds
            if kind.one_hot:
                weights += [0.5] * kind.width
            elif wishes.total is not None and name in wishes.summed:
                weights.append(0.5 / wishes.total)
            else:
                weights.append(1.0 / max(high - low, 1e-12))
        return cls(data=data, weights=np.array(weights))

    def between(self, values: Matrix, others: Matrix) -> Matrix:
        """Distances, shape (len(values), len(others))."""
        first, second = (
            spread_categories(self.data, item) * self.weights for item in (values, others)
        )
        return np.asarray(cdist(first, second, "cityblock"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Recipes of the caller's own table.

    Attributes:
        name: the file.
        values: shape (n, features), without gaps.
        measured: shape (n, targets), NaN where nothing was measured.
        rows: of each recipe, its row as a spreadsheet counts them.
        groups: of each recipe, its group, or its row where the terms have none.
        table: the rows with measured targets, split as the terms say; None if there are none.
    """

    name: str
    values: Matrix
    measured: Matrix
    rows: NDArray[np.intp]
    groups: NDArray[np.object_]
    table: Table | None

    def yardstick(self, metric: Metric) -> tuple[float, float] | None:
        """How far one's own recipes lie from the nearest of another group: the median, and what
        nine in ten keep to. None with fewer than five groups."""
        if len(set(self.groups)) < 5:
            return None
        chosen = np.random.default_rng(0).permutation(len(self.values))[:SAMPLED]
        apart = metric.between(self.values[chosen], self.values)
        apart[self.groups[chosen][:, np.newaxis] == self.groups[np.newaxis, :]] = np.inf
        nearest = apart.min(axis=1)
        return float(np.median(nearest)), max(LEAST_FAR, float(np.quantile(nearest, 0.9)))


def read_known(path: Path, data: DataTerms) -> Known:
    """The caller's table; targets and groups need not be there, nor every target be measured.

    Raises:
        ConfigError: it lacks features or breaks their ranges, or no row is without gaps.
    """
    cells = read_cells(path)
    problems = Problems(path.name)
    check_columns(cells, data.feature_names, problems)
    problems.raise_if_any()
    cells = with_declared_gaps(cells, data)
    values = parse_features(cells, data, problems)
    problems.raise_if_any()
    whole = ~np.isnan(values).any(axis=1)
    if not whole.any():
        raise ConfigError(f"{path.name}: no row with a value in every column; nothing to compare")
    measured = np.full((len(values), len(data.targets)), np.nan)
    table = None
    wanted = [*data.target_names, *([data.group] if data.group else [])]
    if all(name in cells.columns for name in wanted):
        gaps = np.array([cells[name].is_null().to_numpy() for name in data.target_names])
        some: NDArray[np.bool_] = np.asarray(~gaps.all(axis=0))
        if some.any():
            table = parse_table(cells.filter(some), data, what=path.name)
            measured[some] = table.targets
    if data.group is not None and data.group in cells.columns:
        groups = np.array(cells[data.group].to_list(), dtype=object)
    else:
        groups = np.array([str(row) for row in range(len(values))], dtype=object)
    return Known(
        name=path.name,
        values=values[whole],
        measured=measured[whole],
        rows=np.flatnonzero(whole) + FIRST_ROW,
        groups=groups[whole],
        table=table,
    )
