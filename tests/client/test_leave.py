"""A firm leaves, whether or not its lead listens."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from enrolling_lead import NOW_S, Lead, serving
from greylag_client.cli import app
from greylag_client.enrolment_client import DeclinedError
from greylag_client.firm import FirmDirectory
from greylag_client.leave import leave
from greylag_client.renewal import renew
from greylag_protocols.errors import ConfigError
from greylag_protocols.renewal import verify_leave
from greylag_server.refusals import EnrolmentError
from typer.testing import CliRunner

SECRETS = ("identity.key", "tls.credentials.pem")


@pytest.fixture
def lead(tmp_path: Path) -> Iterator[Lead]:
    with serving(tmp_path / "lead", time.time()) as lead:
        yield lead


@pytest.fixture
def firm(lead: Lead, tmp_path: Path) -> FirmDirectory:
    return lead.join("north", tmp_path / "north").firm


@contextmanager
def absent(lead: Lead) -> Iterator[None]:
    port = lead.server.port
    lead.server.stop()
    yield
    lead.server._wanted_port = port
    lead.server.start()


def check_left(firm: FirmDirectory) -> None:
    """Nothing speaks for the firm any more, and what was spent is still there."""
    again = FirmDirectory.open(firm.root)
    assert list(again.keys.iterdir()) == []
    for use in (lambda: again.signer, again.read_tls, lambda: renew(again, now_s=NOW_S)):
        with pytest.raises(ConfigError, match=r"this firm left glass-\w+ on 20\d\d-\d\d-\d\d; to"):
            use()
    assert again.policy_path.exists()
    assert again.memberships.latest().member("north")
    said = CliRunner().invoke(app, ["budget", str(firm.root)])
    assert said.exit_code == 0, said.output


def test_a_firm_leaves_and_the_lead_knows(lead: Lead, firm: FirmDirectory, tmp_path: Path) -> None:
    lead.join("south", tmp_path / "south")
    identity, secrets = (
        firm.signer.public_key,
        [(firm.keys / name).read_bytes() for name in SECRETS],
    )
    result = leave(firm, now_s=lead.now_s)
    assert result.untold == ""
    assert lead.names() == ["south"]
    word = result.statement.read_bytes()
    assert lead.left == [word]
    said = verify_leave(word, identity, consortium=firm.settings.consortium)
    assert (said.firm, said.left_s) == ("north", int(lead.now_s))
    check_left(firm)
    held = [path.read_bytes() for path in firm.root.rglob("*") if path.is_file()]
    assert not any(secret in content for secret in secrets for content in held)


def test_a_firm_leaves_an_absent_lead_and_tells_it_later(lead: Lead, firm: FirmDirectory) -> None:
    with absent(lead):
        first = leave(firm, now_s=lead.now_s)
        assert "cannot be reached" in first.untold
        check_left(firm)
    assert lead.names() == ["north"]
    again = leave(FirmDirectory.open(firm.root), now_s=lead.now_s + 5)
    assert again.untold == ""
    assert lead.names() == []
    assert lead.left == [first.statement.read_bytes()]  # the word of the day on which it left
    assert leave(FirmDirectory.open(firm.root), now_s=lead.now_s).untold == ""  # a lost reply
    assert len(lead.left) == 1


def test_a_leave_that_was_interrupted_goes_on(lead: Lead, firm: FirmDirectory) -> None:
    with absent(lead):
        keys = {name: (firm.keys / name).read_bytes() for name in SECRETS}
        leave(firm, now_s=lead.now_s)
        for name, content in keys.items():  # it was ended before it destroyed them
            (firm.keys / name).write_bytes(content)
    with pytest.raises(ConfigError, match="this firm left"):
        FirmDirectory.open(firm.root).signer  # noqa: B018 - asking is what is refused
    leave(FirmDirectory.open(firm.root), now_s=lead.now_s)
    check_left(firm)


def test_a_running_agent_must_end_first(firm: FirmDirectory, lead: Lead) -> None:
    with firm.hold(), pytest.raises(ConfigError, match="an agent is running"):
        leave(FirmDirectory.open(firm.root), now_s=lead.now_s)
    assert firm.left is None
    assert lead.names() == ["north"]


def test_a_consortium_that_is_another_one_is_not_told(lead: Lead, firm: FirmDirectory) -> None:
    path = firm.root / "firm.toml"
    path.write_text(path.read_text().replace(firm.settings.consortium, "steel-00000000"))
    result = leave(FirmDirectory.open(firm.root), now_s=lead.now_s)
    assert "steel-00000000" in result.untold
    assert lead.names() == ["north"]
    assert list(firm.keys.iterdir()) == []  # it leaves all the same


def test_nobody_leaves_for_another(lead: Lead, firm: FirmDirectory, tmp_path: Path) -> None:
    lead.join("south", tmp_path / "south")
    other = FirmDirectory.open(tmp_path / "south").signer
    consortium = firm.settings.consortium
    predicate = {"consortium": consortium, "firm": "north", "left_s": 1}
    own_name = other.sign("leave/v1", "north", other.public_key, predicate)
    own_key = other.sign("leave/v1", "north", firm.signer.public_key, predicate)
    revocation = other.sign("revocation/v1", "south", other.public_key, predicate)
    for envelope, code in (
        (own_name, "bad-proof"),
        (own_key, "bad-proof"),
        (revocation, "malformed"),
        (b"", "malformed"),
        (b"{}", "malformed"),
    ):
        with pytest.raises(EnrolmentError) as caught:
            lead.enrolment.leave(envelope, now_s=lead.now_s)
        assert caught.value.code == code
    assert lead.names() == ["north", "south"]
    assert lead.left == []


def test_an_old_word_does_not_take_out_who_came_back(
    lead: Lead, firm: FirmDirectory, tmp_path: Path
) -> None:
    word = leave(firm, now_s=lead.now_s).statement.read_bytes()
    lead.join("north", tmp_path / "again")
    lead.enrolment.leave(word, now_s=lead.now_s)
    assert lead.names() == ["north"]
    assert len(lead.left) == 1


def test_a_firm_that_left_is_told_so_when_a_copy_renews(
    lead: Lead, firm: FirmDirectory, tmp_path: Path
) -> None:
    keys = {name: (firm.keys / name).read_bytes() for name in SECRETS}
    leave(firm, now_s=lead.now_s)
    (firm.root / "left.json").rename(tmp_path / "gone")
    for name, content in keys.items():  # a backup
        (firm.keys / name).write_bytes(content)
    with pytest.raises(DeclinedError, match="it left") as caught:
        renew(FirmDirectory.open(firm.root), now_s=lead.now_s)
    assert caught.value.code == "firm-left"


def test_the_command_asks_before_it_leaves(firm: FirmDirectory, lead: Lead) -> None:
    runner, arguments = CliRunner(), ["leave", str(firm.root), "--format", "json"]
    no = runner.invoke(app, arguments, input="\n")
    assert isinstance(no.exception, ConfigError)
    assert firm.left is None
    yes = runner.invoke(app, arguments, input="north\n")
    assert yes.exit_code == 0, yes.output
    facts = json.loads(yes.stdout)
    assert facts["lead_told"]
    assert facts["closed"] == []
    assert "Type the firm's name" in yes.stderr
    check_left(firm)


def test_the_command_says_plainly_when_nobody_was_told(firm: FirmDirectory, lead: Lead) -> None:
    with absent(lead):
        said = CliRunner().invoke(app, ["leave", str(firm.root), "--yes"])
    assert said.exit_code == 0
    assert "THE LEAD DOES NOT KNOW YET" in said.stdout
    assert str(firm.root / "left.json") in said.stdout
