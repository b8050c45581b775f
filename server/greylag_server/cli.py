"""``greylag-server``: what the lead's operator types."""

import time
from pathlib import Path
from typing import Annotated

import typer
from greylag_protocols.signing import fingerprint

from greylag_server.backup import backup, restore
from greylag_server.bundle import bundle
from greylag_server.consortium import Consortium, write_private
from greylag_server.enrolment import Enrolment
from greylag_server.members_command import endorse, remove, revoke
from greylag_server.page.accounts_command import user_app
from greylag_server.release.commands import release, releases, rollback, withdraw
from greylag_server.run_commands import cancel, pause, resume, status, train
from greylag_server.serve_command import serve
from greylag_server.serving.command import serve_model
from greylag_server.settings import SERVER_FILE, TEMPLATE
from greylag_server.statement_command import statement
from greylag_server.terminal import Dir, Format, run_app, say
from greylag_server.tuning import plan_app

app = typer.Typer(
    help="The lead's side: found a consortium, invite firms, train a shared model, release it. "
    "牵头企业一方：建立联合体、邀请企业、训练并发布共享模型。",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
    write_private(directory / SERVER_FILE, TEMPLATE.encode())
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
app.command()(release)
app.command()(releases)
app.command()(rollback)
app.command()(withdraw)
app.command()(statement)
app.command()(serve)
app.command("serve-model")(serve_model)
app.command()(train)
app.command()(status)
app.command()(pause)
app.command()(resume)
app.command()(cancel)
app.command()(backup)
app.command()(restore)
app.add_typer(plan_app, name="plan")
app.add_typer(user_app, name="user")


def main() -> None:
    """Entry point."""
    run_app(app)
