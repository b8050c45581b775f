"""Whom the lead lets in at the firms' port, by real mutual TLS, and what it renews."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from enrolling_lead import Lead, serving
from greylag_client.enrolment_client import make_csr, make_tls_key
from greylag_client.firm import FirmDirectory, TlsCredentials
from greylag_client.link import keep_connected
from greylag_client.renewal import renew
from greylag_protocols.invite import EnrolmentRequest, parse_invite, spki_pin
from greylag_protocols.renewal import RenewalReply, RenewalRequest
from greylag_server import grid_grpc
from greylag_server.enrolment import Enrolment
from greylag_server.enrolment_store import KEPT_CERTIFICATES, Departure
from greylag_server.grid_grpc import GrpcGrid
from greylag_server.refusals import EnrolmentError


@pytest.fixture
def lead(tmp_path: Path) -> Iterator[Lead]:
    with serving(tmp_path / "lead", time.time()) as lead:
        yield lead


@pytest.fixture
def firm(lead: Lead, tmp_path: Path) -> FirmDirectory:
    return lead.join("north", tmp_path / "north").firm


@pytest.fixture
def grid(lead: Lead, monkeypatch: pytest.MonkeyPatch) -> Iterator[GrpcGrid]:
    monkeypatch.setattr(grid_grpc, "RECHECK_S", 0.1)
    consortium = lead.consortium
    grid = GrpcGrid(
        "127.0.0.1:0",
        ca=consortium.ca_pem,
        key=consortium.server_key_pem,
        certificate=consortium.server_cert_pem,
        max_frame_bytes=1 << 20,
        refusals=lead.enrolment.certificates.refusals,
    )
    yield grid
    grid.stop()


@contextmanager
def dialling(grid: GrpcGrid, tls: Callable[[], TlsCredentials]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(
        target=keep_connected, args=(f"127.0.0.1:{grid.port}", tls, bytes, stop)
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def wait_for(condition: Callable[[], object]) -> None:
    """The test's own time limit ends a wait that never ends."""
    while not condition():
        time.sleep(0.01)


def connected(grid: GrpcGrid) -> bool:
    return bool(list(grid.get_node_ids()))


def pin(pem: bytes | str) -> str:
    return spki_pin(x509.load_pem_x509_certificate(pem if isinstance(pem, bytes) else pem.encode()))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("removed", "the lead removed it"),
        ("revoked", "its recovery key took its identity back"),
        ("left", "it left"),
    ],
)
def test_a_valid_certificate_does_not_help_a_firm_that_is_gone(
    lead: Lead,
    firm: FirmDirectory,
    grid: GrpcGrid,
    caplog: pytest.LogCaptureFixture,
    how: Departure,
    why: str,
) -> None:
    """It is put out while it is connected, and the firm's own log says why."""
    caplog.set_level(logging.INFO)
    with dialling(grid, firm.read_tls):
        wait_for(lambda: connected(grid))
        lead.enrolment.remove("north", now_s=lead.now_s, how=how)
        wait_for(lambda: "refuses this firm" in caplog.text)
        assert not connected(grid)
    said = [item.message for item in caplog.records if item.name == "greylag_client.link"]
    assert any(f"'north' is no longer a member of {lead.consortium.settings.id}: {why}; to come "
               "back" in text for text in said)  # fmt: skip


