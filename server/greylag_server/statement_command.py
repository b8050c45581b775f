"""``greylag-server statement``: what flowed between the lead and each firm."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from greylag_protocols.encoding import parse_json
from greylag_protocols.errors import ConfigError
from greylag_protocols.usage import UsageStatement
from rich.console import Console
from rich.table import Table

from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.statements import (
    close_period,
    open_period,
    read_statements,
    read_tariff,
    write_statements,
)
from greylag_server.terminal import Dir, Format, say


def statement(
    directory: Dir,
    close: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM", help="close this period: all that came since the last one"),
    ] = None,
    period: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="show a closed period")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="write a file for each firm into this new directory")
    ] = None,
    output: Format = "text",
) -> None:
    """What flowed between the lead and each firm: rounds, releases, predictions, and what the
    tariff makes of them. Without options: what has come since the last closed period. The firm
    checks its file with `greylag-client statement`. 对账单：每家企业的使用与贡献。"""
    from greylag_server.service import open_store
    from greylag_server.serving.meter import read_totals

    if close is not None and period is not None:
        raise ConfigError("either --close or --period: closing a period shows it, too")
    consortium = Consortium.open(directory)
    store, totals, tariff = open_store(consortium), read_totals(consortium), read_tariff(consortium)
    name, signer = consortium.settings.id, consortium.signer
    if close is not None:
        close_period(store, name, close, totals, tariff, signer)
    wanted = close or period
    logged = read_statements(store) if wanted else []
    chosen = [item for item in logged if item.statement.period == wanted]
    if wanted and not chosen:
        known = ", ".join(sorted({item.statement.period for item in logged})) or "none"
        raise ConfigError(f"{wanted} is not a closed period; closed are: {known}")
    if out is not None and not wanted:
        raise ConfigError("--out wants --close or --period: what is open may still change")
    if out is not None:
        signed = Enrolment(consortium).current_membership(time.time())
        membership = signed.verify(signer.public_key, consortium=name, now_s=time.time())
        write_statements(chosen, out, store=store, signer=signer, membership=membership)
    now = time.strftime("%Y-%m", time.gmtime())
    statements = [item.statement for item in chosen] or open_period(
        store, name, now, totals, tariff
    )
    facts = {
        "period": wanted,
        "closed": bool(wanted),
        "statements": [_facts(item) for item in statements],
        "out": None if out is None else str(out),
    }
    title = f"period {wanted}, closed" if wanted else "since the last closed period"
    text = _describe(statements, title) if statements else f"{title}: nothing has happened"
    say(facts, text, output)


def _facts(item: UsageStatement) -> dict[str, Any]:
    return dict(parse_json(item.encode()))


def _describe(statements: list[UsageStatement], title: str) -> str:
    currency = statements[0].tariff.currency
    table = Table(title=title, show_edge=False)
    for column in ("firm", "attempts", "rounds", "rows predicted", "releases"):
        table.add_column(column, justify="left" if column == "firm" else "right")
    table.add_column(f"owes ({currency})", justify="right")
    for item in statements:
        counts = (
            sum(run.attempts for run in item.runs),
            sum(run.rounds for run in item.runs),
            item.predictions.rows,
            len(item.releases),
        )
        table.add_row(item.firm, *(f"{count:,}" for count in counts), item.total)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    note = "An amount with a minus goes to the firm."
    return f"{capture.get().rstrip()}\n{note}"
