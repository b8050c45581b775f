"""What runs cost together, for one data set: whole-run (epsilon, delta), summed by unit.

A run is charged in full from its first release on, however early it ends: when to stop is decided
after seeing results, so a part-price would not be a bound (which is also why no privacy filter is
used here; whole runs whose prices are fixed beforehand need none). Before its first release it only
reserves.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, get_args

from greylag_protocols.accounting import cost_in_finer_unit
from greylag_protocols.errors import BudgetExceededError
from greylag_protocols.terms import Unit

from greylag_client.policy import Limits

UNITS: tuple[Unit, ...] = get_args(Unit)  # from fine to coarse
TOLERANCE = 1 + 1e-9  # sums of decimal numbers

Overlap = Mapping[Unit, frozenset[str]]  # which data sets share a record, a group, a firm with one


class Charge(NamedTuple):
    """What one whole run costs a unit of its own kind, and which data sets it reads.

    Attributes:
        recent: whether it counts for the present year.
    """

    unit: Unit
    epsilon: float
    delta: float
    datasets: frozenset[str]
    recent: bool = True


def total_charge(charges: Iterable[Charge], overlap: Overlap) -> tuple[float, float]:
    """(epsilon, delta) of runs together, for the unit of a data set that comes off worst.

    Only units that some run promised to protect are looked at. A run of a coarser unit counts for a
    finer one as ``cost_in_finer_unit`` says; a run of a finer unit promises a coarser one nothing
    that could be added up, so a firm that wants groups protected must allow no ``record`` runs.

    Args:
        overlap: the data sets that hold a unit of this data set too, itself among them. A run
            counts if it reads one of those.
    """
    charges = list(charges)
    worst = (0.0, 0.0)
    for unit in {item.unit for item in charges}:
        costs = [
            (item.epsilon, item.delta)
            if item.unit == unit
            else cost_in_finer_unit(item.epsilon, item.delta)
            for item in charges
            if UNITS.index(item.unit) >= UNITS.index(unit) and item.datasets & overlap[unit]
        ]
        epsilon, delta = (sum(column) for column in zip(*costs, strict=True)) if costs else (0, 0)
        worst = max(worst[0], epsilon), max(worst[1], delta)
    return worst


def check_limits(dataset: str, charges: Sequence[Charge], overlap: Overlap, limits: Limits) -> None:
    """Whether what is held, the new run included, keeps to a data set's limits.

    Raises:
        BudgetExceededError: names the limit.
    """
    epsilon, delta = total_charge(charges, overlap)
    yearly, _ = total_charge([item for item in charges if item.recent], overlap)
    rules = [
        ("lifetime_epsilon", limits.lifetime_epsilon, epsilon),
        ("lifetime_delta", limits.lifetime_delta, delta),
        ("yearly_epsilon", limits.yearly_epsilon, yearly),
    ]
    for name, limit, held in rules:
        if limit is not None and held > limit * TOLERANCE:
            raise BudgetExceededError(
                f"policy.toml: {name} = {limit:g} of data set {dataset!r}: with this run "
                f"{held:.4g} would be reserved or spent. Close unused runs, decide on a higher "
                "limit, or bring new rows as a data set of their own (greylag-client data)"
            )
