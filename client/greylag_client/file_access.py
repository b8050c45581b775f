"""Who may read a firm's files: their owner alone.

POSIX has modes for this. Windows has access lists, in which files inherit whatever their directory
grants: there inheritance is cut, and the current user and SYSTEM (backups, services) are named
alone. Two programs of Windows itself do it, by full path, without a shell: their arguments are a
pure function (``windows_arguments``), which can be checked anywhere; calls of the Windows API
through ctypes could not.

**The Windows part was never run on Windows**: its arguments and its failures are tested, the effect
of ``icacls`` is Microsoft's documentation's word.
"""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from greylag_protocols.errors import ConfigError

PRIVATE_FILE, PRIVATE_DIRECTORY = 0o600, 0o700
SYSTEM_SID = "S-1-5-18"
TOOL_TIMEOUT_S = 30.0
# Who may run a program: accounts of the machine, a domain, Entra ID or a service; never a group.
_SID = re.compile(r"S-1-(?:(?:5-21|12-1)(?:-\d{1,10}){4}|5-80(?:-\d{1,10}){5}|5-(?:18|19|20))\b")


def restrict(path: Path) -> None:
    """Leave ``path``, a file or a directory, to the current user alone (and to what is created in
    the directory from now on).

    Raises:
        ConfigError: that cannot be done; nothing secret may be written there then.
    """
    if sys.platform == "win32":
        restrict_on_windows(path)
        return
    try:
        path.chmod(PRIVATE_DIRECTORY if path.is_dir() else PRIVATE_FILE)
    except OSError as error:
        raise _open_to_others(path, str(error.strerror)) from None


def restrict_on_windows(path: Path) -> None:
    """Set the access list of ``path`` by ``icacls`` (see ``restrict``)."""
    arguments = windows_arguments(path, user_sid=_user_sid(), is_directory=path.is_dir())
    try:
        _run_tool("icacls.exe", *arguments)
    except (OSError, subprocess.SubprocessError) as error:
        raise _open_to_others(path, f"icacls failed ({_cause(error)})") from None


def windows_arguments(path: Path, *, user_sid: str, is_directory: bool) -> list[str]:
    """What ``icacls`` is told: no inherited grants, full control for the user and for SYSTEM.

    Identifiers stand for names, which Windows translates (``SYSTEM`` is ``系统`` in Chinese).
    """
    inherited = "(OI)(CI)" if is_directory else ""
    grants = [f"*{sid}:{inherited}F" for sid in dict.fromkeys((user_sid, SYSTEM_SID))]
    return [str(path.absolute()), "/inheritance:r", "/grant:r", *grants, "/q"]


@cache
def _user_sid() -> str:
    """The identifier of whom this process runs as.

    Raises:
        ConfigError: Windows does not tell.
    """
    try:
        found = _SID.findall(_run_tool("whoami.exe", "/user", "/fo", "csv", "/nh"))
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(
            f"Windows does not tell who runs this program: whoami failed ({_cause(error)}); without"
            " it, key files cannot be kept from others"
        ) from None
    if not found:
        raise ConfigError(
            "Windows names no user for this program, so key files cannot be kept from others; run "
            "it as an ordinary account or as a service account"
        )
    return str(found[-1])  # a user's own name, which comes first, might look like one


def _run_tool(name: str, *arguments: str) -> str:
    """Run a program of Windows' own directory, not one of that name from elsewhere."""
    tool = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", name)
    ended = subprocess.run(  # noqa: S603 - a full path, arguments as a list
        [str(tool), *arguments],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=TOOL_TIMEOUT_S,
    )
    return ended.stdout.decode("ascii", errors="replace")  # names are in any code page, SIDs ASCII


def _cause(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit code {error.returncode}"
    return error.strerror or "no cause given" if isinstance(error, OSError) else "timed out"


def _open_to_others(path: Path, cause: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be kept from other users: {cause}; choose a directory on a disk with "
        "access rights (NTFS, ext4, ...) that belongs to you"
    )
