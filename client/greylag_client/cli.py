"""``greylag-client``: what the firm's engineer and security officer type."""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from greylag_protocols.errors import ConfigError, GreylagError
from greylag_protocols.membership import revoked_in
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from greylag_client.firm import FirmDirectory
from greylag_client.firm_files import write_private
from greylag_client.firm_membership import describe
from greylag_client.join import join as join_consortium
from greylag_client.ledger import Ledger
from greylag_client.mapping.command import map_table
from greylag_client.policy import DEFAULT_POLICY, read_policy
from greylag_client.quality.commands import check, schema

app = typer.Typer(
    help="The firm's side: join, keep the veto and the budget, train, predict. "
    "企业一方：加入联合体，保留否决权与隐私预算，参与训练，使用模型。",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True)

Directory = Annotated[Path, typer.Argument(help="the firm's directory")]
Format = Annotated[str, typer.Option("--format", help="text or json")]
BAR_CELLS = 30


def say(facts: dict[str, Any], text: str, output: str) -> None:
    """One JSON document, or text for people, on stdout."""
    if output not in ("text", "json"):
        raise ConfigError(f"--format is 'text' or 'json', not {output!r}")
    print(json.dumps(facts, ensure_ascii=False) if output == "json" else text)


@app.command()
def join(
    invite: Annotated[str, typer.Argument(help="the invite, or a file that holds it")],
    directory: Annotated[Path, typer.Option("--dir", "-d", help="a new directory for the firm")],
    data: Annotated[Path | None, typer.Option(help="the firm's table, CSV")] = None,
    approve_members: Annotated[
        str | None, typer.Option(help="approve the membership with this SHA-256 digest")
    ] = None,
    output: Format = "text",
) -> None:
    """Join a consortium: keys are made here and stay here."""
    path = Path(invite)
    text = path.read_text(encoding="utf-8") if len(invite) < 255 and path.is_file() else invite
    result = join_consortium(
        text.strip(),
        directory,
        data=data,
        approve_members=approve_members,
        now_s=time.time(),
    )
    firm, name = result.firm, result.firm.settings.firm
    firm.policy_path.write_text(DEFAULT_POLICY, encoding="utf-8")
    facts = {
        "firm": name,
        "consortium": firm.settings.consortium,
        "membership": result.digest,
        "approved": result.approved,
        "recovery_key": result.recovery_key,
    }
    say(
        facts,
        f"{name} has joined {firm.settings.consortium}.\n\n{describe(result.membership)}\n\n"
        f"RECOVERY KEY, shown this once. Keep it offline; with it alone this firm's signing key "
        f"can be revoked:\n  {result.recovery_key}\n\n"
        f"Read and adapt {firm.policy_path}. When all firms have joined, look at the list with\n"
        f"  greylag-client members {directory}\nand approve it; then\n"
        f"  greylag-client run {directory}",
        output,
    )


@app.command()
def members(
    directory: Directory,
    approve: Annotated[
        str | None, typer.Option(help="SHA-256 digest of the membership to approve")
    ] = None,
    revocation: Annotated[
        Path | None, typer.Option(help="a revocation that another firm handed you")
    ] = None,
    output: Format = "text",
) -> None:
    """Show the latest membership list; approve it once you know these firms and operators."""
    firm = FirmDirectory.open(directory)
    if revocation is not None:
        firm.memberships.store_revocation(
            _read_text(revocation).strip().encode(), firm.memberships.latest()
        )
    if approve is not None:
        firm.approve(approve)
    latest = firm.memberships.latest()
    digest = latest.digest().hex()
    approved = digest in firm.approved()
    revoked = sorted(revoked_in(latest, firm.memberships.revocations()))
    facts = {
        "epoch": latest.epoch,
        "digest": digest,
        "approved": approved,
        "members": [{"name": item.name, "operator": item.operator} for item in latest.members],
        "revoked": revoked,
    }
    state = "approved here" if approved else f"NOT approved. To approve: --approve {digest}"
    if revoked:
        state += f"\nREVOKED: {', '.join(revoked)}; rosters with them are refused here"
    say(facts, f"{describe(latest)}\n{state}", output)


