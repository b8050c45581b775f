"""What a firm exports for an auditor: keys that its own people approved, and nothing secret."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from enrolling_lead import Lead, serving
from greylag_audit.ledger_export import parse_export
from greylag_audit.trust import read_trust
from greylag_client.cli import app
from greylag_client.firm import FirmDirectory
from greylag_client.ledger import Ledger
from greylag_client.trust import export_trust, trusted_keys
from greylag_protocols import log
from greylag_protocols.errors import ConfigError
from greylag_protocols.membership import SignedMembership
from typer.testing import CliRunner

BODY = "ab" * 32


@pytest.fixture
def lead(tmp_path: Path) -> Iterator[Lead]:
    with serving(tmp_path / "lead", time.time()) as lead:
        yield lead


def approve_latest(firm: FirmDirectory) -> None:
    firm.memberships.approve(firm.memberships.latest().digest().hex())


def test_the_keys_that_were_approved_are_exported(lead: Lead, tmp_path: Path) -> None:
    lead.join("north", tmp_path / "north")
    firm = lead.join("south", tmp_path / "south").firm
    approve_latest(firm)
    policy = firm.policy_path.read_text()
    firm.policy_path.write_text(
        policy.replace("approving_keys = []", f'approving_keys = ["{BODY}"]')
    )
    out, ledger = tmp_path / "trust.json", tmp_path / "ledger.jsonl"
    arguments = ["export-trust", str(firm.root), "--out", str(out), "--ledger", str(ledger)]
    said = CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["firms"] == ["north", "south"]
    trust = read_trust(out)
    assert trust.consortium == firm.settings.consortium
    assert trust.lead == lead.consortium.signer.public_key.hex()
    members = {item.name: item for item in firm.memberships.latest().members}
    assert {name: (item.identity, item.operator) for name, item in trust.firms.items()} == {
        name: (item.identity, item.operator) for name, item in members.items()
    }
    assert list(trust.bodies.values()) == [BODY]
    export = parse_export(ledger.read_bytes())
    assert (export.firm, export.heads, export.fault) == ("south", (), "")


def test_lists_that_nobody_approved_are_left_out(lead: Lead, tmp_path: Path) -> None:
    firm = lead.join("north", tmp_path / "north").firm
    with pytest.raises(ConfigError, match="no member list was approved here"):
        trusted_keys(firm)
    approve_latest(firm)
    lead.join("south", tmp_path / "south")
    firm.memberships.store_seen(lead.enrolment.current_membership(lead.now_s), now_s=lead.now_s)
    assert list(trusted_keys(firm).firms) == ["north"]


def test_a_key_that_was_replaced_is_kept_as_an_earlier_one(lead: Lead, tmp_path: Path) -> None:
    firm = lead.join("north", tmp_path / "north").firm
    approve_latest(firm)
    latest = firm.memberships.latest()
    first = latest.members[0]
    other = replace(latest, epoch=7, members=(replace(first, identity="cd" * 32),))
    signed = SignedMembership.sign(other, lead.consortium.signer)
    firm.memberships.store_seen(signed, now_s=lead.now_s)
    approve_latest(firm)
    trust = trusted_keys(firm)
    assert trust.firms["north"].identity == "cd" * 32
    assert trust.firms["north"].earlier == (first.identity,)


def test_the_ledger_is_exported_as_it_was_signed(lead: Lead, tmp_path: Path) -> None:
    firm = lead.join("north", tmp_path / "north").firm
    approve_latest(firm)
    signer, tip = firm.signer, log.ChainTip()
    facts = {"firm": "north", "run": "small-1", "terms": bytes(32)}
    entry = log.sign_acceptance(signer, tip, epoch=1, **facts)  # type: ignore[arg-type]
    ledger = Ledger(firm.ledger_path)
    with ledger._file.transaction():
        ledger._append("small-1", lambda _: entry)
    ledger.close_file()
    out = tmp_path / "ledger.jsonl"
    export_trust(firm.root, tmp_path / "trust.json", out, "json")
    export = parse_export(out.read_bytes())
    assert (export.firm, export.fault) == ("north", "")
    assert export.heads == (log.entry_head(entry).hex(),)
    assert out.stat().st_mode & 0o077 == 0


def test_no_secret_is_exported(lead: Lead, tmp_path: Path) -> None:
    firm = lead.join("north", tmp_path / "north").firm
    approve_latest(firm)
    export_trust(firm.root, tmp_path / "t.json", tmp_path / "l.jsonl", "json")
    written = (tmp_path / "t.json").read_bytes() + (tmp_path / "l.jsonl").read_bytes()
    private = (firm.keys / "identity.key").read_bytes().splitlines()[1]
    assert private not in written
    assert b"PRIVATE" not in written
