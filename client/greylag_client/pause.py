"""The pause that a person sets without an editor: a file ``paused`` in the firm's directory.

It lies over ``policy.toml``, whose words and comments stay as its author left them. Like the
policy it is looked at for every message, so it acts at the next round and outlasts a restart. Only
resuming takes it away; a pause that stands in policy.toml itself is lifted there.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from greylag_protocols.encoding import canonical_json, parse_as, parse_json
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.terms import STRICT

from greylag_client.firm import FirmDirectory
from greylag_client.firm_files import read_file, write_private
from greylag_client.policy import Policy, read_policy

PAUSE_FILE = "paused"
MAX_PAUSE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Since when (Unix seconds), and by what it was set."""

    __pydantic_config__ = STRICT
    since_s: int
    by: str


def read_pause(root: Path) -> Pause | None:
    """The pause of a firm's directory, if there is one. A file that cannot be read is one too."""
    path = root / PAUSE_FILE
    try:
        path.lstat()
    except FileNotFoundError:
        return None
    except OSError:
        return Pause(since_s=0, by="")
    try:
        value = parse_json(read_file(path), max_bytes=MAX_PAUSE_BYTES)
        return parse_as(Pause, value, what=str(path))
    except (ConfigError, VerificationError):
        return Pause(since_s=0, by="")  # somebody meant it: by `touch`, say


def pause(root: Path, *, by: str, now_s: float) -> None:
    """Take part in nothing from the next message on, until ``resume``.

    Raises:
        ConfigError: the directory cannot be written.
    """
    if read_pause(root) is None:
        write_private(root / PAUSE_FILE, canonical_json(Pause(since_s=int(now_s), by=by)))


def resume(root: Path) -> None:
    """Take the pause away.

    Raises:
        ConfigError: the directory cannot be written.
    """
    path = root / PAUSE_FILE
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be removed: {error.strerror}") from None


def current_policy(firm: FirmDirectory) -> Policy:
    """What holds now: ``policy.toml``, and the pause over it.

    Raises:
        ConfigError: the policy is missing or at fault.
    """
    policy = read_policy(firm.policy_path)
    return replace(policy, paused=True) if read_pause(firm.root) is not None else policy
