"""A firm's table: a CSV file checked against the public terms before anything else sees it.

Everything that is wrong is found in one pass and told in one error, by column, count and row as a
spreadsheet counts them (row 1 is the header). Errors name columns and rows, never values: they may
end up in a log.
"""

import collections
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from greylag_protocols.encoding import tagged_hash
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import Matrix, Records, encode_features, encode_targets
from greylag_protocols.terms import DataTerms, Range, Target
from numpy.typing import NDArray

from greylag_client.csv_cells import NAME_SHOWN as NAME_SHOWN
from greylag_client.csv_cells import ROWS_SHOWN as ROWS_SHOWN
from greylag_client.csv_cells import read_cells as read_cells

FIRST_ROW = 2  # row 1 is the header
PROBLEMS_SHOWN = 12

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that keep to the terms, and which of them are held out.

    Attributes:
        data: the terms they were checked against.
        features: shape (n, features), raw values in the order of the terms; of a text the number
            of its category; NaN is missing.
        targets: regression: shape (n, targets), raw values, NaN where missing; classification:
            shape (n, 1), the class number.
        groups: the group of each row; rows of one group stand on one side of the split.
        train, holdout: row numbers from 0, ascending; together every row once.
    """

    data: DataTerms
    features: Matrix
    targets: Matrix
    groups: tuple[str, ...]
    train: Rows
    holdout: Rows

    def __len__(self) -> int:
        return len(self.features)

    def records(self, rows: Rows) -> Records:
        """The given rows as the model sees them."""
        targets = self.targets[rows]
        _, group_of_row = np.unique(np.array(self.groups), return_inverse=True)
        return Records(
            inputs=encode_features(self.data, self.features[rows]),
            targets=encode_targets(self.data, targets)
            if self.data.task == "regression"
            else targets,
            groups=group_of_row[rows],
        )

    @property
    def largest_group(self) -> int:
        """Rows of the most frequent group: what one patent, person or recipe family amounts to."""
        return max(collections.Counter(self.groups).values())


def load_table(path: Path, data: DataTerms) -> Table:
    """Read and check a firm's CSV file (.csv or .csv.gz, UTF-8, comma separated).

    Further columns are allowed and ignored. An empty cell, ``NA`` or what the terms list as
    ``missing_values`` is a gap: allowed among a regression's targets unless a row has none at all,
    and among features only with ``missing = "zero-and-flag"``.

    Raises:
        ConfigError: names every column that breaks the terms, how often, and in which rows.
    """
    return parse_table(read_cells(path), data, what=path.name)


def parse_table(cells: pl.DataFrame, data: DataTerms, *, what: str) -> Table:
    """A table from text cells as ``read_cells`` gives them; ``what`` names it in errors.

    Raises:
        ConfigError: see ``load_table``.
    """
    problems = Problems(what)
    needed = [*data.feature_names, *data.target_names]
    check_columns(cells, [*needed, *([data.group] if data.group else [])], problems)
    problems.raise_if_any()
    cells = with_declared_gaps(cells, data)
    if cells.height == 0:
        problems.add("the table has no rows; export it again with its data")
    if cells.height > data.max_records_per_firm:
        problems.add(
            f"{cells.height} rows are more than the {data.max_records_per_firm} "
            "(max_records_per_firm) that the terms allow a firm; leave some out"
        )
    features = parse_features(cells, data, problems)
    targets = _parse_targets(cells, data, problems)
    if data.group is not None:
        gaps = cells[data.group].is_null().to_numpy()
        problems.add_rows(f"column {data.group!r}: {{}} without a group; fill them in", gaps)
    problems.raise_if_any()
    keys = _group_keys(cells, data, features, targets)
    held_out = _held_out(keys, holdout=data.holdout, seed=data.split_seed)
    return Table(
        data=data,
        features=features,
        targets=targets,
        groups=tuple(cells[data.group]) if data.group else tuple(map(str, range(cells.height))),
        train=np.flatnonzero(~held_out),
        holdout=np.flatnonzero(held_out),
    )


class Problems:
    """What is wrong with one file, gathered so that it is told at once and at bounded length."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._found: list[str] = []

    def add(self, problem: str) -> None:
        """Note one problem."""
        self._found.append(problem)

    def add_rows(self, problem: str, rows: NDArray[np.bool_]) -> None:
        """Note a problem of the marked rows, if any; ``{}`` becomes their count."""
        at = np.flatnonzero(rows)
        if len(at):
            shown = ", ".join(str(row + FIRST_ROW) for row in at[:ROWS_SHOWN])
            more = ", ..." if len(at) > ROWS_SHOWN else ""
            counted = f"{len(at)} {'row' if len(at) == 1 else 'rows'}"
            # Not ``format``: a column's name may hold braces.
            self.add(f"{problem.replace('{}', counted, 1)} (row {shown}{more})")

    def raise_if_any(self) -> None:
        """Raises: ConfigError: if anything was noted."""
        if not self._found:
            return
        lines = self._found[:PROBLEMS_SHOWN]
        if len(self._found) > PROBLEMS_SHOWN:
            lines.append(f"and {len(self._found) - PROBLEMS_SHOWN} more problems")
        raise ConfigError("\n  ".join([f"{self._what}: does not fit the terms:", *lines]))


