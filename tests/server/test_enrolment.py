"""Enrolment at the lead: its directory, authority, invites, members, epochs and port."""

import http.client
import json
import re
import socket
import sqlite3
import ssl
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store
from cryptography.x509.verification import VerificationError as ChainError
from greylag_protocols.errors import ConfigError
from greylag_protocols.invite import EnrolmentRequest, Invite, parse_invite, parse_reply, spki_pin
from greylag_protocols.membership import Membership, SignedMembership
from greylag_protocols.renewal import RenewalRequest
from greylag_protocols.signing import Ed25519Signer
from greylag_server.consortium import Consortium
from greylag_server.enrolment import INVITE_LIFETIME_S, Enrolment
from greylag_server.enrolment_http import MAX_FAILURES, EnrolmentServer, FailureLimit
from greylag_server.refusals import EnrolmentError

NOW_S = 1_800_000_000.0
DAY_S = 24 * 3600


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium.create(
        tmp_path / "lead", name="glass", operator="acme", host="127.0.0.1", port=7001,
        enrol_port=7002, now_s=NOW_S,
    )  # fmt: skip


@pytest.fixture
def enrolment(consortium: Consortium) -> Enrolment:
    return Enrolment(consortium)


class Applicant:
    """A firm's private keys, and the requests that it makes with them."""

    def __init__(self) -> None:
        self.tls = ec.generate_private_key(ec.SECP256R1())
        self.identity = Ed25519PrivateKey.generate().private_bytes_raw()
        self.recovery = Ed25519PrivateKey.generate().public_key().public_bytes_raw()

    def request(self, invite_text: str, *, csr: str | None = None) -> EnrolmentRequest:
        invite = parse_invite(invite_text)
        return EnrolmentRequest.prove(
            invite,
            csr=csr or make_csr(invite.firm, self.tls),
            signer=Ed25519Signer(self.identity),
            recovery_key=self.recovery,
        )


