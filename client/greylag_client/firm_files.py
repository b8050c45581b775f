"""Files of a firm's directory: written whole or not at all, and readable by their owner only."""

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from greylag_protocols.errors import ConfigError

from greylag_client.file_access import restrict


@contextmanager
def stage_directory(root: Path, *, last: str) -> Iterator[Path]:
    """A private directory to fill, which becomes ``root`` if the block succeeds.

    An absent ``root`` appears by one rename. An empty one that exists may be a mounted volume, over
    which nothing can be renamed: there the parts are moved in, and ``last``, without which the
    directory does not open, comes last.

    Raises:
        ConfigError: ``root`` is not empty, is not a directory or cannot be written.
    """
    exists = root.exists()
    if exists and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError(f"{root} is not an empty directory; name a new one")
    try:
        if not exists:
            root.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".new-", dir=root if exists else root.parent))
    except OSError as error:
        raise ConfigError(f"{root} cannot be written: {error.strerror}; name another") from None
    try:
        restrict(staged)  # what is created in it is the owner's alone
        yield staged
        if exists:
            for part in sorted(staged.iterdir(), key=lambda part: part.name == last):
                part.replace(root / part.name)
            staged.rmdir()
        else:
            staged.replace(root)
        _sync_directory(root)
        _sync_directory(root.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def write_private(path: Path, data: bytes) -> None:
    """Write or replace a file that its owner alone may read; it is never seen half-written.

    Raises:
        ConfigError: it cannot be written, or others could read it.
    """
    staged = path.with_name(f".new-{secrets.token_hex(8)}")
    try:
        handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            if sys.platform == "win32":
                restrict(staged)  # the mode above says nothing there; no byte is in it yet
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        staged.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    if sys.platform == "win32":
        return  # no directory can be opened there; NTFS keeps a journal of its names
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_file(path: Path) -> bytes:
    """A file of the directory.

    Raises:
        ConfigError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; restore it from a backup"
        ) from None
