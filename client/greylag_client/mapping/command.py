"""``greylag-client map``: a supplier's messy table becomes one that fits a plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from greylag_protocols.errors import ConfigError
from greylag_protocols.plan import parse_plan

if TYPE_CHECKING:  # these bring polars, openpyxl and pint, which no other command should wait for
    from greylag_client.mapping.questions import Ask, Question


def map_table(
    file: Annotated[Path, typer.Argument(help="the table: .xlsx, .csv, .tsv, .txt or .parquet")],
    plan: Annotated[Path, typer.Option(help="the plan that the table is meant for")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="the clean CSV [default: beside FILE]")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="a mapping made before: nothing is asked")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="take every proposal")] = False,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="scale recipes that do not add up to 100")
    ] = False,
    output: Annotated[str, typer.Option("--format", help="text or json")] = "text",
) -> None:
    """Make a table fit a plan: columns, units, numbers. Asks where unsure; nothing is sent.
    整理表格：自动识别列名、单位和编码，生成符合计划的 CSV；数据不会离开本机。"""
    from greylag_client.cli import say
    from greylag_client.mapping.questions import take_proposals
    from greylag_client.mapping.table_files import map_file

    result = map_file(
        file,
        parse_plan(_read_plan(plan)).data,
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
        lines = [question.text]
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


def _read_plan(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path}: no plan can be read there; check the path") from None
