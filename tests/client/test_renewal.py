"""Certificates that renew by themselves, over real TLS connections on the loopback."""

import logging
import os
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from enrolling_lead import DAY_S, NOW_S, Lead, serving
from greylag_client import enrolment_client, renewal
from greylag_client.enrolment_client import DeclinedError
from greylag_client.firm import TLS_FILE, FirmDirectory, TlsCredentials
from greylag_client.renewal import due, keep_renewed, renew, seconds_left
from greylag_protocols.errors import ConfigError, RemoteError, VerificationError
from greylag_protocols.invite import spki_pin
from greylag_protocols.renewal import RenewalReply, parse_renewal_request


@pytest.fixture
def lead(tmp_path: Path) -> Iterator[Lead]:
    with serving(tmp_path / "lead") as lead:
        yield lead


@pytest.fixture
def firm(lead: Lead, tmp_path: Path) -> FirmDirectory:
    return lead.join("north", tmp_path / "north").firm


def at_port(firm: FirmDirectory, port: int) -> FirmDirectory:
    """The firm, told that its lead's enrolment server is at ``port``."""
    path = firm.root / "firm.toml"
    before = FirmDirectory.open(firm.root).settings.enrol_port
    path.write_text(path.read_text().replace(str(before), str(port)))
    return FirmDirectory.open(firm.root)


def certificate(tls: TlsCredentials) -> x509.Certificate:
    return x509.load_pem_x509_certificate(tls.certificate)


def is_pair(tls: TlsCredentials) -> bool:
    return load_pem_private_key(tls.key, None).public_key() == certificate(tls).public_key()


def test_a_certificate_is_due_when_less_than_thirty_days_are_left(firm: FirmDirectory) -> None:
    pem = firm.read_tls().certificate
    assert not due(pem, NOW_S)
    assert not due(pem, NOW_S + 60 * DAY_S)
    assert due(pem, NOW_S + 60 * DAY_S + 1)
    assert due(b"damaged", NOW_S)


def test_a_renewal_brings_a_new_key_and_ninety_days(lead: Lead, firm: FirmDirectory) -> None:
    before = firm.read_tls()
    lead.now_s += 70 * DAY_S
    renewed = renew(firm, now_s=lead.now_s)
    assert firm.read_tls() == renewed  # the very next dial shows it
    assert is_pair(renewed)
    assert certificate(renewed).public_key() != certificate(before).public_key()
    assert seconds_left(renewed.certificate, lead.now_s) == 90 * DAY_S
    assert FirmDirectory.open(firm.root).read_tls() == renewed


def test_a_machine_that_slept_past_the_end_renews(lead: Lead, firm: FirmDirectory) -> None:
    lead.now_s += 100 * DAY_S
    assert seconds_left(firm.read_tls().certificate, lead.now_s) < 0
    renew(firm, now_s=lead.now_s)
    assert not due(firm.read_tls().certificate, lead.now_s)


def test_a_crash_at_any_point_leaves_a_pair(lead: Lead, firm: FirmDirectory) -> None:
    """A process that writes new credentials is ended before each of its file operations."""
    before = firm.read_tls()
    after = renew(firm, now_s=lead.now_s)
    seen, step, ended = set(), 0, False
    while not ended:
        firm.write_tls(before)
        step += 1
        ended = write_and_crash(firm, after, step)
        left = firm.read_tls()
        assert left in (before, after)
        assert is_pair(left)
        seen.add(left == after)
    assert seen == {False, True}
    assert step > 3


def write_and_crash(firm: FirmDirectory, tls: TlsCredentials, step: int) -> bool:
    """Whether the writing came to its end before its ``step``-th operation."""
    child = os.fork()
    if child == 0:
        count = 0

        def crash(event: str, _: tuple[object, ...]) -> None:
            nonlocal count
            count += event in ("open", "os.rename", "os.remove")
            if count == step:
                os._exit(9)

        sys.addaudithook(crash)
        firm.write_tls(tls)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- refusals


def test_an_identity_that_is_gone_is_told_why(lead: Lead, firm: FirmDirectory) -> None:
    before = firm.read_tls()
    for how in ("removed", "revoked", "left"):
        lead.enrolment.remove("north", now_s=NOW_S, how=how)
        with pytest.raises(DeclinedError, match="no longer a member") as caught:
            renew(firm, now_s=NOW_S)
        assert caught.value.code == f"firm-{how}"
        again = lead.join("north", firm.root.parent / how)
        # ... and while a newer join of the same name is a member.
        with pytest.raises(DeclinedError, match="no longer a member"):
            renew(firm, now_s=NOW_S)
        assert firm.read_tls() == before
        firm = again.firm
        before = firm.read_tls()


def test_nobody_renews_for_another(lead: Lead, firm: FirmDirectory, tmp_path: Path) -> None:
    posing = lead.join("south", tmp_path / "south").firm
    settings = posing.root / "firm.toml"
    settings.write_text(settings.read_text().replace('firm = "south"', 'firm = "north"'))
    for name in ("north", "nobody"):
        settings.write_text(settings.read_text().replace('firm = "north"', f'firm = "{name}"'))
        with pytest.raises(DeclinedError, match="not signed by the identity key") as caught:
            renew(FirmDirectory.open(posing.root), now_s=NOW_S)
        assert caught.value.code == "bad-proof"  # who is a member is not told to strangers


def test_another_consortium_is_refused(lead: Lead, firm: FirmDirectory) -> None:
    settings = firm.root / "firm.toml"
    text = settings.read_text().replace(firm.settings.consortium, "steel-00000000")
    settings.write_text(text)
    with pytest.raises(DeclinedError, match="steel-00000000") as caught:
        renew(FirmDirectory.open(firm.root), now_s=NOW_S)
    assert caught.value.code == "other-consortium"


