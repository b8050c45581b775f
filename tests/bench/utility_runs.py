"""One table on one split: every model, judged on the same held-out rows by the lab's own scores."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

from greylag_client.table import Table
from greylag_lab.metrics import MIN_TRAIN_ROWS, Outcome
from greylag_lab.newcomers import Newcomers
from greylag_lab.silos import parse_silos, read_silos
from greylag_lab.study import Task, run_task
from greylag_protocols.plan import settle_terms
from greylag_protocols.terms import Plan, Terms
from harness import say
from utility_central import train_central, train_client_level
from utility_tables import Case, firm_plan

# What each is; the rest of the bench knows models by these names.
MODELS = {
    "alone": "each firm alone, no privacy",
    "pooled": "all rows in one place, no privacy",
    "trusted": "central DP-SGD (Opacus) by a curator whom all trust: no noise for colluders",
    "central": "central DP-SGD (Opacus), the same noise as greylag's sum",
    "record": "greylag, a row is the unit",
    "personalised": "greylag's model of record, then each firm's own version",
    "group": "greylag, a group of rows is the unit",
    "firm": "greylag, a firm is the unit",
    "client_level": "DP-FedAvg, noise by a trusted server; a firm is the unit",
    "full_noise": "DP-SGD where every firm adds its full noise, no secure sum",
    "newcomers": "firms left out of the run, then given a few rows of their own",
}


def _training(**keys: Any) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, training=replace(plan.training, **keys))


def _scaled(key: str, factor: float) -> Callable[[Plan], Plan]:
    return lambda plan: _training(**{key: getattr(plan.training, key) * factor})(plan)


def _part_of_rounds(key: str, share: float) -> Callable[[Plan], Plan]:
    return lambda plan: _training(**{key: max(1, round(plan.training.rounds * share))})(plan)


def _columns(**keys: Any) -> Callable[[Plan], Plan]:
    """Other keys for every feature that is a number."""
    return lambda plan: replace(
        plan,
        data=replace(
            plan.data,
            features=tuple(
                item if item.categories else replace(item, **keys) for item in plan.data.features
            ),
        ),
    )


def _plain_targets(plan: Plan) -> Plan:
    targets = tuple(replace(item, multiplier=1.0) for item in plan.data.targets)
    return replace(plan, data=replace(plan.data, targets=targets))


# What a plan becomes without a lever, or with one that it does not use; one at a time.
LEVERS: dict[str, Callable[[Plan], Plan]] = {
    "no average of iterates": _training(ema=0.0),
    "mean of the last tenth, not ema": _part_of_rounds("tail_rounds", 0.1),
    "no decay of the rate": _training(schedule="constant"),
    "warm-up over a tenth": _part_of_rounds("warmup_rounds", 0.1),
    "momentum, not Adam": _training(optimiser="momentum", learning_rate=0.5),
    "second moment without noise": _training(noise_floor=1.0),
    "a quarter of the batch": _scaled("sampling_rate", 0.25),
    "a quarter of the rounds": _part_of_rounds("rounds", 0.25),
    "a quarter of the rounds, twice the rate": lambda plan: _scaled("learning_rate", 2.0)(
        _part_of_rounds("rounds", 0.25)(plan)
    ),
    "features not scaled up": _columns(multiplier=1.0),
    "features linear, not by root": _columns(scale="linear"),
    "targets not scaled up": _plain_targets,
}

Found = dict[str, list[Outcome]]
Split = dict[float, Found]  # by epsilon


def run_split(
    case: Case, seed: int, epsilons: Sequence[float], models: Sequence[str], newcomers: int
) -> tuple[Split, dict[float, Newcomers]]:
    """All models on one split."""
    still: Found = {}
    for name in ("alone", "pooled"):
        if name in models:
            still |= _timed(
                case, seed, name, lambda name=name: run_lab(case, case.plan, name, seed)
            )
    split: Split = {}
    left_out: dict[float, Newcomers] = {}
    for epsilon in epsilons:
        found = dict(still)
        for names, work in _private(case, seed, epsilon, models):
            found |= _timed(case, seed, f"{names} at epsilon {epsilon:g}", work)
        split[epsilon] = found
        if "newcomers" in models:
            task = _task(case, at_epsilon(case.plan, epsilon), "newcomers", seed, newcomers)
            left_out[epsilon] = run_task(task).newcomers
            say(f"{case.name}, split {seed}: newcomers at epsilon {epsilon:g}")
    return split, left_out


def run_lab(case: Case, plan: Plan, model: str, seed: int, own: bool = False) -> Found:
    """Models that the lab itself knows, in this process."""
    return run_task(_task(case, plan, model, seed, personalise=own)).outcomes


def run_ablation(case: Case, seed: int) -> Iterator[tuple[str, Found]]:
    """The plan as it is, then without each of its levers, or with one that it does not use; by
    central DP-SGD at the same noise, whose result is the same and comes sooner."""
    yield "as it is", _central(case, case.plan, seed, "central")
    for label, change in LEVERS.items():
        plan = change(case.plan)
        if plan == case.plan:
            continue  # this table's plan has no such lever
        # What is paid for follows the rounds.
        plan = replace(plan, privacy=replace(plan.privacy, max_attempts=None))
        yield (
            label,
            _timed(case, seed, label, lambda plan=plan: _central(case, plan, seed, "central")),
        )


def at_epsilon(plan: Plan, epsilon: float) -> Plan:
    """The same plan for another price."""
    return replace(plan, privacy=replace(plan.privacy, epsilon=epsilon))


def _private(case: Case, seed: int, epsilon: float, models: Sequence[str]) -> Iterator[Any]:
    """Names and work of the models that cost epsilon."""
    plan = at_epsilon(case.plan, epsilon)
    if {"record", "personalised"} & {*models}:
        own = "personalised" in models

        def record() -> Found:
            found = run_lab(case, plan, "shared", seed, own)
            return {"record": found.pop("shared"), **found}

        yield "record" + " and personalised" * own, record
    if "group" in models and case.families is not None:
        families = at_epsilon(case.families, epsilon)
        yield "group", lambda: {"group": run_lab(case, families, "shared", seed)["shared"]}
    for name in ("trusted", "central", "full_noise"):
        if name in models:
            yield name, lambda name=name: _central(case, plan, seed, name)
    if {"firm", "client_level"} & {*models}:
        tables = _tables(case, plan, seed)
        coarse = firm_plan(plan, len(tables))
        if "firm" in models:
            yield "firm", lambda: {"firm": run_lab(case, coarse, "shared", seed)["shared"]}
        if "client_level" in models:
            yield "client_level", lambda: _client_level(case, coarse, seed)


def _central(case: Case, plan: Plan, seed: int, name: str) -> Found:
    tables = _tables(case, plan, seed)
    terms, firms = _terms(plan, seed), len(tables)
    # Greylag's sum carries the noise of all firms, each a share for those that cannot collude.
    factor = {
        "trusted": 1.0,
        "central": firms / (firms - terms.privacy.max_colluding),
        "full_noise": float(firms),
    }[name]
    noise = terms.privacy.noise_multiplier * sqrt(factor)
    return {name: _judge(tables, train_central(terms, tables, noise, _quiet))}


def _client_level(case: Case, plan: Plan, seed: int) -> Found:
    tables = _tables(case, plan, seed)
    return {"client_level": _judge(tables, train_client_level(_terms(plan, seed), tables, _quiet))}


def _judge(tables: Mapping[str, Table], predictor: Any) -> list[Outcome]:
    return [Outcome.of(firm, table, predictor.predict) for firm, table in tables.items()]


def _tables(case: Case, plan: Plan, seed: int) -> Mapping[str, Table]:
    data = replace(plan.data, split_seed=seed)
    return parse_silos(read_silos(case.csv, case.silo_column), data, min_train=MIN_TRAIN_ROWS)


def _terms(plan: Plan, seed: int) -> Terms:
    plan = replace(plan, data=replace(plan.data, split_seed=seed))
    return settle_terms(plan, consortium="bench", run_id=f"bench-{seed}")


def _task(
    case: Case, plan: Plan, model: str, seed: int, newcomers: int = 0, *, personalise: bool = False
) -> Task:
    return Task(
        model=model,
        seed=seed,
        plan=replace(plan, data=replace(plan.data, split_seed=seed)),
        csv=case.csv,
        silo_column=case.silo_column,
        largest=None,
        masked=False,
        personalise=personalise,
        newcomers=newcomers,
    )


def _timed(case: Case, seed: int, what: str, work: Any) -> Found:
    started_s = time.monotonic()
    found: Found = work()
    say(f"{case.name}, split {seed}: {what}, {time.monotonic() - started_s:.0f} s")
    return found


def _quiet(done: int, total: int) -> None:
    return None
