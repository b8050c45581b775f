"""``doctor`` on a firm's directory, against real ports on the loopback; one thing at a time."""

import json
import resource
import socket
import sqlite3
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from connect_proxy import connect_proxy, refusal
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from enrolling_lead import Lead, serving
from greylag_client.doctor.command import doctor, examine
from greylag_client.doctor.report import IN_CHINESE, Check, as_document, as_text
from greylag_client.firm import FirmDirectory, TlsCredentials
from greylag_client.ledger import Ledger
from greylag_protocols.errors import ConfigError
from greylag_server.authority import encode_private, make_tls_key
from lead_port import firm_credentials, grpc_port

VARIABLES = ["https_proxy", "no_proxy", "GREYLAG_PROXY_USER", "GREYLAG_PROXY_PASSWORD"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def lead(tmp_path: Path) -> Iterator[Lead]:
    with serving(tmp_path / "lead", time.time()) as lead:
        yield lead


@pytest.fixture
def firm(lead: Lead, tmp_path: Path) -> Iterator[FirmDirectory]:
    """A firm that is in order, and whose lead answers on both ports."""
    joined = lead.join("north", tmp_path / "north")
    firm = joined.firm
    firm.approve(joined.digest)
    table = tmp_path / "table.csv"
    table.write_text("a,b\n1,2\n")
    Ledger(firm.ledger_path).close_file()
    consortium = lead.consortium
    with grpc_port(
        ca=consortium.ca_pem,
        key=consortium.server_key_pem,
        certificate=consortium.server_cert_pem,
    ) as port:
        yield set_up(firm, port=port, data=json.dumps(str(table)))


def set_up(firm: FirmDirectory, **values: object) -> FirmDirectory:
    """The firm with other lines in firm.toml."""
    path = firm.root / "firm.toml"
    lines = [line for line in path.read_text().splitlines() if line.split(" ")[0] not in values]
    path.write_text("\n".join([*lines, *(f"{key} = {item}" for key, item in values.items()), ""]))
    return FirmDirectory.open(firm.root)


def look(firm: FirmDirectory) -> dict[str, Check]:
    checks = examine(firm.root)
    assert [item.name for item in checks] == [
        name for name in IN_CHINESE if name in {item.name for item in checks}
    ]
    return {item.name: item for item in checks}


def failures(checks: dict[str, Check]) -> set[str]:
    return {name for name, item in checks.items() if item.status == "fail"}


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [root, *root.rglob("*")]
        if path != root  # a nameless file for the check of the disk touches the directory itself
    }


def test_a_firm_in_order_passes_all_checks_and_nothing_is_changed(firm: FirmDirectory) -> None:
    before = snapshot(firm.root)
    checks = look(firm)
    assert {item.status for item in checks.values()} == {"ok"}, as_text(list(checks.values()))
    assert set(checks) == set(IN_CHINESE)
    assert "directly" in checks["proxy"].found
    assert "until" in checks["certificate"].found
    assert "0 entries" in checks["ledger"].found
    assert snapshot(firm.root) == before


def test_the_command_speaks_json_alone_and_its_exit_code_tells(
    firm: FirmDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor(firm.root, "json")
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert (document["ok"], said.err) == (True, "")
    assert set(document["checks"][0]) == {"name", "status", "found", "advice"}
    firm.policy_path.write_text("lifetime_epsilon = 'much'\n")
    with pytest.raises(SystemExit) as ended:
        doctor(firm.root, "text")
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert "FAIL  policy" in said.out
    assert IN_CHINESE["policy"] in said.out
    with pytest.raises(ConfigError, match="'text' or 'json'"):
        doctor(firm.root, "xml")


def test_no_firm_here_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a firm's directory"):
        examine(tmp_path)


def test_a_wrong_port(firm: FirmDirectory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    checks = look(set_up(firm, port=port))
    assert failures(checks) == {"training-port"}
    assert f"127.0.0.1:{port}" in checks["training-port"].found
    assert checks["acceptance"].status == "skip"
    assert checks["enrolment-tls"].status == "ok"


def test_offline_what_could_not_be_checked_is_said(firm: FirmDirectory) -> None:
    checks = look(set_up(firm, host='"no-such-host.invalid"'))
    assert failures(checks) == {"name"}
    skipped = {name for name, item in checks.items() if item.status == "skip"}
    assert {"enrolment-port", "training-tls", "clock", "acceptance"} <= skipped
    assert checks["ledger"].status == "ok"


@contextmanager
def inspector(real_port: int) -> Iterator[int]:
    """A TLS-inspecting box: it ends connections with a certificate of its own, and relays."""
    key = make_tls_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Corporate Inspection\x07 CA")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    own = TlsCredentials(
        ca=b"", key=encode_private(key), certificate=certificate.public_bytes(Encoding.PEM)
    )
    received: list[bytes] = []

    def relay(plain: ssl.SSLSocket) -> None:
        far_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        far_context.check_hostname, far_context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", real_port)) as channel,
            far_context.wrap_socket(channel) as far,
        ):
            while data := plain.recv(1 << 16):
                received.append(data)
                far.sendall(data)

    with tls_server(own, relay) as port:
        yield port
    assert received == [], "something was sent to somebody on the way"


