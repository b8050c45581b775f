"""The firm's recovery key: kept offline, used once, to take its identity back."""

from greylag_protocols.errors import ConfigError
from greylag_protocols.membership import Membership, sign_revocation
from greylag_protocols.signing import Ed25519Signer


def make_revocation(recovery_key: str, membership: Membership, firm: str) -> bytes:
    """A revocation of the identity that ``membership`` lists for ``firm``.

    Args:
        recovery_key: hex, as it was shown when the firm joined.

    Raises:
        ConfigError: it is not that firm's recovery key.
    """
    member = membership.member(firm)
    try:
        signer = Ed25519Signer(bytes.fromhex(recovery_key.strip()))
    except ValueError:
        raise ConfigError("a recovery key is 64 hexadecimal digits; nothing was written") from None
    if signer.public_key != member.recovery_key:
        raise ConfigError(f"this is not the recovery key of {firm}; nothing was written")
    return sign_revocation(
        signer,
        consortium=membership.consortium,
        firm=firm,
        identity=member.identity_key,
    )
