"""The lead's directory: who the consortium is, and the keys that it is known by.

consortium.toml      id, name, the lead's operator, host and ports
keys/                ca, server (TLS) and lead (Ed25519; signs membership and log)
enrolment.sqlite     invites, members, membership epochs (module ``enrolment``)
"""

import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from greylag_protocols.encoding import parse_as, parse_toml
from greylag_protocols.errors import ConfigError
from greylag_protocols.invite import ConsortiumId, Host, spki_pin
from greylag_protocols.membership import Name
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import STRICT
from pydantic import Field

from greylag_server.authority import (
    CertificateAuthority,
    encode_private,
    load_certificate,
    load_tls_key,
    make_tls_key,
    needs_renewal,
)

SETTINGS_FILE = "consortium.toml"
BindPort = Annotated[int, Field(ge=0, le=65_535)]  # 0: whichever is free


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsortiumSettings:
    """What stands in consortium.toml.

    Attributes:
        id: the name and eight random hex digits; what everything signed refers to.
        operator: who runs the coordinator.
        host: the name or address under which firms reach this machine.
        port, enrol_port: agents' gRPC under mutual TLS, and HTTPS for enrolment.
    """

    __pydantic_config__ = STRICT
    id: ConsortiumId
    name: Name
    operator: Name
    host: Host
    port: BindPort
    enrol_port: BindPort


class Consortium:
    """An open lead's directory. Made by ``create`` or ``open``.

    Attributes:
        root: the directory.
        settings: what stands in consortium.toml.
        authority: signs TLS certificates.
        signer: the lead's word.
        server_key_pem, server_cert_pem: TLS of both ports; also files under ``keys``.
    """

    def __init__(
        self,
        root: Path,
        settings: ConsortiumSettings,
        authority: CertificateAuthority,
        signer: Ed25519Signer,
        server_key_pem: bytes,
        server_cert: x509.Certificate,
    ) -> None:
        self.root = root
        self.settings = settings
        self.authority = authority
        self.signer = signer
        self.server_key_pem = server_key_pem
        self.server_cert_pem = server_cert.public_bytes(Encoding.PEM)
        self.server_pin = spki_pin(server_cert)

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        name: str,
        operator: str,
        host: str,
        port: int,
        enrol_port: int,
        now_s: float | None = None,
    ) -> "Consortium":
        """Start a consortium in ``root``, which must be empty or absent.

        ``now_s`` is the clock's where it is not given. Nothing stays if anything fails.

        Raises:
            ConfigError: a setting is unusable, or the directory is not empty or not writable.
        """
        now_s = time.time() if now_s is None else now_s
        value = {
            "id": f"{name}-{secrets.token_hex(4)}",
            "name": name,
            "operator": operator,
            "host": host,
            "port": port,
            "enrol_port": enrol_port,
        }
        settings = parse_as(ConsortiumSettings, value, what="consortium")
        authority = CertificateAuthority.create(settings.id, now_s=now_s)
        server_key = make_tls_key()
        server_cert = authority.issue_server(server_key.public_key(), host=host, now_s=now_s)
        lead_key = Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        with stage_directory(root, last=SETTINGS_FILE) as staged:
            keys = staged / "keys"
            keys.mkdir(mode=0o700)
            write_private(keys / "ca.key.pem", authority.key_pem)
            write_private(keys / "ca.pem", authority.certificate_pem)
            write_private(keys / "server.key.pem", encode_private(server_key))
            write_private(keys / "server.pem", server_cert.public_bytes(Encoding.PEM))
            write_private(keys / "lead.key.pem", lead_key)
            lines = [f"{key} = {_toml(item)}\n" for key, item in asdict(settings).items()]
            write_private(staged / SETTINGS_FILE, "".join(lines).encode())
        return cls.open(root, now_s=now_s)

    @classmethod
    def open(cls, root: Path, *, now_s: float | None = None) -> "Consortium":
        """The consortium in ``root``.

        A server certificate that ends within 30 days, or is for another host than the settings
        now say, is renewed under the same key, so that invites' pins still hold.

        Raises:
            ConfigError: there is none, or a file of it is missing or damaged.
        """
        now_s = time.time() if now_s is None else now_s
        path = root / SETTINGS_FILE
        if not path.is_file():
            raise ConfigError(
                f"{root} holds no consortium; make one with: greylag-server init {root}"
            )
        value = parse_toml(_read(path), what=str(path))
        settings = parse_as(ConsortiumSettings, value, what=str(path))
        keys = root / "keys"
        authority = CertificateAuthority.load(_read(keys / "ca.key.pem"), _read(keys / "ca.pem"))
        server_key_pem = _read(keys / "server.key.pem")
        server_key = load_tls_key(server_key_pem)
        server_cert = load_certificate(_read(keys / "server.pem"))
        if server_cert.public_key() != server_key.public_key():
            raise ConfigError("server.key.pem and server.pem do not belong together; restore both")
        if needs_renewal(server_cert, host=settings.host, now_s=now_s):
            server_cert = authority.issue_server(
                server_key.public_key(), host=settings.host, now_s=now_s
            )
            write_private(keys / "server.pem", server_cert.public_bytes(Encoding.PEM))
        signer = Ed25519Signer(_load_lead_key(_read(keys / "lead.key.pem")))
        return cls(root, settings, authority, signer, server_key_pem, server_cert)

    @property
    def ca_pem(self) -> bytes:
        return self.authority.certificate_pem

    @property
    def server_key_path(self) -> Path:
        return self.root / "keys" / "server.key.pem"

    @property
    def server_cert_path(self) -> Path:
        return self.root / "keys" / "server.pem"

    @property
    def enrolment_path(self) -> Path:
        return self.root / "enrolment.sqlite"


@contextmanager
def stage_directory(root: Path, *, last: str) -> Iterator[Path]:
    """A private directory to fill, which becomes ``root`` if the block succeeds.

    An absent ``root`` appears by one rename. An empty one that exists may be a mounted volume, over
    which nothing can be renamed: there the parts are moved in, and ``last``, without which the
    directory does not open, comes last.

    Raises:
        ConfigError: ``root`` is not empty, is not a directory or cannot be written.
    """
    exists = root.exists()
    if exists and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError(f"{root} is not an empty directory; name a new one")
    try:
        if not exists:
            root.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".new-", dir=root if exists else root.parent))
    except OSError as error:
        raise ConfigError(f"{root} cannot be written: {error.strerror}; name another") from None
    try:
        yield staged
        if exists:
            for part in sorted(staged.iterdir(), key=lambda part: part.name == last):
                part.replace(root / part.name)
            staged.rmdir()
        else:
            staged.replace(root)
        _sync_directory(root)
        _sync_directory(root.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def write_private(path: Path, data: bytes) -> None:
    """Write or replace a file of mode 0600, so that it is never seen half-written.

    Raises:
        ConfigError: it cannot be written.
    """
    staged = path.with_name(f".new-{secrets.token_hex(8)}")
    try:
        handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        staged.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; restore it from a backup"
        ) from None


def _load_lead_key(pem: bytes) -> bytes:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError("lead.key.pem is damaged; restore it from a backup") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("lead.key.pem is not an Ed25519 key; restore it from a backup")
    return key.private_bytes_raw()


def _toml(value: str | int) -> str:
    # The settings' own patterns leave no character over that TOML and JSON would quote differently.
    return json.dumps(value)
