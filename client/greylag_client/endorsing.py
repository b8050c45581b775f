"""Tell the lead which member list this firm's people approved, so that other firms can rely on it.

It also makes the lead ask this firm's agent again, if that had to refuse the list before.
"""

import http.client
import logging
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from greylag_protocols.endorsement import ENDORSEMENT_PATH, sign_endorsement
from greylag_protocols.errors import ConfigError, GreylagError
from greylag_protocols.membership import Membership
from greylag_protocols.signing import Ed25519Signer

from greylag_client.enrolment_client import Desk, read_refusal
from greylag_client.firm import FirmDirectory
from greylag_client.firm_files import read_file

logger = logging.getLogger(__name__)


def endorse(firm: FirmDirectory, membership: Membership) -> None:
    """Hand over this firm's endorsement; the same one again does no harm.

    Raises:
        DeclinedError: the lead declined it.
        RemoteError: the lead cannot be reached.
        VerificationError: it is not the lead's server.
    """
    settings = firm.settings
    envelope = sign_endorsement(firm.signer, membership, by=settings.firm)
    status, body = Desk.of_firm(settings).post(ENDORSEMENT_PATH, envelope)
    if status != http.client.NO_CONTENT:
        raise read_refusal(settings.consortium, status, body)


def endorse_latest(firm: FirmDirectory) -> str:
    """Hand over the endorsement of the newest list, if this firm's people approved it.

    Returns:
        why the lead does not know of it; empty if it does, or if there is nothing to tell.
    """
    latest = firm.memberships.latest()
    if latest.digest().hex() not in firm.approved():
        return ""
    try:
        endorse(firm, latest)
    except GreylagError as error:
        logger.info("%s: member list not endorsed: %s", firm.settings.firm, error)
        return str(error)
    return ""


def read_body_key(path: Path) -> Ed25519Signer:
    """The key of an independent body, from a PEM file (``openssl genpkey -algorithm ed25519``).

    Raises:
        ConfigError: it is none, or is encrypted.
    """
    try:
        key = load_pem_private_key(read_file(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{path} holds no unencrypted Ed25519 key; make one with: openssl genpkey -algorithm "
            f"ed25519 -out {path}"
        )
    return Ed25519Signer(key.private_bytes_raw())
