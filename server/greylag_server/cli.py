"""``greylag-server``: what the lead's operator types."""

import json
import logging
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from greylag_protocols.errors import ConfigError, GreylagError
from greylag_protocols.plan import parse_plan, parse_terms
from greylag_protocols.signing import fingerprint
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from greylag_server.bundle import bundle
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.members_command import endorse, remove, revoke
from greylag_server.release import privacy_facts, write_release
from greylag_server.store import RunRecord, Store
from greylag_server.tuning import plan_app

app = typer.Typer(
    help="The lead's side: found a consortium, invite firms, train a shared model, release it. "
    "牵头企业一方：建立联合体、邀请企业、训练并发布共享模型。",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True)

Dir = Annotated[
    Path,
    typer.Option("--dir", "-d", help="the consortium's directory", envvar="GREYLAG_SERVER_DIR"),
]
Format = Annotated[str, typer.Option("--format", help="text or json")]


def say(facts: dict[str, Any], text: str, output: str) -> None:
    """One JSON document, or text for people, on stdout."""
    if output not in ("text", "json"):
        raise ConfigError(f"--format is 'text' or 'json', not {output!r}")
    print(json.dumps(facts, ensure_ascii=False) if output == "json" else text)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="a new directory")],
    name: Annotated[str, typer.Option(help="name of the consortium")],
    operator: Annotated[str, typer.Option(help="the lead's own name as an operator")] = "lead",
    host: Annotated[str, typer.Option(help="host that firms dial")] = "localhost",
    port: Annotated[int, typer.Option(help="port for agents (mutual TLS)")] = 7800,
    enrol_port: Annotated[int, typer.Option(help="port for joining (TLS)")] = 7801,
    output: Format = "text",
) -> None:
    """Found a consortium: its authority, keys and directory."""
    consortium = Consortium.create(
        directory, name=name, operator=operator, host=host, port=port, enrol_port=enrol_port
    )
    key = fingerprint(consortium.signer.public_key)
    facts = {"consortium": consortium.settings.id, "directory": str(directory), "lead_key": key}
    say(
        facts,
        f"Consortium {consortium.settings.id} is founded in {directory}.\n"
        f"The lead's key fingerprint, to be told to the firms by another channel:\n  {key}\n"
        f"Next: greylag-server invite FIRM --dir {directory}",
        output,
    )


@app.command()
def invite(
    firm: Annotated[str, typer.Argument(help="the firm's short name")],
    directory: Dir,
    operator: Annotated[
        str | None, typer.Option(help="who runs its agent, if not the firm itself")
    ] = None,
    output: Format = "text",
) -> None:
    """Make a one-time invite, valid for 7 days. Send it to the firm by a private channel."""
    enrolment = Enrolment(Consortium.open(directory))
    text = enrolment.invite(firm, operator, now_s=time.time())
    say({"firm": firm, "invite": text}, text, output)


app.command()(revoke)
app.command()(remove)
app.command()(endorse)
app.command()(bundle)
app.add_typer(plan_app, name="plan")


