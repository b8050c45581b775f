"""Intervals of predictions from the errors of cross-validation.

A new row comes from a new group, and rows of one group err alike. So the groups are what is
exchangeable: each counts once, its rows sharing its weight, and one imaginary group with an
infinite error stands for the new one (conformal prediction for hierarchical data: Dunn, Wasserman
and Ramdas 2023). The errors are those of models that had not seen the row. They are applied around
the model that was fitted on all rows (the jackknife of Barber, Candes, Ramdas and Tibshirani 2021):
that keeps the stated coverage as far as leaving one fold out changes predictions little. CV+, which
holds at half the rate whatever happens, would need every fold's model at the firm.
"""

import numpy as np
from greylag_protocols.features import Matrix, target_bounds
from greylag_protocols.terms import DataTerms

from greylag_client.local_models.validation import Names
from greylag_client.personal.artefact import Intervals

COVERAGE = 0.9
LEAST_GROUPS = 3


def make_intervals(
    data: DataTerms, unseen: Matrix, targets: Matrix, groups: Names, coverage: float = COVERAGE
) -> Intervals | None:
    """How far predictions may be off; None where there are too few groups to tell.

    Args:
        unseen: predictions for rows not seen, shape (repetitions, n, outputs).
    """
    if len(set(groups)) < LEAST_GROUPS:
        return None
    middle = unseen.mean(axis=0)
    if data.task == "classification":
        doubt = 1.0 - middle[np.arange(len(targets)), targets[:, 0].astype(np.intp)]
        worst = group_quantile(doubt, groups, coverage)
        return Intervals(coverage=coverage, reach=(max(0.0, 1.0 - worst),))
    low, high = target_bounds(data)
    reach = []
    for target, column in enumerate(targets.T):
        present = ~np.isnan(column)
        errors = np.abs(middle[present, target] - column[present])
        widest = float(high[target] - low[target])  # no error is larger
        reach.append(min(widest, group_quantile(errors, groups[present], coverage)))
    return Intervals(coverage=coverage, reach=tuple(reach))


def group_quantile(errors: Matrix, groups: Names, coverage: float) -> float:
    """The least number that errors of a new group's rows exceed with probability
    ``1 - coverage`` at most; infinite where the groups are too few to tell."""
    names, group, sizes = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(errors, kind="stable")
    mass = np.cumsum(1.0 / sizes[group[order]]) / (len(names) + 1)
    at = int(np.searchsorted(mass, coverage - 1e-12))
    return float(errors[order[at]]) if at < len(errors) else float("inf")
