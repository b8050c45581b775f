"""Endorsements on their way: from a firm's people, or a body, to the lead and to other firms."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from enrolling_lead import Lead, serving
from greylag_client.cli import app
from greylag_client.endorsing import endorse, endorse_latest
from greylag_client.enrolment_client import DeclinedError
from greylag_client.firm import FirmDirectory
from greylag_protocols.endorsement import (
    endorsed_by_body,
    sign_endorsement,
    verify_endorsement,
)
from greylag_protocols.errors import ConfigError
from greylag_protocols.membership import Membership
from greylag_protocols.signing import Ed25519Signer
from greylag_server.cli import app as server_app
from greylag_server.refusals import EnrolmentError
from greylag_server.service import open_store
from typer.testing import CliRunner

STRANGER = Ed25519Signer(b"\x09" * 32)


@pytest.fixture
def lead(tmp_path: Path) -> Iterator[Lead]:
    with serving(tmp_path / "lead", time.time()) as lead:
        yield lead


@pytest.fixture
def firm(lead: Lead, tmp_path: Path) -> FirmDirectory:
    return lead.join("north", tmp_path / "north").firm


def members(firm: FirmDirectory, *more: str) -> dict[str, object]:
    said = CliRunner().invoke(app, ["members", str(firm.root), "--format", "json", *more])
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


def test_an_approval_is_handed_to_the_lead(lead: Lead, firm: FirmDirectory) -> None:
    latest = firm.memberships.latest()
    told = members(firm, "--approve", latest.digest().hex())
    assert (told["approved"], told["endorsement_untold"]) == (True, "")
    (envelope,) = lead.endorsed
    assert verify_endorsement(envelope, firm.signer.public_key, latest) == "north"


def test_an_approval_counts_without_the_lead_who_hears_of_it_later(
    lead: Lead, firm: FirmDirectory
) -> None:
    port = lead.server.port
    lead.server.stop()
    told = members(firm, "--approve", firm.memberships.latest().digest().hex())
    assert told["approved"]
    assert "cannot be reached" in str(told["endorsement_untold"])
    lead.server._wanted_port = port
    lead.server.start()
    assert endorse_latest(firm) == ""
    assert len(lead.endorsed) == 1


def test_nothing_is_endorsed_that_nobody_approved(lead: Lead, firm: FirmDirectory) -> None:
    assert endorse_latest(firm) == ""
    assert lead.endorsed == []


def test_the_lead_takes_only_what_its_members_say_of_its_lists(
    lead: Lead, firm: FirmDirectory
) -> None:
    latest = firm.memberships.latest()
    bad = {
        "a list that the lead never signed": sign_endorsement(
            firm.signer, replace(latest, expires_s=latest.expires_s - 1), by="north"
        ),
        "another's key": sign_endorsement(STRANGER, latest, by="north"),
        "no member": sign_endorsement(STRANGER, latest, by="south"),
        "another statement": lead.issue().statement,
        "garbage": b"{}",
    }
    for what, envelope in bad.items():
        with pytest.raises(EnrolmentError) as caught:
            lead.enrolment.endorse(envelope)
        assert caught.value.code in ("bad-proof", "malformed"), what
    with pytest.raises(DeclinedError, match="declined"):
        endorse(firm, replace(latest, epoch=99))
    assert lead.endorsed == []


def make_key(path: Path, *options: str) -> Path:
    command = ["openssl", "genpkey", *options, "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def endorse_by_hand(*arguments: object) -> tuple[int, str]:
    """The command in a process of its own, as a body would use it."""
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("greylag-client")), "endorse", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_a_body_endorses_a_list_and_the_lead_shows_it(
    lead: Lead, firm: FirmDirectory, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "body.pem", "-algorithm", "ed25519")
    listed, out = tmp_path / "list.json", tmp_path / "word.json"
    digest = members(firm, "--export", str(listed))["digest"]
    given = (listed, "--key", key, "--by", "association", "--out", out, "--format", "json")
    code, said = endorse_by_hand(*given)
    assert (code, out.exists()) == (2, False)
    assert f"--digest {digest}" in "".join(said.split("\n"))
    assert "north" in said  # the list, to be compared
    code, said = endorse_by_hand(*given, "--digest", digest)
    assert code == 0, said
    facts = json.loads(said)
    taken = CliRunner().invoke(
        server_app, ["endorse", str(out), "--dir", str(lead.consortium.root), "--format", "json"]
    )
    assert taken.exit_code == 0, taken.output
    latest: Membership = firm.memberships.latest()
    with closing(open_store(lead.consortium)) as store:
        found = store.endorsements(latest.digest())
    assert endorsed_by_body(latest, found, [bytes.fromhex(facts["key"])])


def test_a_key_of_another_kind_endorses_nothing(
    lead: Lead, firm: FirmDirectory, tmp_path: Path
) -> None:
    listed = tmp_path / "list.json"
    digest = str(members(firm, "--export", str(listed))["digest"])
    rsa = make_key(tmp_path / "rsa.pem", "-algorithm", "rsa")
    absent = tmp_path / "absent.pem"
    for key, reason in ((rsa, "no unencrypted Ed25519 key"), (absent, "cannot be read")):
        said = CliRunner().invoke(
            app,
            ["endorse", str(listed), "--key", str(key), "--by", "x", "--digest", digest,
             "--out", str(tmp_path / "word.json")],
        )  # fmt: skip
        assert isinstance(said.exception, ConfigError)
        assert reason in str(said.exception)
