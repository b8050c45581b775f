"""What is measured at one firm: held-out errors by number of training rows, alone and in the
played rounds.

Parts of the training rows are whole groups, since rows of one group are near-copies: half of the
groups say what half of the data is worth, half of the rows of each would not.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

from greylag_client.local_models.alone import fit_alone
from greylag_client.local_models.validation import row_losses, single_thread
from greylag_client.rehearsal.rounds import Crowd, play_rounds, predict
from greylag_client.table import Table

PARTS = (0.25, 0.5, 1.0)
MIN_TRAIN_ROWS = 20  # as the lab counts a firm
MIN_HELD_OUT_ROWS = 5
MIN_TRAIN_GROUPS = 3  # with fewer nothing can be learned about a new group

Losses = NDArray[np.float64]  # one number a held-out row
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One fit: how many rows it had, and its loss on every held-out row."""

    rows: int
    losses: Losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All fits at one firm.

    Attributes:
        task: what ``error`` is: root mean square (regression, in parts of the range) or log loss.
        groups: number of the group of each held-out row.
        alone: the firm's own best model, without privacy, by growing rows; the last has all.
        clean, noisy: the played rounds on all rows, without and with the noise of everybody's sum,
            one for each repetition.
    """

    task: str
    groups: NDArray[np.intp]
    alone: tuple[Point, ...]
    clean: tuple[Point, ...]
    noisy: tuple[Point, ...]

    def error(self, losses: Losses) -> float:
        """The error that the losses amount to."""
        mean = float(losses.mean())
        return mean**0.5 if self.task == "regression" else mean

    def mean_error(self, points: tuple[Point, ...]) -> float:
        """The error of fits that differ by chance alone."""
        return float(np.mean([self.error(item.losses) for item in points]))


def too_little(table: Table) -> str:
    """Why nothing can be said from these rows, or nothing."""
    train, held_out = len(table.train), len(table.holdout)
    groups = len({table.groups[row] for row in table.train})
    if train < MIN_TRAIN_ROWS:
        return f"{train} training rows; {MIN_TRAIN_ROWS} are the least to learn anything from"
    if held_out < MIN_HELD_OUT_ROWS:
        return f"{held_out} held-out rows; {MIN_HELD_OUT_ROWS} are the least to judge by"
    if groups < MIN_TRAIN_GROUPS:
        return (
            f"the training rows form {groups} groups; {MIN_TRAIN_GROUPS} are the least, since new "
            "rows will be of new groups"
        )
    return ""


def measure(
    terms: Terms,
    table: Table,
    crowd: Crowd,
    *,
    repetitions: int,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Measured:
    """Fit everything.

    Args:
        table: large enough (see ``too_little``).
        repetitions: of each small fit and of the played rounds, with other random numbers.
    """
    held_out, truth = table.features[table.holdout], table.targets[table.holdout]
    plays = 2 * repetitions * terms.training.rounds
    fit_cost = max(1, plays // 4)  # a fit alone takes about as long as half the rounds of a play
    total, done = plays + fit_cost * (1 + repetitions * (len(PARTS) - 1)), 0

    def advance(steps: int = 1) -> None:
        nonlocal done
        done += steps
        progress(done, total)

    def fit(rows: NDArray[np.intp], number: int) -> Point:
        part = replace(table, train=rows)
        model = fit_alone(part, terms.data, terms.model, seed + number)
        advance(fit_cost)
        return Point(rows=len(rows), losses=row_losses(terms.data, model(held_out), truth))

    def play(noisy: bool, number: int) -> Point:
        weights = play_rounds(terms, records, crowd, noisy=noisy, seed=number, tick=advance)
        predicted = predict(terms, weights, held_out)
        return Point(rows=len(records), losses=row_losses(terms.data, predicted, truth))

    records = table.records(table.train)
    with single_thread():
        alone = [
            fit(rows, number)
            for part in PARTS[:-1]
            for number in range(repetitions)
            if len(rows := _some_groups(table, part, seed + number)) < len(table.train)
        ]
        alone.append(fit(table.train, 0))
        clean = tuple(play(False, seed + number) for number in range(repetitions))
        noisy = tuple(play(True, seed + number) for number in range(repetitions))
    progress(total, total)
    names = np.array([table.groups[row] for row in table.holdout], dtype=object)
    return Measured(
        task=terms.data.task,
        groups=np.unique(names.astype(str), return_inverse=True)[1],
        alone=tuple(sorted(alone, key=lambda item: item.rows)),
        clean=clean,
        noisy=noisy,
    )


def _some_groups(table: Table, part: float, seed: int) -> NDArray[np.intp]:
    """Training rows of whole groups, drawn until they are ``part`` of all at least."""
    names = np.array([table.groups[row] for row in table.train], dtype=object).astype(str)
    groups, index, sizes = np.unique(names, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(groups))
    enough = int(np.searchsorted(np.cumsum(sizes[order]), part * len(names))) + 1
    return table.train[np.isin(index, order[:enough])]
