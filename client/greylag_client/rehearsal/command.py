"""``greylag-client try``: a rehearsal before consent; nothing is reserved and nothing is sent."""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from greylag_protocols.errors import BudgetExceededError, ConfigError
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from greylag_client.datasets import Content
from greylag_client.firm import FirmDirectory

if TYPE_CHECKING:  # these bring polars, torch and scikit-learn
    import polars as pl
    from greylag_protocols.terms import Terms

    from greylag_client.rehearsal.cost import Bill
    from greylag_client.rehearsal.curves import Progress as Report
    from greylag_client.table import Table

QUICK, THOROUGH = (2, 1024), (6, 8192)  # repetitions, units that enter a played round


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The firm's rows, whoever they come from, and what its own ledger and policy say."""

    table: "Table"
    columns: tuple[str, ...]
    bill: "Bill | None"
    member: str | None
    quality: tuple[str, ...]


def try_plan(
    plan: Annotated[
        Path, typer.Argument(help="a plan (TOML), or terms as a lead sends them (JSON)")
    ],
    directory: Annotated[
        Path | None, typer.Option("--dir", "-d", help="the firm's directory: its data, its budget")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="a CSV file, where there is no --dir")] = None,
    firms: Annotated[
        int | None, typer.Option(min=3, help="how many take part; else the latest member list")
    ] = None,
    thorough: Annotated[bool, typer.Option("--thorough", help="repeat more; minutes")] = False,
    output: Annotated[str, typer.Option("--format", help="text or json")] = "text",
) -> None:
    """Rehearse a plan on this firm's own data, before consent: what it would cost, whether it would
    probably help, who would see what, and what it asks of this machine. Nothing is reserved,
    nothing is sent. 同意之前先在本机试算：花费、可能的收益、谁能看到什么。不预留、不发送。

    Exit code 1: this firm's own policy or budget would refuse."""
    from greylag_client.rehearsal.cost import cost_of
    from greylag_client.rehearsal.curves import measure, too_little
    from greylag_client.rehearsal.effort import effort_of
    from greylag_client.rehearsal.gain import judge, pooled_rows_of
    from greylag_client.rehearsal.report import Rehearsal, as_document, as_text
    from greylag_client.rehearsal.rounds import Crowd
    from greylag_client.rehearsal.sight import sight_of
    from greylag_client.terminal import check_format, say

    check_format(output)
    if (directory is None) == (data is None):
        raise ConfigError("name the firm's directory with --dir, or a table with --data; not both")
    firm = FirmDirectory.open(directory) if directory is not None else None
    terms = _read_terms(plan, firm)
    count = _firms(firms, firm, terms)
    rows = _rows_of_firm(firm, terms) if firm is not None else _rows_of_file(data, terms)
    table, why = rows.table, too_little(rows.table)
    sight = sight_of(terms, firms=count, columns=rows.columns, member=rows.member)
    cost = cost_of(
        terms, firms=count, largest_group=table.largest_group if terms.data.group else None
    )
    effort = effort_of(terms, table.records(table.train), firms=count)
    gain = None
    if not why:
        repetitions, most = THOROUGH if thorough else QUICK
        with _bar("learning curve and played rounds") as progress:
            measured = measure(
                terms,
                table,
                Crowd(firms=count, most_units=most),
                repetitions=repetitions,
                progress=progress,
            )
        pooled = pooled_rows_of(terms, own_rows=len(table.train), firms=count)
        gain = judge(measured, terms, pooled_rows=pooled)
    rehearsal = Rehearsal(
        terms=terms,
        firms=count,
        rows=len(table),
        cost=cost,
        bill=rows.bill,
        gain=gain,
        too_little=why,
        sight=sight,
        effort=effort,
        quality=rows.quality,
    )
    say(as_document(rehearsal), as_text(rehearsal), output)
    if rows.bill is not None and rows.bill.refused:
        sys.exit(1)


def _read_terms(path: Path, firm: FirmDirectory | None) -> "Terms":
    from greylag_protocols.plan import parse_plan, parse_terms, settle_terms

    from greylag_client.terminal import read_text

    text = read_text(path)
    if text.lstrip().startswith("{"):
        return parse_terms(text.encode())
    plan = parse_plan(text)
    consortium = firm.settings.consortium if firm is not None else "rehearsal-00000000"
    return settle_terms(plan, consortium=consortium, run_id=f"{plan.run.name[:28]}-rehearsal")


def _firms(wanted: int | None, firm: FirmDirectory | None, terms: "Terms") -> int:
    if wanted is not None:
        return wanted
    listed = len(firm.memberships.latest().members) if firm is not None else 0
    return max(listed, terms.privacy.min_firms)


def _rows_of_file(path: Path | None, terms: "Terms") -> Rows:
    from greylag_client.table import parse_table, read_cells

    cells = read_cells(path or Path())
    table = parse_table(cells, terms.data, what=(path or Path()).name)
    return Rows(
        table=table,
        columns=tuple(cells.columns),
        bill=None,
        member=None,
        quality=(_verdict(cells, table),),
    )


def _rows_of_firm(firm: FirmDirectory, terms: "Terms") -> Rows:
    """The data sets that the agent would take for these terms, and what its ledger would say."""
    from greylag_client.data_files import FirmData
    from greylag_client.ledger import copied_ledger
    from greylag_client.policy import read_policy
    from greylag_client.rehearsal.cost import bill_of
    from greylag_client.table import parse_table, read_cells

    policy, now = read_policy(firm.policy_path), datetime.now().astimezone()
    with copied_ledger(firm.ledger_path) as ledger, tempfile.TemporaryDirectory() as scratch:
        # A key for the marks is made where there is none yet: not at the firm, in a rehearsal.
        keys = firm.keys if (firm.keys / "data.key").exists() else Path(scratch)
        files = FirmData(keys, firm.data_path, ledger)
        names = files.fitting(terms)
        refused: tuple[str, ...] = ()
        try:
            names = ledger.affordable(names, terms, policy=policy, now_s=now.timestamp())
        except BudgetExceededError as error:
            refused = (str(error),)
        paths = {item.name: Path(item.path) for item in files.datasets() if item.name in names}
        table, contents = files.read(paths, terms.data)
        reserved: Mapping[str, Content] = {} if refused else contents
        bill = bill_of(terms, policy, ledger, reserved, refused=refused, now=now)
    columns, quality = dict[str, None](), []
    for name, path in paths.items():
        cells = read_cells(path)
        columns |= dict.fromkeys(cells.columns)
        quality.append(f"{name}: {_verdict(cells, parse_table(cells, terms.data, what=name))}")
    return Rows(
        table=table,
        columns=tuple(columns),
        bill=bill,
        member=firm.settings.firm,
        quality=tuple(quality),
    )


def _verdict(cells: "pl.DataFrame", table: "Table") -> str:
    """What ``check`` would say, in one line."""
    from greylag_client.quality.checks import examine
    from greylag_client.quality.scores import score

    scores = score(examine(cells, table.data, table))
    parts = ", ".join(f"{item.dimension} {item.value:g}" for item in scores)
    return f"{len(table)} rows fit the plan; {parts} (of 100; `greylag-client check` says more)"


@contextmanager
def _bar(what: str) -> "Iterator[Report]":
    """A bar on stderr, shown once it is clear that there is something to wait for."""
    from rich.console import Console

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what)
        yield lambda done, total: progress.update(task, completed=done, total=total)
