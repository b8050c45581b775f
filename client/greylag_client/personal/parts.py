"""What a version of one's own is made of: models whose predictions are averaged with weights."""

from dataclasses import dataclass

import numpy as np
from greylag_protocols.features import Matrix, spread_categories, target_bounds
from greylag_protocols.terms import DataTerms

from greylag_client.local_models.forest import Forest
from greylag_client.local_models.layers import Layers, predict_layers

SHARED = "shared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A network, trees, or trees that correct a network (they see its prediction too)."""

    name: str
    layers: Layers | None
    forest: Forest | None

    def predict(self, data: DataTerms, activation: str, values: Matrix) -> Matrix:
        """Predictions for raw features, as ``Predictor.predict`` gives them."""
        total = np.zeros((len(values), 0))
        if self.layers is not None:
            total = predict_layers(data, activation, self.layers, values)
        if self.forest is not None:
            wide = np.concatenate([spread_categories(data, values), total], axis=1)
            total = self.forest(wide) + (total if self.layers is not None else 0.0)
        return keep_inside(data, total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """Parts and their weights, which are positive and sum to 1."""

    parts: tuple[Part, ...]
    weights: tuple[float, ...]

    def predict(self, data: DataTerms, activation: str, values: Matrix) -> Matrix:
        """The parts' weighted mean."""
        total: Matrix = sum(
            (
                weight * part.predict(data, activation, values)
                for part, weight in zip(self.parts, self.weights, strict=True)
            ),
            start=np.zeros(()),
        )
        return total


def keep_inside(data: DataTerms, predicted: Matrix) -> Matrix:
    """Numbers inside their public range; probabilities that are none made some."""
    if data.task == "classification":
        positive = np.clip(predicted, 1e-6, 1.0)
        return np.asarray(positive / positive.sum(axis=1, keepdims=True))
    low, high = target_bounds(data)
    return np.clip(predicted, low, high)
