"""Checks of the way to the lead, and of who answers at its end."""

import http.client
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from greylag_protocols.errors import ConfigError
from greylag_protocols.invite import spki_pin

from greylag_client.doctor.report import Check, make_check, shown
from greylag_client.firm import FirmSettings, TlsCredentials
from greylag_client.link import expired_on, open_channel
from greylag_client.proxy import Proxy, ProxyError, choose_proxy, connect, join_address

T = TypeVar("T")

STEP_S = 2.5
PORT_S = 4 * STEP_S
WARN_SKEW_S, FAIL_SKEW_S = 60.0, 300.0
PROBE_METHOD = "/greylag.v1.Link/Probe"  # of no lead: it says so, if it talks to this firm at all
# The worst case is a name that is looked up for STEP_S, and then ports that take PORT_S, together.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Port:
    """One of the lead's two ports, and how its checks are called."""

    host: str
    port: int
    name: str

    @property
    def address(self) -> str:
        return join_address(self.host, self.port)

    def skip(self, what: str, why: str) -> Check:
        return make_check(f"{self.name}-{what}" if what in ("tls", "port") else what, "skip", why)


def check_network(settings: FirmSettings, tls: TlsCredentials | None) -> list[Check]:
    """All checks that need the network.

    Args:
        tls: the firm's credentials, None if they cannot be read.
    """
    enrolment = _Port(host=settings.host, port=settings.enrol_port, name="enrolment")
    training = _Port(host=settings.host, port=settings.port, name="training")
    try:
        proxies = [choose_proxy(item.host, item.port) for item in (enrolment, training)]
    except ConfigError as error:
        return [make_check("proxy", "fail", str(error)), *_skipped(enrolment, training, "")]
    name = _check_name(settings.host, proxies)
    if name.status == "fail":
        return [name, _check_proxy(proxies, []), *_skipped(enrolment, training, "no name")]
    works = [
        _start(lambda: _check_enrolment(enrolment, settings.server_pin, tls)),
        _start(lambda: _check_training(training, tls)),
    ]
    until_s = time.monotonic() + PORT_S
    checks, refusals = [name], []
    for item, work in zip((enrolment, training), works, strict=True):
        try:
            found, refusal = work(until_s - time.monotonic())
        except TimeoutError:
            what = f"{item.address} did not finish in time"
            found, refusal = [make_check(f"{item.name}-port", "fail", what)], None
        checks += found
        refusals += [refusal] if refusal is not None else []
    return [*checks, _check_proxy(proxies, refusals)]


def _skipped(enrolment: _Port, training: _Port, why: str) -> list[Check]:
    why = why or "the proxy's settings are wrong"
    return [
        *(item.skip(what, why) for item in (enrolment, training) for what in ("port", "tls")),
        enrolment.skip("clock", why),
        training.skip("acceptance", why),
    ]


def _start(work: Callable[[], T]) -> Callable[[float], T]:
    """Begin a work that may hang in the system; what is returned waits for it, so long."""
    results: queue.SimpleQueue[T] = queue.SimpleQueue()
    threading.Thread(target=lambda: results.put(work()), daemon=True).start()

    def wait(wait_s: float) -> T:
        try:
            return results.get(timeout=max(0.01, wait_s))
        except queue.Empty:
            raise TimeoutError from None

    return wait


def _check_name(host: str, proxies: list[Proxy | None]) -> Check:
    """Names are looked up here, or at the proxy, whose own name is looked up here then."""
    asked = next((item.host for item in proxies if item is not None), host)

    def look() -> list[str] | str:
        try:
            found = socket.getaddrinfo(asked, None, type=socket.SOCK_STREAM)
        except OSError as error:
            return str(error.strerror)
        return sorted({str(item[4][0]) for item in found})

    try:
        answer = _start(look)(STEP_S)
    except TimeoutError:
        answer = "no answer"
    if isinstance(answer, str):
        advice = "check this machine's network and DNS; ask the lead whether the name is right"
        return make_check("name", "fail", f"{asked} cannot be looked up: {answer}", advice)
    note = "" if asked == host else f"; the proxy looks up {host}"
    return make_check("name", "ok", f"{asked} is {', '.join(answer[:4])}{note}")


def _check_proxy(proxies: list[Proxy | None], refusals: list[ProxyError]) -> Check:
    ways = dict.fromkeys(
        "directly"
        if item is None
        else f"through the proxy {item.address}"
        + (", with a user name" if item.user else ", without a user name")
        for item in proxies
    )
    text = "connections go " + " and ".join(ways)
    if refusals:
        schemes = ", ".join(refusals[0].schemes)
        offered = f" (it offers {schemes})" if schemes else ""
        return make_check("proxy", "fail", text + offered, shown(str(refusals[0])))
    return make_check("proxy", "ok", text)


def _open(port: _Port) -> socket.socket | Check | ProxyError:
    try:
        return connect(port.host, port.port, timeout_s=STEP_S)
    except ProxyError as error:
        return error
    except OSError as error:
        return make_check(
            f"{port.name}-port",
            "fail",
            f"{port.address} cannot be reached: {error.strerror or error}",
            "check that `greylag-server serve` runs at the lead, and ask IT to allow connections "
            f"from here to {port.address}",
        )


