"""Joining over real TLS connections on the loopback, against honest, broken and lying leads."""

import contextlib
import json
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from enrolling_lead import AGENTS_PORT, NOW_S, Lead, serving
from greylag_client.cli import app
from greylag_client.enrolment_client import RETRY_DELAYS_S
from greylag_client.firm import FirmDirectory
from greylag_client.join import JoinResult, join, typed_path
from greylag_client.policy import DEFAULT_POLICY
from greylag_protocols.encoding import canonical_json
from greylag_protocols.errors import ConfigError, GreylagError, RemoteError, VerificationError
from greylag_protocols.invite import EnrolmentReply, parse_invite, parse_request
from greylag_protocols.membership import Member, Membership, SignedMembership
from greylag_protocols.signing import Ed25519Signer, fingerprint
from greylag_server.authority import CertificateAuthority
from greylag_server.consortium import Consortium
from greylag_server.enrolment import INVITE_LIFETIME_S
from typer.testing import CliRunner


@pytest.fixture
def lead(tmp_path: Path) -> Iterator[Lead]:
    with serving(tmp_path / "lead") as lead:
        yield lead


@pytest.fixture
def lead_today(tmp_path: Path) -> Iterator[Lead]:
    """For commands, which read the machine's clock."""
    with serving(tmp_path / "lead", time.time()) as lead:
        yield lead


def enter(
    text: str, directory: Path, *, data: Path | None = None, approve: str | None = None
) -> JoinResult:
    return join(text, directory, data=data, approve_members=approve, now_s=NOW_S)


def refused(kind: type[GreylagError], text: str, root: Path, match: str) -> GreylagError:
    """Joining fails so, and leaves no trace beside the target directory."""
    before = sorted(root.iterdir())
    with pytest.raises(kind, match=match) as caught:
        enter(text, root / "firm")
    assert sorted(root.iterdir()) == before
    return caught.value


# --- an honest lead


def test_three_firms_join_one_after_another(lead: Lead, tmp_path: Path) -> None:
    heard: list[int] = []
    for epoch, firm in enumerate(("north", "south", "west"), start=1):
        result = enter(lead.invite(firm, "host-co"), tmp_path / firm)
        heard.append(result.membership.epoch)
        own = result.membership.member(firm)
        assert len(result.membership.members) == epoch
        assert own.identity_key == result.firm.signer.public_key
        assert (own.operator, result.firm.settings.operator) == ("host-co", "host-co")
        assert result.membership.lead == "acme"
        assert result.firm.settings.lead_key == lead.consortium.signer.public_key.hex()
        assert (result.firm.settings.host, result.firm.settings.port) == ("127.0.0.1", AGENTS_PORT)
        assert result.firm.approved() == {}
    assert heard == [1, 2, 3]


def test_the_credentials_open_a_mutually_authenticated_connection(tmp_path: Path) -> None:
    # OpenSSL reads the machine's own clock, so here all of it does.
    now_s = time.time()
    with serving(tmp_path / "lead", now_s) as lead:
        firm = lead.join("north", tmp_path / "north").firm
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(lead.consortium.server_cert_path, lead.consortium.server_key_path)
    theirs.load_verify_locations(cadata=lead.consortium.ca_pem.decode())
    theirs.verify_mode = ssl.CERT_REQUIRED
    ours = ssl.create_default_context(cadata=firm.read_tls().ca.decode())
    ours.load_cert_chain(firm.root / "keys" / "tls.credentials.pem")
    down, up = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ours.wrap_bio(down, up, server_hostname="127.0.0.1")
    server = theirs.wrap_bio(up, down, server_side=True)
    for side in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    certificate = server.getpeercert()
    assert certificate is not None
    assert certificate["subject"] == ((("commonName", "north"),),)


def test_the_directory_opens_again(lead: Lead, tmp_path: Path) -> None:
    data = tmp_path / 'our "data" 数据.csv'
    data.write_text("a,b\n")
    result = enter(lead.invite("north"), tmp_path / "north", data=data)
    again = FirmDirectory.open(tmp_path / "north")
    assert again.settings == result.firm.settings
    assert again.data_path == data.resolve()
    assert again.signer.public_key == result.firm.signer.public_key
    assert again.read_tls() == result.firm.read_tls()
    assert again.memberships.latest() == result.membership
    assert {again.policy_path.parent, again.ledger_path.parent} == {again.root}


