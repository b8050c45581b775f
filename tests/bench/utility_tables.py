"""The tables that utility is measured on: where they come from, their plans and their firms."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from greylag_lab.plastics import make_firms
from greylag_protocols.plan import parse_plan
from greylag_protocols.terms import Plan

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
DATA = ROOT / ".." / "shared" / "data"
PLASTICS = ROOT / "deploy" / "greylag_lab" / "plastics.toml"
NAMES = ("digits", "glass", "ai4i", "diamonds", "flights", "lead")
SMALL_FIRMS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One table.

    Attributes:
        plan: for unit = "record".
        families: for unit = "group", where rows have groups that mean something.
        metric: the estimate to compare by, as the lab's scores name it.
        lead: whether the first firm is a lead, to be reported apart.
    """

    name: str
    csv: Path
    silo_column: str
    plan: Plan
    metric: str
    families: Plan | None = None
    lead: bool = False


def make_case(name: str, given: Mapping[str, Path], place: Path) -> Case | str:
    """The table ``name``, or why it is left out.

    Args:
        given: paths of tables that are not made here.
        place: where those that are made go.
    """
    plan = _plan(PLASTICS if name == "lead" else EXAMPLES / f"{name}.toml")
    made = place / f"{name}.csv"
    if name == "digits":
        _write_digits(made)
        return Case(name=name, csv=made, silo_column="firm", plan=plan, metric="accuracy")
    if name == "lead":
        _write_lead(made)
        return Case(
            name=name, csv=made, silo_column="firm", plan=_lead_plan(plan),
            metric="rmse / range", lead=True,
        )  # fmt: skip
    stored = {"glass": DATA / "glass_tg_by_firm.csv.gz", "ai4i": DATA / "ai4i2020.csv"}
    path = given.get(name, stored.get(name))
    if path is None or not path.exists():
        return f"no table: give --csv {name}=FILE (docs/examples/{name}.toml says how to make it)"
    if name == "ai4i":
        _write_hashed(path, made)
        return Case(name=name, csv=made, silo_column="firm", plan=plan, metric="average precision")
    if name == "glass":
        families = _plan(EXAMPLES / "glass-families.toml")
        return Case(
            name=name, csv=path, silo_column="firm", plan=plan, families=families,
            metric="rmse tg_k",
        )  # fmt: skip
    column, metric = {
        "diamonds": ("clarity", "rmse price"),
        "flights": ("carrier", "rmse / range"),
    }[name]
    return Case(name=name, csv=path, silo_column=column, plan=plan, metric=metric)


def firm_plan(plan: Plan, firms: int) -> Plan:
    """The same table and model with everything that a firm holds as the unit: few rounds, in each
    of which a firm trains by itself. Constants were not tuned."""
    return replace(
        plan,
        data=replace(plan.data, expected_firms=firms),
        privacy=replace(plan.privacy, unit="firm", max_attempts=22, clip_norm=1.0),
        training=replace(
            plan.training, rounds=20, sampling_rate=1.0, optimiser="momentum", momentum=0.0,
            learning_rate=1.0, schedule="linear", ema=0.8, local_epochs=5, local_batches=4,
            local_learning_rate=0.05,
        ),
    )  # fmt: skip


def _plan(path: Path) -> Plan:
    return parse_plan(path.read_text(encoding="utf-8"))


def _write_digits(path: Path) -> None:
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    table = pl.DataFrame(pixels.astype(int), schema=[f"p{at}" for at in range(64)], orient="row")
    table.with_columns(digit=digit, firm=pl.int_range(pl.len()) % 20).write_csv(path)


def _write_hashed(source: Path, path: Path) -> None:
    table = pl.read_csv(source, infer_schema=False)
    firm = [hashlib.sha256(row.encode()).digest()[0] % 20 for row in table["udi"]]
    table.with_columns(firm=pl.Series(firm)).write_csv(path)


def _write_lead(path: Path) -> None:
    """A lead of 4,000 training rows and 60 firms of 20 to 200, a quarter more being held out."""
    train = np.random.default_rng(0).integers(21, 201, size=SMALL_FIRMS)
    rows = [4000 * 4 // 3, *(int(count) * 4 // 3 for count in train)]
    firms = make_firms(1 + SMALL_FIRMS, rows=rows)
    frames = [table.with_columns(firm=pl.lit(name)) for name, table in firms.items()]
    pl.concat(frames).write_csv(path)


def _lead_plan(plan: Plan) -> Plan:
    """The demo's plan for so many more firms and rows; public numbers alone."""
    return replace(
        plan,
        data=replace(plan.data, expected_records=10_600, max_records_per_firm=6_000),
        privacy=replace(plan.privacy, max_colluding=12, min_firms=30),
    )
