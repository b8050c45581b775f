"""One firm's own books, exported by its agent, and whether the log tells the same.

The first line says whose they are; each further line is an entry of the firm's chain, in order,
exactly as it was signed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.log import RECEIPT_KIND, entry_head
from greylag_protocols.membership import Hex32, Name
from greylag_protocols.terms import STRICT, Text

from greylag_audit.entries import read_entry
from greylag_audit.findings import Findings

MAX_EXPORT_BYTES = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The first line."""

    __pydantic_config__ = STRICT
    version: Literal["ledger/v1"]
    consortium: Text
    firm: Name
    identity: Hex32


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerExport:
    """A firm's chain: ``heads`` and ``kinds`` of its entries, the first of number 1."""

    firm: str
    consortium: str
    heads: tuple[str, ...]
    kinds: tuple[str, ...]
    fault: str = ""


def parse_export(data: bytes) -> LedgerExport:
    """An export from outside; what is wrong with its chain is a finding, not an error.

    Raises:
        ConfigError: not an export at all.
    """
    first, _, rest = data.partition(b"\n")
    try:
        head = parse_as(Head, parse_json(first), what="ledger export")
    except VerificationError as error:
        raise ConfigError(f"the ledger export's first line: {error}") from None
    heads, kinds, fault, before = [], [], "", bytes(32).hex()
    for number, line in enumerate(rest.split(b"\n")[:-1], start=1):
        try:
            entry = read_entry(line, number)
            entry.check_signature(bytes.fromhex(head.identity))
            said = tuple(entry.predicate.get(key) for key in ("firm", "seq", "prev"))
            if said != (head.firm, number, before):
                raise VerificationError(f"statement {number} does not follow the one before it")
        except VerificationError as error:
            fault = fault or f"line {number + 1}: {error}"
            break
        before = entry_head(line).hex()
        heads.append(before)
        kinds.append(entry.kind)
    if not fault and rest and not rest.endswith(b"\n"):
        fault = "its last line is cut off"
    return LedgerExport(
        firm=head.firm,
        consortium=head.consortium,
        heads=tuple(heads),
        kinds=tuple(kinds),
        fault=fault,
    )


def read_export(path: Path) -> LedgerExport:
    """The export at ``path``.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        if path.stat().st_size > MAX_EXPORT_BYTES:
            raise ConfigError(f"{path} is larger than any ledger's export")
        return parse_export(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); a firm makes one with: "
            "greylag-client export-trust DIR --out FILE --ledger FILE"
        ) from None


def compare(
    export: LedgerExport, logged: list[tuple[int, str, int]], size: int, findings: Findings
) -> None:
    """The firm's chain in the log (seq, head, position) against the firm's own."""
    firm, broken = export.firm, findings.broken
    if export.fault:
        broken("ledger.agrees:broken", firm=firm, why=export.fault)
    for seq, head, position in logged:
        if seq > len(export.heads):
            broken("ledger.agrees:more", entry=position, firm=firm, seq=seq)
        elif head != export.heads[seq - 1]:
            broken("ledger.agrees:other", entry=position, firm=firm, seq=seq)
    known = {seq for seq, _, _ in logged}
    last = max(known, default=0)
    for seq, kind in enumerate(export.kinds, start=1):
        if seq in known:
            continue
        # A receipt goes out with its contribution; goodbyes may have waited for a lead that was
        # away. What is followed by others was certainly told.
        if kind == RECEIPT_KIND or seq < last:
            broken("ledger.agrees:dropped", entry=size, firm=firm, seq=seq, kind=kind)
        else:
            findings.add("unknown", "ledger.agrees:untold", firm=firm, seq=seq, kind=kind)
    if not findings.has("ledger.agrees"):
        findings.add("holds", "ledger.agrees:holds", firm=firm, count=len(logged))
