"""``greylag-client export-trust``: keys for an auditor, from what this firm's own people approved.

An auditor must not take keys from the bundle that is audited. A firm knows the lead's key since it
joined, and the other firms' from the member lists that a person here approved by hand; lists that
the lead only sent are left out.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from greylag_protocols.errors import ConfigError
from greylag_protocols.signing import fingerprint
from greylag_protocols.trust import Trust, trust_in

from greylag_client.firm import FirmDirectory
from greylag_client.firm_files import write_private
from greylag_client.ledger import Ledger
from greylag_client.policy import read_policy
from greylag_client.terminal import Directory, Format, say


def export_trust(
    directory: Directory,
    out: Annotated[Path, typer.Option("--out", "-o", help="the trust file to write")],
    ledger: Annotated[
        Path | None, typer.Option(help="also write this firm's own signed statements")
    ] = None,
    output: Format = "text",
) -> None:
    """Write the keys that an auditor needs: the lead's, and those of the firms on the lists that
    were approved here. No secret is in it. 为审计方导出本企业已认可的公钥。"""
    firm = FirmDirectory.open(directory)
    trust = trusted_keys(firm)
    write_private(out, json.dumps(asdict(trust), indent=1, sort_keys=True).encode() + b"\n")
    entries = 0
    if ledger is not None:
        lines = ledger_lines(firm)
        entries = len(lines) - 1
        write_private(ledger, b"".join(line + b"\n" for line in lines))
    facts = {
        "trust": str(out),
        "firms": sorted(trust.firms),
        "lead_key": fingerprint(bytes.fromhex(trust.lead)),
        "ledger": None if ledger is None else str(ledger),
        "entries": entries,
    }
    more = "" if ledger is None else f" --ledger {ledger}"
    say(
        facts,
        f"{out}: the keys of the lead and of {len(trust.firms)} firms, as they were approved\n"
        "here. Hand it to the auditor yourself, not by way of the lead:\n"
        f"  greylag-audit verify BUNDLE --trust {out}{more}",
        output,
    )


def trusted_keys(firm: FirmDirectory) -> Trust:
    """Trust in all whom the people of this firm approved.

    Raises:
        ConfigError: nobody here has approved a member list yet.
    """
    approved = firm.memberships.approved().values()
    if not approved:
        raise ConfigError(
            "no member list was approved here, so this firm vouches for nobody's key; look at it "
            "with `greylag-client members DIR`, compare it with the firms, and approve it"
        )
    keys = read_policy(firm.policy_path).approving_keys
    return trust_in(
        approved,
        consortium=firm.settings.consortium,
        lead=firm.settings.lead_key,
        # The policy knows bodies by their keys alone.
        bodies={fingerprint(bytes.fromhex(key))[:16]: key for key in keys},
    )


def ledger_lines(firm: FirmDirectory) -> list[bytes]:
    """This firm's own chain, a line each, after one that says whose it is."""
    settings = firm.settings
    known = [*firm.memberships.approved().values(), *firm.memberships.seen().values()]
    own = [item for epoch in known for item in epoch.members if item.name == settings.firm]
    if not own:
        raise ConfigError(f"no member list here names {settings.firm}; join first")
    head = {
        "version": "ledger/v1",
        "consortium": settings.consortium,
        "firm": settings.firm,
        "identity": own[-1].identity,
    }
    entries = Ledger(firm.ledger_path).entries_after(0)
    return [json.dumps(head, sort_keys=True).encode(), *entries]
