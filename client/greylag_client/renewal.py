"""The firm's TLS certificate renews by itself, while the agent runs.

The identity key is the authority, so it works with an expired certificate, or a damaged one, too.
Each certificate is for a new key; key and certificate replace the old ones by one rename, and
whatever fails before that leaves the old ones in use.
"""

import http.client
import logging
import threading
import time
from collections.abc import Callable

from cryptography import x509
from greylag_protocols.errors import ConfigError, GreylagError, RemoteError, VerificationError
from greylag_protocols.renewal import RENEWAL_PATH, RenewalRequest, parse_renewal_reply

from greylag_client.endorsing import endorse_latest
from greylag_client.enrolment_client import (
    DeclinedError,
    Desk,
    check_certificate,
    credentials,
    make_csr,
    make_tls_key,
    read_refusal,
)
from greylag_client.firm import FirmDirectory, TlsCredentials

logger = logging.getLogger(__name__)

DAY_S = 24 * 3600
RENEW_BELOW_S = 30 * DAY_S
WARN_BELOW_S = 14 * DAY_S
CHECK_EVERY_S = 3600.0
FIRST_WAIT_S = 60.0  # after a failure; doubled with each further one, up to CHECK_EVERY_S
GONE_CODES = frozenset({"firm-removed", "firm-revoked", "firm-left"})


def seconds_left(certificate: bytes, now_s: float) -> float:
    """How long a PEM certificate is still valid; nothing is left of one that cannot be read."""
    try:
        end = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    except (ValueError, x509.InvalidVersion):
        return 0.0
    return end.timestamp() - now_s


def due(certificate: bytes, now_s: float) -> bool:
    """Whether a PEM certificate is to be renewed: fewer than 30 days of it are left."""
    return seconds_left(certificate, now_s) < RENEW_BELOW_S


def renew(firm: FirmDirectory, *, now_s: float) -> TlsCredentials:
    """Get a certificate for a new TLS key, and put both in the place of the old ones.

    Args:
        now_s: Unix seconds.

    Raises:
        DeclinedError: the lead refuses; its ``code`` says why.
        RemoteError: the lead does not answer, or not as it should.
        VerificationError: it is not the lead's server, or its reply does not hold.
        ConfigError: the directory is at fault, or the firm has left.
    """
    settings, key = firm.settings, make_tls_key()
    request = RenewalRequest.prove(
        firm.signer,
        consortium=settings.consortium,
        firm=settings.firm,
        csr=make_csr(key, settings.firm),
    )
    status, body = Desk.of_firm(settings).post(RENEWAL_PATH, request.encode())
    if status != http.client.OK:
        raise read_refusal(settings.consortium, status, body)
    try:
        reply = parse_renewal_reply(body)
    except (ConfigError, VerificationError) as error:
        raise RemoteError(
            f"the lead's reply cannot be read ({error}); compare the versions of greylag at both "
            "ends",
            peer=settings.consortium,
        ) from None
    check_certificate(reply, settings.firm, key, now_s)
    renewed = credentials(reply, key)
    firm.write_tls(renewed)
    return renewed


def keep_renewed(
    firm: FirmDirectory, stop: threading.Event, *, clock: Callable[[], float] = time.time
) -> None:
    """Renew the firm's certificate whenever it is due, until ``stop`` is set; and tell the lead
    which member list was approved here, in case it did not hear of it at once.

    To be run in a thread of its own beside the one that dials, which calls ``firm.read_tls()`` at
    every dial and so shows the new certificate without a restart. An open connection goes on: its
    certificate was looked at when it was opened.

    Args:
        clock: Unix seconds.
    """
    failed_wait_s = FIRST_WAIT_S
    while not stop.is_set():
        wait_s = CHECK_EVERY_S
        try:
            _renew_if_due(firm, clock())
            endorse_latest(firm)
            failed_wait_s = FIRST_WAIT_S
        except GreylagError as error:
            name = firm.settings.firm
            if isinstance(error, DeclinedError) and error.code in GONE_CODES:
                logger.error("%s: the certificate is not renewed: %s", name, error)
                stop.wait()  # no later answer will be another one
                return
            logger.warning("%s: the certificate could not be renewed: %s", name, error)
            wait_s, failed_wait_s = failed_wait_s, min(CHECK_EVERY_S, 2 * failed_wait_s)
        stop.wait(wait_s)


def _renew_if_due(firm: FirmDirectory, now_s: float) -> None:
    firm.check_member()
    name, left_s = firm.settings.firm, 0.0
    try:
        left_s = seconds_left(firm.read_tls().certificate, now_s)
    except ConfigError as error:
        logger.warning("%s: %s; asking for a new certificate", name, error)
    if left_s >= RENEW_BELOW_S:
        return
    if left_s < WARN_BELOW_S:
        logger.warning("%s: the certificate has %d days left", name, max(0, left_s // DAY_S))
    renewed = renew(firm, now_s=now_s)
    days = seconds_left(renewed.certificate, now_s) // DAY_S
    logger.info("%s: the certificate was renewed; the new one is valid for %d days", name, days)
