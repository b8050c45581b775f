"""The log as files that any mirror can serve: C2SP tlog-tiles (https://c2sp.org/tlog-tiles).

A tile holds the hashes of 256 subtrees, level by level; the rightmost of a level may be partial. An
entry bundle holds the entries below a tile of level 0, each after its size in two bytes.
"""

import struct
from collections.abc import Iterator, Sequence

from greylag_protocols.errors import VerificationError
from greylag_protocols.merkle import NodeAt

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
_SIZE = struct.Struct(">H")


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """Where the tile of hashes of level ``level`` (in tile heights) lies."""
    return f"tile/{level}/{_number(index)}{_partial(width)}"


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """Where the entries below tile ``index`` of level 0 lie."""
    return f"tile/entries/{_number(index)}{_partial(width)}"


def _number(index: int) -> str:
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    return "/".join(reversed(groups))


def _partial(width: int) -> str:
    if not 0 < width <= TILE_WIDTH:
        raise ValueError(f"no tile is {width} wide")
    return "" if width == TILE_WIDTH else f".p/{width}"


def widths(count: int) -> Iterator[tuple[int, int]]:
    """The tiles that ``count`` things fill: index and width of each, in order."""
    for index in range(0, -(-count // TILE_WIDTH)):
        yield index, min(TILE_WIDTH, count - index * TILE_WIDTH)


def hash_tiles(node: NodeAt, size: int) -> Iterator[tuple[str, bytes]]:
    """All tiles of hashes of a log with ``size`` entries: path and content."""
    level = 0
    while count := size >> (level * TILE_HEIGHT):
        for index, width in widths(count):
            first = index * TILE_WIDTH
            hashes = (node(level * TILE_HEIGHT, first + place) for place in range(width))
            yield tile_path(level, index, width), b"".join(hashes)
        level += 1


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """An entry bundle."""
    return b"".join(_SIZE.pack(len(entry)) + entry for entry in entries)


def parse_entries(data: bytes, width: int) -> list[bytes]:
    """The ``width`` entries of an entry bundle.

    Raises:
        VerificationError: it holds another number of them, or is cut off.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) < width:
        if at + _SIZE.size > len(data):
            break
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        entries.append(data[at : at + size])
        at += size
    if at != len(data) or len(entries) != width:
        raise VerificationError(f"not a bundle of {width} log entries")
    return entries