@app.command()
def revoke(
    directory: Directory,
    out: Annotated[Path, typer.Option("--out", "-o", help="the revocation, a file to hand out")],
    output: Format = "text",
) -> None:
    """Take back this firm's identity with its recovery key (asked for, or read from stdin)."""
    from greylag_client.recovery import make_revocation

    firm = FirmDirectory.open(directory)
    key = typer.prompt("recovery key", hide_input=True, err=True)
    envelope = make_revocation(key, firm.memberships.latest(), firm.settings.firm)
    write_private(out, envelope)
    say(
        {"firm": firm.settings.firm, "revocation": str(out)},
        f"{out} takes back the identity of {firm.settings.firm}, for ever. Hand it to the lead\n"
        f"(greylag-server revoke) and to every firm (greylag-client members --revocation); it is\n"
        "no secret.",
        output,
    )


@app.command()
def close(
    directory: Directory,
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="the run, as `budget` lists it")],
    output: Format = "text",
) -> None:
    """Leave a run for ever, whatever the lead says. What was charged stays spent; a reservation
    that nothing was charged against is free again."""
    from greylag_client.participant import close_run
    from greylag_client.session import Identity

    firm = FirmDirectory.open(directory)
    settings = firm.settings
    identity = Identity(firm=settings.firm, consortium=settings.consortium, signer=firm.signer)
    account = close_run(Ledger(firm.ledger_path), identity, run_id)
    facts = {"run": run_id, "charged": account.charged, "epsilon": account.epsilon}
    kept = f"epsilon {account.epsilon:g} stays spent" if account.charged else "nothing was spent"
    say(facts, f"{run_id} is closed here for ever; {kept}", output)


@app.command()
def run(
    directories: Annotated[list[Path], typer.Argument(help="directories of the firms to run")],
    approve_members: Annotated[
        str | None, typer.Option(help="approve the membership with this digest when it is seen")
    ] = None,
) -> None:
    """Run the agent (one process for one or more firms). Ctrl-C ends it; budgets are durable."""
    from greylag_client.agent import run_agents

    run_agents(directories, approve=approve_members)


@app.command()
def budget(directory: Directory, output: Format = "text") -> None:
    """What was promised and spent of this firm's privacy budget, by run."""
    firm = FirmDirectory.open(directory)
    policy = read_policy(firm.policy_path)
    ledger = Ledger(firm.ledger_path)
    accounts = ledger.accounts()
    spent = sum(item.epsilon for item in accounts if item.charged)
    reserved = sum(item.epsilon for item in accounts if item.holds and not item.charged)
    limit = policy.lifetime_epsilon
    facts = {
        "limit": limit,
        "spent": spent,
        "reserved": reserved,
        "left": max(0.0, limit - spent - reserved),
        "delta_limit": policy.lifetime_delta,
        "delta_held": sum(item.delta for item in accounts if item.holds),
        "entries": ledger.tip().seq,
        "runs": [
            {
                "run": item.run,
                "epsilon": item.epsilon,
                "delta": item.delta,
                "charged": item.charged,
                "max_attempts": item.max_attempts,
                "closed": item.closed,
            }
            for item in accounts
        ],
    }
    full = round(BAR_CELLS * min(1.0, spent / limit))
    half = round(BAR_CELLS * min(1.0, (spent + reserved) / limit)) - full
    bar = "█" * full + "▒" * half + "·" * (BAR_CELLS - full - half)
    table = Table(show_edge=False)
    for column in ("run", "epsilon", "delta", "releases", "state"):
        table.add_column(column, overflow="fold")
    for item in accounts:
        state = "closed" if item.closed else "open"
        releases = f"{item.charged} of {item.max_attempts}"
        table.add_row(item.run, f"{item.epsilon:g}", f"{item.delta:g}", releases, state)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    text = (
        f"lifetime epsilon {limit:g}: {bar} spent {spent:g}, reserved {reserved:g}, "
        f"left {facts['left']:g}\n" + (capture.get() if accounts else "no runs yet")
    )
    say(facts, text.rstrip(), output)


app.command()(check)
app.command()(schema)
app.command("map")(map_table)


@app.command()
def predict(
    release: Annotated[Path, typer.Argument(help="a release's directory")],
    table: Annotated[Path, typer.Argument(help="a CSV with the feature columns")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV to write")] = None,
) -> None:
    """Predict for the rows of a CSV with a released model. Rows outside the public ranges are
    flagged in `out_of_range`."""
    from greylag_client.prediction import predict_csv

    frame = predict_csv(release, table)
    if out is None:
        sys.stdout.write(frame.write_csv())
    else:
        frame.write_csv(out)
        errors.print(f"{len(frame)} predictions in {out}")


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
    for noisy in ("absl", "flwr"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        program()
    except GreylagError as error:
        errors.print(f"[bold red]error[/]: {escape(str(error))}", highlight=False)
        sys.exit(error.exit_code)


def main() -> None:
    """Entry point."""
    run_app(app)
