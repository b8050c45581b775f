"""Parsers of what reaches the lead's and the firm's programs: streams, bodies, certificates."""

import asyncio
import atexit
import base64
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from fuzz import seeds
from fuzz.targets import Target
from greylag_client import join, link
from greylag_client.enrolment_client import check_certificate, make_csr, make_tls_key, shows_pin
from greylag_protocols import invite, renewal
from greylag_protocols.errors import ConfigError, RemoteError, VerificationError
from greylag_server.consortium import Consortium
from greylag_server.enrolment import Enrolment
from greylag_server.enrolment_http import make_app
from parcels import join_parcels

NOW_S = float(seeds.NOW_S)
MAX_PARCEL_BYTES = 1 << 12
ANSWERS = {HTTPStatus.OK, *(HTTPStatus(code) for code in (400, 403, 404, 409, 410, 413, 503))}


@functools.cache
def scratch() -> Path:
    """A directory of this process, in memory where the machine has such a disk."""
    memory = "/dev/shm"  # noqa: S108 - the directory below it is private
    fast = memory if os.access(memory, os.W_OK) else None
    # The fuzzer ends its process without clean-up, so ``run.py`` gives a directory of its own.
    given = os.environ.get("GREYLAG_FUZZ_SCRATCH", fast)
    root = Path(tempfile.mkdtemp(prefix="greylag-fuzz-", dir=given))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


# -- streams ---------------------------------------------------------------------------------------


def _chunks(data: bytes) -> Iterator[bytes]:
    """``length (1) | chunk`` for each: the stream's own framing is gRPC's."""
    at = 0
    while at < len(data):
        yield data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]


def _stream() -> list[bytes]:
    chunks = [b"\x00" + b"i" * 16, b"\x00frame", b"\x01", b"\x01" + b"j" * 16 + b"end", b"\x00rest"]
    return [b"".join(bytes([len(chunk)]) + chunk for chunk in chunks[:end]) for end in (3, 5)]


def _server_stream(data: bytes) -> None:
    for parcel in join_parcels(_chunks(data), limit=MAX_PARCEL_BYTES):
        _check(len(parcel) <= MAX_PARCEL_BYTES, "a parcel longer than its limit")


def _client_stream(data: bytes) -> None:
    for parcel in link._join_parcels(_chunks(data)):
        _check(len(parcel) <= len(data), "a parcel longer than the stream")


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise RuntimeError(what)  # outside the error tree, therefore a finding


# -- enrolment -------------------------------------------------------------------------------------


class _Lead:
    """A consortium with an open invite, and its enrolment over ASGI."""

    def __init__(self) -> None:
        root = scratch() / "lead"
        names = {"name": "glass", "operator": "acme", "host": "localhost"}
        self.consortium = Consortium.create(root, **names, port=9443, enrol_port=8443, now_s=NOW_S)
        self.enrolment = Enrolment(self.consortium)
        self.loop = asyncio.new_event_loop()
        self.admit()

    def admit(self) -> None:
        text = self.enrolment.invite("firm-a", now_s=NOW_S)
        self.invite = invite.parse_invite(text)

    def request(self, csr: str) -> bytes:
        signer, recovery = seeds.FIRMS["firm-a"], seeds.RECOVERY.public_key
        return invite.EnrolmentRequest.prove(
            self.invite, csr=csr, signer=signer, recovery_key=recovery
        ).encode()

    def post(self, body: bytes, path: str = invite.ENROLMENT_PATH) -> tuple[int, bytes]:
        """Status and body of the answer; each request meets an application without failures."""
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": path, "query_string": b"",
            "headers": [], "http_version": "1.1", "scheme": "https", "root_path": "",
        }  # fmt: skip
        app = make_app(self.enrolment, clock=lambda: NOW_S)
        self.loop.run_until_complete(app(scope, receive, send))
        return sent[0]["status"], b"".join(item.get("body", b"") for item in sent[1:])


@functools.cache
def open_lead() -> _Lead:
    return _Lead()


def _enrol(body: bytes) -> None:
    lead = open_lead()
    status, answer = lead.post(body)
    _check(HTTPStatus(status) in ANSWERS, f"HTTP status {status}")
    _check(status != HTTPStatus.SERVICE_UNAVAILABLE, "a request that the lead's machine fails at")
    _check(lead.invite.token.encode() not in answer, "the answer repeats the token")
    if status == HTTPStatus.OK:
        lead.enrolment.remove("firm-a", now_s=NOW_S)
        lead.admit()


@functools.cache
def _member() -> None:
    """A member, until it leaves; the enrolment targets know it not."""
    lead, signer = open_lead(), seeds.FIRMS["firm-b"]
    asked = invite.parse_invite(lead.enrolment.invite("firm-b", now_s=NOW_S))
    csr = make_csr(make_tls_key(), "firm-b")
    lead.enrolment.enrol(
        invite.EnrolmentRequest.prove(asked, csr=csr, signer=signer, recovery_key=bytes(32)),
        now_s=NOW_S,
    )


def _member_posts(path: str, body: bytes) -> None:
    _member()
    status, _ = open_lead().post(body, path)
    _check(status in (*ANSWERS, HTTPStatus.NO_CONTENT, HTTPStatus.GONE), f"HTTP status {status}")
    _check(status != HTTPStatus.SERVICE_UNAVAILABLE, "a request that the lead's machine fails at")


