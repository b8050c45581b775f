"""The firm's directory: its keys, what it knows of its consortium, and whom it approved.

    firm.toml                    consortium, names, where the lead is, the lead's key, the data
    keys/                        identity.key (Ed25519), tls.key.pem, tls.pem, ca.pem
    membership/seen.json         the last membership epochs that the lead sent
    membership/approved.json     those that the firm's security officer approved
    membership/revoked.json      identities that a recovery key took back
    policy.toml, ledger.sqlite   other modules' files

The recovery key is not here: it is printed once when the firm joins, and kept offline.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
from greylag_protocols.invite import ConsortiumId, Host, Port
from greylag_protocols.membership import Hex32, Membership, Name, SignedMembership
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import STRICT

from greylag_client.firm_files import read_file, stage_directory, write_private
from greylag_client.firm_membership import MembershipStore, found_store

SETTINGS_FILE = "firm.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmSettings:
    """What stands in firm.toml.

    Attributes:
        host, port: where the agent connects.
        enrol_port, server_pin: the enrolment server, and SHA-256 of its TLS public key, hex.
        lead_key: the lead's Ed25519 public key, pinned when the firm joined, hex.
        data: path of the firm's data, or empty.
    """

    __pydantic_config__ = STRICT
    consortium: ConsortiumId
    firm: Name
    operator: Name
    host: Host
    port: Port
    enrol_port: Port
    server_pin: Hex32
    lead_key: Hex32
    data: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsCredentials:
    """PEM bytes for mutual TLS with the lead."""

    ca: bytes
    key: bytes = field(repr=False)
    certificate: bytes


class FirmDirectory:
    """An open firm's directory. Made by ``create`` or ``open``.

    Attributes:
        root: the directory.
        settings: what stands in firm.toml.
        signer: the firm's word.
        tls: its TLS credentials.
    """

    def __init__(
        self, root: Path, settings: FirmSettings, signer: Ed25519Signer, tls: TlsCredentials
    ) -> None:
        self.root = root
        self.settings = settings
        self.signer = signer
        self.tls = tls

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        settings: FirmSettings,
        identity_key: bytes,
        tls: TlsCredentials,
        seen: SignedMembership,
        approve: bool,
    ) -> "FirmDirectory":
        """Write a firm's directory into ``root``, which must be empty or absent.

        Args:
            identity_key: raw Ed25519 private key, 32 bytes.
            seen: the membership that the firm joined with, verified by the caller.
            approve: also record it as approved.

        Raises:
            ConfigError: the directory is not empty or cannot be written; nothing stays.
        """
        with stage_directory(root, last=SETTINGS_FILE) as staged:
            fill(
                staged,
                settings=settings,
                identity_key=identity_key,
                tls=tls,
                seen=seen,
                approve=approve,
            )
        return cls.open(root)

    @classmethod
    def open(cls, root: Path) -> "FirmDirectory":
        """The firm's directory at ``root``.

        Raises:
            ConfigError: there is none, or a file of it is missing or damaged.
        """
        path = root / SETTINGS_FILE
        if not path.is_file():
            raise ConfigError(
                f"{root} is not a firm's directory; make one with: greylag-client join INVITE"
            )
        value = parse_toml(read_file(path), what=str(path))
        settings = parse_as(FirmSettings, value, what=str(path))
        keys = root / "keys"
        tls = TlsCredentials(
            ca=read_file(keys / "ca.pem"),
            key=read_file(keys / "tls.key.pem"),
            certificate=read_file(keys / "tls.pem"),
        )
        signer = Ed25519Signer(_load_identity(keys / "identity.key"))
        return cls(root, settings, signer, tls)

    @property
    def policy_path(self) -> Path:
        return self.root / "policy.toml"

    @property
    def ledger_path(self) -> Path:
        return self.root / "ledger.sqlite"

    @property
    def lead_key(self) -> bytes:
        """The lead's Ed25519 public key, 32 bytes."""
        return bytes.fromhex(self.settings.lead_key)

    @property
    def data_path(self) -> Path | None:
        return Path(self.settings.data) if self.settings.data else None

    @property
    def memberships(self) -> MembershipStore:
        """What the lead sent of its membership, and what the firm approved of that."""
        return MembershipStore(
            self.root / "membership", lead_key=self.lead_key, consortium=self.settings.consortium
        )

    def approved(self) -> dict[str, Membership]:
        """The approved memberships by digest (hex). They may have expired since."""
        return self.memberships.approved()

    def store_seen(self, signed: SignedMembership, *, now_s: float) -> Membership:
        """Keep an epoch that the lead sent (see ``MembershipStore.store_seen``)."""
        return self.memberships.store_seen(signed, now_s=now_s)

    def approve(self, digest_hex: str) -> Membership:
        """Record the security officer's approval (see ``MembershipStore.approve``)."""
        return self.memberships.approve(digest_hex)


def fill(
    staged: Path,
    *,
    settings: FirmSettings,
    identity_key: bytes,
    tls: TlsCredentials,
    seen: SignedMembership,
    approve: bool,
) -> None:
    """Write all files of a new firm's directory into ``staged`` (see ``FirmDirectory.create``)."""
    for name in ("keys", "membership"):
        (staged / name).mkdir(mode=0o700)
    pem = Ed25519PrivateKey.from_private_bytes(identity_key).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    write_private(staged / "keys" / "identity.key", pem)
    write_private(staged / "keys" / "tls.key.pem", tls.key)
    write_private(staged / "keys" / "tls.pem", tls.certificate)
    write_private(staged / "keys" / "ca.pem", tls.ca)
    found_store(staged / "membership", seen=seen, approve=approve)
    lines = [f"{key} = {_toml(item)}\n" for key, item in asdict(settings).items()]
    write_private(staged / SETTINGS_FILE, "".join(lines).encode())


def _load_identity(path: Path) -> bytes:
    try:
        key = load_pem_private_key(read_file(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{path} is damaged; restore it from a backup") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an Ed25519 key; restore it from a backup")
    return key.private_bytes_raw()


def _toml(value: str | int) -> str:
    """TOML's basic strings are JSON's, but for DEL; the text itself stays as it is (UTF-8)."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