def test_keys_are_private_and_the_recovery_key_is_not_kept(lead: Lead, tmp_path: Path) -> None:
    result = enter(lead.invite("north"), tmp_path / "north")
    files = [path for path in result.firm.root.rglob("*") if path.is_file()]
    folders = [path for path in result.firm.root.rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    recovery = bytes.fromhex(result.recovery_key)
    public = Ed25519PrivateKey.from_private_bytes(recovery).public_key().public_bytes_raw()
    assert result.membership.member("north").recovery == public.hex()
    assert result.recovery_key not in repr(result)
    for place in (result.firm.root, lead.consortium.root):
        for path in place.rglob("*"):
            if path.is_file():
                held = path.read_bytes()
                assert recovery not in held
                assert result.recovery_key.encode() not in held
    stored = b"".join(path.read_bytes() for path in lead.consortium.root.glob("enrolment*"))
    assert result.firm.read_tls().key not in stored


def test_an_empty_directory_that_exists_is_filled(lead: Lead, tmp_path: Path) -> None:
    (tmp_path / "firm").mkdir()
    enter(lead.invite("north"), tmp_path / "firm")
    names = sorted(path.name for path in (tmp_path / "firm").iterdir())
    assert names == ["firm.toml", "keys", "membership", "policy.toml"]
    assert (tmp_path / "firm" / "policy.toml").read_text("utf-8") == DEFAULT_POLICY


def test_members_are_approved_by_digest_or_as_shown(lead: Lead, tmp_path: Path) -> None:
    first = enter(lead.invite("north"), tmp_path / "north", approve="shown")
    assert first.approved
    assert list(first.firm.approved()) == [first.digest]
    other = enter(lead.invite("south"), tmp_path / "south", approve="00" * 32)
    assert not other.approved
    assert other.firm.approved() == {}
    with pytest.raises(ConfigError, match="not a membership's digest"):
        enter(lead.invite("west"), tmp_path / "west", approve="yes")
    assert not (tmp_path / "west").exists()


# --- what the firm keeps of the membership


def test_the_officer_approves_only_what_was_seen(lead: Lead, tmp_path: Path) -> None:
    firm = enter(lead.invite("north"), tmp_path / "north", approve="shown").firm
    enter(lead.invite("south"), tmp_path / "south")
    signed = lead.enrolment.current_membership(NOW_S)
    digest = firm.store_seen(signed, now_s=NOW_S).digest().hex()
    assert digest not in firm.approved()
    with pytest.raises(ConfigError, match="was seen") as caught:
        firm.approve("ab" * 32)
    newcomer = firm.memberships.latest().member("south")
    assert digest in str(caught.value)
    assert f"south (operator south) {fingerprint(newcomer.identity_key)}" in str(caught.value)
    assert firm.approve(digest.upper()).epoch == 2
    firm.approve(digest)
    again = FirmDirectory.open(firm.root)
    assert [item.epoch for item in again.approved().values()] == [1, 2]
    assert again.approved()[digest] == firm.memberships.latest()


def test_two_lists_under_one_epoch_are_noticed(lead: Lead, tmp_path: Path) -> None:
    firm = enter(lead.invite("north"), tmp_path / "north").firm
    firm.store_seen(lead.issue(), now_s=NOW_S)
    with pytest.raises(VerificationError, match="two different lists as membership epoch 1"):
        firm.store_seen(lead.issue(members=()), now_s=NOW_S)
    assert len(firm.memberships.seen()) == 1


def test_only_the_pinned_lead_adds_to_what_was_seen(lead: Lead, tmp_path: Path) -> None:
    firm = enter(lead.invite("north"), tmp_path / "north").firm
    stranger = Ed25519Signer(bytes(range(32)))
    forged = SignedMembership.sign(replace(firm.memberships.latest(), epoch=2), stranger)
    with pytest.raises(VerificationError, match="not signed by"):
        firm.store_seen(forged, now_s=NOW_S)
    with pytest.raises(VerificationError, match="not valid now"):
        firm.store_seen(lead.issue(epoch=2), now_s=NOW_S + 31 * 24 * 3600)
    assert firm.memberships.latest().epoch == 1


def test_an_older_epoch_does_not_displace_the_latest(lead: Lead, tmp_path: Path) -> None:
    firm = enter(lead.invite("north"), tmp_path / "north").firm
    for epoch in (30, *range(2, 25)):
        firm.store_seen(lead.issue(epoch=epoch), now_s=NOW_S)
    seen: list[Membership] = list(firm.memberships.seen().values())
    assert firm.memberships.latest().epoch == 30
    assert len(seen) < 20


def test_a_damaged_directory_is_named(lead: Lead, tmp_path: Path) -> None:
    firm = enter(lead.invite("north"), tmp_path / "north").firm
    (firm.root / "membership" / "seen.json").write_text('{"memberships": [{}]}')
    with pytest.raises(ConfigError, match=r"seen\.json"):
        firm.memberships.seen()
    (firm.root / "keys" / "identity.key").write_text("-----BEGIN")
    with pytest.raises(ConfigError, match=r"identity\.key is damaged"):
        FirmDirectory.open(firm.root).signer  # noqa: B018 - it is read when it is asked for
    tls = firm.root / "keys" / "tls.credentials.pem"
    for damaged in (b"", tls.read_bytes()[:-30], firm.read_tls().certificate + firm.read_tls().ca):
        tls.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"tls\.credentials\.pem is damaged"):
            firm.read_tls()
    with pytest.raises(ConfigError, match="greylag-client join"):
        FirmDirectory.open(tmp_path)


