"""``greylag-audit``: decide from a bundle whether every promise of a run was kept.

Exit codes: 0 everything that can be checked holds; 1 a promise is broken, or it is unknown who
signed; 2 the input is at fault.
"""

import gc
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from greylag_protocols.errors import ConfigError, GreylagError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from greylag_audit.bundle_files import open_bundle
from greylag_audit.trust import read_trust
from greylag_audit.verify import Progress as Report

app = typer.Typer(
    help="Audit a run from evidence alone: whether anything was rewritten, who took part, what it "
    "cost in privacy, and whether the model follows from it. "
    "仅凭证据审计一次训练：记录是否被改写、谁参与、隐私开销多少、模型是否由此得出。",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True)

BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="a bundle's directory, or its .tar.zst")
]
Format = Annotated[str, typer.Option("--format", help="text or json")]


@app.command()
def verify(
    bundle: BundlePath,
    trust: Annotated[
        Path | None,
        typer.Option(help="keys that came from elsewhere: greylag-client export-trust makes it"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="of each firm's chain check the last signature only")
    ] = False,
    ledger: Annotated[
        Path | None, typer.Option(help="one firm's own books, to compare with the log")
    ] = None,
    output: Format = "text",
) -> None:
    """Check every promise. Each broken one names the log entry and the firm."""
    from greylag_audit.ledger_export import read_export
    from greylag_audit.show import describe, to_json
    from greylag_audit.verify import verify as audit

    _check_format(output)
    keys = None if trust is None else read_trust(trust)
    export = None if ledger is None else read_export(ledger)
    with _progress("reading the log") as progress, open_bundle(bundle) as opened:
        verdict = audit(opened, trust=keys, quick=quick, ledger=export, progress=progress)
    _say(to_json(verdict), describe(verdict), output)
    raise typer.Exit(0 if verdict.holds else 1)


@app.command()
def replay(bundle: BundlePath, output: Format = "text") -> None:
    """Repeat the training from the logged sums, and compare the released weights bit by bit."""
    from greylag_audit.replay import replay as repeat

    _check_format(output)
    with _progress("repeating rounds") as progress, open_bundle(bundle) as opened:
        verdict, found = repeat(opened, progress=progress)
    place = "" if found.entry is None else f"entry {found.entry}: "
    facts = {"run": verdict.run, "holds": found.state == "holds", **found.to_json()}
    _say(facts, f"Run {verdict.run}: {place}{found.text()}", output)
    raise typer.Exit(1 if found.state == "broken" else 0)


@app.command()
def report(
    bundle: BundlePath,
    trust: Annotated[
        Path | None,
        typer.Option(help="keys that came from elsewhere: greylag-client export-trust makes it"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="a file ending in .html, .pdf or .json; or a directory, for all three"),
    ] = None,
    lang: Annotated[str, typer.Option(help="en or zh")] = "en",
    output: Format = "text",
) -> None:
    """Write what the bundle shows for people: odds, budgets, evidence, and what is not shown."""
    from greylag_audit.report.command import check_wish, make_report, write_files
    from greylag_audit.report.contents import to_json

    _check_format(output)
    check_wish(out, lang)
    if out is None and output == "text":
        raise ConfigError("where to? add --out report.html (or .pdf, .json), or --format json")
    keys = None if trust is None else read_trust(trust)
    with _progress("reading the log") as progress, open_bundle(bundle) as opened:
        facts, made = make_report(opened, trust=keys, lang=lang, progress=progress)
    written = [] if out is None else write_files(out, facts, made)
    _say(to_json(facts, made), "\n".join([made.verdict, *map(str, written)]), output)
    raise typer.Exit(0 if facts.holds else 1)


@contextmanager
def _progress(what: str) -> Iterator[Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=errors, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def _check_format(output: str) -> None:
    if output not in ("text", "json"):
        raise ConfigError(f"--format is 'text' or 'json', not {output!r}")


def _say(facts: dict[str, Any], text: str, output: str) -> None:
    print(json.dumps(facts, ensure_ascii=False) if output == "json" else text)


def main() -> None:
    """Entry point."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # the accountants' notes on their own sums
    gc.disable()  # nothing here goes in circles, and looking for that takes a tenth of the time
    try:
        app()
    except GreylagError as error:
        errors.print(f"[bold red]error[/]: {escape(str(error))}", highlight=False)
        sys.exit(error.exit_code)
