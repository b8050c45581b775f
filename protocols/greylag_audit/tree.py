"""The log as a tree: its entries tile by tile, its hashes, and the states that were signed."""

from collections.abc import Callable, Iterator

from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.merkle import hash_leaf, hash_node, root_of, root_of_range
from greylag_protocols.notes import SignedNote, parse_note
from greylag_protocols.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    entries_path,
    hash_tiles,
    parse_entries,
    tile_path,
    widths,
)

from greylag_audit.bundle_files import Bundle
from greylag_audit.findings import Findings

MAX_CHECKPOINTS = 1024
HASH_BYTES = 32


class LogTree:
    """The log in a bundle.

    Attributes:
        newest: the signed checkpoint that the bundle's log should be.
        earlier: others that were signed before, by size.
    """

    def __init__(self, bundle: Bundle, findings: Findings) -> None:
        """
        Raises:
            ConfigError: there is no checkpoint, or more of them than anyone needs.
        """
        self._bundle = bundle
        self._findings = findings
        content = bundle.read("checkpoint")
        if content is None:
            raise ConfigError("this is no bundle: it has no checkpoint")
        try:
            self.newest = parse_note(content)
        except VerificationError as error:
            raise ConfigError(f"the bundle's checkpoint: {error}") from None
        self.earlier: dict[int, SignedNote] = {}
        for name in bundle.names("checkpoints/"):
            self._take_earlier(name)
        self.whole = True  # whether all of the log's entries are here

    def _take_earlier(self, name: str) -> None:
        if len(self.earlier) == MAX_CHECKPOINTS:
            raise ConfigError(f"a bundle of more than {MAX_CHECKPOINTS} checkpoints")
        try:
            note = parse_note(self._bundle.read(name) or b"")
        except VerificationError as error:
            self._findings.broken("bundle.files:damaged", path=name, why=error)
            return
        if note.checkpoint.size != int(name.partition("/")[2]):
            why = "it is of another size than its name"
            self._findings.broken("bundle.files:damaged", path=name, why=why)
            return
        self.earlier[note.checkpoint.size] = note

    @property
    def size(self) -> int:
        """How many entries the log should have."""
        return self.newest.checkpoint.size

    def entries(self, progress: Callable[[int], None]) -> Iterator[bytes]:
        """The log's entries in order; the tree is checked on the way.

        Ends early, with a finding, where entries are missing. ``progress`` is told how many have
        been read.
        """
        for size in self.earlier:
            if size > self.size:
                self._findings.broken("log.history:longer", longer=size, size=self.size)
        nodes = _Nodes()
        self._compare(nodes, 0, 0)
        for index, width in widths(self.size):
            envelopes = self._read_tile(index, width)
            if envelopes is None:
                self.whole = False
                return
            leaves = [hash_leaf(item) for item in envelopes]
            self._check_leaves(index, width, leaves)
            nodes.extend(leaves)
            self._compare(nodes, len(nodes.leaves) - width + 1, len(nodes.leaves))
            yield from envelopes
            progress(len(nodes.leaves))
        if root_of_range(nodes, 0, self.size) != self.newest.checkpoint.root:
            self._findings.broken("log.tree:root")
        self._check_hashes(nodes)

    def _compare(self, nodes: "_Nodes", low: int, high: int) -> None:
        """The earlier checkpoints of ``low`` to ``high`` entries are of this log."""
        for size, note in self.earlier.items():
            if low <= size <= high and note.checkpoint.root != root_of_range(nodes, 0, size):
                self._findings.broken("log.history:forked", entry=size, size=size)

    def _read_tile(self, index: int, width: int) -> list[bytes] | None:
        path, first = entries_path(index, width), index * TILE_WIDTH
        content = self._bundle.read(path)
        if content is None:
            self._findings.broken("log.tree:missing", entry=first, path=path)
            return None
        try:
            return parse_entries(content, width)
        except VerificationError as error:
            self._findings.broken("bundle.files:damaged", entry=first, path=path, why=error)
            return None

    def _check_leaves(self, index: int, width: int, leaves: list[bytes]) -> None:
        """The hashes of one tile, entry by entry, so that the one at fault is named."""
        path = tile_path(0, index, width)
        content = self._bundle.read(path)
        if content is None:
            self._findings.broken("bundle.files:missing", path=path)
        elif len(content) != width * HASH_BYTES:
            self._findings.broken("bundle.files:damaged", path=path, why="it has another size")
        elif content != b"".join(leaves):
            for place, leaf in enumerate(leaves):
                if content[place * HASH_BYTES : (place + 1) * HASH_BYTES] != leaf:
                    self._findings.broken("log.tree:leaf", entry=index * TILE_WIDTH + place)

    def _check_hashes(self, nodes: "_Nodes") -> None:
        """The tiles above the leaves, and that there are no others."""
        expected = {entries_path(index, width) for index, width in widths(self.size)}
        for path, content in hash_tiles(nodes, self.size):
            expected.add(path)
            if path.startswith("tile/0/"):
                continue
            found = self._bundle.read(path)
            if found is None:
                self._findings.broken("bundle.files:missing", path=path)
            elif found != content:
                self._findings.broken("log.tree:hash", path=path)
        for path in self._bundle.names("tile/"):
            if path not in expected:
                self._findings.broken("bundle.files:spare", path=path)


class _Nodes:
    """The hashes over complete subtrees, of which those over whole tiles are kept."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []
        self._tiles: list[bytes] = []

    def extend(self, leaves: list[bytes]) -> None:
        """The leaves of the next tile; only the last one may be narrower."""
        self.leaves += leaves
        if len(leaves) == TILE_WIDTH:
            self._tiles.append(root_of(leaves))

    def __call__(self, level: int, index: int) -> bytes:
        if level < TILE_HEIGHT:
            return root_of(self.leaves[index << level : (index + 1) << level])
        if level == TILE_HEIGHT:
            return self._tiles[index]
        return hash_node(self(level - 1, 2 * index), self(level - 1, 2 * index + 1))
