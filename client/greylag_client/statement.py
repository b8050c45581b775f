"""``greylag-client statement``: the lead's account of a period, against this firm's own books.

What the firm can check itself is checked: the lead's signature, that the statement is in the log,
the charged attempts against its own ledger, and every sum. How many rows were predicted for it, and
what others paid, is the lead's signed word.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.proofs import parse_proof, verify_proof
from greylag_protocols.terms import STRICT
from greylag_protocols.usage import UsageStatement, compare_with_own, verify_usage
from rich.console import Console
from rich.table import Table

from greylag_client.firm import FirmDirectory
from greylag_client.ledger import copied_ledger
from greylag_client.terminal import Directory, Format, read_text, say

MAX_FILE_BYTES = 4 << 20
WORDS = {
    "predictions": "rows predicted",
    "releases": "releases",
    "attempts": "charged attempts",
    "share": "shares of what all paid for predictions",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementFile:
    """What the lead hands over: the statement, its entry in the log, and the proof of that."""

    __pydantic_config__ = STRICT
    statement: str
    entry: str
    proof: str


def statement(
    file: Annotated[Path, typer.Argument(help="the file from the lead")],
    directory: Directory,
    output: Format = "text",
) -> None:
    """Check the lead's statement of a period against this firm's own ledger, and show it. Exit code
    1 if they differ. 核对牵头企业出具的对账单。"""
    firm = FirmDirectory.open(directory)
    stated, log_size = read_statement(
        read_text(file).encode(),
        firm=firm.settings.firm,
        consortium=firm.settings.consortium,
        lead_key=firm.lead_key,
    )
    with copied_ledger(firm.ledger_path) as ledger:
        own = [*ledger.entries_after(stated.seq_before)][: stated.seq - stated.seq_before]
        differences = compare_with_own(stated, own, ledger.head_at(stated.seq))
    facts = {
        "agrees": not differences,
        "differences": differences,
        "log_size": log_size,
        "statement": parse_json(stated.encode()),
    }
    say(facts, _describe(stated, differences), output)
    if differences:
        raise typer.Exit(1)


def read_statement(
    content: bytes, *, firm: str, consortium: str, lead_key: bytes
) -> tuple[UsageStatement, int]:
    """The lead's statement for this very firm, and the size of the log that it is proved to be in.

    Raises:
        VerificationError: not signed by the lead, not in its log, or about somebody else.
    """
    value = parse_json(content, max_bytes=MAX_FILE_BYTES)
    try:
        parts = parse_as(StatementFile, value, what="a statement's file")
    except ConfigError as error:
        raise VerificationError(str(error)) from None
    entry = parts.entry.encode()
    stated = verify_usage(parts.statement.encode(), entry, lead_key)
    if (stated.firm, stated.consortium) != (firm, consortium):
        raise VerificationError(
            f"it is for {stated.firm} of {stated.consortium}; ask the lead for this firm's own"
        )
    proved = verify_proof(
        parse_proof(parts.proof.encode()),
        entry,
        origin=consortium,
        log_key=lead_key,
        cosigner_keys={},
    )
    return stated, proved.checkpoint.size


def _describe(stated: UsageStatement, differences: list[str]) -> str:
    currency = stated.tariff.currency
    table = Table(title=f"{stated.firm}, {stated.period}", show_edge=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    table.add_column(currency, justify="right")
    for line in stated.lines:
        table.add_row(WORDS[line.what], f"{line.count:,}", line.amount)
    table.add_section()
    table.add_row("total (with a minus: goes to this firm)", "", stated.total)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    runs = [
        f"  {item.run}: {item.attempts} attempts charged, in {item.rounds} completed rounds"
        for item in stated.runs
    ]
    verdict = (
        ["This firm's ledger DIFFERS from it:", *(f"  {item}" for item in differences)]
        if differences
        else ["Its charged attempts are those of this firm's own ledger, and its sums are right."]
    )
    limits = (
        "Signed by the lead and in its log. Rows predicted, and what others paid, are the lead's "
        "word."
    )
    return "\n".join([capture.get().rstrip(), *runs, *verdict, limits])
