"""``greylag-client check`` and ``schema``: thin shells around the checks and the draft."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from greylag_protocols.errors import ConfigError

from greylag_client.terminal import check_format, say

if TYPE_CHECKING:
    from greylag_client.quality.checks import Dates

Format = Annotated[str, typer.Option("--format", help="text or json")]
FRESH_DAYS = 1825


def check(
    table: Annotated[Path, typer.Argument(help="the table, CSV")],
    plan: Annotated[Path, typer.Option(help="the plan that the table is meant for")],
    page: Annotated[Path | None, typer.Option(help="also write the report as a web page")] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", "-d", help="the firm's directory, to keep the last summary in"),
    ] = None,
    date_column: Annotated[
        str | None, typer.Option("--date", help="column with each row's date, for timeliness")
    ] = None,
    fresh_days: Annotated[int, typer.Option(min=1, help="older rows count as stale")] = FRESH_DAYS,
    output: Format = "text",
) -> None:
    """Check a table against a plan, as the agent will before it accepts, and report its quality.
    Nothing is sent. A summary (ten-percent points of each column) stays beside the table, or in
    --dir, to tell drift next time."""
    from greylag_protocols.plan import parse_plan

    from greylag_client.quality import drift
    from greylag_client.quality.checks import examine
    from greylag_client.quality.columns import read_columns
    from greylag_client.quality.report import Report, as_document, as_text
    from greylag_client.quality.scores import score
    from greylag_client.table import parse_table, read_cells

    check_format(output)
    terms = parse_plan(_read_plan(plan))
    if page is not None and page.resolve() in (table.resolve(), plan.resolve()):
        raise ConfigError(f"--page {page} would overwrite its own input; name another file")
    summary_path = _summary_path(table, directory)
    cells = read_cells(table)
    dates = _dates(cells.columns, date_column, fresh_days)
    misfit, fitting = "", None
    try:
        fitting = parse_table(cells, terms.data, what=table.name)
    except ConfigError as error:
        misfit = str(error)
    history = drift.read_history(summary_path)
    standard = terms.data.standard
    columns, _ = read_columns(cells, terms.data)
    before = drift.before_this(history, standard, drift.summarise(columns, cells.height))
    examined = examine(cells, terms.data, fitting, dates=dates, before=before)
    report = Report(
        name=table.name,
        misfit=misfit,
        unit=terms.privacy.unit,
        examined=examined,
        scores=score(examined),
    )
    facts = as_document(report)
    if page is not None:
        _write_page(page, report)
        facts["page"] = str(page)
    # What does not fit is no yardstick for the next table.
    kept = fitting is not None and drift.keep(summary_path, history, standard, examined.summary)
    facts["summary"] = str(summary_path) if kept else None
    text = as_text(report)
    if kept:
        text += f"\n\nFor the next check a summary stays in {summary_path}; it is never sent."
    if output == "json":
        say(facts, "", output)
    else:
        # As text it belongs to the error: what failed says nothing on stdout.
        print(text, file=sys.stderr if misfit else sys.stdout)
    if misfit:
        raise ConfigError(misfit)


def schema(
    table: Annotated[Path, typer.Argument(help="the table, CSV")],
    target: Annotated[
        list[str] | None, typer.Option(help="column to predict; may be given several times")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="column whose equal values mark rows that belong together")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="a new file to write")] = None,
    output: Format = "text",
) -> None:
    """Draft a plan's data section from a table. Every bound in it was read off your data:
    replace them by public knowledge before anyone else sees the draft."""
    from greylag_client.firm_files import write_private
    from greylag_client.quality.schema import draft_schema
    from greylag_client.table import read_cells

    check_format(output)
    if out is not None and out.exists():
        raise ConfigError(f"{out} exists; name a new file")
    draft = draft_schema(read_cells(table), targets=tuple(target or ()), group=group)
    if out is not None:
        write_private(out, draft.text.encode())
    facts: dict[str, Any] = {
        "task": draft.task,
        "targets": list(draft.targets),
        "features": list(draft.features),
        "group": draft.group,
        "left_out": list(draft.left_out),
        "out": str(out) if out is not None else None,
        "data": draft.text,
    }
    said = draft.text.rstrip()
    if out is not None:
        said = (
            f"{out}: {len(draft.features)} features and {len(draft.targets)} targets drafted; "
            "replace every bound by public knowledge before you hand it on"
        )
    say(facts, said, output)


def _read_plan(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None


def _summary_path(table: Path, directory: Path | None) -> Path:
    from greylag_client.firm import SETTINGS_FILE
    from greylag_client.quality.drift import SUMMARY_FILE

    if directory is None:
        return table.parent / SUMMARY_FILE
    if not (directory / SETTINGS_FILE).is_file():
        raise ConfigError(f"{directory} is not a firm's directory; name the one that `join` made")
    return directory / SUMMARY_FILE


def _dates(names: list[str], column: str | None, fresh_days: int) -> "Dates | None":
    from datetime import date

    from greylag_client.quality.checks import Dates
    from greylag_client.quality.findings import plain

    if column is None:
        return None
    if column not in names:
        raise ConfigError(f"--date: there is no column {plain(column)!r}; see the table's header")
    return Dates(column=column, today=date.today(), fresh_days=fresh_days)


def _write_page(path: Path, report: Any) -> None:
    from datetime import datetime

    from greylag_client.firm_files import write_private
    from greylag_client.quality.page import as_page

    write_private(path, as_page(report, made=datetime.now()).encode())