# --- invites that do not work


def test_an_expired_invite(lead: Lead, tmp_path: Path) -> None:
    text = lead.invite("north")
    lead.now_s = NOW_S + INVITE_LIFETIME_S
    error = refused(ConfigError, text, tmp_path, "expired; ask the lead")
    assert error.exit_code == 2


def test_a_used_a_voided_and_an_unknown_invite(lead: Lead, tmp_path: Path) -> None:
    voided = lead.invite("north")
    text = lead.invite("north")
    refused(ConfigError, voided, tmp_path, "newer invite")
    enter(text, tmp_path / "north")
    refused(ConfigError, text, tmp_path, "used already")
    unknown = replace(parse_invite(text), token="A" * 43).encode()
    refused(ConfigError, unknown, tmp_path, "knows no such invite")


def test_an_invite_of_another_consortium(lead: Lead, tmp_path: Path) -> None:
    elsewhere = replace(parse_invite(lead.invite("north")), consortium="metal-01234567")
    error = refused(ConfigError, elsewhere.encode(), tmp_path, "metal-01234567")
    assert error.exit_code == 2


def test_a_truncated_invite_asks_nobody(tmp_path: Path, lead: Lead) -> None:
    refused(ConfigError, lead.invite("north")[:-5], tmp_path, "incomplete")


def test_what_is_wrong_here_is_told_before_the_invite_is_used(lead: Lead, tmp_path: Path) -> None:
    text = lead.invite("north")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(ConfigError, match="not an empty directory"):
        enter(text, tmp_path / "full")
    with pytest.raises(ConfigError, match="does not exist"):
        enter(text, tmp_path / "north", data=tmp_path / "no.csv")
    with pytest.raises(ConfigError, match="does not exist"):
        enter(text, tmp_path / "north", data=tmp_path / ("x" * 5000))
    enter(text, tmp_path / "north")


# --- the command


def test_the_directory_is_named_after_the_firm(
    lead_today: Lead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "invite.txt").write_text(invite := lead_today.invite("north"))
    said = CliRunner().invoke(app, ["join", "invite.txt", "--format", "json"], input="ignored\n")
    assert said.exit_code == 0, said.output
    facts = json.loads(said.stdout)
    assert (facts["firm"], facts["directory"], facts["data"]) == ("north", "north", "")
    assert not facts["approved"]
    assert [item["name"] for item in facts["members"]] == ["north"]
    firm = FirmDirectory.open(tmp_path / "north")
    assert facts["membership"] == firm.memberships.latest().digest().hex()
    assert said.stderr == ""  # in scripts nothing is asked
    assert invite not in said.stdout