def test_keys_of_an_earlier_join_do_not_open(
    lead: Lead,
    firm: FirmDirectory,
    grid: GrpcGrid,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lead.enrolment.remove("north", now_s=lead.now_s)
    again = lead.join("north", tmp_path / "again").firm
    with dialling(grid, firm.read_tls):
        wait_for(lambda: "not of the keys with which 'north' joined" in caplog.text)
    with dialling(grid, again.read_tls):
        wait_for(lambda: connected(grid))


def test_a_renewed_certificate_is_shown_at_the_next_dial(
    lead: Lead, firm: FirmDirectory, grid: GrpcGrid
) -> None:
    shown: list[TlsCredentials] = []

    def read() -> TlsCredentials:
        shown.append(firm.read_tls())
        return shown[-1]

    with dialling(grid, read):
        wait_for(lambda: connected(grid))
        before = list(grid.get_node_ids())
        renewed = renew(firm, now_s=lead.now_s)
        assert list(grid.get_node_ids()) == before  # what is open stays open
        # A dropped line: the agent dials again.
        grid._loop.call_soon_threadsafe(
            lambda: [item.outbox.put_nowait(None) for item in grid._sessions.values()]
        )
        wait_for(lambda: connected(grid) and list(grid.get_node_ids()) != before)
    assert shown[-1] == renewed != shown[0]


def test_an_old_certificate_ends_when_two_newer_ones_were_used(
    lead: Lead, firm: FirmDirectory
) -> None:
    refusals = lead.enrolment.certificates.refusals
    first = pin(firm.read_tls().certificate)
    assert refusals([("north", first)]) == [""]
    unused = [pin(renew(firm, now_s=lead.now_s).certificate) for _ in range(4)]
    assert refusals([("north", first)]) == [""]  # their replies may have been lost
    assert refusals([("north", unused[0]), ("north", unused[1])]) == ["", ""]
    (refused,) = refusals([("north", first)])
    assert "replaced by 2 newer ones" in refused
    assert refusals([("north", unused[0]), ("north", unused[3])]) == ["", ""]


def test_nobody_else_is_let_in(lead: Lead, firm: FirmDirectory, tmp_path: Path) -> None:
    south = lead.join("south", tmp_path / "south").firm
    refused = lead.enrolment.certificates.refusals(
        [("nobody", pin(firm.read_tls().certificate)), ("north", pin(south.read_tls().certificate))]
    )
    assert "does not list 'nobody'" in refused[0]
    assert "not of the keys" in refused[1]


def test_an_unreadable_member_list_lets_nobody_in(
    lead: Lead, firm: FirmDirectory, grid: GrpcGrid, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(lead.consortium.enrolment_path)) as db:
        db.execute("ALTER TABLE members RENAME TO mislaid")
        db.commit()
    with dialling(grid, firm.read_tls):
        wait_for(lambda: "could not look up its members" in caplog.text)
        assert not connected(grid)
        with closing(sqlite3.connect(lead.consortium.enrolment_path)) as db:
            db.execute("ALTER TABLE mislaid RENAME TO members")
            db.commit()
        wait_for(lambda: connected(grid))


# --- renewals


def ask(lead: Lead, firm: FirmDirectory, csr: str) -> RenewalReply:
    request = RenewalRequest.prove(
        firm.signer, consortium=lead.consortium.settings.id, firm="north", csr=csr
    )
    return lead.enrolment.certificates.renew(request, now_s=lead.now_s)


def test_no_key_is_certified_twice(lead: Lead, firm: FirmDirectory, tmp_path: Path) -> None:
    key = make_tls_key()
    csr = make_csr(key, "north")
    first = ask(lead, firm, csr)
    assert ask(lead, firm, csr) == first  # the same request: its reply was lost
    with pytest.raises(EnrolmentError, match="certified before") as caught:
        ask(lead, firm, make_csr(key, "north"))
    assert caught.value.code == "bad-csr"
    with pytest.raises(EnrolmentError, match="does not name 'north'"):
        ask(lead, firm, make_csr(make_tls_key(), "south"))
    with pytest.raises(EnrolmentError, match="not one that can be read"):
        ask(lead, firm, "no request")


def test_a_member_that_renews_without_end_fills_no_disk(lead: Lead, firm: FirmDirectory) -> None:
    first = pin(firm.read_tls().certificate)
    assert lead.enrolment.certificates.refusals([("north", first)]) == [""]
    issued = [
        pin(ask(lead, firm, make_csr(make_tls_key(), "north")).certificate)
        for _ in range(KEPT_CERTIFICATES + 3)
    ]
    with closing(sqlite3.connect(lead.consortium.enrolment_path)) as db:
        (count,) = db.execute("SELECT count(*) FROM certificates").fetchone()
    assert count == KEPT_CERTIFICATES + 1  # the one in use stays
    assert lead.enrolment.certificates.refusals([("north", first), ("north", issued[-1])]) == [
        "",
        "",
    ]


@pytest.mark.parametrize("how", ["revoked", "left", "removed"])
def test_an_identity_that_was_given_up_cannot_join_again(
    lead: Lead, firm: FirmDirectory, how: Departure
) -> None:
    lead.enrolment.remove("north", now_s=lead.now_s, how=how)
    request = EnrolmentRequest.prove(
        parse_invite(lead.invite("north")),
        csr=make_csr(make_tls_key(), "north"),
        signer=firm.signer,
        recovery_key=bytes(32),
    )
    if how == "removed":  # by the lead's word alone, which it may take back
        lead.enrolment.enrol(request, now_s=lead.now_s)
        assert lead.names() == ["north"]
        return
    with pytest.raises(EnrolmentError, match="in use already") as caught:
        lead.enrolment.enrol(request, now_s=lead.now_s)
    assert caught.value.code == "identity-taken"


def test_a_file_of_the_first_version_goes_on(lead: Lead, firm: FirmDirectory) -> None:
    """Version 1 held one certificate beside each member's keys, and knew of no departures."""
    with closing(sqlite3.connect(lead.consortium.enrolment_path)) as db:
        db.executescript(
            """
            ALTER TABLE members ADD COLUMN certificate TEXT NOT NULL DEFAULT '';
            ALTER TABLE members ADD COLUMN request_digest BLOB NOT NULL DEFAULT x'';
            UPDATE members SET (certificate, request_digest) =
                (SELECT certificate, request_digest FROM certificates);
            DROP TABLE certificates;
            DROP TABLE departures;
            PRAGMA user_version = 1;
            """
        )
    lead.enrolment = Enrolment(lead.consortium)
    assert lead.enrolment.certificates.refusals([("north", pin(firm.read_tls().certificate))]) == [
        ""
    ]
    ask(lead, firm, make_csr(make_tls_key(), "north"))
    lead.enrolment.remove("north", now_s=lead.now_s)
    assert lead.names() == []
