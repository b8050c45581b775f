"""``greylag-client budget``, ``data`` and ``close``: what was promised, spent and is left."""

import re
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import NAME_PATTERN
from rich.console import Console
from rich.table import Table

from greylag_client.firm import FirmDirectory
from greylag_client.ledger import Ledger, copied_ledger
from greylag_client.policy import read_policy
from greylag_client.terminal import Directory, Format, say

if TYPE_CHECKING:  # these bring polars and torch, or the accountants
    from greylag_client.data_files import FirmData
    from greylag_client.spending import Account

NamedFile = tuple[str, Path]
BAR_CELLS = 30


def budget(directory: Directory, output: Format = "text") -> None:
    """What was promised and spent of this firm's privacy budget, by data set and run.
    查看预算：各数据集的上限、已预留、已花费和剩余。"""
    from greylag_client.spending import accounts_of

    firm = FirmDirectory.open(directory)
    policy = read_policy(firm.policy_path)
    with copied_ledger(firm.ledger_path) as ledger:  # also from a disk that cannot be written
        opened = [item.name for item in ledger.datasets.opened()]
        accounts = accounts_of(ledger, policy, opened, now_s=time.time())
        facts = {"entries": ledger.tip().seq, "datasets": [_facts(item) for item in accounts]}
    say(facts, "\n\n".join(_describe(item) for item in accounts), output)


def close(
    directory: Directory,
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="the run, as `budget` lists it")],
    output: Format = "text",
) -> None:
    """Leave a run for ever, whatever the lead says. What was charged stays spent; a reservation
    that nothing was charged against is free again."""
    from greylag_client.closing import close_run
    from greylag_client.identity import identity_of

    firm = FirmDirectory.open(directory)
    account = close_run(Ledger(firm.ledger_path), identity_of(firm), run_id)
    facts = {"run": run_id, "charged": account.charged, "epsilon": account.epsilon}
    kept = f"epsilon {account.epsilon:g} stays spent" if account.spent else "nothing was spent"
    say(facts, f"{run_id} is closed here for ever; {kept}", output)


def data(
    directory: Directory,
    opening: Annotated[
        NamedFile | None,
        typer.Option("--open", metavar="NAME FILE", help="new rows get a budget of their own"),
    ] = None,
    standard: Annotated[
        str, typer.Option(help="with --open: only for plans of this data standard")
    ] = "",
    moving: Annotated[
        NamedFile | None,
        typer.Option("--move", metavar="NAME FILE", help="the data set lies in another file now"),
    ] = None,
    overlapping: Annotated[
        bool, typer.Option("--overlapping", help="with --open: even if it shares rows with others")
    ] = False,
    output: Format = "text",
) -> None:
    """The firm's data sets. Each has a budget of its own, which stays with its rows: a run that
    reads a row is charged to every data set that ever held it.
    数据集：各有预算；新数据可开设新的数据集。"""
    from greylag_client.data_files import FirmData

    firm = FirmDirectory.open(directory)
    ledger = Ledger(firm.ledger_path, copied=opening is None and moving is None)
    files = FirmData.of(firm, ledger)
    notes = []
    if opening is not None:
        notes = _open(files, ledger, opening, standard, overlapping)
    if moving is not None:
        ledger.datasets.move(moving[0], str(_existing(moving[1])))
    known = files.datasets()
    facts = {"datasets": [asdict(item) for item in known], "notes": notes}
    lines = [
        f"{item.name}: {item.path}" + (f" (for {item.standard})" if item.standard else "")
        for item in known
    ]
    say(facts, "\n".join([*notes, *(lines or ["no data set yet"])]), output)


def _open(
    files: "FirmData", ledger: Ledger, named: NamedFile, standard: str, overlapping: bool
) -> list[str]:
    """Open a data set; what it shares with others is told, and refused unless it is meant."""
    from greylag_client.datasets import Dataset

    name, path = named[0], _existing(named[1])
    if not re.fullmatch(NAME_PATTERN.removesuffix("$"), name):
        raise ConfigError(
            f"{name!r} cannot name a data set; use 1 to 40 lower-case letters, digits and hyphens"
        )
    shared = files.shared_rows(path, without=name)
    notes = [
        f"{count} rows of {path.name} are known from data set {other!r}"
        for other, count in sorted(shared.items())
    ]
    if notes and not overlapping:
        raise ConfigError(
            "; ".join(notes) + ". What was spent of those counts for the new data set as well. "
            "Take these rows out, or say --overlapping; nothing was opened"
        )
    ledger.datasets.open(
        Dataset(name=name, path=str(path), standard=standard, opened_s=int(time.time()))
    )
    return notes


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; name the data set's file")
    return path.resolve()


def _facts(account: "Account") -> dict[str, Any]:
    """For programs."""
    limits = account.limits
    return {
        "name": account.name,
        "limit": limits.lifetime_epsilon,
        "spent": account.spent,
        "reserved": account.reserved,
        "left": account.left,
        "yearly_limit": limits.yearly_epsilon,
        "yearly_held": account.yearly,
        "delta_limit": limits.lifetime_delta,
        "delta_spent": account.delta_spent,
        "delta_held": account.delta_held,
        "odds_spent": account.odds_spent,
        "odds_held": account.odds_held,
        "shares_with": list(account.shares_with),
        "runs": [asdict(line) | {"state": line.state} for line in account.runs],
    }


def _describe(account: "Account") -> str:
    """For people."""
    limit = account.limits.lifetime_epsilon
    lines = [
        f"data set {account.name}: lifetime epsilon {limit:g}",
        f"  {bar(account.spent, account.held, limit)} spent {account.spent:g}, "
        f"reserved {account.reserved:g}, left {account.left:g}",
    ]
    if account.limits.yearly_epsilon is not None:
        lines.append(
            f"  of the last 365 days: {account.yearly:g} of {account.limits.yearly_epsilon:g}"
        )
    if account.shares_with:
        lines.append(f"  shares rows or groups with: {', '.join(account.shares_with)}")
    if not account.runs:
        return "\n".join([*lines, "  no runs yet"])
    lines.append(
        "  in odds: somebody who knows everything but whether one given record (group, firm) took "
        "part\n  is right at most "
        f"{account.odds_spent:.0f} times in 100 after what was spent"
        + (f", {account.odds_held:.0f} once all is used" if account.reserved else "")
        + "; a coin is right 50 times"
    )
    table = Table(show_edge=False, box=None, padding=(0, 2))
    for column in ("run", "since", "unit", "epsilon", "delta", "releases", "state"):
        table.add_column(column, overflow="fold")
    for line in account.runs:
        since = datetime.fromtimestamp(line.accepted_s, UTC).strftime("%Y-%m-%d")
        releases = f"{line.charged} of {line.max_attempts}"
        amounts = (f"{line.epsilon:g}", f"{line.delta:g}")
        table.add_row(line.run, since, line.unit, *amounts, releases, line.state)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    return "\n".join([*lines, capture.get().rstrip()])


def bar(spent: float, held: float, limit: float) -> str:
    """Spent, reserved and left as a bar of blocks."""
    full = round(BAR_CELLS * min(1.0, spent / limit))
    half = round(BAR_CELLS * min(1.0, held / limit)) - full
    return "█" * full + "▒" * half + "·" * (BAR_CELLS - full - half)