def test_people_are_told_what_to_compare_and_what_to_keep(lead_today: Lead, tmp_path: Path) -> None:
    data = tmp_path / "our recipes.xlsx"
    data.write_bytes(b"")
    arguments = ["join", lead_today.invite("north"), "--dir", str(tmp_path / "n")]
    arguments += ["--data", data.as_uri(), "--approve-members", "shown"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    firm = FirmDirectory.open(tmp_path / "n")
    assert firm.data_path == data
    assert fingerprint(firm.signer.public_key) in said.stdout
    assert "greylag-client revoke" in said.stdout
    assert "You have approved this list" in said.stdout
    assert list(firm.approved()) == [firm.memberships.latest().digest().hex()]


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("  \n", None),
        ("'/data/our table.csv' \n", "/data/our table.csv"),
        ('"/data/our table.csv"', "/data/our table.csv"),
        ("/data/our\\ table\\(1\\).csv\n", "/data/our table(1).csv"),
        ("file:///data/our%20table%E6%95%B0.csv", "/data/our table数.csv"),
        ("plain.csv", "plain.csv"),
        ("~$plain.xlsx", "~$plain.xlsx"),
        ("~/plain.csv", str(Path.home() / "plain.csv")),
        ("x" * 5000, "x" * 5000),
        ("\\\0", "\0"),
    ],
)
def test_a_path_may_be_typed_or_dropped(typed: str, path: str | None) -> None:
    assert typed_path(typed) == (None if path is None else Path(path))


def test_a_name_that_holds_a_backslash_is_left_alone(tmp_path: Path) -> None:
    odd = tmp_path / "a\\b.csv"
    odd.write_text("")
    assert typed_path(str(odd)) == odd


