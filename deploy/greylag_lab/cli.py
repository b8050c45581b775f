"""``greylag-lab``: a whole consortium on one machine."""

import logging
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from greylag_protocols.errors import ConfigError, GreylagError
from greylag_protocols.plan import parse_plan
from greylag_protocols.terms import Plan
from rich.console import Console
from rich.markup import escape

from greylag_lab.probe.command import probe

app = typer.Typer(
    help="Try greylag on one machine: a real consortium of processes, or a fast simulation with "
    "baselines. 在一台机器上试用：真实进程的联合体演示，或带基线的快速仿真。",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True)
app.command()(probe)


@app.command()
def demo(
    firms: Annotated[int, typer.Option(help="number of firms", min=3, max=64)] = 8,
    csv: Annotated[Path | None, typer.Option(help="a table of all firms; else one is made")] = None,
    silo_column: Annotated[str | None, typer.Option(help="whose a row is")] = None,
    plan: Annotated[Path | None, typer.Option(help="the plan for --csv")] = None,
    workdir: Annotated[Path | None, typer.Option(help="a new directory for all files")] = None,
) -> None:
    """Run a consortium of separate processes: mutual TLS, masks, noise, budgets, a release.

    JSON on stdout, everything for people on stderr.
    """
    from greylag_lab.demo import PLASTICS_PLAN, prepare_tables, run_demo
    from greylag_lab.report import describe, to_json

    if csv is not None and plan is None:
        raise ConfigError("--csv needs --plan: which columns are features and targets")
    place = _make_workdir(workdir)
    tables = prepare_tables(place, firms=firms, csv=csv, silo_column=silo_column)
    facts, scores = run_demo(plan or PLASTICS_PLAN, tables, place, console=errors)
    won, of = facts["together_beats_alone"]["firms"], facts["together_beats_alone"]["of"]
    errors.print(describe(facts, scores), highlight=False)
    errors.print(
        f"\ntogether beats alone at {won} of {of} firms. Look around in {place}:\n"
        "  release/card.md        what the model is and what is promised\n"
        "  predictions.csv        the lead's own rows, predicted\n"
        "  firms/*/ledger.sqlite  what each firm spent (greylag-client budget firms/NAME)\n"
        "  lead/log.sqlite        the lead's log: receipts, rounds, release\n",
        highlight=False,
    )
    print(to_json(facts))


@app.command()
def simulate(
    plan: Annotated[Path, typer.Argument(help="the plan, TOML")],
    csv: Annotated[Path, typer.Option(help="a table of all firms")],
    silo_column: Annotated[str, typer.Option(help="whose a row is")],
    baselines: Annotated[bool, typer.Option("--baselines", help="alone and pooled too")] = False,
    personalise: Annotated[
        bool, typer.Option("--personalise", help="each firm's own version too")
    ] = False,
    newcomers: Annotated[
        int, typer.Option(help="firms to leave out and help afterwards; another run", min=0)
    ] = 0,
    masked: Annotated[bool, typer.Option("--masked", help="with real masks (slower)")] = False,
    seeds: Annotated[int, typer.Option(help="number of split seeds", min=1, max=100)] = 1,
    firms: Annotated[int | None, typer.Option(help="only the largest firms")] = None,
) -> None:
    """Train in one process and compare: real coordinator, firms, budgets and noise; masks, which
    cancel in the sum, only with --masked. JSON on stdout."""
    from greylag_lab.report import describe, to_json
    from greylag_lab.study import study

    facts, scores = study(
        _read_plan(plan),
        csv=csv,
        silo_column=silo_column,
        largest=firms,
        seeds=seeds,
        baselines=baselines,
        personalise=personalise,
        newcomers=newcomers,
        masked=masked,
        console=errors,
    )
    errors.print(describe(facts, scores if seeds == 1 else None), highlight=False)
    print(to_json(facts))


def _read_plan(path: Path) -> Plan:
    try:
        return parse_plan(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None


def _make_workdir(workdir: Path | None) -> Path:
    if workdir is None:
        base = Path("greylag-demo")
        base.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="run-", dir=base))
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise ConfigError(f"{workdir} is not an empty directory; name a new one")
    workdir.mkdir(parents=True, exist_ok=True)
    return workdir


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        app()
    except GreylagError as error:
        errors.print(f"[bold red]error[/]: {escape(str(error))}", highlight=False)
        sys.exit(error.exit_code)
