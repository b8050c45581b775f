"""``greylag-client map``: a supplier's messy table becomes one that fits a plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_plan

from greylag_client.terminal import read_text, say

if TYPE_CHECKING:  # these bring polars, openpyxl and pint, which no other command should wait for
    from greylag_client.mapping.database import Database
    from greylag_client.mapping.questions import Ask, Question


def map_table(
    source: Annotated[
        str,
        typer.Argument(metavar="FILE|URL", help="the table: a file, or the database that holds it"),
    ],
    plan: Annotated[Path, typer.Option(help="the plan that the table is meant for")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="the clean CSV [default: beside FILE]")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="a mapping made before: nothing is asked")
    ] = None,
    table: Annotated[
        str | None, typer.Option(metavar="NAME", help="of a database: its table or view")
    ] = None,
    query: Annotated[
        Path | None,
        typer.Option(metavar="FILE.sql", help="of a database: a file with one SELECT"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="take every proposal")] = False,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="scale recipes that do not add up to 100")
    ] = False,
    output: Annotated[str, typer.Option("--format", help="text or json")] = "text",
) -> None:
    """Make a table fit a plan: columns, units, numbers. Asks where unsure; nothing is sent.
    FILE is .xlsx, .csv, .tsv, .txt or .parquet. URL is a database such as
    postgresql://HOST/DATABASE, mysql://HOST/DATABASE or sqlite:///FILE, which is only read; set
    GREYLAG_DB_USER and GREYLAG_DB_PASSWORD in the environment.
    整理表格或数据库中的表：自动识别列名、单位和编码，生成符合计划的 CSV；数据不会离开本机。"""
    from greylag_client.mapping.database import is_database, parse_database
    from greylag_client.mapping.questions import take_proposals
    from greylag_client.mapping.table_files import map_file

    if is_database(source):
        place: Database | Path = parse_database(source, table=table, query=query)
    elif table or query:
        raise ConfigError("--table and --query belong to a database's URL, not to a file")
    else:
        place = Path(source)
    result = map_file(
        place,
        parse_plan(read_text(plan)).data,
        out=out,
        mapping_path=mapping,
        normalise=normalise,
        ask=take_proposals if yes else ask_person(),
    )
    say(result.facts(), result.describe(), output)
    result.raise_if_unfit()


def ask_person() -> "Ask":
    """Questions on stderr, answers from stdin."""

    def ask(question: "Question") -> int:
        lines = [question.text, *([question.chinese] if question.chinese else [])]
        lines += [f"  {number}) {text}" for number, text in enumerate(question.choices, start=1)]
        typer.echo("\n".join(lines), err=True)
        default = None if question.proposal is None else question.proposal + 1
        numbers = click.IntRange(1, len(question.choices))
        try:
            answer: int = typer.prompt("answer", type=numbers, default=default, err=True)
        except typer.Abort:
            raise ConfigError(
                f"not answered: {question.text} Run it again and answer, take the proposals with "
                "--yes, or give --mapping"
            ) from None
        return answer - 1

    return ask
