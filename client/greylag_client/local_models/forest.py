"""Boosted trees as plain arrays: fitted by scikit-learn, kept and evaluated without it.

No pickle: a file of arrays can be checked before it is used, and holds no code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from greylag_protocols.errors import VerificationError
from greylag_protocols.features import Matrix
from numpy.typing import NDArray

MAX_DEPTH = 64
CELLS = 1 << 20  # rows times trees that are followed at a time

Link = Literal["identity", "sigmoid", "softmax"]
Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """Trees whose leaves add up to each output, from ``start`` on.

    Attributes:
        feature: the column that a node looks at, -1 at a leaf; shape (nodes,), as the next four.
        threshold: values up to it go left.
        left, right: numbers of the nodes below, larger than the node's own.
        missing_left: 1 where a missing value goes left.
        value: what a leaf adds.
        roots, output: of each tree: its first node, and the output that it adds to.
        start: shape (outputs,).
        link: from sums to predictions; ``sigmoid`` makes two probabilities of one sum.
    """

    feature: Ints
    threshold: Matrix
    left: Ints
    right: Ints
    missing_left: NDArray[np.uint8]
    value: Matrix
    roots: Ints
    output: Ints
    start: Matrix
    link: Link

    @classmethod
    def constant(cls, start: Matrix) -> "Forest":
        """No tree: one prediction for every row."""
        ints, floats = np.zeros(0, dtype=np.int32), np.zeros(0)
        return cls(
            feature=ints, threshold=floats, left=ints, right=ints,
            missing_left=np.zeros(0, dtype=np.uint8), value=floats, roots=ints, output=ints,
            start=np.asarray(start, dtype=np.float64), link="identity",
        )  # fmt: skip

    @classmethod
    def of(cls, models: Mapping[int, Any], start: Matrix, link: Link = "identity") -> "Forest":
        """The trees of fitted ``HistGradientBoosting*`` models.

        Args:
            models: the model of each output; a classifier of several outputs stands at output 0.
            start: what outputs without a model are; the others get their model's own.
        """
        start = np.array(start, dtype=np.float64)
        nodes: list[NDArray[Any]] = []
        roots, outputs, at = [], [], 0
        for first, model in models.items():
            # scikit-learn has no public way to its trees (1.6 to 1.9 keep them here).
            baseline = np.ravel(model._baseline_prediction)
            start[first : first + len(baseline)] = baseline
            for trees in model._predictors:
                for shift, tree in enumerate(trees):
                    nodes.append(tree.nodes)
                    roots.append(at)
                    outputs.append(first + shift)
                    at += len(tree.nodes)
        if not nodes:
            return replace(cls.constant(start), link=link)
        flat = np.concatenate(nodes)
        base = np.repeat(roots, [len(part) for part in nodes])
        leaf = flat["is_leaf"].astype(bool)
        return cls(
            feature=np.where(leaf, -1, flat["feature_idx"]).astype(np.int32),
            threshold=np.where(leaf, 0.0, flat["num_threshold"]).astype(np.float64),
            left=np.where(leaf, 0, flat["left"] + base).astype(np.int32),
            right=np.where(leaf, 0, flat["right"] + base).astype(np.int32),
            missing_left=np.where(leaf, 0, flat["missing_go_to_left"]).astype(np.uint8),
            value=np.where(leaf, flat["value"], 0.0).astype(np.float64),
            roots=np.array(roots, dtype=np.int32),
            output=np.array(outputs, dtype=np.int32),
            start=start,
            link=link,
        )

    def __call__(self, values: Matrix) -> Matrix:
        """Predictions for rows of values, shape (n, columns); NaN is missing."""
        return self.staged(values, (len(self.roots),))[0]

    def staged(self, values: Matrix, counts: Sequence[int]) -> list[Matrix]:
        """Predictions of the first so many trees of each output, for each of ``counts``."""
        rank = self._rank()
        parts: list[list[Matrix]] = [[] for _ in counts]
        chunk = max(1, CELLS // max(1, len(self.roots)))
        for at in range(0, max(1, len(values)), chunk):
            rows = values[at : at + chunk]
            leaves = self._leaves(rows)
            for part, count in zip(parts, counts, strict=True):
                sums = np.tile(self.start, (len(rows), 1))
                for output in range(len(self.start)):
                    chosen = (self.output == output) & (rank < count)
                    sums[:, output] += leaves[:, chosen].sum(axis=1)
                part.append(self._linked(sums))
        return [np.concatenate(part) for part in parts]

    def first(self, count: int) -> "Forest":
        """The forest of the first ``count`` trees of each output."""
        kept = self._rank() < count
        return replace(self, roots=self.roots[kept], output=self.output[kept])

    def _rank(self) -> NDArray[np.intp]:
        """Of each tree: how many of its output stand before it."""
        rank = np.zeros(len(self.output), dtype=np.intp)
        for output in range(len(self.start)):
            mine = self.output == output
            rank[mine] = np.arange(mine.sum())
        return rank

    def _leaves(self, values: Matrix) -> Matrix:
        """What each tree says of each row, shape (rows, trees)."""
        at = np.tile(self.roots, (len(values), 1))
        row = np.arange(len(values))[:, np.newaxis]
        for _ in range(MAX_DEPTH):
            feature = self.feature[at]
            inner = feature >= 0
            if not inner.any():
                break
            cell = values[row, np.maximum(feature, 0)]
            goes_left = np.where(
                np.isnan(cell), self.missing_left[at] == 1, cell <= self.threshold[at]
            )
            at = np.where(inner, np.where(goes_left, self.left[at], self.right[at]), at)
        return self.value[at]

    def _linked(self, sums: Matrix) -> Matrix:
        if self.link == "identity":
            return sums
        if self.link == "sigmoid":
            sums = np.concatenate([np.zeros_like(sums[:, :1]), sums[:, :1]], axis=1)
        spread = np.exp(sums - sums.max(axis=1, keepdims=True))
        return np.asarray(spread / spread.sum(axis=1, keepdims=True))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The arrays by name; ``link`` is kept elsewhere."""
        return {name: getattr(self, name) for name in TYPES}

    @classmethod
    def parse(
        cls, tensors: Mapping[str, NDArray[Any]], *, link: Link, columns: int, outputs: int
    ) -> "Forest":
        """A forest from arrays that came from outside.

        Raises:
            VerificationError: other names, types or lengths than a forest has, numbers that point
                nowhere or in a circle, or trees deeper than 64.
        """
        if tensors.keys() != TYPES.keys() or any(
            tensors[name].dtype != kind or tensors[name].ndim != 1 for name, kind in TYPES.items()
        ):
            raise VerificationError("trees: arrays are not those of a forest")
        forest = cls(link=link, **tensors)
        per_node = ("feature", "threshold", "left", "right", "missing_left", "value")
        nodes, trees = len(forest.feature), len(forest.roots)
        sums = 1 if link == "sigmoid" else outputs
        if (
            any(len(tensors[name]) != nodes for name in per_node)
            or len(forest.output) != trees
            or len(forest.start) != sums
        ):
            raise VerificationError("trees: arrays differ in length")
        inner = np.flatnonzero(forest.feature >= 0)
        below = np.stack([forest.left, forest.right])[:, inner]
        inside = (
            _within(forest.feature, -1, columns)
            and _within(forest.roots, 0, nodes)
            and _within(forest.output, 0, sums)
            and _within(forest.missing_left, 0, 2)
            and bool(((below > inner) & (below < nodes)).all())
        )
        numbers = (forest.threshold, forest.value, forest.start)
        # A threshold of infinity sets missing values apart from all others.
        if (
            not inside
            or np.isnan(forest.threshold).any()
            or not all(np.isfinite(item).all() for item in numbers[1:])
        ):
            raise VerificationError("trees: a node points nowhere, or holds no number")
        level = np.unique(forest.roots)
        for _ in range(MAX_DEPTH):
            level = level[forest.feature[level] >= 0]
            if not len(level):
                return forest
            level = np.unique(np.concatenate([forest.left[level], forest.right[level]]))
        raise VerificationError(f"trees: deeper than {MAX_DEPTH}; refused")


TYPES: dict[str, type[np.generic]] = {
    "feature": np.int32, "threshold": np.float64, "left": np.int32, "right": np.int32,
    "missing_left": np.uint8, "value": np.float64, "roots": np.int32, "output": np.int32,
    "start": np.float64,
}  # fmt: skip


def _within(values: NDArray[Any], low: int, high: int) -> bool:
    return bool(((values >= low) & (values < high)).all())
