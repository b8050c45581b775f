"""TLS credentials of a lead and its firms, for tests that need no enrolment."""

import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from greylag_client.firm import TlsCredentials
from greylag_server.authority import CertificateAuthority, encode_private, make_tls_key


def issue_firm(authority: CertificateAuthority, firm: str) -> TlsCredentials:
    """A firm's."""
    key = make_tls_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, firm)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    pem = request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    certificate = authority.sign_firm(pem, firm=firm, now_s=time.time())
    return TlsCredentials(
        ca=authority.certificate_pem,
        key=encode_private(key),
        certificate=certificate.public_bytes(Encoding.PEM),
    )


def issue_lead(authority: CertificateAuthority) -> TlsCredentials:
    """The server's, for 127.0.0.1."""
    key = make_tls_key()
    certificate = authority.issue_server(key.public_key(), host="127.0.0.1", now_s=time.time())
    return TlsCredentials(
        ca=authority.certificate_pem,
        key=encode_private(key),
        certificate=certificate.public_bytes(Encoding.PEM),
    )