@contextmanager
def tls_server(own: TlsCredentials, serve: Callable[[ssl.SSLSocket], None]) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with ExitStack() as stack:
        load_chain(context, own)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def run() -> None:
            while True:
                try:
                    channel, _ = listener.accept()
                except OSError:
                    return
                try:
                    with channel, context.wrap_socket(channel, server_side=True) as secured:
                        serve(secured)
                except OSError:
                    continue

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def load_chain(context: ssl.SSLContext, own: TlsCredentials) -> None:

    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(own.key + own.certificate)
        file.flush()
        context.load_cert_chain(file.name)


def test_tls_inspection_is_named_with_its_issuer(firm: FirmDirectory) -> None:
    settings = firm.settings
    with inspector(settings.enrol_port) as enrol, inspector(settings.port) as port:
        checks = look(set_up(firm, enrol_port=enrol, port=port))
    assert failures(checks) == {"enrolment-tls", "training-tls"}
    for name, number in (("enrolment-tls", enrol), ("training-tls", port)):
        assert "opened on its way by CN=Corporate Inspection CA" in checks[name].found
        assert f"exempt 127.0.0.1:{number} from TLS inspection" in checks[name].advice
    assert checks["acceptance"].status == "skip"


def test_a_proxy_that_wants_a_logon_of_windows(
    firm: FirmDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect_proxy(answer=refusal("NTLM", "Negotiate")) as proxy:
        monkeypatch.setenv("https_proxy", f"http://anna:hush@127.0.0.1:{proxy.port}")
        checks = look(firm)
    assert failures(checks) == {"proxy"}
    assert f"127.0.0.1:{proxy.port}" in checks["proxy"].found
    assert "NTLM, Negotiate" in checks["proxy"].found
    assert "cntlm" in checks["proxy"].advice
    assert "hush" not in as_text(list(checks.values()))
    assert checks["acceptance"].status == "skip"
    assert sorted(proxy.asked) == sorted(
        f"127.0.0.1:{port}" for port in (firm.settings.port, firm.settings.enrol_port)
    )


def test_all_goes_through_a_proxy_with_basic_authentication(
    firm: FirmDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect_proxy(account="anna:hush") as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("GREYLAG_PROXY_USER", "anna")
        monkeypatch.setenv("GREYLAG_PROXY_PASSWORD", "hush")
        checks = look(firm)
        assert failures(checks) == set()
        assert len(proxy.opened) == 3  # both ports, and the handshake of gRPC's
        assert "hush" not in as_text(list(checks.values()))
        monkeypatch.setenv("https_proxy", "socks5://anna:hush@127.0.0.1:1")
        wrong = look(firm)
    assert failures(wrong) == {"proxy"}
    assert "hush" not in as_text(list(wrong.values()))


def test_an_expired_certificate(lead: Lead, firm: FirmDirectory) -> None:
    old = firm_credentials(lead.consortium.authority, "north", now_s=time.time() - 100 * 86_400)
    firm.write_tls(old)
    checks = look(firm)
    assert failures(checks) == {"certificate", "acceptance"}
    assert "expired on" in checks["certificate"].found
    assert "expired on" in checks["acceptance"].found


def test_a_certificate_for_another_key(lead: Lead, firm: FirmDirectory) -> None:
    other = firm_credentials(lead.consortium.authority, "north")
    tls = firm.read_tls()
    firm.write_tls(TlsCredentials(ca=tls.ca, key=other.key, certificate=tls.certificate))
    assert "certificate" in failures(look(firm))


@pytest.mark.parametrize(("offset_s", "status"), [(-10, "ok"), (-120, "warn"), (4000, "fail")])
def test_the_clock_is_held_against_the_leads(
    lead: Lead, firm: FirmDirectory, offset_s: int, status: str
) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.send_response_only(404)
            self.send_header("Date", formatdate(time.time() + offset_s, usegmt=True))
            self.end_headers()
            self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(lead.consortium.server_cert_path, lead.consortium.server_key_path)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        checks = look(set_up(firm, enrol_port=server.server_address[1]))
        server.shutdown()
        thread.join()
    assert checks["enrolment-tls"].status == "ok"
    assert checks["clock"].status == status, checks["clock"]
    if status == "fail":
        assert "4000 s behind" in checks["clock"].found or "3999 s behind" in checks["clock"].found


def test_a_disk_that_takes_nothing(firm: FirmDirectory) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        checks = look(firm)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failures(checks) == {"disk"}
    assert "nothing can be written" in checks["disk"].found


def test_keys_that_others_can_read(firm: FirmDirectory) -> None:
    key = firm.keys / "identity.key"
    key.chmod(0o640)
    checks = look(firm)
    assert failures(checks) == {"files"}
    assert str(key) in checks["files"].found
    key.chmod(0o600)
    firm.root.chmod(0o755)
    assert look(firm)["files"].status == "warn"


def test_a_damaged_ledger_and_one_that_is_in_use(firm: FirmDirectory) -> None:
    ledger = Ledger(firm.ledger_path)
    with sqlite3.connect(firm.ledger_path) as other:
        other.execute("INSERT INTO entries VALUES (1, 'run', x'00')")
    other.close()
    checks = look(firm)
    assert "1 entries" in checks["ledger"].found
    ledger.close_file()
    content = bytearray(firm.ledger_path.read_bytes())
    content[4096:] = b"\xee" * (len(content) - 4096)
    firm.ledger_path.write_bytes(content)
    checks = look(firm)
    assert failures(checks) == {"ledger"}
    assert "backup" in checks["ledger"].advice


def test_membership_policy_and_data(firm: FirmDirectory, tmp_path: Path) -> None:
    (firm.root / "membership" / "approved.json").write_text('{"memberships": []}')
    firm.policy_path.write_text("lifetime_epsilon = 1.0\npaused = true\n")
    changed = set_up(firm, data=json.dumps(str(tmp_path / "gone.csv")))
    checks = look(changed)
    assert failures(checks) == {"data"}
    assert checks["membership"].status == "warn"
    assert "--approve" in checks["membership"].advice
    assert "paused" in checks["policy"].found
    assert look(set_up(changed, data='""'))["data"].status == "warn"


def test_a_damaged_directory_is_told_and_not_a_crash(firm: FirmDirectory) -> None:
    (firm.keys / "tls.credentials.pem").write_bytes(b"")
    checks = look(firm)
    assert "certificate" in failures(checks)
    assert checks["acceptance"].status == "skip"
    (firm.root / "firm.toml").write_text("host = 1\n")
    checks = look(firm)
    assert failures(checks) == {"settings"}


def test_text_of_others_cannot_play_with_the_terminal() -> None:
    from greylag_client.doctor.report import make_check

    check = make_check("name", "fail", "\x1b[2J" + "x" * 10_000)
    assert "\x1b" not in as_text([check])
    assert len(as_text([check])) < 1000
    assert as_document([check])["ok"] is False


def test_ports_that_say_nothing_do_not_hold_it_up(firm: FirmDirectory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        checks = look(set_up(firm, port=port, enrol_port=port))
    assert failures(checks) == {"enrolment-tls", "training-tls"}
    assert "timed out" in checks["training-tls"].found
