"""The firm's directory: its keys, what it knows of its consortium, and whom it approved.

    firm.toml                    consortium, names, where the lead is, the lead's key, the data
    keys/                        identity.key (Ed25519), tls.credentials.pem (key, certificate, CA),
                                 ca.pem (the CA once more, for a SuperNode)
    membership/seen.json         the last membership epochs that the lead sent
    membership/approved.json     those that the firm's security officer approved
    membership/revoked.json      identities that a recovery key took back
    policy.toml, ledger.sqlite   other modules' files
    left.json                    the firm's statement that it has left; its keys are gone then

The TLS key and its certificate lie in one file, which is replaced as a whole: they belong together
at every moment.

The recovery key is not here: it is printed once when the firm joins, and kept offline.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from filelock import FileLock, Timeout
from greylag_protocols.encoding import parse_as, parse_toml
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.invite import ConsortiumId, Host, Port
from greylag_protocols.membership import Hex32, Membership, Name, SignedMembership
from greylag_protocols.renewal import Leave, claimed_leave
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import STRICT

from greylag_client.firm_files import read_file, stage_directory, write_private
from greylag_client.firm_membership import MembershipStore, found_store
from greylag_client.policy import DEFAULT_POLICY

SETTINGS_FILE = "firm.toml"
LEFT_FILE = "left.json"
IDENTITY_FILE, TLS_FILE = "identity.key", "tls.credentials.pem"
CA_FILE = "ca.pem"  # a copy of what TLS_FILE has, for programs that want it alone: a SuperNode

_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----\n[^-]+-----END \1-----\n")


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

    def encode(self) -> bytes:
        """The three in one file."""
        return self.key + self.certificate + self.ca


class FirmDirectory:
    """An open firm's directory. Made by ``create`` or ``open``.

    Keys are read when they are used: a firm that has left has none, and its budget can be looked at
    all the same.

    Attributes:
        root: the directory.
        settings: what stands in firm.toml.
    """

    def __init__(self, root: Path, settings: FirmSettings) -> None:
        self.root = root
        self.settings = settings

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
        return cls(root, parse_as(FirmSettings, value, what=str(path)))

    @cached_property
    def signer(self) -> Ed25519Signer:
        """The firm's word.

        Raises:
            ConfigError: the key is missing or damaged, or the firm has left.
        """
        self.check_member()
        return Ed25519Signer(_load_identity(self.keys / IDENTITY_FILE))

    def read_tls(self) -> TlsCredentials:
        """The TLS credentials as they lie on the disk now, always a pair that belongs together.

        To be called at every dial: ``renewal.keep_renewed`` replaces them while the agent runs, so
        whoever keeps what an earlier call gave ends up with an expired certificate.

        Raises:
            ConfigError: a file is missing or damaged, or the firm has left.
        """
        self.check_member()
        path = self.keys / TLS_FILE
        content = read_file(path)
        blocks = list(_PEM.finditer(content))
        kinds = [block[1] for block in blocks]
        if kinds != [b"PRIVATE KEY", b"CERTIFICATE", b"CERTIFICATE"]:
            raise ConfigError(f"{path} is damaged; restore it from a backup")
        key, certificate, ca = (block[0] for block in blocks)
        return TlsCredentials(ca=ca, key=key, certificate=certificate)

    def write_tls(self, tls: TlsCredentials) -> None:
        """Put new TLS credentials in the place of the old ones, by one rename."""
        _write_tls(self.keys, tls)

    @property
    def left(self) -> Leave | None:
        """What the firm said when it left, if it has.

        Raises:
            ConfigError: its statement is damaged.
        """
        path = self.root / LEFT_FILE
        if not path.exists():
            return None
        try:
            return claimed_leave(read_file(path))
        except VerificationError:
            raise ConfigError(f"{path} is damaged; restore it from a backup") from None

    def check_member(self) -> None:
        """The firm has not left.

        Raises:
            ConfigError: it has.
        """
        if (left := self.left) is not None:
            day = datetime.fromtimestamp(left.left_s, UTC)
            raise ConfigError(
                f"this firm left {self.settings.consortium} on {day:%Y-%m-%d}; to come back, join "
                "as a new member: a new invite, a new directory. The ledger's spending stays here "
                "and `greylag-client budget` still shows it"
            )

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be the one program that speaks for this firm; two would look to the peers like a copied
        machine.

        Raises:
            ConfigError: an agent is running.
        """
        # Not by a file that merely exists: that of a killed agent would keep the next one out.
        lock = FileLock(self.root / "agent.lock", timeout=0, mode=0o600, fallback_to_soft=False)
        try:
            held = lock.acquire()
        except Timeout:
            raise ConfigError(f"an agent is running for {self.root}; end it first") from None
        except OSError as error:
            raise ConfigError(f"{self.root} cannot be written: {error.strerror}") from None
        with held:
            yield

    @property
    def keys(self) -> Path:
        return self.root / "keys"

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
    write_private(staged / "keys" / IDENTITY_FILE, pem)
    _write_tls(staged / "keys", tls)
    found_store(staged / "membership", seen=seen, approve=approve)
    write_private(staged / "policy.toml", DEFAULT_POLICY.encode())
    lines = [f"{key} = {_toml(item)}\n" for key, item in asdict(settings).items()]
    write_private(staged / SETTINGS_FILE, "".join(lines).encode())


def _write_tls(keys: Path, tls: TlsCredentials) -> None:
    write_private(keys / TLS_FILE, tls.encode())
    write_private(keys / CA_FILE, tls.ca)


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
