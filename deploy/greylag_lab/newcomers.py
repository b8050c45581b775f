"""What a firm that did not train gains from the shared model with a few recipes of its own.

Some firms are left out of the run. Each then gets 10, 30 and 100 of its own training rows, group
after group as they would come, and is judged on all its held-out rows: alone, with the shared model
as it is, and with a version of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from greylag_client.local_models.alone import fit_alone
from greylag_client.personal.fitting import fit_personal
from greylag_client.prediction import Predictor
from greylag_client.table import Rows, Table
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import Matrix

from greylag_lab.metrics import MIN_HELD_OUT_ROWS, Outcome, gain_over, score

SIZES = (10, 30, 100)
MODELS = ("alone", "shared", "personalised")


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomers:
    """What was predicted at the firms that were left out: by size, then by model."""

    firms: tuple[str, ...]
    outcomes: Mapping[int, Mapping[str, list[Outcome]]]


def choose_newcomers(tables: Mapping[str, Table], count: int, seed: int) -> tuple[str, ...]:
    """Firms to leave out, drawn among those that can be judged.

    Raises:
        ConfigError: there are fewer.
    """
    able = sorted(name for name, item in tables.items() if len(item.holdout) >= MIN_HELD_OUT_ROWS)
    if len(able) < count:
        raise ConfigError(f"{len(able)} firms have held-out rows to judge by, fewer than {count}")
    drawn = np.random.default_rng(seed).permutation(len(able))[:count]
    return tuple(able[index] for index in sorted(drawn))


def first_rows(table: Table, count: int, seed: int) -> Rows:
    """``count`` training rows, group after group in random order."""
    names = np.array(table.groups, dtype=object)[table.train].astype(str)
    _, group = np.unique(names, return_inverse=True)
    place = np.random.default_rng(seed).permutation(group.max() + 1)[group]
    return np.sort(table.train[np.argsort(place, kind="stable")[:count]])


def judge_newcomers(
    shared: Predictor,
    tables: Mapping[str, Table],
    seed: int,
    progress: Callable[[int, int], None],
) -> Newcomers:
    """Fit and predict at every newcomer, for each size that it has the rows for."""
    terms = shared.terms
    data, activation = terms.data, terms.model.activation
    found: dict[int, dict[str, list[Outcome]]] = {}
    jobs = [(size, firm) for size in SIZES for firm in tables if len(tables[firm].train) >= size]
    for done, (size, firm) in enumerate(jobs):
        progress(done, len(jobs))
        table = tables[firm]
        few = replace(table, train=first_rows(table, size, seed))
        own = fit_personal(terms, shared.layers, few, seed=seed).blend
        models: dict[str, Callable[[Matrix], Matrix]] = {
            "alone": fit_alone(few, data, terms.model, seed),
            "shared": shared.predict,
            "personalised": partial(own.predict, data, activation),
        }
        by_model = found.setdefault(size, {name: [] for name in MODELS})
        for name in MODELS:
            by_model[name].append(Outcome.of(firm, table, models[name]))
    return Newcomers(firms=tuple(tables), outcomes=found)


def newcomer_facts(data: Any, splits: list[Newcomers]) -> list[dict[str, Any]]:
    """Scores by size over all splits, with the gain over alone and its interval."""
    facts = []
    for size in SIZES:
        pooled = {
            name: [
                replace(item, firm=f"{number}/{item.firm}")
                for number, split in enumerate(splits)
                for item in split.outcomes.get(size, {}).get(name, [])
            ]
            for name in MODELS
        }
        if not any(item.counts for item in pooled["alone"]):
            continue
        facts.append(
            {
                "own_rows": size,
                "firms": sum(item.counts for item in pooled["alone"]),
                **{name: score(data, items).headline.to_json() for name, items in pooled.items()},
                "gain_over_alone": gain_over(
                    data, pooled["personalised"], pooled["alone"]
                ).to_json(),
            }
        )
    return facts