def check_columns(cells: pl.DataFrame, needed: Sequence[str], problems: Problems) -> None:
    """Note every needed column that is absent, with the nearest name that is there."""
    spare = [name for name in cells.columns if name not in needed]
    folded = {name.casefold(): name for name in spare}
    for name in needed:
        if name not in cells.columns:
            near = difflib.get_close_matches(name.casefold(), folded, n=1)
            hint = f"; did you mean {folded[near[0]][:NAME_SHOWN]!r}?" if near else ""
            problems.add(f"column {name[:NAME_SHOWN]!r} is missing{hint}")


def with_declared_gaps(cells: pl.DataFrame, data: DataTerms) -> pl.DataFrame:
    """Cells that the terms declare missing become null; where numbers are due, also the same number
    written otherwise (-99.0 for -99)."""
    if not data.missing_values:
        return cells
    declared = pl.Series(data.missing_values, dtype=pl.String)
    numbers = declared.cast(pl.Float64, strict=False).drop_nulls()
    texts = {name for name, item in data.by_feature.items() if item.categories is not None}
    texts |= {item.name for item in data.targets if item.classes is not None}
    texts |= {data.group} if data.group else set()
    columns = []
    for name in ({*data.feature_names, *data.target_names} | texts) & {*cells.columns}:
        column = cells[name]
        gap = column.is_in(declared)
        if name not in texts:
            gap |= column.cast(pl.Float64, strict=False).is_in(numbers)
        columns.append(pl.select(pl.when(gap).then(None).otherwise(column).alias(name)).to_series())
    return cells.with_columns(columns)


def parse_features(
    cells: pl.DataFrame, data: DataTerms, problems: Problems, *, refuse_outside: bool = True
) -> Matrix:
    """Raw feature values, shape (rows, features), NaN where missing; problems are noted.

    Args:
        cells: with declared gaps as nulls.
    """
    names, kinds = data.feature_names, data.by_feature
    gaps = _null(cells, names)
    for index in np.flatnonzero(gaps.any(axis=0) & ~np.array(data.may_miss)).tolist():
        problems.add_rows(
            f"column {names[index]!r}: {{}} without a value; fill them in", gaps[:, index]
        )
    numeric = [name for name in names if kinds[name].categories is None]
    numbers = _parse_numbers(cells, numeric, problems)
    if refuse_outside:
        limits = [(kinds[name].bounds, kinds[name].unit) for name in numeric]
        _check_ranges(numeric, numbers, limits, problems)
    if len(numeric) == len(names):
        return numbers
    parsed = dict(zip(numeric, numbers.T, strict=True))
    for name, kind in kinds.items():
        if kind.categories is not None:
            what = "value that is not among the terms' categories"
            beyond = float(len(kind.categories)) if kind.other else None
            parsed[name] = _parse_labels(cells[name], kind.categories, what, problems, beyond)
    return np.stack([parsed[name] for name in names], axis=1)


def outside_range(data: DataTerms, features: Matrix) -> NDArray[np.bool_]:
    """Which rows have a feature outside its public range, shape (n,)."""
    bounds = np.array([item.bounds for item in data.features for _ in item.names])
    outside = (features < bounds[:, 0]) | (features > bounds[:, 1])  # False for NaN
    return np.asarray(outside.any(axis=1))


def _parse_targets(cells: pl.DataFrame, data: DataTerms, problems: Problems) -> Matrix:
    if data.task == "classification":
        return _parse_classes(cells, data.targets[0], problems)
    names = data.target_names
    values = _parse_numbers(cells, names, problems)
    limits = [(item.range, item.unit) for item in data.targets if item.range is not None]
    _check_ranges(names, values, limits, problems)
    empty = np.asarray(_null(cells, names).all(axis=1))
    problems.add_rows("{} without any target value; remove them", empty)
    return values


