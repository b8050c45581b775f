"""`demo`: a consortium of real processes on this machine, driven by the commands that people type.

The driver plays everybody: the lead's operator, and each firm's engineer and security officer.
Every step is a call of ``greylag-server`` or ``greylag-client``; the agents and the server are
processes of their own with their own keys, ledgers and logs below the work directory. At the end
the driver reads the firms' tables to compare models; no firm ever sends such a figure.
"""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from greylag_client.prediction import Predictor
from greylag_client.table import Table, load_table
from greylag_protocols.errors import ConfigError, GreylagError
from greylag_protocols.plan import parse_plan
from greylag_protocols.terms import Plan
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from greylag_lab.baselines import fit_alone
from greylag_lab.metrics import Outcome, Scores, score
from greylag_lab.plastics import write_firms
from greylag_lab.processes import background, call, call_json, free_ports, wait_for_port
from greylag_lab.report import run_facts
from greylag_lab.silos import read_silos, write_silos

PLASTICS_PLAN = Path(__file__).parent / "plastics.toml"
PARALLEL = 4
DEMO_SEED = 100  # one market out of many; together wins at 7.4 of 8 firms on average over 100-109


def prepare_tables(
    workdir: Path, *, firms: int, csv: Path | None, silo_column: str | None
) -> dict[str, Path]:
    """One CSV per firm, the lead's own first: made up, or dealt from ``csv``."""
    tables = workdir / "tables"
    if csv is None:
        return write_firms(tables, firms, DEMO_SEED)
    if silo_column is None:
        raise ConfigError("--csv needs --silo-column: the column that says whose a row is")
    return write_silos(read_silos(csv, silo_column, largest=firms), tables)


def run_demo(
    plan_path: Path, tables: Mapping[str, Path], workdir: Path, *, console: Console
) -> tuple[dict[str, Any], dict[str, Scores]]:
    """Found, invite, join, train, release, compare. Returns the JSON document and the scores.

    Raises:
        ConfigError: the plan or a table is at fault.
        GreylagError: a process failed; its log is named.
    """
    started_s = time.monotonic()
    plan = parse_plan(plan_path.read_text(encoding="utf-8"))
    loaded = {name: load_table(path, plan.data) for name, path in tables.items()}
    if len(tables) < plan.privacy.min_firms:
        raise ConfigError(
            f"{len(tables)} firms are fewer than the plan's min_firms = {plan.privacy.min_firms}"
        )
    lead = workdir / "lead"
    with ExitStack() as stack:
        digest = _found(lead, tables, workdir, stack, console)
        with _step(console, f"starting {len(tables)} agents"):
            for name in tables:
                command = ["run", str(workdir / "firms" / name), "--approve-members", digest]
                stack.enter_context(background("greylag-client", command, workdir / f"{name}.log"))
        train = ["train", str(plan_path), "--dir", str(lead), "--format", "json"]
        ended = call_json("greylag-server", train, show_progress=True)
        if ended["status"] != "done":
            raise GreylagError(f"the run ended early: {ended['reason']}; see {workdir}/*.log")
        with _step(console, "releasing: audit, replay, cosignatures; a firm verifies"):
            release = ["release", ended["run"], "--dir", str(lead), "--format", "json"]
            call_json("greylag-server", [*release, "--out", str(workdir / "release")])
            _predict_own(tables, workdir)
        with _step(console, "auditing, as a stranger would"):
            audit = _audit(lead, ended["run"], list(tables)[-1], workdir)
    with _step(console, "comparing with each firm alone"):
        scores = _compare(plan, loaded, workdir / "release")
    won, of = scores["shared"].wins_over(scores["alone"])
    predictor = Predictor.load(workdir / "release")
    facts = {
        **run_facts(
            predictor.terms,
            firms=len(tables),
            rounds=ended["rounds"],
            attempts=ended["attempts"],
        ),
        "metrics": {name: item.headline.to_json() for name, item in scores.items()},
        "together_beats_alone": {"firms": won, "of": of},
        "masked": True,
        "log_size": call_json("greylag-server", ["status", "--dir", str(lead), "--format", "json"])[
            "log_size"
        ],
        "audit": audit,
        "wall_s": time.monotonic() - started_s,
        "workdir": str(workdir),
    }
    return facts, scores


