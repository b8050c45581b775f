"""A multilayer perceptron in numpy: what a release holds, and what is fitted at the firm."""

import numpy as np
from greylag_protocols.features import Matrix, decode_outputs, encode_features
from greylag_protocols.terms import DataTerms

Layers = tuple[tuple[Matrix, Matrix], ...]  # weight (outputs, inputs) and bias (outputs,), float64


def run_layers(layers: Layers, activation: str, inputs: Matrix) -> Matrix:
    """Outputs as the last layer gives them, shape (n, outputs)."""
    hidden = inputs
    for index, (weight, bias) in enumerate(layers):
        hidden = hidden @ weight.T + bias
        if index < len(layers) - 1:
            hidden = np.maximum(hidden, 0.0) if activation == "relu" else np.tanh(hidden)
    return hidden


def decode(data: DataTerms, outputs: Matrix) -> Matrix:
    """Physical values, shape (n, targets), or class probabilities, shape (n, classes)."""
    if data.task == "classification":
        likelihood = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return np.asarray(likelihood / likelihood.sum(axis=1, keepdims=True))
    return decode_outputs(data, outputs)


def predict_layers(data: DataTerms, activation: str, layers: Layers, values: Matrix) -> Matrix:
    """Predictions for raw features, shape (n, features); NaN is missing."""
    return decode(data, run_layers(layers, activation, encode_features(data, values)))
