"""What all would reach if they pooled their rows: no privacy here.

``pooled`` is the plan's network on everybody's training rows, stopped by an inner split over
groups. Held-out rows are never looked at. What a firm reaches alone, the client knows.
"""

from collections.abc import Sequence

import numpy as np
from greylag_client.local_models.alone import Baseline, fit_alone, of_layers
from greylag_client.local_models.networks import Recipe, fit_network
from greylag_client.local_models.validation import group_folds
from greylag_client.table import Table
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import DataTerms, ModelTerms

__all__ = ["Baseline", "fit_alone", "fit_pooled"]


def fit_pooled(tables: Sequence[Table], data: DataTerms, model: ModelTerms, seed: int) -> Baseline:
    """The plan's network on the training rows of all firms together.

    Raises:
        ConfigError: all firms together hold fewer than two groups.
    """
    values = np.concatenate([table.features[table.train] for table in tables])
    targets = np.concatenate([table.targets[table.train] for table in tables])
    groups = np.array(
        [
            f"{number}/{table.groups[row]}"  # two firms may use one name for two groups
            for number, table in enumerate(tables)
            for row in table.train
        ],
        dtype=object,
    )
    folds = group_folds(groups, 10, seed)[:1]
    if not folds:
        raise ConfigError("pooled: fewer than two groups of training rows; add firms or rows")
    recipe = Recipe(batch=256, max_steps=6000)
    return of_layers(
        fit_network(values, targets, folds, data, model, seed, recipe).layers, data, model
    )
