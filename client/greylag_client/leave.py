"""A firm leaves its consortium for good: runs closed, the lead told, keys destroyed.

The signed statement, ``left.json`` in the firm's directory, is written before anything is sent or
destroyed. From then on nothing here speaks for the firm, and a leave that was interrupted goes on
from there. The ledger and the policy stay: what was spent is spent.
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from greylag_protocols.errors import ConfigError, GreylagError
from greylag_protocols.renewal import LEAVE_PATH, Leave

from greylag_client.enrolment_client import OK_STATUSES, Desk, read_refusal
from greylag_client.firm import CA_FILE, IDENTITY_FILE, LEFT_FILE, TLS_FILE, FirmDirectory
from greylag_client.firm_files import read_file, write_private
from greylag_client.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveResult:
    """How it went.

    Attributes:
        closed: the runs that were closed.
        statement: the file with the signed statement.
        untold: why the lead could not be told; empty if it was.
    """

    closed: tuple[str, ...]
    statement: Path
    untold: str


def leave(firm: FirmDirectory, *, now_s: float) -> LeaveResult:
    """Leave, whether or not the lead can be told; again, to tell it after all.

    Args:
        now_s: Unix seconds.

    Raises:
        ConfigError: an agent is running, or a file cannot be written or destroyed.
    """
    statement = firm.root / LEFT_FILE
    closed: tuple[str, ...] = ()
    with firm.hold():
        if firm.left is None:
            closed = _close_runs(firm)
            settings = firm.settings
            word = Leave(consortium=settings.consortium, firm=settings.firm, left_s=int(now_s))
            write_private(statement, word.sign(firm.signer))
        untold = ""
        try:
            _tell(firm, read_file(statement))
        except GreylagError as error:  # an unreachable lead keeps nobody in
            untold = str(error)
        for name in (IDENTITY_FILE, TLS_FILE, CA_FILE):
            _destroy(firm.keys / name)
    return LeaveResult(closed=closed, statement=statement, untold=untold)


def _close_runs(firm: FirmDirectory) -> tuple[str, ...]:
    from greylag_client.closing import close_run
    from greylag_client.identity import identity_of

    ledger, identity = Ledger(firm.ledger_path), identity_of(firm)
    runs = tuple(item.run for item in ledger.accounts() if not item.closed)
    for run in runs:
        close_run(ledger, identity, run)
    return runs


def _tell(firm: FirmDirectory, envelope: bytes) -> None:
    status, body = Desk.of_firm(firm.settings).post(LEAVE_PATH, envelope)
    if status not in OK_STATUSES:
        raise read_refusal(firm.settings.consortium, status, body)


def _destroy(path: Path) -> None:
    """Overwrite a file and unlink it. A disk may keep older copies of its blocks, and backups keep
    theirs: only the lead's new member list makes those worthless."""
    try:
        with path.open("r+b", buffering=0) as file:
            file.write(secrets.token_bytes(path.stat().st_size))
            os.fsync(file.fileno())
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(
            f"{path} could not be destroyed: {error.strerror}; delete it by hand"
        ) from None
