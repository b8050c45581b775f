"""A bundle as files, from a directory or an archive that an enemy may have made.

Only regular files under names that a bundle can have are ever opened; links, other kinds of files,
other names, too many or too large files end the reading. An archive is unpacked into a private
directory first, by a reader of one format only: plain ustar within zstandard.
"""

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import zstandard
from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.membership import MAX_DOCUMENT_BYTES
from greylag_protocols.notes import MAX_NOTE_BYTES
from greylag_protocols.signing import MAX_ENVELOPE_BYTES
from greylag_protocols.terms import STRICT
from greylag_protocols.tiles import TILE_WIDTH

MAX_FILES = 1 << 20
MAX_TOTAL_BYTES = 64 << 30
MAX_WINDOW_BYTES = 1 << 27  # of the archive: what unpacking it takes in memory
BLOCK = 512
ARCHIVE_SUFFIX = ".tar.zst"
_NUMBER = r"(?:x[0-9]{3}/){0,3}[0-9]{3}(?:\.p/(?:[1-9][0-9]{0,2}))?"
_KINDS = {  # names, and the most bytes of one such file
    r"bundle\.json": 1 << 16,
    r"card\.md": 1 << 20,
    r"checkpoint": MAX_NOTE_BYTES,
    r"checkpoints/(?:0|[1-9][0-9]{0,14})": MAX_NOTE_BYTES,
    rf"tile/[0-5]/{_NUMBER}": 32 * TILE_WIDTH,
    rf"tile/entries/{_NUMBER}": (MAX_ENVELOPE_BYTES + 2) * TILE_WIDTH,
    r"terms/[0-9a-f]{64}\.json": 8 << 20,
    r"membership/[0-9a-f]{64}\.json": MAX_DOCUMENT_BYTES,
    r"sums/[0-9a-f]{64}": 4 * 20_000_000,
    r"weights/(?:initial|released)": 8 * 20_000_000,
}
_PATTERNS = [(re.compile(name), limit) for name, limit in _KINDS.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What bundle.json says the bundle is: a hint, never evidence."""

    __pydantic_config__ = STRICT
    version: str
    origin: str
    run: str
    size: int


class Bundle:
    """The files below ``root``; see ``open_bundle``."""

    def __init__(self, root: Path, sizes: dict[str, int]) -> None:
        self._root = root
        self._sizes = sizes

    def names(self, prefix: str = "") -> Iterator[str]:
        """The names that start with ``prefix``, sorted."""
        return (name for name in sorted(self._sizes) if name.startswith(prefix))

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is none.

        Raises:
            ConfigError: it cannot be read.
        """
        if name not in self._sizes:
            return None
        try:
            descriptor = os.open(self._root / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode) or found.st_size != self._sizes[name]:
                    raise ConfigError(f"{name} changed while the bundle was read")
                return file.read(self._sizes[name])
        except OSError as error:
            raise ConfigError(f"{name} cannot be read: {error.strerror}") from None

    def label(self) -> Label:
        """What the bundle says of itself.

        Raises:
            ConfigError: nothing that can be read.
        """
        return parse_label(self.read("bundle.json") or b"")


def parse_label(data: bytes) -> Label:
    """A bundle.json from outside.

    Raises:
        ConfigError: not one.
    """
    try:
        label = parse_as(Label, parse_json(data), what="bundle.json")
    except VerificationError as error:
        raise ConfigError(f"bundle.json: {error}") from None
    if label.version != "bundle/v1":
        raise ConfigError(
            f"bundle.json: version {label.version!r:.40} is unknown here; take a newer greylag"
        )
    return label


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """The bundle at ``path``: a directory, or a ``.tar.zst`` of one.

    Raises:
        ConfigError: it is neither, or holds what no bundle holds.
    """
    if path.is_dir():
        yield Bundle(path, _list_directory(path))
        return
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; name a bundle's directory or {ARCHIVE_SUFFIX}")
    with tempfile.TemporaryDirectory(prefix="greylag-audit-") as name:
        with path.open("rb") as file:
            sizes = unpack(file, Path(name))
        yield Bundle(Path(name), sizes)


def _limit_of(name: str) -> int:
    for pattern, limit in _PATTERNS:
        if pattern.fullmatch(name):
            return limit
    raise ConfigError(f"{name!r:.120} is no file of a bundle; nothing else may lie in it")


class _Measure:
    """Counts what has been seen, and stops at the limits."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self._total = 0

    def take(self, name: str, size: int) -> None:
        """A file of ``size`` bytes under ``name``."""
        if size > (limit := _limit_of(name)):
            raise ConfigError(f"{name} has {size} bytes; at most {limit} are allowed")
        if name in self.sizes:
            raise ConfigError(f"{name} is in the archive twice")
        self.sizes[name] = size
        self._total += size
        if len(self.sizes) > MAX_FILES or self._total > MAX_TOTAL_BYTES:
            raise ConfigError("the bundle is larger than any log's; nothing more is read")


def _list_directory(root: Path) -> dict[str, int]:
    measure, waiting = _Measure(), [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(root / prefix) as listing:
                for item in listing:
                    name = f"{prefix}{item.name}"
                    if item.is_dir(follow_symlinks=False) and name.count("/") < 8:
                        waiting.append(name + "/")
                    elif item.is_file(follow_symlinks=False):
                        measure.take(name, item.stat(follow_symlinks=False).st_size)
                    else:
                        raise ConfigError(f"{name!r:.120} is a link or no file; a bundle has none")
        except OSError as error:
            raise ConfigError(f"{root / prefix} cannot be read: {error.strerror}") from None
    return measure.sizes


def unpack(archive: IO[bytes], root: Path) -> dict[str, int]:
    """The files of an archive, written below ``root``; their sizes by name.

    Raises:
        ConfigError: not a ``.tar.zst`` as ``greylag-server bundle`` writes it.
    """
    measure = _Measure()
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    try:
        with decompressor.stream_reader(archive, read_across_frames=False) as stream:
            while (header := _read(stream, BLOCK)).strip(b"\0"):
                name, size = parse_header(header)
                measure.take(name, size)
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                _copy(stream, path, size)
                _read(stream, -size % BLOCK)
    except zstandard.ZstdError as error:
        raise ConfigError(f"the archive is not zstandard, or cut off: {error}") from None
    except OSError as error:
        raise ConfigError(f"the archive cannot be unpacked: {error.strerror}") from None
    return measure.sizes


def parse_header(header: bytes) -> tuple[str, int]:
    """Name and size of the file behind a ustar header of 512 bytes.

    Raises:
        ConfigError: not one, or of anything but a file.
    """
    padded = header[:148] + b" " * 8 + header[156:]
    name, _, rest = header[:100].partition(b"\0")
    size, checksum = header[124:136].rstrip(b" \0"), header[148:156].strip(b" \0")
    numbers = re.fullmatch(rb"[0-7]{1,11}", size) and re.fullmatch(rb"[0-7]{1,7}", checksum)
    if header[257:262] != b"ustar" or not numbers or int(checksum, 8) != sum(padded):
        raise ConfigError("the archive is no plain tar")
    if header[156:157] not in (b"0", b"\0") or header[345:500].strip(b"\0") or rest.strip(b"\0"):
        raise ConfigError(f"{name[:100]!r}: the archive holds something else than plain files")
    try:
        return name.decode("ascii"), int(size, 8)
    except UnicodeDecodeError:
        raise ConfigError(f"{name[:100]!r} is no file of a bundle") from None


def _read(stream: zstandard.ZstdDecompressionReader, size: int) -> bytes:
    content = b""
    while len(content) < size and (part := stream.read(size - len(content))):
        content += part
    if len(content) < size:
        raise ConfigError("the archive is cut off")
    return content


def _copy(stream: zstandard.ZstdDecompressionReader, path: Path, size: int) -> None:
    with path.open("xb") as file:
        while size and (part := stream.read(min(size, 1 << 20))):
            file.write(part)
            size -= len(part)
    if size:
        raise ConfigError("the archive is cut off")
