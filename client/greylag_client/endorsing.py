"""Tell the lead which member list this firm's people approved, so that other firms can rely on it.

It also makes the lead ask this firm's agent again, if that had to refuse the list before.
"""

import http.client

from greylag_protocols.endorsement import ENDORSEMENT_PATH, sign_endorsement
from greylag_protocols.membership import Membership

from greylag_client.enrolment_client import Desk, read_refusal
from greylag_client.firm import FirmDirectory


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