def test_nothing_heavy_is_loaded_to_join() -> None:
    heavy = ["torch", "flwr", "polars", "grpc", "scipy", "pandas", "openpyxl"]
    script = (
        "import sys; sys.argv = ['greylag-client', 'join', 'glg1.x']\n"
        "import greylag_client.cli as cli, greylag_client.renewal\n"
        "try: cli.main()\nexcept SystemExit as end: print(end.code)\n"
        f"print(sorted(set({heavy}) & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "2\n[]\n", ended.stderr


# --- leads that fail or lie


Answer = Callable[[EnrolmentReply], EnrolmentReply]


@contextlib.contextmanager
def lying_lead(lead: Lead, alter: Answer, *, lost: int = 0) -> Iterator[tuple[int, list[bytes]]]:
    """A server with the true TLS key that enrols truly, loses replies and alters the others.

    Yields its port and the bodies that it got.
    """
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            reply = lead.enrolment.enrol(parse_request(bodies[-1]), now_s=NOW_S)
            if len(bodies) > lost:
                content = alter(reply).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            """Quiet."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(lead.consortium.server_cert_path, lead.consortium.server_key_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port, bodies
        finally:
            server.shutdown()
            thread.join()


def test_a_lost_reply_is_asked_for_again_with_the_same_request(lead: Lead, tmp_path: Path) -> None:
    with lying_lead(lead, lambda reply: reply, lost=1) as (port, bodies):
        result = enter(lead.invite("north", port=port), tmp_path / "north")
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]
    assert result.membership.epoch == 1
    assert result.membership.member("north").identity_key == result.firm.signer.public_key


def test_replies_that_stay_lost_say_what_to_ask_for(lead: Lead, tmp_path: Path) -> None:
    with lying_lead(lead, lambda reply: reply, lost=99) as (port, bodies):
        text = lead.invite("north", port=port)
        refused(RemoteError, text, tmp_path, "remove 'north' and to send a new invite")
    assert len(bodies) == len(RETRY_DELAYS_S) + 1


def other_authority(reply: EnrolmentReply) -> EnrolmentReply:
    authority = CertificateAuthority.create("glass-00000000", now_s=NOW_S)
    return replace(reply, ca=authority.certificate_pem.decode())


def other_document(reply: EnrolmentReply) -> EnrolmentReply:
    value = json.loads(reply.document)
    value["epoch"] += 1
    return replace(reply, document=json.dumps(value))


def other_statement(reply: EnrolmentReply) -> EnrolmentReply:
    value = json.loads(reply.statement)
    signature = value["signatures"][0]["sig"]
    value["signatures"][0]["sig"] = ("B" if signature[0] == "A" else "A") + signature[1:]
    return replace(reply, statement=canonical_json(value).decode())


ALTERED = {
    "authority": (other_authority, "certificate that the lead issued does not hold"),
    "document": (other_document, "covers another document"),
    "statement": (other_statement, "not signed by"),
    "lead key": (
        lambda reply: replace(reply, lead_key=Ed25519Signer(bytes(32)).public_key.hex()),
        "not signed by",
    ),
    "certificate": (lambda reply: replace(reply, certificate=reply.ca), "does not hold"),
    "cut certificate": (
        lambda reply: replace(reply, certificate=reply.certificate[:400]),
        "does not hold",
    ),
}


@pytest.mark.parametrize("part", ALTERED)
def test_an_altered_reply_is_refused(lead: Lead, tmp_path: Path, part: str) -> None:
    alter, match = ALTERED[part]
    with lying_lead(lead, alter) as (port, bodies):
        error = refused(VerificationError, lead.invite("north", port=port), tmp_path, match)
    assert error.exit_code == 1
    assert len(bodies) == 1


def test_anothers_certificate_or_keys_are_refused(lead: Lead, tmp_path: Path) -> None:
    south = enter(lead.invite("south"), tmp_path / "south")

    own = south.membership.member("south")

    def listing(reply: EnrolmentReply, *members: Member) -> EnrolmentReply:
        signed = lead.issue(members=members)
        return replace(
            reply, document=signed.document.decode(), statement=signed.statement.decode()
        )

    def other_certificate(reply: EnrolmentReply) -> EnrolmentReply:
        return replace(reply, certificate=south.firm.read_tls().certificate.decode())

    def other_identity(reply: EnrolmentReply) -> EnrolmentReply:
        return listing(reply, replace(own, name="north", identity="11" * 32), own)

    def left_out(reply: EnrolmentReply) -> EnrolmentReply:
        return listing(reply, own)

    for alter, match in (
        (other_certificate, "not for 'north' and its key"),
        (other_identity, "under other keys"),
        (left_out, "no firm 'north'"),
    ):
        with lying_lead(lead, alter) as (port, _):
            refused(VerificationError, lead.invite("north", port=port), tmp_path, match)
        lead.enrolment.remove("north", now_s=NOW_S)


def test_nothing_is_sent_to_a_server_without_the_pinned_key(lead: Lead, tmp_path: Path) -> None:
    impostor = Consortium.create(
        tmp_path / "impostor", name="glass", operator="acme", host="127.0.0.1", port=1,
        enrol_port=2, now_s=NOW_S,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(impostor.server_cert_path, impostor.server_key_path)
    received: list[bytes] = []

    def accept(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as secured:
            try:
                received.append(secured.recv(4096))
            except (ssl.SSLEOFError, ConnectionResetError):
                received.append(b"")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        text = lead.invite("north", port=listener.getsockname()[1])
        refused(VerificationError, text, tmp_path, "not the one that the invite names")
        thread.join()
    assert received == [b""]
    assert lead.enrolment.members() == ()


def test_a_server_that_is_not_there_or_not_ours(lead: Lead, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    refused(RemoteError, lead.invite("north", port=port), tmp_path, "cannot be reached")

    def greet(plain_listener: socket.socket) -> None:
        plain, _ = plain_listener.accept()
        with plain:
            plain.recv(4096)
            plain.sendall(b"SSH-2.0-other\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet, args=(listener,))
        thread.start()
        text = lead.invite("north", port=listener.getsockname()[1])
        refused(RemoteError, text, tmp_path, "greylag-server serve is running")
        thread.join()


def test_firm_toml_holds_no_secret(lead: Lead, tmp_path: Path) -> None:
    text = lead.invite("north")
    result = enter(text, tmp_path / "north")
    settings = tomllib.loads((result.firm.root / "firm.toml").read_text())
    assert settings["server_pin"] == lead.consortium.server_pin
    for path in result.firm.root.rglob("*"):
        assert path.is_dir() or parse_invite(text).token not in path.read_text()
