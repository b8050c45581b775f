"""Checks of the machine: versions, disk, who may read the keys."""

import os
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from greylag_client.doctor.report import Check, make_check
from greylag_client.firm import FirmDirectory

PACKAGES = ("greylag", "torch", "flwr", "grpcio", "cryptography")
OLDEST_PYTHON = (3, 11)
PROBE_BYTES = 64 << 10
LITTLE_BYTES, TOO_LITTLE_BYTES = 1 << 30, 64 << 20


def check_versions() -> Check:
    """Python, and the packages that the agent needs."""
    bits = 64 if sys.maxsize > 2**32 else 32
    found, missing = [f"Python {sys.version.split()[0]} ({bits} bit)"], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    text = ", ".join(found)
    if missing:
        absent = f"{text}; absent: {', '.join(missing)}"
        return make_check("versions", "fail", absent, "install greylag[client] anew")
    if bits == 32 or sys.version_info < OLDEST_PYTHON:
        return make_check("versions", "fail", text, "install a 64-bit Python, 3.11 or newer")
    return make_check("versions", "ok", text)


def check_disk(root: Path) -> Check:
    """Room for the ledger, and a disk that keeps what is written (a nameless file is, for that)."""
    try:
        free = shutil.disk_usage(root).free
        with tempfile.TemporaryFile(dir=root) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        reason = error.strerror or str(error)
        return make_check(
            "disk",
            "fail",
            f"nothing can be written in {root}: {reason}",
            "make room, or give this user the right to write there; without the ledger on disk "
            "nothing is ever sent",
        )
    text = f"{free / (1 << 30):.1f} GiB free, written and synced"
    if free < LITTLE_BYTES:
        return make_check("disk", "fail" if free < TOO_LITTLE_BYTES else "warn", text, "make room")
    return make_check("disk", "ok", text)


def check_files(firm: FirmDirectory) -> Check:
    """That others on this machine cannot read the keys."""
    if sys.platform == "win32":
        return make_check(
            "files",
            "skip",
            "access lists are not looked at",
            f'icacls "{firm.keys}" must name your account and SYSTEM alone',
        )
    keys = sorted(firm.keys.iterdir())
    exposed = [path for path in (firm.root, firm.keys, *keys) if path.stat().st_mode & 0o077]
    if not exposed:
        return make_check("files", "ok", f"{len(keys)} key files, for their owner alone")
    names = ", ".join(str(path) for path in exposed)
    return make_check(
        "files",
        "fail" if set(exposed) & set(keys) else "warn",
        f"others on this machine may open {names}",
        f"chmod -R go= {firm.root}; if others did read the keys, revoke and join anew",
    )
