"""The consortium's private certificate authority: one server, and a client per firm.

TLS only says who is at the other end of a connection; what firms and lead promise is signed with
their Ed25519 keys. Extended key usage keeps the two sorts of certificate apart, so that no firm can
pose as the coordinator.
"""

import ipaddress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from greylag_protocols.errors import ConfigError, VerificationError

CA_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=365)
SERVER_RENEWAL = timedelta(days=30)
FIRM_LIFETIME = timedelta(days=90)
CLOCK_SKEW = timedelta(hours=1)  # a firm's clock may lag behind the lead's


class CertificateAuthority:
    """Signs with one EC P-256 key.

    Args:
        key: the authority's private key.
        certificate: its self-signed certificate.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate

    @classmethod
    def create(cls, consortium: str, *, now_s: float) -> "CertificateAuthority":
        """A new authority whose common name is the consortium's id."""
        key = make_tls_key()
        name = _name(consortium)
        now = _moment(now_s)
        usage = _key_usage(key_cert_sign=True)
        certificate = (
            _builder(name, name, key.public_key(), now - CLOCK_SKEW, now + CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def load(cls, key_pem: bytes, certificate_pem: bytes) -> "CertificateAuthority":
        """An authority from its two files.

        Raises:
            ConfigError: they are damaged or do not belong together.
        """
        key = load_tls_key(key_pem)
        certificate = load_certificate(certificate_pem)
        if certificate.public_key() != key.public_key():
            raise ConfigError("ca.key.pem and ca.pem do not belong together; restore both")
        return cls(key, certificate)

    @property
    def key_pem(self) -> bytes:
        return encode_private(self._key)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue_server(
        self, public_key: ec.EllipticCurvePublicKey, *, host: str, now_s: float
    ) -> x509.Certificate:
        """The server's certificate for ``host`` and for this machine itself."""
        return self._issue(
            host,
            public_key,
            x509.SubjectAlternativeName(server_names(host)),
            ExtendedKeyUsageOID.SERVER_AUTH,
            now_s,
            SERVER_LIFETIME,
        )

    def sign_firm(self, csr_pem: str, *, firm: str, now_s: float) -> x509.Certificate:
        """A client certificate for ``firm``, valid for 90 days.

        Nothing but the public key is taken over from the request.

        Raises:
            VerificationError: the request is not a valid one for this firm and a P-256 key.
        """
        return self._issue(
            firm,
            _checked_csr_key(csr_pem, firm),
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:greylag:{firm}")]),
            ExtendedKeyUsageOID.CLIENT_AUTH,
            now_s,
            FIRM_LIFETIME,
        )

    def _issue(
        self,
        common_name: str,
        public_key: ec.EllipticCurvePublicKey,
        names: x509.SubjectAlternativeName,
        usage: x509.ObjectIdentifier,
        now_s: float,
        lifetime: timedelta,
    ) -> x509.Certificate:
        now = _moment(now_s)
        end = min(now + lifetime, self.certificate.not_valid_after_utc)
        if end <= now:
            raise ConfigError("the consortium's authority has expired; start a new consortium")
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            _builder(
                _name(common_name), self.certificate.subject, public_key, now - CLOCK_SKEW, end
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(names, critical=False)
            .add_extension(authority, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def make_tls_key() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key from the operating system's entropy."""
    return ec.generate_private_key(ec.SECP256R1())


def encode_private(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8 PEM without a passphrase: the file's mode protects it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_tls_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """A P-256 private key from PEM.

    Raises:
        ConfigError: it is damaged or of another kind.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError("a TLS key is damaged; restore the keys directory") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("a TLS key is not an EC key; restore the keys directory")
    return key


def load_certificate(pem: bytes) -> x509.Certificate:
    """A certificate from PEM.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except (ValueError, x509.InvalidVersion):
        raise ConfigError("a certificate is damaged; restore the keys directory") from None


def server_names(host: str) -> list[x509.GeneralName]:
    """The names that the server answers to: ``host``, ``localhost`` and 127.0.0.1."""
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    try:
        own: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        own = x509.DNSName(host)
    return names if own in names else [own, *names]


def needs_renewal(certificate: x509.Certificate, *, host: str, now_s: float) -> bool:
    """Whether the server's certificate ends within 30 days or is for another host."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    ends_soon = certificate.not_valid_after_utc - _moment(now_s) < SERVER_RENEWAL
    return ends_soon or set(names) != set(server_names(host))


def _checked_csr_key(csr_pem: str, firm: str) -> ec.EllipticCurvePublicKey:
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        key, valid = csr.public_key(), csr.is_signature_valid
        subject = [(attribute.oid, attribute.value) for attribute in csr.subject]
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise VerificationError("the certificate request is not one that can be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise VerificationError("the certificate request is not for an EC P-256 key")
    if not valid:
        raise VerificationError("the certificate request is not signed by its own key")
    if subject != [(NameOID.COMMON_NAME, firm)]:
        raise VerificationError(f"the certificate request does not name {firm!r}, and it alone")
    return key


def _moment(now_s: float) -> datetime:
    return datetime.fromtimestamp(int(now_s), UTC)


def _name(common_name: str) -> x509.Name:
    # RFC 5280 ends a common name at 64 characters; a long host stands in full among the SANs.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )
