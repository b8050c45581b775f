"""`simulate`: one plan on several split seeds, with baselines, on both cores."""

import logging
import multiprocessing
import queue
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from greylag_client.prediction import Predictor
from greylag_client.table import Table
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import Plan
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from threadpoolctl import threadpool_limits

from greylag_lab.metrics import MIN_TRAIN_ROWS, Outcome, Scores, clearly_worse, score
from greylag_lab.report import gap_closed, mean_metrics, run_facts
from greylag_lab.silos import parse_silos, read_silos
from greylag_lab.simulation import simulate

WORKERS = 2

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One model on one split."""

    model: str  # shared | alone | pooled | newcomers
    seed: int
    plan: Plan
    csv: Path
    silo_column: str
    largest: int | None
    masked: bool
    personalise: bool = False
    newcomers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a task's models said of held-out rows; for the shared model also what the run was."""

    model: str
    seed: int
    outcomes: dict[str, list[Outcome]]
    firms: int
    run: dict[str, Any] = field(default_factory=dict)
    newcomers: Any = None


_reports: Any = None


def _start_worker(reports: Any) -> None:
    global _reports
    _reports = reports
    threadpool_limits(1)  # the workers share the cores already
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")


def run_task(task: Task) -> Result:
    """Do one task, in a worker process."""
    name = f"{task.model}, split {task.seed}"

    def progress(done: int, total: int) -> None:
        if _reports is not None:
            _reports.put((name, done, total))

    progress(0, 1)
    silos = read_silos(task.csv, task.silo_column, largest=task.largest)
    tables = parse_silos(silos, task.plan.data, min_train=MIN_TRAIN_ROWS)
    if len(tables) < task.plan.privacy.min_firms:
        raise ConfigError(
            f"{len(tables)} firms have at least {MIN_TRAIN_ROWS} training rows; the plan's "
            f"min_firms is {task.plan.privacy.min_firms}"
        )
    if task.model == "newcomers":
        return _run_newcomers(task, tables, progress)
    data, model, run = task.plan.data, task.plan.model, {}
    found: dict[str, list[Outcome]] = {}
    if task.model == "shared":
        simulated = simulate(task.plan, tables, masked=task.masked, progress=progress)
        predictor = simulated.predictor()
        outcomes = [Outcome.of(firm, table, predictor.predict) for firm, table in tables.items()]
        if task.personalise:
            found["personalised"] = _personalise(predictor, tables, task.seed, progress)
        run = run_facts(
            simulated.terms,
            firms=len(tables),
            rounds=simulated.state.rounds_done,
            attempts=simulated.attempts,
        )
        run |= {"log_size": simulated.log_size, "run_wall_s": simulated.wall_s}
    else:
        from greylag_lab.baselines import fit_alone, fit_pooled

        if task.model == "pooled":
            pooled = fit_pooled(list(tables.values()), data, model, task.seed)
            outcomes = [Outcome.of(firm, table, pooled) for firm, table in tables.items()]
        else:
            outcomes = []
            for done, (firm, table) in enumerate(tables.items()):
                progress(done, len(tables))
                outcomes.append(Outcome.of(firm, table, fit_alone(table, data, model, task.seed)))
    progress(1, 1)
    found[task.model] = outcomes
    return Result(model=task.model, seed=task.seed, outcomes=found, firms=len(tables), run=run)


def _personalise(
    shared: Predictor, tables: Mapping[str, Table], seed: int, progress: Report
) -> list[Outcome]:
    """Every firm's own version on its held-out rows."""
    from greylag_client.personal.fitting import fit_personal

    outcomes = []
    for done, (firm, table) in enumerate(tables.items()):
        progress(done, len(tables))
        fitted = fit_personal(shared.terms, shared.layers, table, seed=seed)
        activation = shared.terms.model.activation
        predict = partial(fitted.blend.predict, shared.terms.data, activation)
        outcomes.append(Outcome.of(firm, table, predict))
    return outcomes


