"""Search for recipes: evolution inside the allowed space, each place in the population for itself.

A child replaces only its own parent (as in differential evolution: Storn and Price 1997), so that
the population keeps several ways to the goal; the choice among them at the end wants them apart.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from greylag_protocols.features import Matrix
from numpy.typing import NDArray

from greylag_client.suggest.goal import Goal, Judged
from greylag_client.suggest.space import Space

POPULATION = 160
GENERATIONS = 80
PATIENCE = 15  # generations without progress
PROGRESS = 0.005  # less is none, in units of log-chance, mean over the population's best quarter
COMBINATIONS = 64  # of categories that are all tried
STARTS = 600  # known recipes that are looked at
TOLERATED = 1.0  # by how much a proposal may be worse than the best for being unlike it
SNAPSHOT = 8  # every so many generations the population is kept, to choose from
LEAST_APART = 0.05  # between two proposals; less only where nothing else is left
Rng = np.random.Generator
Tick = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Proposals, the best first.

    Attributes:
        values: shape (n, features).
        apart: the least distance between two of them.
    """

    values: Matrix
    judged: Judged
    apart: float


def search(space: Space, goal: Goal, *, count: int, seed: int, tick: Tick) -> Found:
    """Up to ``count`` recipes, apart from each other; the same seed finds the same."""
    rng = np.random.default_rng(seed)
    values = _start(space, goal, max(POPULATION, 8 * count), rng)
    loss = goal.judge(values).loss
    best, since = np.inf, 0
    kept = [values.copy()]
    for generation in range(GENERATIONS):
        tick(generation, GENERATIONS)
        children = space.repair(_vary(values, space, rng))
        judged = goal.judge(children).loss
        better = judged < loss
        values[better], loss[better] = children[better], judged[better]
        if generation % SNAPSHOT == 0:
            kept.append(values.copy())
        now = float(np.sort(loss)[: len(loss) // 4].mean())
        best, since = (now, 0) if now < best - PROGRESS else (best, since + 1)
        if since >= PATIENCE:
            break
    tick(GENERATIONS, GENERATIONS)
    rounded = space.round(np.unique(np.concatenate([*kept, values]), axis=0))
    rounded = rounded[[space.keeps(row) for row in rounded]]
    return _choose(np.unique(rounded, axis=0), goal, count)


def _choose(values: Matrix, goal: Goal, count: int) -> Found:
    """The best ones that lie apart; the demand is lowered where too few do."""
    judged = goal.judge(values)
    order = np.argsort(judged.loss, kind="stable")
    best = judged.loss[order[0]]
    good = [int(at) for at in order if judged.loss[at] <= best + TOLERATED]
    apart, chosen = LEAST_APART, list[int]()
    while len(chosen) < count and apart >= LEAST_APART / 4:
        chosen = _pick(good, [], values, goal, count, apart)
        apart /= 2
    # Too few ways to the goal: others that are worse, or fewer.
    chosen = _pick(map(int, order), chosen, values, goal, count, LEAST_APART / 4)
    kept = values[chosen]
    between = goal.metric.between(kept, kept)
    np.fill_diagonal(between, np.inf)
    least = float(between.min()) if len(kept) > 1 else 0.0
    return Found(values=kept, judged=goal.judge(kept), apart=least)


def _pick(
    order: Iterable[int], chosen: list[int], values: Matrix, goal: Goal, count: int, apart: float
) -> list[int]:
    """Numbers of ``order`` in turn, each as far from those before it as asked."""
    chosen = chosen.copy()
    for at in order:
        if len(chosen) == count:
            break
        if not chosen or goal.metric.between(values[[at]], values[chosen]).min() >= apart:
            chosen.append(at)
    return chosen


def _start(space: Space, goal: Goal, size: int, rng: Rng) -> Matrix:
    """Half from known recipes, moved into the space, and half at random; all combinations of
    categories in turn."""
    random = space.repair(_random(space, goal, size, rng))
    if goal.priced:
        goal.usual_cost = float(np.median(goal.judge(random).cost))
    if goal.known is None:
        return random
    known = goal.known.values[rng.permutation(len(goal.known.values))[:STARTS]]
    moved = np.unique(space.repair(known), axis=0)
    loss = goal.judge(moved).loss
    kept = moved[np.argsort(loss, kind="stable")[: size // 2]]
    return np.concatenate([kept, random[: size - len(kept)]])


def _random(space: Space, goal: Goal, size: int, rng: Rng) -> Matrix:
    low, high = space.low, space.high
    values = rng.uniform(low, high, (size, len(low)))
    _set_combinations(values, space)
    columns = np.flatnonzero(space.summed & (high > 0))
    if not len(columns):
        return values
    often = np.ones(len(columns))
    if goal.known is not None:
        often = (goal.known.values[:, columns] > 0).mean(axis=0) + 1e-3
    values[:, space.summed] = low[space.summed]
    for row in values:
        many = int(
            rng.integers(min(2, len(columns), space.most), min(len(columns), space.most) + 1)
        )
        chosen = rng.choice(len(columns), many, replace=False, p=often / often.sum())
        # Dirichlet inside the spans: gamma variates, each in parts of its column's room.
        amounts = rng.gamma(1.0, 1.0, many) * np.sqrt(high[columns[chosen]])
        row[columns[chosen]] = np.maximum(
            amounts * space.total / amounts.sum(), low[columns[chosen]]
        )
    return values


def _set_combinations(values: Matrix, space: Space) -> None:
    texts = np.flatnonzero(space.texts)
    if not len(texts):
        return
    choices = [np.arange(space.low[at], space.high[at] + 1) for at in texts]
    number = int(np.prod([float(len(item)) for item in choices]).clip(max=COMBINATIONS + 1))
    if number <= COMBINATIONS:
        combinations = np.array(list(itertools.product(*choices)))
        values[:, texts] = combinations[np.arange(len(values)) % len(combinations)]


def _vary(values: Matrix, space: Space, rng: Rng) -> Matrix:
    """A child of every row: two differential steps, a move from one component to another, a swap of
    components, or small changes everywhere."""
    size = len(values)
    first, second, third = (values[rng.integers(0, size, size)] for _ in range(3))
    factor = rng.uniform(0.2, 0.9, (size, 1))
    steps = np.stack([
        values + factor * (first - second),
        values + factor * (third - values) + factor * (first - second) / 2,
        values * rng.normal(1.0, 0.15, values.shape),
        _exchange(values, space, rng, everything=False),
        _exchange(values, space, rng, everything=True),
    ])  # fmt: skip
    kind = rng.integers(0, len(steps), size)
    children: Matrix = steps[kind, np.arange(size)]
    # Amounts that a parent lacks come in by exchange, not as crumbs of differences.
    children[:, space.summed] = np.maximum(children[:, space.summed], 0.0)
    others = ~space.summed & ~space.texts
    jolt = rng.normal(0.0, 0.1, values.shape) * (space.high - space.low)
    shaken = others & (rng.random(values.shape) < 0.2)
    children = np.where(shaken, children + jolt, children)
    random = np.floor(rng.uniform(space.low, space.high + 1.0, values.shape))
    mutated = space.texts & (rng.random(values.shape) < 0.1)
    taken = np.where(rng.random(values.shape) < 0.2, first, values)
    return np.where(space.texts, np.where(mutated, random, taken), children)


def _exchange(values: Matrix, space: Space, rng: Rng, *, everything: bool) -> Matrix:
    """Some or all of one component goes to another, in the recipe already or not."""
    changed = values.copy()
    columns = np.flatnonzero(space.summed & (space.high > space.low))
    if len(columns) < 2:
        return changed
    row = np.arange(len(values))
    present = values[:, columns] > space.low[columns]
    giver = _draw(present, columns, rng)
    likely = np.ones(present.shape, dtype=np.bool_) if everything else present
    taker = _draw(likely, columns, rng)
    room = values[row, giver] - space.low[giver]
    moved = np.maximum(room, 0.0) * (1.0 if everything else rng.random(len(values)) ** 2)
    changed[row, giver] -= moved
    changed[row, taker] += moved
    return changed


def _draw(allowed: NDArray[np.bool_], columns: NDArray[np.intp], rng: Rng) -> NDArray[np.intp]:
    """One allowed column of each row at random; any where none is."""
    return np.asarray(columns[(rng.random(allowed.shape) + allowed).argmax(axis=1)])
