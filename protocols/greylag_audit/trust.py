"""Whom the auditor trusts: keys that came from somewhere else than the bundle."""

from pathlib import Path

from greylag_protocols.errors import ConfigError
from greylag_protocols.trust import MAX_TRUST_BYTES, Trust, parse_trust


def read_trust(path: Path) -> Trust:
    """The trust file at ``path``.

    Raises:
        ConfigError: it cannot be read, or is not one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TRUST_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); a firm makes one with: "
            "greylag-client export-trust DIR --out FILE"
        ) from None
    return parse_trust(data)
