"""Who speaks for a firm's directory, and to which lead."""

from greylag_client.firm import FirmDirectory
from greylag_client.session import Identity


def identity_of(firm: FirmDirectory) -> Identity:
    """The identity in a firm's directory.

    Raises:
        ConfigError: its key is missing or damaged, or the firm has left.
    """
    settings = firm.settings
    return Identity(
        firm=settings.firm,
        consortium=settings.consortium,
        signer=firm.signer,
        lead_key=firm.lead_key,
    )