def test_a_server_without_the_pinned_key_gets_nothing(firm: FirmDirectory, tmp_path: Path) -> None:
    with (
        serving(tmp_path / "impostor") as impostor,
        pytest.raises(VerificationError, match=r"not the one that firm\.toml names"),
    ):
        renew(at_port(firm, impostor.server.port), now_s=NOW_S)


# --- leads that fail or lie

Alter = Callable[[RenewalReply], RenewalReply]


class Relay:
    """A server with the lead's TLS key that renews truly, loses replies and alters the others."""

    def __init__(self, lead: Lead, alter: Alter, *, lost: int = 0) -> None:
        self.bodies: list[bytes] = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                relay.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                request = parse_renewal_request(relay.bodies[-1])
                reply = lead.enrolment.certificates.renew(request, now_s=lead.now_s)
                if len(relay.bodies) > lost:
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
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self) -> "Relay":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def test_a_lost_reply_is_asked_for_again(lead: Lead, firm: FirmDirectory) -> None:
    with Relay(lead, lambda reply: reply, lost=1) as relay:
        renewed = renew(at_port(firm, relay.server.server_port), now_s=NOW_S)
    assert len(relay.bodies) == 2
    assert relay.bodies[0] == relay.bodies[1]
    assert firm.read_tls() == renewed
    assert allowed(lead, renewed)


def test_replies_that_stay_lost_lock_nobody_out(
    lead: Lead, firm: FirmDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment_client, "RETRY_DELAYS_S", (0.0,))
    before = firm.read_tls()
    with Relay(lead, lambda reply: reply, lost=99) as relay:
        for _ in range(3):
            with pytest.raises(RemoteError, match="gave no answer"):
                renew(at_port(firm, relay.server.server_port), now_s=NOW_S)
    assert len(relay.bodies) == 3 * 2
    assert firm.read_tls() == before
    assert allowed(lead, before)
    assert allowed(lead, renew(at_port(firm, lead.server.port), now_s=NOW_S))


def allowed(lead: Lead, tls: TlsCredentials) -> bool:
    return lead.enrolment.certificates.refusals([("north", spki_pin(certificate(tls)))]) == [""]


def test_a_reply_for_another_key_is_not_written(lead: Lead, firm: FirmDirectory) -> None:
    before = firm.read_tls()
    for alter, match in (
        (lambda reply: replace(reply, certificate=before.certificate.decode()), "and its key"),
        (lambda reply: replace(reply, certificate=reply.ca), "does not hold"),
        (lambda reply: replace(reply, certificate="x"), "does not hold"),
    ):
        with (
            Relay(lead, alter) as relay,
            pytest.raises(VerificationError, match=match),
        ):
            renew(at_port(firm, relay.server.server_port), now_s=NOW_S)
    assert firm.read_tls() == before


# --- the loop beside the agent


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "CHECK_EVERY_S", 0.05)
    monkeypatch.setattr(renewal, "FIRST_WAIT_S", 0.01)


def run_until(
    firm: FirmDirectory, clock: Callable[[], float], condition: Callable[[], object]
) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=keep_renewed, args=(firm, stop), kwargs={"clock": clock})
    thread.start()
    try:
        while not condition():
            assert thread.is_alive()
            stop.wait(0.01)
    finally:
        stop.set()
        thread.join()


@pytest.mark.usefixtures("soon")
def test_the_loop_renews_when_it_is_time_and_only_then(lead: Lead, firm: FirmDirectory) -> None:
    before, looks = firm.read_tls(), []

    def clock() -> float:
        looks.append(lead.now_s)
        return lead.now_s

    run_until(firm, clock, lambda: len(looks) > 3)
    assert firm.read_tls() == before
    lead.now_s += 61 * DAY_S
    run_until(firm, clock, lambda: firm.read_tls() != before)
    assert not due(firm.read_tls().certificate, lead.now_s)


@pytest.mark.usefixtures("soon")
def test_the_loop_outlives_an_absent_lead(
    lead: Lead, firm: FirmDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lead.now_s += 80 * DAY_S
    port = lead.server.port
    lead.server.stop()
    before = firm.read_tls()

    def clock() -> float:
        if caplog.text.count("could not be renewed") == 2 and lead.server.port == 0:
            lead.server._wanted_port = port
            lead.server.start()
        return lead.now_s

    run_until(firm, clock, lambda: firm.read_tls() != before)
    assert "north: the certificate has 10 days left" in caplog.text
    assert "cannot be reached" in caplog.text
    assert "the new one is valid for 90 days" in caplog.text
    assert firm.read_tls().key.decode() not in caplog.text


@pytest.mark.usefixtures("soon")
def test_the_loop_stops_asking_when_the_firm_is_gone(
    lead: Lead, firm: FirmDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    lead.enrolment.remove("north", now_s=NOW_S)
    lead.now_s += 80 * DAY_S
    run_until(firm, lambda: lead.now_s, lambda: "is not renewed" in caplog.text)
    assert caplog.text.count("is not renewed") == 1
    assert "ask the lead for an invite" in caplog.text


@pytest.mark.usefixtures("soon")
def test_the_loop_replaces_damaged_credentials(lead: Lead, firm: FirmDirectory) -> None:
    (firm.keys / TLS_FILE).write_bytes(b"")

    def restored() -> bool:
        try:
            return is_pair(firm.read_tls())
        except ConfigError:
            return False

    run_until(firm, lambda: lead.now_s, restored)