@app.command()
def serve(
    directory: Dir,
    offer_wait_s: Annotated[float, typer.Option(help="how long to wait for acceptances")] = 300.0,
    round_wait_s: Annotated[float, typer.Option(help="how long a round may take")] = 120.0,
    check: Annotated[bool, typer.Option("--check", help="check the directory and end")] = False,
) -> None:
    """Run the coordinator: enrolment, rounds and log. Ends cleanly on Ctrl-C; start it again and it
    goes on where it stopped."""
    from greylag_server.app import Patience
    from greylag_server.coordinator import Coordinator
    from greylag_server.service import Service

    if check:
        settings = Consortium.open(directory).settings
        errors.print(f"{settings.id}: directory, keys and certificate are in order")
        return
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    service = Service(directory, patience=Patience(offer_s=offer_wait_s, round_s=round_wait_s))
    service.start()
    settings = service.consortium.settings
    errors.print(
        f"{settings.id}: firms at {settings.host}:{settings.port}, joining at "
        f"{settings.host}:{settings.enrol_port}. Ctrl-C ends."
    )
    log = logging.getLogger("greylag_server.run")

    def watch(coordinator: Coordinator) -> None:
        done, rounds = coordinator.rounds_done, coordinator.terms.training.rounds
        if coordinator.status != "training" or done % max(1, rounds // 10) == 0:
            log.info(
                "%s: %s, round %d of %d, %d attempts, roster of %d%s",
                coordinator.terms.run_id,
                coordinator.status,
                done,
                rounds,
                coordinator.attempts,
                len(coordinator.roster),
                f" ({coordinator.reason})" if coordinator.reason else "",
            )

    service.run_forever(stop, watch)


@app.command()
def train(
    plan: Annotated[Path, typer.Argument(help="the plan, TOML")],
    directory: Dir,
    firms: Annotated[
        int | None, typer.Option(help="start when so many accepted (default: all enrolled)")
    ] = None,
    wait: Annotated[bool, typer.Option(help="stay and show progress until the run ends")] = True,
    output: Format = "text",
) -> None:
    """Queue a run. `serve` must be running; it starts when the firms have accepted the terms."""
    from greylag_server.service import open_store, queue_plan

    consortium = Consortium.open(directory)
    store = open_store(consortium)
    members = len(Enrolment(consortium).members())
    parsed = parse_plan(_read_text(plan))
    run, terms = queue_plan(
        store, consortium, parsed, members=members, firms=firms, nonce=secrets.token_hex(4)
    )
    errors.print(
        f"run {run}: {terms.privacy.unit} epsilon {terms.privacy.epsilon:g} at delta "
        f"{terms.privacy.delta:g}; noise multiplier {terms.privacy.noise_multiplier}"
    )
    record = _follow(store, run, terms.training.rounds) if wait else store.run(run)
    facts = _facts(store, record)
    say(facts, _describe([facts]), output)
    if record.status == "failed":
        raise typer.Exit(1)


def _follow(store: Store, run: str, rounds: int) -> RunRecord:
    """Show a run's progress on stderr until it is over."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=errors) as progress:
        task = progress.add_task("waiting for the server", total=rounds)
        while True:
            record = store.run(run)
            progress.update(task, completed=record.rounds_done, description=record.status)
            if record.status in ("done", "failed"):
                return record
            time.sleep(0.3)


def _facts(store: Store, record: RunRecord) -> dict[str, Any]:
    terms = parse_terms(record.terms)
    participants = store.participants(record.run)
    return {
        "run": record.run,
        "status": record.status,
        "reason": record.reason,
        "rounds": record.rounds_done,
        "of_rounds": terms.training.rounds,
        "attempts": record.attempts,
        "max_attempts": terms.privacy.max_attempts,
        "firms": len(participants),
        "roster": list(record.roster),
        "out": [item.firm for item in participants if item.voids >= 2],
        "log_size": store.checkpoint().size,
        **privacy_facts(terms, attempts=record.attempts),
    }


def _describe(runs: list[dict[str, Any]]) -> str:
    table = Table(title="runs", show_edge=False)
    for column in ("run", "status", "rounds", "attempts", "firms", "epsilon used / planned", "why"):
        table.add_column(column, overflow="fold")
    for facts in runs:
        table.add_row(
            facts["run"],
            facts["status"],
            f"{facts['rounds']} of {facts['of_rounds']}",
            f"{facts['attempts']} of {facts['max_attempts']}",
            str(facts["firms"]),
            f"{facts['epsilon_used']:.2f} / {facts['epsilon']:g} a {facts['unit']}",
            facts["reason"],
        )
    console = Console(width=110)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip()


@app.command()
def status(directory: Dir, output: Format = "text") -> None:
    """Members, membership digest, runs and log."""
    from greylag_server.service import open_store

    consortium = Consortium.open(directory)
    enrolment = Enrolment(consortium)
    store = open_store(consortium)
    members = enrolment.members()
    digest = ""
    if members:
        signed = enrolment.current_membership(time.time())
        membership = signed.verify(
            consortium.signer.public_key, consortium=consortium.settings.id, now_s=time.time()
        )
        digest = membership.digest().hex()
    runs = [_facts(store, record) for record in store.runs()]
    facts = {
        "consortium": consortium.settings.id,
        "members": [{"name": item.name, "operator": item.operator} for item in members],
        "membership": digest,
        "open_invites": [item.firm for item in enrolment.open_invites(time.time())],
        "log_size": store.checkpoint().size,
        "runs": runs,
    }
    names = ", ".join(item.name for item in members) or "none yet"
    text = (
        f"{consortium.settings.id}: {len(members)} firms ({names})\n"
        f"membership digest: {digest or '-'}\nlog: {store.checkpoint().size} entries\n"
    )
    say(facts, text + (_describe(runs) if runs else "no runs yet"), output)


@app.command()
def release(
    run: Annotated[str, typer.Argument(help="run id, or its plan's name")],
    directory: Dir,
    out: Annotated[Path, typer.Option(help="a new directory for the release")],
    output: Format = "text",
) -> None:
    """Write a finished run's model: weights, terms, card, checksums."""
    from greylag_server.service import open_store

    consortium = Consortium.open(directory)
    store = open_store(consortium)
    facts = write_release(store.run(run), out, signer=consortium.signer, store=store)
    say(facts, f"{out}: model {facts['model'][:16]} of run {facts['run']}; read card.md", output)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None


def run_app(program: typer.Typer) -> None:
    """Run a program: errors of the tree become one line and an exit code."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=errors, show_path=False, markup=False)],
    )
    for noisy in ("absl", "httpx", "flwr", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        program()
    except GreylagError as error:
        errors.print(f"[bold red]error[/]: {escape(str(error))}", highlight=False)
        sys.exit(error.exit_code)


def main() -> None:
    """Entry point."""
    run_app(app)