def make_csr(name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return csr.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def verified(signed: SignedMembership, consortium: Consortium, now_s: float) -> Membership:
    return signed.verify(
        consortium.signer.public_key, consortium=consortium.settings.id, now_s=now_s
    )


def refusal(enrolment: Enrolment, request: EnrolmentRequest, now_s: float = NOW_S) -> str:
    with pytest.raises(EnrolmentError) as caught:
        enrolment.enrol(request, now_s=now_s)
    return caught.value.code


# --- the lead's directory


def test_a_new_directory_opens_again_with_the_same_keys(consortium: Consortium) -> None:
    again = Consortium.open(consortium.root, now_s=NOW_S)
    assert again.settings == consortium.settings
    assert re.fullmatch(r"glass-[0-9a-f]{8}", again.settings.id)
    assert again.signer.public_key == consortium.signer.public_key
    assert again.server_cert_pem == consortium.server_cert_pem
    assert again.ca_pem == consortium.ca_pem


def test_keys_are_private_files_in_a_private_directory(consortium: Consortium) -> None:
    Enrolment(consortium)
    assert stat.S_IMODE((consortium.root / "keys").stat().st_mode) == 0o700
    files = [path for path in consortium.root.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {
        "ca.key.pem", "server.key.pem", "lead.key.pem", "consortium.toml", "enrolment.sqlite",
    }  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_init_refuses_a_directory_with_anything_in_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty directory"):
        Consortium.create(
            tmp_path, name="glass", operator="acme", host="localhost", port=1, enrol_port=2
        )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_init_fills_an_empty_directory_that_exists(tmp_path: Path) -> None:
    made = Consortium.create(
        tmp_path, name="glass", operator="acme", host="localhost", port=1, enrol_port=2
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["consortium.toml", "keys"]
    assert Consortium.open(tmp_path).settings == made.settings


@pytest.mark.parametrize(
    "wrong", [{"name": "Glass Works"}, {"operator": ""}, {"host": "a b"}, {"port": 65_536}]
)
def test_a_refused_init_leaves_nothing(tmp_path: Path, wrong: dict[str, object]) -> None:
    settings = {
        "name": "glass", "operator": "acme", "host": "localhost", "port": 1, "enrol_port": 2,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Consortium.create(tmp_path / "lead", **{**settings, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_opening_says_what_is_missing(tmp_path: Path, consortium: Consortium) -> None:
    with pytest.raises(ConfigError, match="greylag-server init"):
        Consortium.open(tmp_path)
    (consortium.root / "keys" / "lead.key.pem").unlink()
    with pytest.raises(ConfigError, match=r"lead\.key\.pem cannot be read"):
        Consortium.open(consortium.root, now_s=NOW_S)


def test_the_server_certificate_is_renewed_under_the_same_key(consortium: Consortium) -> None:
    before = x509.load_pem_x509_certificate(consortium.server_cert_pem)
    end_s = before.not_valid_after_utc.timestamp()
    assert (
        Consortium.open(consortium.root, now_s=end_s - 31 * DAY_S).server_cert_pem
        == consortium.server_cert_pem
    )
    renewed = Consortium.open(consortium.root, now_s=end_s - 29 * DAY_S)
    after = x509.load_pem_x509_certificate(renewed.server_cert_pem)
    assert after.not_valid_after_utc > before.not_valid_after_utc
    assert renewed.server_pin == consortium.server_pin == spki_pin(after)
    again = Consortium.open(consortium.root, now_s=end_s - 29 * DAY_S)
    assert again.server_cert_pem == renewed.server_cert_pem


def test_another_host_in_the_settings_renews_the_certificate(consortium: Consortium) -> None:
    path = consortium.root / "consortium.toml"
    path.write_text(path.read_text().replace("127.0.0.1", "lead.example"))
    moved = Consortium.open(consortium.root, now_s=NOW_S)
    certificate = x509.load_pem_x509_certificate(moved.server_cert_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["lead.example", "localhost"]
    assert moved.server_pin == consortium.server_pin


def test_a_firms_certificate_is_a_clients_and_never_a_servers(consortium: Consortium) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    authority = consortium.authority
    firm = authority.sign_firm(make_csr("north", key), firm="north", now_s=NOW_S)
    builder = (
        PolicyBuilder()
        .store(Store([authority.certificate]))
        .time(datetime.fromtimestamp(NOW_S, UTC))
    )
    builder.build_client_verifier().verify(firm, [])
    with pytest.raises(ChainError):
        builder.build_server_verifier(x509.DNSName("north")).verify(firm, [])
    server = x509.load_pem_x509_certificate(consortium.server_cert_pem)
    builder.build_server_verifier(x509.DNSName("localhost")).verify(server, [])
    with pytest.raises(ChainError):
        builder.build_client_verifier().verify(server, [])
    assert firm.not_valid_after_utc - datetime.fromtimestamp(NOW_S, UTC) == timedelta(days=90)


# --- invites


def test_an_invite_survives_a_mail_program(enrolment: Enrolment) -> None:
    text = enrolment.invite("north", "host-co", now_s=NOW_S)
    broken = "  " + "\r\n".join(text[at : at + 60] for at in range(0, len(text), 60)) + " \n"
    assert parse_invite(broken) == parse_invite(text)
    assert parse_invite(text).encode() == text
    assert parse_invite(text).token not in repr(parse_invite(text))


def test_every_truncation_and_every_altered_character_is_recognised(enrolment: Enrolment) -> None:
    text = enrolment.invite("north", now_s=NOW_S)
    for end in range(len(text)):
        with pytest.raises(ConfigError):
            parse_invite(text[:end])
    for at in range(len("glg1."), len(text) - 1, 7):
        other = "A" if text[at] != "A" else "B"
        with pytest.raises(ConfigError, match="incomplete or was altered"):
            parse_invite(text[:at] + other + text[at + 1 :])
    with pytest.raises(ConfigError, match="must start with 'glg1\\.'"):
        parse_invite("glg2." + text.removeprefix("glg1."))


def test_a_whole_invite_of_another_shape_does_not_show_its_token(enrolment: Enrolment) -> None:
    invite = parse_invite(enrolment.invite("north", now_s=NOW_S))
    odd = replace(invite, token=f"secret-{'x' * 9}")
    with pytest.raises(ConfigError, match="which version") as caught:
        parse_invite(odd.encode())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["North", "-north", "north\n", "", "n" * 41, "n/orth"])
def test_invites_refuse_unusable_names(enrolment: Enrolment, name: str) -> None:
    with pytest.raises(ConfigError, match="not a usable name"):
        enrolment.invite(name, now_s=NOW_S)
    with pytest.raises(ConfigError, match="operator"):
        enrolment.invite("north", name, now_s=NOW_S)
    assert enrolment.open_invites(NOW_S) == ()


def test_a_member_cannot_be_invited_until_it_is_removed(
    consortium: Consortium, enrolment: Enrolment
) -> None:
    old = Applicant()
    enrolment.enrol(old.request(enrolment.invite("north", now_s=NOW_S)), now_s=NOW_S)
    with pytest.raises(ConfigError, match="member already"):
        enrolment.invite("north", now_s=NOW_S)
    without = verified(enrolment.remove("north", now_s=NOW_S), consortium, NOW_S)
    assert (without.epoch, without.members) == (2, ())
    new = Applicant()
    enrolment.enrol(new.request(enrolment.invite("north", now_s=NOW_S)), now_s=NOW_S)
    (member,) = enrolment.members()
    assert member.identity_key == Ed25519Signer(new.identity).public_key
    with pytest.raises(ConfigError, match="not a member"):
        enrolment.remove("south", now_s=NOW_S)


def test_open_invites_are_those_that_still_work(enrolment: Enrolment) -> None:
    enrolment.invite("south", "host-co", now_s=NOW_S)
    enrolment.invite("north", now_s=NOW_S)
    enrolment.invite("north", now_s=NOW_S)
    found = [(item.firm, item.operator) for item in enrolment.open_invites(NOW_S)]
    assert found == [("north", "north"), ("south", "host-co")]
    assert enrolment.open_invites(NOW_S + INVITE_LIFETIME_S) == ()


# --- enrolments


def test_a_token_works_once_and_only_for_its_firm(enrolment: Enrolment) -> None:
    text = enrolment.invite("north", now_s=NOW_S)
    other_firm = replace(parse_invite(text), firm="south").encode()
    assert refusal(enrolment, Applicant().request(other_firm)) == "unknown-invite"
    enrolment.enrol(Applicant().request(text), now_s=NOW_S)
    assert refusal(enrolment, Applicant().request(text)) == "used-invite"


def test_an_invite_ends_after_seven_days(enrolment: Enrolment) -> None:
    text = enrolment.invite("north", now_s=NOW_S)
    end_s = NOW_S + INVITE_LIFETIME_S
    assert refusal(enrolment, Applicant().request(text), end_s) == "expired-invite"
    enrolment.enrol(Applicant().request(text), now_s=end_s - 1)


def test_a_newer_invite_voids_the_older_one(enrolment: Enrolment) -> None:
    older = enrolment.invite("north", now_s=NOW_S)
    newer = enrolment.invite("north", now_s=NOW_S)
    assert refusal(enrolment, Applicant().request(older)) == "revoked-invite"
    enrolment.enrol(Applicant().request(newer), now_s=NOW_S)


def test_an_unknown_token_and_another_consortium_are_told_apart(enrolment: Enrolment) -> None:
    invite = parse_invite(enrolment.invite("north", now_s=NOW_S))
    guessed = replace(invite, token="A" * 43).encode()
    assert refusal(enrolment, Applicant().request(guessed)) == "unknown-invite"
    elsewhere = replace(invite, consortium="metal-00000000").encode()
    assert refusal(enrolment, Applicant().request(elsewhere)) == "other-consortium"


@pytest.mark.parametrize(
    "csr",
    [
        lambda: make_csr("south", ec.generate_private_key(ec.SECP256R1())),
        lambda: make_csr("north", ec.generate_private_key(ec.SECP384R1())),
        lambda: make_csr("north", rsa.generate_private_key(65537, 2048)),
        lambda: "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ],
    ids=["another name", "another curve", "RSA", "garbage"],
)
def test_a_wrong_certificate_request_changes_nothing(
    enrolment: Enrolment, csr: Callable[[], str]
) -> None:
    text = enrolment.invite("north", now_s=NOW_S)
    assert refusal(enrolment, Applicant().request(text, csr=csr())) == "bad-csr"
    assert enrolment.members() == ()
    enrolment.enrol(Applicant().request(text), now_s=NOW_S)


def test_a_certificate_request_must_be_signed_by_its_own_key(enrolment: Enrolment) -> None:
    text = enrolment.invite("north", now_s=NOW_S)
    applicant = Applicant()
    der = bytearray(x509.load_pem_x509_csr(make_csr("north", applicant.tls).encode()).public_bytes(
        Encoding.DER
    ))  # fmt: skip
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode()
    assert refusal(enrolment, applicant.request(text, csr=forged)) == "bad-csr"


def test_the_identity_must_be_proved_over_all_that_is_asked(enrolment: Enrolment) -> None:
    text = enrolment.invite("north", now_s=NOW_S)
    request, other = Applicant().request(text), Applicant().request(text)
    for forged in (
        replace(request, identity=other.identity),
        replace(request, recovery=other.recovery),
        replace(request, csr=other.csr),
        replace(request, proof=other.proof),
        replace(request, proof="{}"),
        replace(request, identity="00" * 32),
    ):
        assert refusal(enrolment, forged) == "bad-proof"
    assert enrolment.members() == ()


def test_no_two_members_share_a_key(enrolment: Enrolment) -> None:
    first, second = Applicant(), Applicant()
    enrolment.enrol(first.request(enrolment.invite("north", now_s=NOW_S)), now_s=NOW_S)
    text = enrolment.invite("south", now_s=NOW_S)
    second.recovery = Ed25519Signer(first.identity).public_key
    assert refusal(enrolment, second.request(text)) == "identity-taken"
    second.recovery = Ed25519Signer(second.identity).public_key
    assert refusal(enrolment, second.request(text)) == "identity-taken"
    assert refusal(enrolment, first.request(text)) == "identity-taken"


def test_the_same_request_again_gets_the_same_certificate(
    consortium: Consortium, enrolment: Enrolment
) -> None:
    request = Applicant().request(enrolment.invite("north", now_s=NOW_S))
    first = enrolment.enrol(request, now_s=NOW_S)
    enrolment.enrol(Applicant().request(enrolment.invite("south", now_s=NOW_S)), now_s=NOW_S)
    again = enrolment.enrol(request, now_s=NOW_S + INVITE_LIFETIME_S)
    assert again.certificate == first.certificate
    membership = verified(again.membership, consortium, NOW_S)
    assert (membership.epoch, len(membership.members)) == (2, 2)


def test_epochs_are_delivered_in_order_once_and_after_the_fact(consortium: Consortium) -> None:
    quiet = Enrolment(consortium)
    quiet.enrol(Applicant().request(quiet.invite("north", now_s=NOW_S)), now_s=NOW_S)
    heard: list[int] = []

    def hear(signed: SignedMembership) -> None:
        heard.append(verified(signed, consortium, NOW_S).epoch)
        if len(heard) == 1:
            raise OSError("the disk is full")

    loud = Enrolment(consortium, on_epoch=hear)
    with pytest.raises(OSError, match="disk is full"):
        loud.deliver_epochs()
    loud.enrol(Applicant().request(loud.invite("south", now_s=NOW_S)), now_s=NOW_S)
    loud.deliver_epochs()
    assert heard == [1, 1, 2]


def test_an_epoch_is_reissued_when_less_than_ten_days_remain(
    consortium: Consortium, enrolment: Enrolment
) -> None:
    with pytest.raises(ConfigError, match="no firm has joined"):
        enrolment.current_membership(NOW_S)
    enrolment.enrol(Applicant().request(enrolment.invite("north", now_s=NOW_S)), now_s=NOW_S)
    same = verified(enrolment.current_membership(NOW_S + 20 * DAY_S), consortium, NOW_S)
    late_s = NOW_S + 20 * DAY_S + 1
    fresh = verified(enrolment.current_membership(late_s), consortium, late_s)
    assert (same.epoch, fresh.epoch) == (1, 2)
    assert fresh.members == same.members
    assert fresh.expires_s == int(late_s) + 30 * DAY_S


def test_the_file_holds_no_secret(consortium: Consortium, enrolment: Enrolment) -> None:
    applicant = Applicant()
    text = enrolment.invite("north", now_s=NOW_S)
    enrolment.enrol(applicant.request(text), now_s=NOW_S)
    stored = b"".join(path.read_bytes() for path in consortium.root.glob("enrolment.sqlite*"))
    assert Ed25519Signer(applicant.identity).public_key.hex().encode() in stored
    token = parse_invite(text).token
    for secret in (token.encode(), applicant.identity, applicant.identity.hex().encode()):
        assert secret not in stored
    assert b"PRIVATE KEY" not in stored


def test_a_file_of_another_version_is_left_alone(consortium: Consortium) -> None:
    Enrolment(consortium)
    db = sqlite3.connect(consortium.enrolment_path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="another version"):
        Enrolment(consortium)


# --- the port


@pytest.fixture
def served(consortium: Consortium, enrolment: Enrolment) -> Iterator[EnrolmentServer]:
    server = EnrolmentServer(consortium, enrolment, 0, clock=lambda: NOW_S)
    server.start()
    yield server
    server.stop()


def post(server: EnrolmentServer, body: bytes, path: str = "/v1/enrol") -> tuple[int, bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=20, context=context)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_a_firm_enrols_over_tls(
    served: EnrolmentServer, enrolment: Enrolment, consortium: Consortium
) -> None:
    request = Applicant().request(enrolment.invite("north", now_s=NOW_S))
    status, body = post(served, request.encode())
    assert status == 200
    assert verified(parse_reply(body).membership, consortium, NOW_S).member("north")
    assert post(served, request.encode(), "/v1/other")[0] == 404
    status, body = post(served, Applicant().request(enrolment.invite("x", now_s=0.0)).encode())
    assert (status, json.loads(body)["error"]) == (410, "expired-invite")


def test_errors_are_coded_and_repeat_no_secret(
    served: EnrolmentServer, enrolment: Enrolment
) -> None:
    request = Applicant().request(enrolment.invite("north", now_s=NOW_S))
    wrong = json.loads(request.encode())
    wrong["token"] += "!"
    for body in (json.dumps(wrong).encode(), b"{", b"\xff", b"[" * 5000, b""):
        status, answer = post(served, body)
        assert (status, json.loads(answer)["error"]) == (400, "malformed")
        assert request.token not in answer.decode()
    status, answer = post(served, replace(request, token="B" * 43).encode())
    assert (status, json.loads(answer)["error"]) == (404, "unknown-invite")
    assert "BBBB" not in answer.decode()


def test_an_oversize_body_is_cut_off(served: EnrolmentServer) -> None:
    assert post(served, b" " * (64 << 10))[0] == 400
    status, answer = post(served, b" " * ((64 << 10) + 1))
    assert (status, json.loads(answer)["error"]) == (413, "too-large")


def test_failures_are_limited(served: EnrolmentServer, enrolment: Enrolment) -> None:
    for _ in range(MAX_FAILURES):
        assert post(served, b"{}")[0] == 400
    good = Applicant().request(enrolment.invite("north", now_s=NOW_S))
    status, answer = post(served, good.encode())
    assert (status, json.loads(answer)["error"]) == (429, "too-many-failures")
    assert enrolment.members() == ()


def test_strangers_failures_keep_no_member_from_renewing(
    served: EnrolmentServer, enrolment: Enrolment, consortium: Consortium
) -> None:
    applicant = Applicant()
    enrolment.enrol(applicant.request(enrolment.invite("north", now_s=NOW_S)), now_s=NOW_S)
    for _ in range(MAX_FAILURES):
        post(served, b"{}")
    for path in ("/v1/renew", "/v1/leave"):
        for body in (b"{}", b"\xff", b"[" * 5000):
            status, answer = post(served, body, path)
            assert (status, json.loads(answer)["error"]) == (400, "malformed")
    request = RenewalRequest.prove(
        Ed25519Signer(applicant.identity),
        consortium=consortium.settings.id,
        firm="north",
        csr=make_csr("north", ec.generate_private_key(ec.SECP256R1())),
    )
    assert post(served, request.encode(), "/v1/renew")[0] == 200
    assert post(served, b"{}")[0] == 429


def test_the_limit_lifts_when_its_window_has_passed() -> None:
    limit = FailureLimit(2, 60.0)
    limit.count(0.0)
    limit.count(30.0)
    assert limit.reached(59.9)
    assert not limit.reached(60.0)
    limit.count(60.0)
    assert limit.reached(60.0)


def test_a_fault_at_the_lead_is_told_apart(consortium: Consortium) -> None:
    def fail(signed: SignedMembership) -> None:
        raise OSError("the disk is full: /srv/lead")

    enrolment = Enrolment(consortium, on_epoch=fail)
    server = EnrolmentServer(consortium, enrolment, 0, clock=lambda: NOW_S)
    server.start()
    try:
        body = Applicant().request(enrolment.invite("north", now_s=NOW_S)).encode()
        status, answer = post(server, body)
    finally:
        server.stop()
    assert (status, json.loads(answer)["error"]) == (503, "unavailable")
    assert b"/srv" not in answer


def test_a_port_in_use_is_named(consortium: Consortium, enrolment: Enrolment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = EnrolmentServer(consortium, enrolment, port)
        with pytest.raises(ConfigError, match=f"port {port}.*enrol_port"):
            server.start()
        server.stop()


def test_a_stopped_server_frees_its_port(consortium: Consortium, enrolment: Enrolment) -> None:
    server = EnrolmentServer(consortium, enrolment, 0)
    server.start()
    port = server.port
    server.stop()
    again = EnrolmentServer(consortium, enrolment, port)
    again.start()
    assert again.port == port
    again.stop()


def test_the_settings_port_goes_into_the_invite_unless_it_is_open(tmp_path: Path) -> None:
    open_port = Consortium.create(
        tmp_path / "lead", name="glass", operator="acme", host="127.0.0.1", port=0, enrol_port=0
    )
    enrolment = Enrolment(open_port, agents_port=7011)
    with pytest.raises(ConfigError, match="enrol_port"):
        enrolment.invite("north", now_s=NOW_S)
    invite: Invite = parse_invite(enrolment.invite("north", now_s=NOW_S, port=7012))
    assert (invite.host, invite.port) == ("127.0.0.1", 7012)
