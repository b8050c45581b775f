"""One process serves a directory: two would write two histories."""

import fcntl
from pathlib import Path
from typing import IO

from greylag_protocols.errors import ConfigError

LOCK_FILE = "serving.lock"


def lock_directory(root: Path) -> IO[bytes]:
    """Hold the directory until the file is closed or the process ends, however it ends.

    Raises:
        ConfigError: another process holds it.
    """
    path = root / LOCK_FILE
    try:
        path.touch(mode=0o600)
        file = path.open("ab")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError(f"another process serves {root}; end it first") from None
    return file


def is_served(root: Path) -> bool:
    """Whether a process serves this directory now."""
    if not (root / LOCK_FILE).exists():
        return False
    try:
        lock_directory(root).close()
    except ConfigError:
        return True
    return False
