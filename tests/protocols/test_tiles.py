import pytest
from greylag_protocols.errors import VerificationError
from greylag_protocols.merkle import hash_leaf, nodes_of, root_of
from greylag_protocols.tiles import (
    encode_entries,
    entries_path,
    hash_tiles,
    parse_entries,
    tile_path,
    widths,
)


def test_paths_as_the_specification_writes_them():
    assert tile_path(0, 0) == "tile/0/000"
    assert tile_path(1, 1_234_067) == "tile/1/x001/x234/067"
    assert tile_path(2, 8, 112) == "tile/2/008.p/112"
    assert entries_path(1_000, 3) == "tile/entries/x001/000.p/3"
    for width in (0, 257):
        with pytest.raises(ValueError, match="wide"):
            tile_path(0, 0, width)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 600])
def test_tiles_hold_the_tree(size):
    leaves = [hash_leaf(number.to_bytes(2, "big")) for number in range(size)]
    tiles = dict(hash_tiles(nodes_of(leaves), size))
    level0 = b"".join(tiles[tile_path(0, index, width)] for index, width in widths(size))
    assert level0 == b"".join(leaves)
    above = b"".join(tiles[tile_path(1, index, width)] for index, width in widths(size // 256))
    assert above == b"".join(root_of(leaves[at : at + 256]) for at in range(0, size - 255, 256))
    assert len(tiles) == len(list(widths(size))) + len(list(widths(size // 256)))


def test_entries_in_and_out():
    entries = [b"one", b"", bytes(65_535)]
    data = encode_entries(entries)
    assert parse_entries(data, 3) == entries
    assert parse_entries(b"", 0) == []
    for bad, width in (
        (data, 2),
        (data, 4),
        (data[:-1], 3),
        (data + b"\x00", 3),
        (data[:4], 1),
        (b"\x00", 1),
    ):
        with pytest.raises(VerificationError):
            parse_entries(bad, width)
