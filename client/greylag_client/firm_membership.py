"""Whom the firm trains with: the epochs that the lead sent, and those that the firm approved.

Two files, both of whole signed documents: ``seen.json`` and ``approved.json``. The lead's signature
puts an epoch into the first; only a person at the firm puts it into the second. A third,
``revoked.json``, holds revocations, whoever brought them: a recovery key signed each.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.membership import (
    Membership,
    SignedMembership,
    membership_digest,
    verify_revocation,
)
from greylag_protocols.signing import fingerprint
from greylag_protocols.terms import STRICT

from greylag_client.firm_files import read_file, write_private

MAX_SEEN = 16  # epochs kept for approval; the lead makes one per firm that joins
REVOKED_FILE = "revoked.json"
MAX_STORE_BYTES = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A signed membership in base64, so that its exact bytes survive."""

    __pydantic_config__ = STRICT
    document: str
    statement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Store:
    __pydantic_config__ = STRICT
    memberships: tuple[_Stored, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Revocations:
    __pydantic_config__ = STRICT
    revocations: tuple[str, ...]


class MembershipStore:
    """The two files in ``root``.

    Args:
        lead_key: the lead's pinned Ed25519 public key, 32 bytes.
        consortium: its id.
    """

    def __init__(self, root: Path, *, lead_key: bytes, consortium: str) -> None:
        self._root = root
        self._lead_key = lead_key
        self._consortium = consortium

    def approved(self) -> dict[str, Membership]:
        """The approved memberships by digest (hex). They may have expired since."""
        return _memberships(self._load("approved"))

    def seen(self) -> dict[str, Membership]:
        """The memberships that the lead sent, by digest (hex), oldest epoch first."""
        return _memberships(self._load("seen"))

    def latest(self) -> Membership:
        """The newest epoch seen; not necessarily approved.

        Raises:
            ConfigError: there is none, so the directory is damaged.
        """
        seen = list(self.seen().values())
        if not seen:
            raise ConfigError(f"{self._root} holds no membership; restore it from a backup")
        return seen[-1]

    def store_seen(self, signed: SignedMembership, *, now_s: float) -> Membership:
        """Keep an epoch that the lead sent, for the security officer to look at.

        Args:
            now_s: Unix seconds.

        Raises:
            VerificationError: not the lead's for this consortium, expired, or a second list under
                the number of one that was seen: the lead then showed firms different lists.
        """
        membership = signed.verify(self._lead_key, consortium=self._consortium, now_s=now_s)
        digest = membership_digest(signed.document).hex()
        stored = self._load("seen")
        for known, other in _memberships([*self._load("approved"), *stored]).items():
            if other.epoch == membership.epoch and known != digest:
                raise VerificationError(
                    f"the lead signed two different lists as membership epoch {other.epoch} "
                    f"({known[:16]} and {digest[:16]}); take part in nothing and ask the lead"
                )
        if digest not in _memberships(stored):
            stored.append(signed)
            stored.sort(key=lambda item: _parse(item).epoch)
            self._save("seen", stored[-MAX_SEEN:])
        return membership

    def approve(self, digest_hex: str) -> Membership:
        """Record the security officer's approval of an epoch that was seen.

        Raises:
            ConfigError: no such epoch was seen; lists those that were.
        """
        stored = self._load("seen")
        for signed in stored:
            if membership_digest(signed.document).hex() == digest_hex.strip().lower():
                approved = self._load("approved")
                if signed.document not in [item.document for item in approved]:
                    self._save("approved", [*approved, signed])
                return _parse(signed)
        listed = "\n".join(
            f"{digest}\n{describe(item)}" for digest, item in _memberships(stored).items()
        )
        raise ConfigError(
            f"no membership with digest {digest_hex!r} was seen; approve one of these by its whole "
            f"digest, after comparing the fingerprints with the firms:\n{listed}"
        )

    def revocations(self) -> tuple[bytes, ...]:
        """The revocations that reached this firm."""
        path = self._root / REVOKED_FILE
        if not path.is_file():
            return ()
        try:
            value = parse_json(read_file(path), max_bytes=MAX_STORE_BYTES)
            stored = parse_as(_Revocations, value, what=str(path)).revocations
            return tuple(base64.b64decode(item, validate=True) for item in stored)
        except (VerificationError, ValueError):
            raise ConfigError(f"{path} is damaged; restore it from a backup") from None

    def store_revocation(self, envelope: bytes, membership: Membership) -> None:
        """Keep a revocation of a member's identity.

        Raises:
            VerificationError: it is not signed by that member's recovery key.
        """
        verify_revocation(envelope, membership)
        stored = self.revocations()
        if envelope not in stored:
            items = [base64.b64encode(item).decode() for item in (*stored, envelope)]
            content = json.dumps({"revocations": items}, indent=1).encode()
            write_private(self._root / REVOKED_FILE, content)

    def _load(self, name: str) -> list[SignedMembership]:
        return _load_store(self._root / f"{name}.json")

    def _save(self, name: str, memberships: list[SignedMembership]) -> None:
        write_private(self._root / f"{name}.json", _encode_store(memberships))


def found_store(root: Path, *, seen: SignedMembership, approve: bool) -> None:
    """Write the two files of a firm that has just joined."""
    write_private(root / "seen.json", _encode_store([seen]))
    write_private(root / "approved.json", _encode_store([seen] if approve else []))


def describe(membership: Membership) -> str:
    """An epoch as people compare it: each firm, its operator and its key's fingerprint."""
    lines = [f"  epoch {membership.epoch} of {membership.consortium}, lead {membership.lead}"]
    lines += [
        f"  {member.name} (operator {member.operator}) {fingerprint(member.identity_key)}"
        for member in membership.members
    ]
    return "\n".join(lines)


def _encode_store(memberships: list[SignedMembership]) -> bytes:
    items = [
        {
            "document": base64.b64encode(signed.document).decode(),
            "statement": base64.b64encode(signed.statement).decode(),
        }
        for signed in memberships
    ]
    return json.dumps({"memberships": items}, indent=1).encode()


def _load_store(path: Path) -> list[SignedMembership]:
    try:
        value = parse_json(read_file(path), max_bytes=MAX_STORE_BYTES)
        return [
            SignedMembership(
                document=base64.b64decode(item.document, validate=True),
                statement=base64.b64decode(item.statement, validate=True),
            )
            for item in parse_as(_Store, value, what=str(path)).memberships
        ]
    except (VerificationError, ValueError):
        raise ConfigError(f"{path} is damaged; restore it from a backup") from None


def _parse(signed: SignedMembership) -> Membership:
    """A membership that was verified before it was stored."""
    return parse_as(Membership, parse_json(signed.document), what="stored membership")


def _memberships(stored: list[SignedMembership]) -> dict[str, Membership]:
    return {membership_digest(signed.document).hex(): _parse(signed) for signed in stored}
