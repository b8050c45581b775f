"""Rows that repeat or resemble each other, and the columns whose values tell such rows."""

import collections

import numpy as np
import polars as pl

from greylag_client.quality.columns import Column, Marks, Numbers, parse_numbers, scaled_features
from greylag_client.table import Rows

NEAR = 0.005  # of the public range, in every feature
FAR_TARGET = 0.1  # of the target's range: the same features should not lie this far apart
ALIKE = 0.3  # share of the features' variance that a group column must explain
MOST_GROUPS = 2 / 3  # of the rows; beyond, nearly every row would be its own group


def find_duplicates(columns: list[Column], rows: int) -> Marks:
    """Rows equal to an earlier one in every column of the plan, shape (n,)."""
    if not columns:
        return np.zeros(rows, dtype=np.bool_)
    keys = _keys(np.stack([column.values for column in columns], axis=1))
    unread = np.any([column.unread for column in columns], axis=0)
    seen: set[bytes] = set()
    repeats = np.zeros(rows, dtype=np.bool_)
    for row, key in enumerate(keys):
        if not unread[row]:
            repeats[row] = key in seen
            seen.add(key)
    return repeats


def find_contradictions(columns: list[Column], rows: int) -> Marks:
    """Rows with the features of another and a target far from it, shape (n,)."""
    clashing = np.zeros(rows, dtype=np.bool_)
    keys = _keys(scaled_features(columns, rows))
    if not keys or not keys[0]:
        return clashing
    numbers: dict[bytes, int] = {}
    number = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    for target in (column for column in columns if not column.enters):
        known = ~np.isnan(target.values)
        place = target.values if target.role == "class" else target.scaled
        low, high = np.full(rows, np.inf), np.full(rows, -np.inf)
        np.minimum.at(low, number[known], place[known])
        np.maximum.at(high, number[known], place[known])
        apart = 0.5 if target.role == "class" else FAR_TARGET
        wide = np.greater(high, low + apart)
        clashing |= wide[number] & known
    return clashing


def find_near_copies(scaled: Numbers, train: Rows, holdout: Rows) -> Marks:
    """Held-out rows with a row to train on within ``NEAR`` in every feature, shape (n,).

    Few or coarse features bring rows near to each other by chance. The same count with every
    column shuffled by itself says how many; without a clear excess nothing is marked.
    """
    marks = np.zeros(len(scaled), dtype=np.bool_)
    if not scaled.shape[1] or not len(train) or not len(holdout):
        return marks
    near = _near(scaled, train, holdout)
    shuffled = np.random.default_rng(0).permuted(scaled, axis=0)
    if near.sum() > 2 * _near(shuffled, train, holdout).sum():
        marks[holdout[near]] = True
    return marks


def suggest_group(cells: pl.DataFrame, scaled: Numbers, used: set[str]) -> str | None:
    """The further column whose equal values best tell rows that resemble each other.

    Measured by the share of the features' variance that lies between its values, adjusted for
    their number (1 - MSW / MST), so that a finer column does not win by being fine.
    """
    best, name = ALIKE, None
    rows = cells.height
    total = ((scaled - scaled.mean(axis=0)) ** 2).sum() if rows else 0.0
    if rows < 10 or not total:
        return None
    for column in cells.columns:
        labels = cells[column]
        if column in used or labels.null_count() > rows // 10 or _fractional(labels):
            continue
        _, number, sizes = np.unique(
            labels.fill_null("").to_numpy(), return_inverse=True, return_counts=True
        )
        if not 2 <= len(sizes) <= MOST_GROUPS * rows or sizes.max() > rows / 2:
            continue
        sums = np.zeros((len(sizes), scaled.shape[1]))
        np.add.at(sums, number, scaled)
        within = ((scaled - (sums / sizes[:, np.newaxis])[number]) ** 2).sum()
        alike = 1 - (within / (rows - len(sizes))) / (total / (rows - 1))
        if alike > best:
            best, name = alike, column
    return name


def on_both_sides(labels: pl.Series, train: Rows, holdout: Rows) -> Marks:
    """Held-out rows whose label stands among the rows to train on too, shape (n,)."""
    values = list(labels)
    trained = {values[row] for row in train} - {None}
    marks = np.zeros(len(values), dtype=np.bool_)
    marks[[row for row in holdout if values[row] in trained]] = True
    return marks


def group_sizes(labels: pl.Series) -> list[int]:
    """Rows of each group, largest first; rows without a group are not counted."""
    counts = collections.Counter(label for label in labels if label is not None)
    return sorted(counts.values(), reverse=True)


def _near(scaled: Numbers, train: Rows, holdout: Rows) -> Marks:
    from scipy.spatial import KDTree  # heavy

    tree = KDTree(scaled[train])
    distance, _ = tree.query(scaled[holdout], p=np.inf, distance_upper_bound=NEAR)
    return np.asarray(np.isfinite(distance))


def _keys(values: Numbers) -> list[bytes]:
    same = values + 0.0  # -0.0 becomes 0.0
    same[np.isnan(same)] = np.nan  # one bit pattern for every gap
    return [row.tobytes() for row in np.ascontiguousarray(same)]


def _fractional(labels: pl.Series) -> bool:
    numbers = parse_numbers(labels)
    known = numbers[~np.isnan(numbers)]
    return bool((known != np.round(known)).any())
