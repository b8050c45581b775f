"""Join a consortium: make the firm's keys, enrol them with an invite, check all that comes back.

The directory appears whole or not at all, and the private keys never leave this machine.
"""

import http.client
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from greylag_protocols.errors import ConfigError, RemoteError, VerificationError
from greylag_protocols.invite import (
    ENROLMENT_PATH,
    EnrolmentReply,
    EnrolmentRequest,
    Invite,
    parse_invite,
    parse_reply,
)
from greylag_protocols.membership import Membership
from greylag_protocols.signing import Ed25519Signer

from greylag_client.enrolment_client import (
    Desk,
    check_certificate,
    credentials,
    make_csr,
    make_tls_key,
    read_refusal,
)
from greylag_client.firm import SETTINGS_FILE, FirmDirectory, FirmSettings, fill
from greylag_client.firm_files import stage_directory

APPROVE_SHOWN = "shown"

# What the firm can put right itself, by another invite or by joining anew.
_INVITE_CODES = frozenset(
    {
        "other-consortium",
        "unknown-invite",
        "expired-invite",
        "used-invite",
        "revoked-invite",
        "identity-taken",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinResult:
    """What to show after joining.

    Attributes:
        membership: the epoch that the firm joined with; people compare its fingerprints.
        digest: of that epoch, hex: what ``approve`` takes.
        approved: whether it is approved already.
        recovery_key: raw Ed25519 private key, hex. Print it once; it is stored nowhere.
    """

    firm: FirmDirectory
    membership: Membership
    digest: str
    approved: bool
    recovery_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """The firm's new private keys."""

    tls: ec.EllipticCurvePrivateKey
    identity: Ed25519PrivateKey
    recovery: Ed25519PrivateKey

    @classmethod
    def make(cls) -> "_Keys":
        return cls(
            tls=make_tls_key(),
            identity=Ed25519PrivateKey.generate(),
            recovery=Ed25519PrivateKey.generate(),
        )

    def request(self, invite: Invite) -> EnrolmentRequest:
        return EnrolmentRequest.prove(
            invite,
            csr=make_csr(self.tls, invite.firm),
            signer=Ed25519Signer(self.identity.private_bytes_raw()),
            recovery_key=self.recovery.public_key().public_bytes_raw(),
        )


def join(
    invite_text: str,
    directory: Path | None,
    *,
    data: Path | None,
    approve_members: str | None,
    now_s: float,
) -> JoinResult:
    """Enrol a firm and write its directory.

    Args:
        invite_text: the line that the lead sent.
        directory: absent or empty; a failed join leaves it so. The firm's name, in the working
            directory, where it is not given.
        data: the firm's data, to be remembered in firm.toml.
        approve_members: the digest (hex) of the membership to approve, known from elsewhere;
            "shown" to approve whatever list comes back; None to decide later.
        now_s: Unix seconds.

    Raises:
        ConfigError: the invite, the directory or an option cannot be used.
        RemoteError: the enrolment server does not answer, or not as it should.
        VerificationError: it is not the server that the invite names, or its reply does not hold.
    """
    invite = parse_invite(invite_text)
    directory = Path(invite.firm) if directory is None else directory
    wanted = _parse_approval(approve_members)
    if data is not None and not _exists(data):
        raise ConfigError(f"{data} does not exist; name the firm's data, or join without it")
    keys = _Keys.make()
    with stage_directory(directory, last=SETTINGS_FILE) as staged:
        reply = _enrol(invite, keys.request(invite))
        membership = _check_reply(reply, invite, keys, now_s)
        digest = membership.digest().hex()
        approved = wanted in (APPROVE_SHOWN, digest)
        own = membership.member(invite.firm)
        fill(
            staged,
            settings=FirmSettings(
                consortium=invite.consortium,
                firm=invite.firm,
                operator=own.operator,
                host=reply.host,
                port=reply.port,
                enrol_port=invite.port,
                server_pin=invite.pin,
                lead_key=reply.lead_key,
                data="" if data is None else str(data.resolve()),
            ),
            identity_key=keys.identity.private_bytes_raw(),
            tls=credentials(reply, keys.tls),
            seen=reply.membership,
            approve=approved,
        )
    return JoinResult(
        firm=FirmDirectory.open(directory),
        membership=membership,
        digest=digest,
        approved=approved,
        recovery_key=keys.recovery.private_bytes_raw().hex(),
    )


def _enrol(invite: Invite, request: EnrolmentRequest) -> EnrolmentReply:
    desk, unsure = Desk.of_invite(invite), _maybe_enrolled(invite)
    status, body = desk.post(ENROLMENT_PATH, request.encode(), unsure=unsure)
    if status != http.client.OK:
        _raise_refusal(invite, status, body)
    try:
        return parse_reply(body)
    except (ConfigError, VerificationError) as error:
        raise RemoteError(
            f"the lead's reply cannot be read ({error}); compare the versions of greylag at both "
            "ends",
            peer=invite.consortium,
        ) from None


def _maybe_enrolled(invite: Invite) -> str:
    return (
        ". It may have enrolled this firm all the same: if a second join says that the invite was "
        f"used, ask the lead to remove {invite.firm!r} and to send a new invite"
    )


def _raise_refusal(invite: Invite, status: int, body: bytes) -> NoReturn:
    refusal = read_refusal(invite.consortium, status, body)
    if refusal.code in _INVITE_CODES:
        raise ConfigError(str(refusal))
    if status == http.client.SERVICE_UNAVAILABLE:
        raise RemoteError(f"{refusal}{_maybe_enrolled(invite)}", peer=invite.consortium)
    raise refusal


def _check_reply(reply: EnrolmentReply, invite: Invite, keys: _Keys, now_s: float) -> Membership:
    """The membership, if the reply is the pinned lead's answer to this very request."""
    membership = reply.membership.verify(
        bytes.fromhex(reply.lead_key), consortium=invite.consortium, now_s=now_s
    )
    own = membership.member(invite.firm)
    identity = keys.identity.public_key().public_bytes_raw().hex()
    recovery = keys.recovery.public_key().public_bytes_raw().hex()
    if (own.identity, own.recovery) != (identity, recovery):
        raise VerificationError(
            f"the lead listed {invite.firm!r} under other keys than this firm's; ask the lead"
        )
    check_certificate(reply, invite.firm, keys.tls, now_s)
    return membership


def typed_path(text: str) -> Path | None:
    """The path that a person typed or dropped on the terminal; None if there is none.

    File managers put it in quotes, with backslashes, or as a ``file://`` address.
    """
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    elif text.startswith("file://"):
        text = url2pathname(urlsplit(text).path)
    elif os.sep == "/" and "\\" in text and not _exists(text):
        text = re.sub(r"\\(.)", r"\1", text)
    # Not every name with a tilde is a person's: office programs make files like ~$table.xlsx.
    path = Path(text)
    return (path.expanduser() if text.startswith(("~/", "~\\")) else path) if text else None


def _exists(path: str | Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - says no to what cannot be a path; Path's raises


def _parse_approval(text: str | None) -> str | None:
    if text is None or text == APPROVE_SHOWN:
        return text
    digest = text.strip().lower()
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ConfigError(
            f"{text!r} is not a membership's digest; give its 64 hex digits, or "
            f"{APPROVE_SHOWN!r} to approve the list that the lead sends"
        )
    return digest