def _found(
    lead: Path, tables: Mapping[str, Path], workdir: Path, stack: ExitStack, console: Console
) -> str:
    """Found the consortium, start the server, let all firms join; the membership's digest."""
    port, enrol_port = free_ports(2)
    with _step(console, "founding the consortium"):
        init = ["init", str(lead), "--name", "demo", "--operator", next(iter(tables))]
        ports = ["--host", "localhost", "--port", str(port), "--enrol-port", str(enrol_port)]
        call_json("greylag-server", [*init, *ports, "--format", "json"])
        serve = ["serve", "--dir", str(lead), "--offer-wait-s", "90"]
        stack.enter_context(background("greylag-server", serve, workdir / "server.log"))
        wait_for_port(enrol_port, workdir / "server.log")

    def enrol(name: str) -> None:
        invite = ["invite", name, "--dir", str(lead), "--format", "json"]
        text = call_json("greylag-server", invite)["invite"]
        join = ["join", text, "--dir", str(workdir / "firms" / name)]
        data = ["--data", str(tables[name]), "--format", "json"]
        call_json("greylag-client", [*join, *data])

    with _step(console, f"inviting {len(tables)} firms; each makes its keys and joins"):
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(enrol, tables))
        status = ["status", "--dir", str(lead), "--format", "json"]
        return str(call_json("greylag-server", status)["membership"])


def _predict_own(tables: Mapping[str, Path], workdir: Path) -> None:
    """A supplier verifies the release; the lead's engineer uses the model on the own table."""
    name, table = next(iter(tables.items()))
    release, out = str(workdir / "release"), workdir / "predictions.csv"
    supplier = ["--dir", str(workdir / "firms" / list(tables)[-1])]
    call_json("greylag-client", ["verify-release", release, *supplier, "--format", "json"])
    own = ["--dir", str(workdir / "firms" / name)]
    call("greylag-client", ["predict", release, str(table), "-o", str(out), *own])


def _audit(lead: Path, run: str, firm: str, workdir: Path) -> dict[str, Any]:
    """The lead writes a bundle, a firm the keys that it approved, and the auditor decides.

    Raises:
        GreylagError: a promise is broken; ``greylag-audit verify`` on the bundle says which.
    """
    bundle, trust = workdir / "bundle", workdir / "trust.json"
    arguments = ["bundle", run, str(bundle), "--release", str(workdir / "release")]
    call_json("greylag-server", [*arguments, "--dir", str(lead), "--format", "json"])
    export = ["export-trust", str(workdir / "firms" / firm), "--out", str(trust)]
    call_json("greylag-client", [*export, "--format", "json"])
    verify = ["verify", str(bundle), "--trust", str(trust), "--format", "json"]
    verdict = call_json("greylag-audit", verify)
    replayed = call_json("greylag-audit", ["replay", str(bundle), "--format", "json"])
    states = {item["check"]: item["state"] for item in verdict["findings"]}
    return {
        "holds": verdict["holds"],
        "entries": verdict["size"],
        "countersigned": states["log.quorum"] == "holds",
        "replayed": replayed["holds"],
    }


def _compare(plan: Plan, tables: Mapping[str, Table], release: Path) -> dict[str, Scores]:
    shared = Predictor.load(release)
    outcomes: dict[str, list[Outcome]] = {"shared": [], "alone": []}
    with threadpool_limits(1):  # on small tables OpenMP's threads mostly wait for one another
        for firm, table in tables.items():
            alone = fit_alone(table, plan.data, plan.model, seed=0)
            outcomes["shared"].append(Outcome.of(firm, table, shared.predict))
            outcomes["alone"].append(Outcome.of(firm, table, alone))
    return {name: score(plan.data, items) for name, items in outcomes.items()}


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task(what, total=1)
        yield
        progress.update(task, completed=1)
