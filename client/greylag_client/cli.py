"""``greylag-client``: what the firm's engineer and security officer type."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from greylag_client import accounts_command, admission
from greylag_client.doctor.command import doctor
from greylag_client.mapping.command import map_table
from greylag_client.page import command as page_command
from greylag_client.personal.command import personalise
from greylag_client.plugins import plugins
from greylag_client.quality.commands import check, schema
from greylag_client.rehearsal.command import try_plan
from greylag_client.statement import statement
from greylag_client.suggest.command import suggest
from greylag_client.terminal import errors, run_app
from greylag_client.trust import export_trust
from greylag_client.verify_release.command import check_before_use, verify_release

app = typer.Typer(
    help="The firm's side: join, keep the veto and the budget, train, predict. "
    "企业一方：加入联合体，保留否决权与隐私预算，参与训练，使用模型。",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.command()(admission.join)
app.command()(admission.members)
app.command()(admission.endorse)
app.command()(admission.revoke)
app.command()(admission.leave)


@app.command()
def run(
    directories: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR ...]", help="firms' directories; without any, this directory"),
    ] = None,
    approve_members: Annotated[
        str | None, typer.Option(help="approve the membership with this digest when it is seen")
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="serve the firms' own page to this machine alone")
    ] = False,
    page_port: Annotated[
        int, typer.Option(min=0, max=65535, help="where; 0: at any free port")
    ] = 0,
) -> None:
    """Run the agent, one process for one or more firms, until SIGTERM or Ctrl-C.

    An answer under way is finished first; a second signal ends at once. A firm that cannot start or
    fails is said once and tried again, and the others go on. Exit code 0: told to end, and ended;
    1: of several firms none could start; 2: the one firm could not."""
    from greylag_client.service_manager import plain_logs, quiet_grpc

    quiet_grpc()
    plain_logs()
    from greylag_client.agent import run_agents

    port = page_port if page or page_port else None
    run_agents(directories or [Path()], approve=approve_members, page_port=port)


app.command()(accounts_command.budget)
app.command("data")(accounts_command.data)
app.command()(accounts_command.close)
app.command()(page_command.page)
app.command()(doctor)
app.command()(export_trust)
app.command()(check)
app.command()(schema)
app.command("try")(try_plan)
app.command("map")(map_table)
app.command()(plugins)
app.command()(personalise)
app.command()(suggest)
app.command()(verify_release)
app.command()(statement)


@app.command()
def predict(
    release: Annotated[Path, typer.Argument(help="a release's directory")],
    table: Annotated[Path, typer.Argument(help="a CSV with the feature columns")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV to write")] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", "-d", help="the firm's directory: verify with its keys")
    ] = None,
) -> None:
    """Predict for the rows of a CSV with a released model. Rows outside the public ranges are
    flagged in `out_of_range`."""
    from greylag_client.personal.artefact import NOTE
    from greylag_client.prediction import Predictor, predict_csv

    check_before_use(release, directory)
    predictor = Predictor.load(release)
    if not predictor.private:
        errors.print(f"note: this is {NOTE}.", highlight=False)
    frame = predict_csv(predictor, table)
    if out is None:
        sys.stdout.write(frame.write_csv())
    else:
        frame.write_csv(out)
        errors.print(f"{len(frame)} predictions in {out}")


def main() -> None:
    """Entry point."""
    run_app(app)
