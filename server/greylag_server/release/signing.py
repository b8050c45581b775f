"""``model.sig``: a signature that model-signing's own program checks too, made without a network.

That library signs with elliptic curve keys alone. So the lead's directory has one such key, made at
the first release; the lead's identity (Ed25519) vouches for it by naming it in the log entry of
every release.
"""

import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from greylag_protocols.errors import ConfigError
from greylag_protocols.releases import SIGNATURE_FILE

from greylag_server.consortium import write_private

KEY_FILE = "release.key.pem"


def signing_key(keys: Path) -> tuple[Path, bytes]:
    """The path of the lead's key for releases below ``keys``, made if there is none; and its public
    part, PEM.

    Raises:
        ConfigError: the file is damaged.
    """
    path = keys / KEY_FILE
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        write_private(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, OSError):
        raise ConfigError(f"{path} is damaged; restore it from a backup") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is not an elliptic curve key; restore it from a backup")
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return path, public


def key_digest(public_pem: bytes) -> str:
    """By what a log entry names the key, hex: also the hint that model-signing writes."""
    return hashlib.sha256(public_pem).hexdigest()


def sign_directory(root: Path, private_key: Path) -> None:
    """Sign all files below ``root`` into ``model.sig``."""
    from model_signing import hashing, signing  # slow to import, and only needed here

    hashed = hashing.Config()  # type: ignore[no-untyped-call]
    hashed.set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)
    config = signing.Config()  # type: ignore[no-untyped-call]
    config.use_elliptic_key_signer(private_key=private_key).set_hashing_config(hashed)
    config.sign(root, root / SIGNATURE_FILE)