def _parse_classes(cells: pl.DataFrame, target: Target, problems: Problems) -> Matrix:
    labels = cells[target.name]
    what = "class that the terms lack"
    numbers = _parse_labels(labels, target.classes or (), what, problems)
    problems.add_rows(
        f"column {target.name!r}: {{}} without a class; remove them", labels.is_null().to_numpy()
    )
    return numbers[:, np.newaxis]


def _parse_labels(
    labels: pl.Series,
    known: Sequence[str],
    what: str,
    problems: Problems,
    beyond: float | None = None,
) -> NDArray[np.float64]:
    """The number of each label, shape (rows,): ``beyond`` for those that are not known, or NaN and
    a problem. Gaps are NaN."""
    number = {label: float(at) for at, label in enumerate(known)}
    default = np.nan if beyond is None else beyond
    found = np.array(
        [np.nan if label is None else number.get(label, default) for label in labels],
        dtype=np.float64,
    )
    strange = np.isnan(found) & ~labels.is_null().to_numpy()
    if strange.any():
        allowed = ", ".join(repr(label) for label in known[:PROBLEMS_SHOWN])
        more = ", ..." if len(known) > PROBLEMS_SHOWN else ""
        # Which of them is meant, but never what the cell holds.
        folded = {label.casefold(): label for label in known}
        first = str(labels[int(np.flatnonzero(strange)[0])]).casefold()
        near = difflib.get_close_matches(first[: 2 * NAME_SHOWN], folded, n=1)
        hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
        said = f"column {labels.name!r}: {{}} with a {what} (they have {allowed}{more}){hint}"
        problems.add_rows(said, strange)
    return found


def _null(cells: pl.DataFrame, names: Sequence[str]) -> NDArray[np.bool_]:
    """Which cells are gaps, shape (rows, names)."""
    return np.asarray(cells.select(pl.col(names).is_null()).to_numpy(), dtype=np.bool_)


def _parse_numbers(cells: pl.DataFrame, names: Sequence[str], problems: Problems) -> Matrix:
    """Finite numbers, shape (rows, names); NaN where a gap or a noted problem is."""
    numbers = cells.select(pl.col(names).cast(pl.Float64, strict=False))
    unread = _null(numbers, names)
    text = unread & ~_null(cells, names)
    values = np.asarray(numbers.fill_null(np.nan).to_numpy(), dtype=np.float64)
    unreal = ~np.isfinite(values) & ~unread
    for index in np.flatnonzero((text | unreal).any(axis=0)).tolist():
        name = names[index]
        commas = cells[name].str.contains(r"^[+-]?\d+,\d+$").any()
        hint = ", with a decimal comma: use a point" if commas else "; a gap is an empty cell"
        problems.add_rows(
            f"column {name!r}: {{}} with text where a number is due{hint}", text[:, index]
        )
        problems.add_rows(
            f"column {name!r}: {{}} with NaN or infinity; write a gap as an empty cell",
            unreal[:, index],
        )
    return np.where(np.isfinite(values), values, np.nan)


def _check_ranges(
    names: Sequence[str],
    values: Matrix,
    limits: Sequence[tuple[Range, str]],
    problems: Problems,
) -> None:
    """Note values outside their public range, given with its unit."""
    bounds = np.array([bound for bound, _ in limits])
    outside = (values < bounds[:, 0]) | (values > bounds[:, 1])  # False for NaN
    for index in np.flatnonzero(outside.any(axis=0)).tolist():
        (low, high), unit = limits[index]
        problems.add_rows(
            f"column {names[index]!r}: {{}} outside the public range "
            f"[{low:g}, {high:g}]{' ' * bool(unit)}{unit}; check the unit, correct or remove them",
            outside[:, index],
        )


def _group_keys(
    cells: pl.DataFrame, data: DataTerms, features: Matrix, targets: Matrix
) -> list[bytes]:
    if data.group is not None:
        return [str(group).encode() for group in cells[data.group]]
    # Without a group column equal rows must not stand on both sides: the content is the key.
    values = np.concatenate([features, targets], axis=1) + 0.0  # -0.0 becomes 0.0
    values[np.isnan(values)] = np.nan  # one bit pattern for every gap
    return [row.astype("<f8").tobytes() for row in values]


def _held_out(keys: Sequence[bytes], *, holdout: float, seed: int) -> NDArray[np.bool_]:
    """By hash, so that a row's side depends on its group and public terms alone."""
    threshold = holdout * 2**64

    def falls_below(key: bytes) -> bool:
        digest = tagged_hash("greylag/split/v1", str(seed).encode(), key)
        return int.from_bytes(digest[:8], "big") < threshold

    sides = {key: falls_below(key) for key in set(keys)}
    return np.array([sides[key] for key in keys], dtype=np.bool_)
