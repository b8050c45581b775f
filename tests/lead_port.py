"""A gRPC port with mutual TLS as a lead's, without a lead behind it; and its authority."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from greylag_client.firm import TlsCredentials
from greylag_server.authority import CertificateAuthority, encode_private, make_tls_key


@dataclass(frozen=True)
class LeadPort:
    """An open port, and the credentials of one firm for it."""

    port: int
    tls: TlsCredentials
    authority: CertificateAuthority


def firm_credentials(
    authority: CertificateAuthority, firm: str, *, now_s: float | None = None
) -> TlsCredentials:
    """Credentials that the authority issued for a firm at a moment (now)."""
    key = make_tls_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, firm)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    issued_s = time.time() if now_s is None else now_s
    certificate = authority.sign_firm(
        csr.public_bytes(Encoding.PEM).decode(), firm=firm, now_s=issued_s
    )
    return TlsCredentials(
        ca=authority.certificate_pem,
        key=encode_private(key),
        certificate=certificate.public_bytes(Encoding.PEM),
    )


class _Echo(grpc.GenericRpcHandler):
    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if call.method != "/test/Echo":
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, _: request)


@contextmanager
def grpc_port(*, ca: bytes, key: bytes, certificate: bytes) -> Iterator[int]:
    """A port on the loopback that answers nothing but ``/test/Echo``."""
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((_Echo(),))
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)], root_certificates=ca, require_client_auth=True
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        yield port
        server.stop(grace=None).wait()


@contextmanager
def lead_port(host: str) -> Iterator[LeadPort]:
    """A port whose certificate is for ``host``, from an authority of its own."""
    authority = CertificateAuthority.create("test", now_s=time.time())
    key = make_tls_key()
    certificate = authority.issue_server(key.public_key(), host=host, now_s=time.time())
    with grpc_port(
        ca=authority.certificate_pem,
        key=encode_private(key),
        certificate=certificate.public_bytes(Encoding.PEM),
    ) as port:
        yield LeadPort(port, firm_credentials(authority, "anna"), authority)