def _run_newcomers(task: Task, tables: Mapping[str, Table], progress: Report) -> Result:
    from greylag_lab.newcomers import choose_newcomers, judge_newcomers

    out = choose_newcomers(tables, task.newcomers, task.seed)
    inside = {name: table for name, table in tables.items() if name not in out}
    simulated = simulate(task.plan, inside, masked=task.masked, progress=progress)
    outside = {name: tables[name] for name in out}
    judged = judge_newcomers(simulated.predictor(), outside, task.seed, progress)
    progress(1, 1)
    return Result(
        model="newcomers", seed=task.seed, outcomes={}, firms=len(inside), newcomers=judged
    )


def study(
    plan: Plan,
    *,
    csv: Path,
    silo_column: str,
    largest: int | None,
    seeds: int,
    baselines: bool,
    personalise: bool,
    newcomers: int,
    masked: bool,
    console: Console,
) -> tuple[dict[str, Any], dict[str, Scores]]:
    """Simulate ``plan`` on ``seeds`` splits: the JSON document, and the first split's scores."""
    started_s = time.monotonic()
    models = ["shared", *(["alone", "pooled"] if baselines else [])]
    tasks_of = [*models, *(["newcomers"] if newcomers else [])]
    first = plan.data.split_seed
    tasks = [
        Task(
            model=model,
            seed=seed,
            plan=replace(plan, data=replace(plan.data, split_seed=seed)),
            csv=csv,
            silo_column=silo_column,
            largest=largest,
            masked=masked,
            personalise=personalise,
            newcomers=newcomers,
        )
        for seed in range(first, first + seeds)
        for model in tasks_of
    ]
    results = _run_all(tasks, console)
    outcomes = [
        {name: found for model in models for name, found in results[model, seed].outcomes.items()}
        for seed in range(first, first + seeds)
    ]
    by_seed = [
        {name: score(plan.data, found) for name, found in split.items()} for split in outcomes
    ]
    metrics = mean_metrics(by_seed)
    shared = results["shared", first]
    facts = {
        **shared.run,
        "metrics": metrics,
        "gap_closed": gap_closed(metrics),
        "gap_closed_personalised": gap_closed(metrics, "personalised"),
        "personalised_worse": _worse(plan, outcomes) if personalise else None,
        "newcomers": None,
        "splits": [
            {
                "split_seed": seed,
                "firms": results["shared", seed].firms,
                "run_wall_s": results["shared", seed].run["run_wall_s"],
                **{model: scores.headline.value for model, scores in scored.items()},
            }
            for seed, scored in zip(range(first, first + seeds), by_seed, strict=True)
        ],
        "masked": masked,
        "audit": "chain_only",
        "wall_s": time.monotonic() - started_s,
        "workdir": None,
    }
    facts.pop("run_wall_s")
    if newcomers:
        from greylag_lab.newcomers import newcomer_facts

        judged = [results["newcomers", seed].newcomers for seed in range(first, first + seeds)]
        facts["newcomers"] = newcomer_facts(plan.data, judged)
    return facts, by_seed[0]


def _worse(plan: Plan, splits: list[dict[str, list[Outcome]]]) -> dict[str, list[str]]:
    """Firms whose own version is worse than another model beyond noise, as seed/firm."""
    return {
        other: [
            f"{plan.data.split_seed + number}/{firm}"
            for number, split in enumerate(splits)
            for firm in clearly_worse(plan.data, split["personalised"], split[other])
        ]
        for other in ("shared", "alone")
        if other in splits[0]
    }


def _run_all(tasks: list[Task], console: Console) -> dict[tuple[str, int], Result]:
    """All tasks on a few worker processes, with a bar for each that is under way."""
    spawn = multiprocessing.get_context("spawn")
    reports = spawn.Manager().Queue()
    with (
        ProcessPoolExecutor(
            min(WORKERS, len(tasks)), spawn, initializer=_start_worker, initargs=(reports,)
        ) as pool,
        _bars(reports, console) as update,
    ):
        waiting: set[Future[Result]] = {pool.submit(run_task, task) for task in tasks}
        results = {}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                update()
                for future in done:
                    result = future.result()
                    results[result.model, result.seed] = result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


@contextmanager
def _bars(reports: Any, console: Console) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bars: dict[str, Any] = {}

        def update() -> None:
            while True:
                try:
                    name, done, total = reports.get_nowait()
                except queue.Empty:
                    return
                if name not in bars:
                    bars[name] = progress.add_task(name, total=total)
                progress.update(bars[name], completed=done, total=total)

        yield update
