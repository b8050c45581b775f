"""``greylag-server train``, ``status``, ``pause``, ``resume`` and ``cancel``."""

import getpass
import os
import secrets
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from greylag_protocols.plan import parse_plan, parse_terms
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from greylag_server import steering
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.release import privacy_facts
from greylag_server.steering import RunView, overview
from greylag_server.store import RunRecord, Store
from greylag_server.terminal import Dir, Format, errors, read_text, say

Run = Annotated[str, typer.Argument(help="run id, or its plan's name")]


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
    parsed = parse_plan(read_text(plan))
    run, terms = queue_plan(
        store, consortium, parsed, members=members, firms=firms, nonce=secrets.token_hex(4)
    )
    errors.print(
        f"run {run}: {terms.privacy.unit} epsilon {terms.privacy.epsilon:g} at delta "
        f"{terms.privacy.delta:g}; noise multiplier {terms.privacy.noise_multiplier}"
    )
    if wait:
        _follow(store, run, terms.training.rounds, errors)
    facts = run_facts(store, store.run(run))
    say(facts, _describe([facts]), output)
    if facts["status"] in ("failed", "cancelled"):
        raise typer.Exit(1)


def status(
    directory: Dir,
    run: Annotated[
        str | None, typer.Argument(help="one run, with the charges under it by firm")
    ] = None,
    output: Format = "text",
) -> None:
    """Members, membership digest, runs and log."""
    from greylag_server.service import open_store

    consortium = Consortium.open(directory)
    store = open_store(consortium)
    if run is not None:
        record = store.run(run)
        facts = run_facts(store, record, count_charges=True)
        charges = "".join(f"\n  {firm}: {count}" for firm, count in facts["charges"].items())
        text = f"{_describe([facts])}\nreleases charged under this run:{charges or ' none'}"
        say(facts, text, output)
        return
    enrolment = Enrolment(consortium)
    members = enrolment.members()
    digest = ""
    if members:
        signed = enrolment.current_membership(time.time())
        membership = signed.verify(
            consortium.signer.public_key, consortium=consortium.settings.id, now_s=time.time()
        )
        digest = membership.digest().hex()
    runs = [run_facts(store, record) for record in store.runs()]
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


def pause(run: Run, directory: Dir, output: Format = "text") -> None:
    """Hold a run after the round under way. Firms keep what they reserved for it, and runs behind
    it in the queue wait."""
    store = _open(directory)
    steering.pause(store, run, _who(), time.time())
    _answer(
        store, run, "holds after the round under way; go on with: greylag-server resume", output
    )


def resume(run: Run, directory: Dir, output: Format = "text") -> None:
    """Let a paused run go on."""
    store = _open(directory)
    steering.resume(store, run, _who(), time.time())
    _answer(store, run, "goes on", output)


def cancel(
    run: Run,
    directory: Dir,
    because: Annotated[str, typer.Option(help="why; it is kept with the run")],
    output: Format = "text",
) -> None:
    """End a run early and for good. Firms close it; what they spent stays spent, and the model of
    its completed rounds can be released."""
    store = _open(directory)
    steering.cancel(store, run, because, _who(), time.time())
    _answer(store, run, "ends after the round under way", output)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, where this user has no name
        return f"user {os.getuid()}"


def _open(directory: Path) -> Store:
    from greylag_server.service import open_store

    return open_store(Consortium.open(directory))


def _answer(store: Store, run: str, text: str, output: str) -> None:

    facts = run_facts(store, store.run(run))
    say(facts, f"{facts['run']} {text}", output)


def _follow(store: Store, run: str, rounds: int, errors: Console) -> RunRecord:
    """Show a run's progress on stderr until it is over."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=errors) as progress:
        task = progress.add_task("waiting for the server", total=rounds)
        while True:
            record = store.run(run)
            shown = "paused" if steering.is_paused(store, run) else record.status
            progress.update(task, completed=record.rounds_done, description=shown)
            if record.status in steering.OVER:
                return record
            time.sleep(0.3)


def run_facts(store: Store, record: RunRecord, *, count_charges: bool = False) -> dict[str, Any]:
    """A run as these commands say it in JSON."""
    terms = parse_terms(record.terms)
    view: RunView = overview(store, record.run, now_s=time.time(), count_charges=count_charges)
    facts = {
        **asdict(view),
        "firms": len(store.participants(record.run)),
        "log_size": store.checkpoint().size,
        **privacy_facts(terms, attempts=record.attempts),
    }
    if not count_charges:
        del facts["charges"]
    return facts


def _describe(runs: list[dict[str, Any]]) -> str:
    table = Table(title="runs", show_edge=False)
    columns = ("", "run", "status", "rounds", "attempts", "firms", "epsilon used / planned", "end")
    for column in (*columns, "why"):
        table.add_column(column, overflow="fold")
    for facts in runs:
        end_s = facts["expected_end_s"]
        table.add_row(
            str(facts["place"] or ""),
            facts["run"],
            facts["status"],
            f"{facts['rounds']} of {facts['of_rounds']}",
            f"{facts['attempts']} of {facts['max_attempts']}",
            str(facts["firms"]),
            f"{facts['epsilon_used']:.2f} / {facts['epsilon']:g} a {facts['unit']}",
            "" if end_s is None else time.strftime("%a %H:%M", time.localtime(end_s)),
            facts["reason"],
        )
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip()
