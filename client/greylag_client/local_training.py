"""``unit = "firm"``: a firm trains by itself for a while and sends its clipped update.

All that a firm holds is the unit: the update of a whole round is clipped as one, so neither its
rows nor how they were used inside can count for more. Every firm takes the same number of steps on
batches of the same public size: time must not show how many rows it has.
"""

from typing import cast

import numpy as np
import torch
from greylag_protocols.features import Records
from greylag_protocols.quantise import CLIP_SLACK
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

from greylag_client.models import build_model, load_weights, record_losses
from greylag_client.units import NO_ROW, rows_of_units, with_empty_row


class LocalTrainer:
    """Computes one firm's clipped updates (federated averaging: McMahan et al. 2017; clipped as a
    whole: McMahan et al. 2018).

    Args:
        records: the firm's training records.
        pad: fill batches up to the public size (see ``trainer.Trainer``).
    """

    def __init__(self, terms: Terms, records: Records, *, pad: bool = True) -> None:
        self._terms = terms
        self._module = build_model(terms)
        self._inputs = with_empty_row(records.inputs)
        self._targets = with_empty_row(records.targets)
        rows = rows_of_units(terms, records)[0]
        if not pad:
            rows = rows[rows != NO_ROW]
        # A fixed public order, so that batches are alike; it needs no secrecy.
        order = np.random.default_rng(terms.data.split_seed).permutation(len(rows))
        self._batches = np.array_split(rows[order], terms.training.local_batches)

    def __len__(self) -> int:
        return 1

    def clipped_sum(
        self, weights: NDArray[np.float32], units: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """The clipped update ``weights - trained weights``, shape (d,), or zeros without units.

        An update that is no number counts as none.
        """
        if not (units >= 0).any():
            return np.zeros(self._terms.dimension)
        update = weights.astype(np.float64) - self._train(weights)
        length = float(np.linalg.norm(update))
        if not np.isfinite(length):
            return np.zeros_like(update)
        limit = self._terms.privacy.clip_norm * (1 - CLIP_SLACK)
        return update * min(1.0, limit / max(length, 1e-300))

    def _train(self, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        training = self._terms.training
        load_weights(self._module, weights)
        parameters = list(self._module.parameters())
        for _ in range(training.local_epochs):
            for rows in self._batches:
                loss = self._loss(rows)
                gradients = torch.autograd.grad(loss, parameters)
                with torch.no_grad():
                    for tensor, gradient in zip(parameters, gradients, strict=True):
                        tensor.sub_(gradient, alpha=training.local_learning_rate)
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in parameters])
        return cast(NDArray[np.float64], flat.numpy())

    def _loss(self, rows: NDArray[np.intp]) -> torch.Tensor:
        """The mean loss over the rows that are there; 0 if none is."""
        present, index = torch.from_numpy(rows != NO_ROW), torch.from_numpy(rows)
        losses = record_losses(self._terms, self._module(self._inputs[index]), self._targets[index])
        return torch.where(present, losses, 0.0).sum() / present.sum().clamp(min=1)