def _check_enrolment(
    port: _Port, pin: str, tls: TlsCredentials | None
) -> tuple[list[Check], ProxyError | None]:
    channel = _open(port)
    if not isinstance(channel, socket.socket):
        why = f"no connection to {port.address}"
        rest = [port.skip("tls", why), port.skip("clock", why)]
        if isinstance(channel, Check):
            return [channel, *rest], None
        return [port.skip("port", "see proxy"), *rest], channel
    reached = make_check("enrolment-port", "ok", f"{port.address} answers")
    with channel:
        try:
            secured, certificate = _shake_hands(channel, port.host)
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            return [reached, _no_tls(port, error), port.skip("clock", "no TLS")], None
        with secured:
            if spki_pin(certificate) != pin:
                return [reached, _foreign(port, certificate, tls), port.skip("clock", "TLS")], None
            same = make_check("enrolment-tls", "ok", "it shows the key that this firm joined with")
            return [reached, same, _check_clock(secured, port)], None


def _check_training(
    port: _Port, tls: TlsCredentials | None
) -> tuple[list[Check], ProxyError | None]:
    channel = _open(port)
    if not isinstance(channel, socket.socket):
        why = f"no connection to {port.address}"
        rest = [port.skip("tls", why), port.skip("acceptance", why)]
        if isinstance(channel, Check):
            return [channel, *rest], None
        return [port.skip("port", "see proxy"), *rest], channel
    reached = make_check("training-port", "ok", f"{port.address} answers")
    if tls is None:
        channel.close()
        why = "the firm's certificates cannot be read"
        return [reached, port.skip("tls", why), port.skip("acceptance", why)], None
    with channel:
        try:
            secured, certificate = _shake_hands(channel, port.host)
            secured.close()
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            return [reached, _no_tls(port, error), port.skip("acceptance", "no TLS")], None
    if not _is_issued_by(certificate, tls):
        foreign = _foreign(port, certificate, tls)
        return [reached, foreign, port.skip("acceptance", "see training-tls")], None
    ours = make_check("training-tls", "ok", "its certificate is the consortium's")
    return [reached, ours, _check_acceptance(port, tls)], None


def _shake_hands(channel: socket.socket, host: str) -> tuple[ssl.SSLSocket, x509.Certificate]:
    """A TLS connection with whoever is there, and what it shows; nothing else is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # to see whose certificate it is, if it is a wrong one
    context.set_alpn_protocols(["h2", "http/1.1"])
    secured = context.wrap_socket(channel, server_hostname=host)
    try:
        return secured, x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
    except (ValueError, x509.InvalidVersion) as error:
        secured.close()
        raise ValueError(str(error)) from None


def _no_tls(port: _Port, error: Exception) -> Check:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    advice = f"is something else listening at {port.address}? Ask the lead for host and port"
    return make_check(f"{port.name}-tls", "fail", f"no TLS connection: {reason}", advice)


def _is_issued_by(certificate: x509.Certificate, tls: TlsCredentials) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(tls.ca))
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion):
        return False
    return True


def _foreign(port: _Port, certificate: x509.Certificate, tls: TlsCredentials | None) -> Check:
    """A certificate that this firm does not expect."""
    if tls is not None and _is_issued_by(certificate, tls):
        found = "the lead's own authority issued another certificate than this firm joined with"
        return make_check(f"{port.name}-tls", "fail", found, "ask the lead for a new invite")
    try:
        issuer = shown(certificate.issuer.rfc4514_string()) or "an issuer without a name"
    except ValueError:
        issuer = "an issuer whose name cannot be read"
    return make_check(
        f"{port.name}-tls",
        "fail",
        f"the TLS connection is opened on its way by {issuer}",
        f"ask IT to exempt {port.address} from TLS inspection; if IT does not know of it, ask the "
        "lead whether the address is right",
    )


def _check_clock(secured: ssl.SSLSocket, port: _Port) -> Check:
    try:
        before_s = time.time()
        secured.sendall(
            f"HEAD / HTTP/1.1\r\nHost: {port.address}\r\nConnection: close\r\n\r\n".encode()
        )
        response = http.client.HTTPResponse(secured, method="HEAD")
        response.begin()
        here_s = (before_s + time.time()) / 2
        lead_s = parsedate_to_datetime(response.getheader("Date", "")).timestamp() + 0.5
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        return make_check("clock", "skip", "the lead did not tell its time")
    skew_s = here_s - lead_s
    text = f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the lead's"
    if abs(skew_s) <= WARN_SKEW_S:
        return make_check("clock", "ok", text)
    advice = "let this machine set its clock by itself (NTP)"
    return make_check("clock", "fail" if abs(skew_s) > FAIL_SKEW_S else "warn", text, advice)


def _check_acceptance(port: _Port, tls: TlsCredentials) -> Check:
    """A real mutual handshake. It asks for a method that no lead has: the stream's own would take
    the place of a running agent's."""
    try:
        with open_channel(port.address, tls) as channel:
            channel.unary_unary(PROBE_METHOD)(b"", timeout=STEP_S)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return make_check("acceptance", "ok", "the lead's port takes this firm's certificate")
        said, advice = str(error.details()), "ask the lead whether this firm is still a member"
    else:
        said, advice = "an unknown answer", "is another program listening there? Ask the lead"
    if (day := expired_on(tls.certificate)) is not None:
        said = f"this firm's certificate expired on {day}"
    return make_check("acceptance", "fail", f"not accepted at {port.address}: {said}", advice)