def _renewals() -> list[bytes]:
    consortium = open_lead().consortium.settings.id
    requests = [
        renewal.RenewalRequest.prove(
            seeds.FIRMS[name],
            consortium=consortium,
            firm=name,
            csr=make_csr(make_tls_key(), name),
        )
        for name in ("firm-b", "firm-c")
    ]
    return [request.encode() for request in requests]


def _leaves() -> list[bytes]:
    consortium = open_lead().consortium.settings.id
    return [
        renewal.Leave(consortium=consortium, firm=name, left_s=1).sign(seeds.FIRMS[name])
        for name in ("firm-b", "firm-c")
    ]


def _enrol_request(data: bytes) -> None:
    """A request in which the invite's own token stands wherever the seeds' did."""
    _enrol(data.replace(seeds.TOKEN.encode(), open_lead().invite.token.encode()))


def _enrol_csr(der: bytes) -> None:
    """A proved request with an open invite around any certificate request."""
    _enrol(open_lead().request(_pem("CERTIFICATE REQUEST", der)))


def _pem(what: str, der: bytes) -> str:
    return f"-----BEGIN {what}-----\n{base64.encodebytes(der).decode()}-----END {what}-----\n"


@functools.cache
def _keys() -> join._Keys:
    return join._Keys(
        tls=ec.derive_private_key(7, ec.SECP256R1()),
        identity=join.Ed25519PrivateKey.from_private_bytes(b"\x0a" * 32),
        recovery=join.Ed25519PrivateKey.from_private_bytes(b"\x09" * 32),
    )


def _csr() -> x509.CertificateSigningRequest:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "firm-a")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(_keys().tls, hashes.SHA256())


def _requests() -> list[bytes]:
    csr = _csr().public_bytes(Encoding.PEM).decode()
    value = json.loads(open_lead().request(csr))
    return [json.dumps(value).encode(), json.dumps({**value, "token": seeds.TOKEN}).encode()]


@functools.cache
def _certificate() -> bytes:
    authority = open_lead().consortium.authority
    csr = _csr().public_bytes(Encoding.PEM).decode()
    return authority.sign_firm(csr, firm="firm-a", now_s=NOW_S).public_bytes(Encoding.DER)


def _issued_certificate(der: bytes) -> None:
    reply = seeds.make_reply()
    fields = {name: getattr(reply, name) for name in reply.__slots__}
    fields["certificate"] = _pem("CERTIFICATE", der)
    fields["ca"] = open_lead().consortium.ca_pem.decode()
    check_certificate(invite.EnrolmentReply(**fields), "firm-a", _keys().tls, NOW_S)


def _issuing_certificate(der: bytes) -> None:
    reply = seeds.make_reply()
    fields = {name: getattr(reply, name) for name in reply.__slots__}
    fields["certificate"] = _pem("CERTIFICATE", _certificate())
    fields["ca"] = _pem("CERTIFICATE", der)
    check_certificate(invite.EnrolmentReply(**fields), "firm-a", _keys().tls, NOW_S)


class _Shown:
    """The end of a TLS connection that shows any certificate: all that the pin check asks for."""

    def __init__(self, der: bytes) -> None:
        self._der = der

    def getpeercert(self, binary_form: bool = False) -> bytes:
        return self._der


def _server_certificate(der: bytes) -> None:
    shows_pin(_Shown(der), open_lead().consortium.server_pin)  # type: ignore[arg-type]


def _server_certificates() -> list[bytes]:
    pem = open_lead().consortium.server_cert_pem
    return [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)]


def _ca_certificates() -> list[bytes]:
    return [open_lead().consortium.authority.certificate.public_bytes(Encoding.DER)]


def _declined(data: bytes) -> None:
    """What a server answers that does not enrol; its status is the first byte's choice."""
    status = (400, 404, 409, 503)[data[0] % 4] if data else 500
    try:
        join._raise_refusal(seeds.make_invite(), status, data[1:])
    except (ConfigError, RemoteError) as error:
        _check(len(str(error)) < 1000, "a remote's text at full length")
        _check(str(error).isprintable(), "a remote's control characters")


TARGETS = (
    Target(name="server-stream", parse=_server_stream, seeds=_stream, allowed=(ValueError,)),
    Target(name="client-stream", parse=_client_stream, seeds=_stream),
    Target(name="enrolment-http", parse=_enrol_request, seeds=_requests, form="json"),
    Target(
        name="renewal-http",
        parse=partial(_member_posts, renewal.RENEWAL_PATH),
        seeds=_renewals,
        form="json",
    ),
    Target(
        name="leave-http",
        parse=partial(_member_posts, renewal.LEAVE_PATH),
        seeds=_leaves,
        form="json",
    ),
    Target(
        name="enrolment-csr",
        parse=_enrol_csr,
        seeds=lambda: [_csr().public_bytes(Encoding.DER)],
        max_bytes=4000,
    ),
    Target(
        name="issued-certificate",
        parse=_issued_certificate,
        seeds=lambda: [_certificate()],
        allowed=(VerificationError,),
        max_bytes=4000,
    ),
    Target(
        name="issuing-certificate",
        parse=_issuing_certificate,
        seeds=_ca_certificates,
        allowed=(VerificationError,),
        max_bytes=4000,
    ),
    Target(
        name="server-certificate",
        parse=_server_certificate,
        seeds=_server_certificates,
        max_bytes=4000,
    ),
    Target(
        name="enrolment-refusal",
        parse=_declined,
        seeds=lambda: [b'\x00{"error":"used-invite","message":"used"}', b"\x03<html>"],
        form="text",
    ),
)
