"""The outcome of an audit, for people and for programs."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from greylag_audit.budgets import FirmBudget, budgets
from greylag_audit.findings import Finding
from greylag_audit.verify import Verdict

MARKS = {"holds": "✓", "broken": "✗", "unknown": "?"}
CLASSES = {
    "proved": "PROVED: follows from signatures and hashes",
    "signed claim": "SIGNED CLAIMS: somebody answers for it with a key",
    "cannot be checked": "CANNOT BE CHECKED from this bundle",
}
WIDTH = 100


def describe(verdict: Verdict) -> str:
    """For people: the broken promises first, then everything by class of evidence."""
    broken = [item for item in verdict.findings if item.state == "broken"]
    broken.sort(key=lambda item: (item.entry is None, item.entry or 0))
    lines = [f"Run {verdict.run} of {verdict.origin}, in a log of {verdict.size} entries"]
    if broken:
        lines += ["", "BROKEN", *(_line(item) for item in broken)]
    for evidence, title in CLASSES.items():
        items = [
            item
            for item in verdict.findings
            if item.evidence == evidence and item.state != "broken"
        ]
        if items:
            lines += ["", title, *(_line(item) for item in items)]
    if accounts := budgets(verdict.runs.values()):
        lines += ["", _table(accounts)]
    return "\n".join([*lines, "", conclusion(verdict)])


def conclusion(verdict: Verdict) -> str:
    """The outcome in one sentence."""
    broken = sum(item.state == "broken" for item in verdict.findings)
    if broken:
        many = "1 promise is" if broken == 1 else f"{broken} promises are"
        return f"RESULT: {many} broken, see BROKEN above."
    if verdict.holds:
        return (
            "RESULT: every promise that can be checked is kept, by firms whose keys you trust. "
            "What cannot be checked is listed above."
        )
    if not verdict.trusted:
        return (
            "RESULT: signed by someone unknown. The bundle agrees with itself, but anybody could "
            "have made it up. Get a trust file from a firm or association that you know "
            "(greylag-client export-trust) and say --trust FILE."
        )
    return "RESULT: some who signed are not in your trust file; nothing else is broken."


def to_json(verdict: Verdict) -> dict[str, Any]:
    """For programs."""
    return {
        "holds": verdict.holds,
        "origin": verdict.origin,
        "run": verdict.run,
        "size": verdict.size,
        "trusted": verdict.trusted,
        "quick": verdict.quick,
        "broken": sum(item.state == "broken" for item in verdict.findings),
        "findings": [item.to_json() for item in verdict.findings],
        "budgets": [asdict(item) for item in budgets(verdict.runs.values())],
    }


def _line(finding: Finding) -> str:
    where = [
        *([] if finding.entry is None else [f"entry {finding.entry}"]),
        *([] if finding.firm is None else [finding.firm]),
    ]
    place = f"{', '.join(where)}: " if where else ""
    return f"  {MARKS[finding.state]} {place}{finding.text()}"


def _table(accounts: list[FirmBudget]) -> str:
    table = Table(title="what firms spent, by their own receipts", show_edge=False, box=None)
    for column in ("run", "firm", "operator", "unit", "releases", "epsilon", "delta", "state"):
        table.add_column(column, overflow="fold")
    for item in accounts:
        state = "closed" if item.closed else ("open" if item.charged else "reserved")
        used = "" if item.used is None else f" ({item.used:.3g} so far)"
        table.add_row(
            item.run,
            item.firm,
            item.operator,
            item.unit,
            f"{item.charged} of {item.max_attempts}",
            f"{item.epsilon:.3g}{used}",
            f"{item.delta:g}",
            state,
        )
    console = Console(width=WIDTH)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip()
