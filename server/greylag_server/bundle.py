"""``greylag-server bundle``: all that a stranger needs to audit a run, as files.

    bundle.json                  which run and how long the log, as a hint
    checkpoint, checkpoints/N    states of the log, signed by the lead, countersigned by firms
    tile/...                     the whole log and its hashes (C2SP tlog-tiles)
    terms/, membership/          documents that the log names by their digest
    sums/                        the integer sum of every completed round
    weights/initial, released    float64 and float32, little endian
    card.md                      the release's card

The reader trusts none of it (``protocols/spec/bundle.md``).
"""

import io
import itertools
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from greylag_protocols import log
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.encoding import parse_as, parse_json
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.membership import MAX_DOCUMENT_BYTES, MEMBERSHIP_KIND, Membership
from greylag_protocols.merkle import hash_leaf, nodes_of
from greylag_protocols.notes import (
    SignedNote,
    cosigner_name,
    sign_checkpoint,
    verify_cosignature,
    with_cosignatures,
)
from greylag_protocols.parameters import initial_weights
from greylag_protocols.plan import parse_terms
from greylag_protocols.releases import RELEASE_KIND
from greylag_protocols.round import initial_seed
from greylag_protocols.signing import Signer, Statement, parse_statement
from greylag_protocols.terms import terms_digest
from greylag_protocols.tiles import TILE_WIDTH, encode_entries, entries_path, hash_tiles

from greylag_server.store import RunRecord, Store
from greylag_server.terminal import Dir, Format, say

ARCHIVE_SUFFIX = ".tar.zst"
COMPRESSION_LEVEL = 9
CARD_FILE = "card.md"


def bundle(
    run: Annotated[str, typer.Argument(help="run id, or its plan's name")],
    out: Annotated[Path, typer.Argument(help="a new directory, or a new file NAME.tar.zst")],
    directory: Dir,
    release: Annotated[
        Path | None, typer.Option(help="the release's directory, for its card.md")
    ] = None,
    output: Format = "text",
) -> None:
    """Write all that an auditor needs: the log, its signatures, terms, member lists, sums, weights.
    It holds no data of any firm; check it with greylag-audit."""
    from greylag_server.consortium import Consortium
    from greylag_server.service import open_store

    consortium = Consortium.open(directory)
    store = open_store(consortium)
    card = b""
    if release is not None:
        try:
            card = (release / CARD_FILE).read_bytes()
        except OSError as error:
            raise ConfigError(f"{release / CARD_FILE} cannot be read: {error.strerror}") from None
    record = store.run(run)
    size = write_bundle(store, record, out, signer=consortium.signer, card=card)
    say(
        {"run": record.run, "bundle": str(out), "log_size": size},
        f"{out}: run {record.run} and the whole log of {size} entries.\n"
        "An auditor checks it with: greylag-audit verify BUNDLE --trust FILE, where FILE comes\n"
        "from a firm (greylag-client export-trust), not from you",
        output,
    )


def write_bundle(
    store: Store, record: RunRecord, out: Path, *, signer: Signer, card: bytes = b""
) -> int:
    """Write the bundle of a run; returns the number of log entries in it.

    Raises:
        ConfigError: ``out`` exists or cannot be written.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; name a new one")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from None
    try:
        size = _Writer(store, record, staged, signer).write(card)
        if out.name.endswith(ARCHIVE_SUFFIX):
            packed = staged.with_name(f"{staged.name}{ARCHIVE_SUFFIX}")
            try:
                pack(staged, packed)
                packed.replace(out)
            finally:
                packed.unlink(missing_ok=True)
        else:
            staged.chmod(0o755)
            staged.replace(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return size


def pack(root: Path, archive: Path) -> None:
    """The files below ``root`` as a ``.tar.zst`` that is the same, byte for byte, each time."""
    import zstandard

    compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL)
    with (
        archive.open("wb") as sink,
        compressor.stream_writer(sink) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in sorted(item for item in root.rglob("*") if item.is_file()):
            content = path.read_bytes()
            item = tarfile.TarInfo(path.relative_to(root).as_posix())
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))


@dataclass(slots=True)
class _Writer:
    """Writes one bundle into ``root``; what the log names is collected as it goes by."""

    store: Store
    record: RunRecord
    root: Path
    signer: Signer
    keys: dict[str, list[bytes]] = field(default_factory=dict)  # that firms ever had
    acceptances: list[bytes] = field(default_factory=list)
    started: bool = False
    released: bool = False

    def write(self, card: bytes) -> int:
        checkpoint = self.store.checkpoint()  # the log may grow meanwhile
        leaves: list[bytes] = []
        entries = itertools.islice(self.store.entries(), checkpoint.size)
        for index, tile in enumerate(_in_tiles(entries)):
            self._put(entries_path(index, len(tile)), encode_entries(tile))
            for envelope in tile:
                leaves.append(hash_leaf(envelope))
                with suppress(VerificationError):  # what is no statement names nothing; let it show
                    self._take(parse_statement(envelope), envelope)
        for path, content in hash_tiles(nodes_of(leaves), checkpoint.size):
            self._put(path, content)
        self._write_checkpoints(checkpoint)
        self._write_weights()
        if card:
            self._put(CARD_FILE, card)
        label = {
            "version": "bundle/v1",
            "origin": checkpoint.origin,
            "run": self.record.run,
            "size": checkpoint.size,
        }
        self._put("bundle.json", json.dumps(label, indent=1).encode() + b"\n")
        return checkpoint.size

    def _take(self, statement: Statement, envelope: bytes) -> None:
        kind, digest = statement.kind, statement.digest
        if kind == MEMBERSHIP_KIND:
            document = self._copy(f"membership/{digest.hex()}.json", digest)
            value = parse_json(document, max_bytes=MAX_DOCUMENT_BYTES)
            for member in parse_as(Membership, value, what="stored membership").members:
                self.keys.setdefault(member.name, []).append(member.identity_key)
        elif kind == log.TERMS_KIND:
            self._copy(f"terms/{digest.hex()}.json", digest)
        if statement.predicate.get("run", statement.subject) != self.record.run:
            return
        if kind == log.ACCEPTANCE_KIND and not self.started:
            self.acceptances.append(envelope)
        elif kind == log.START_KIND:
            self.started = True
        elif kind == log.ROUND_KIND:
            digest = bytes.fromhex(statement.predicate["sum"])
            self._copy(f"sums/{digest.hex()}", digest)
        elif kind in (log.RELEASE_KIND, RELEASE_KIND):
            self.released = True

    def _copy(self, path: str, digest: bytes) -> bytes:
        content = self.store.artefact(digest)
        if content is None:
            raise ConfigError(
                f"the lead's database lacks {path}, which its log names; restore it from a backup"
            )
        self._put(path, content)
        return content

    def _write_checkpoints(self, newest: Checkpoint) -> None:
        cosigned = {item[0].size: item for item in self.store.cosigned()}
        words = cosigned.pop(newest.size, (newest, {}))[1]
        self._put("checkpoint", self._note(newest, words).encode())
        for size, (checkpoint, words) in cosigned.items():
            if size < newest.size:
                self._put(f"checkpoints/{size}", self._note(checkpoint, words).encode())

    def _note(self, checkpoint: Checkpoint, words: dict[str, bytes]) -> SignedNote:
        found = []
        for firm, blob in sorted(words.items()):
            for key in self.keys.get(firm, []):
                if _cosigned_by(checkpoint, blob, key):
                    found.append((cosigner_name(checkpoint.origin, firm), key, blob))
                    break
        return with_cosignatures(sign_checkpoint(self.signer, checkpoint), found)

    def _write_weights(self) -> None:
        if self.started:
            terms = parse_terms(self.record.terms)
            seed = initial_seed(terms_digest(self.record.terms), self.acceptances)
            weights = initial_weights(seed, terms.parameters)
            self._put("weights/initial", weights.astype("<f8").tobytes())
        if self.released and self.record.state is not None:
            released = self.record.state.released()
            self._put("weights/released", released.astype("<f4").tobytes())

    def _put(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _cosigned_by(checkpoint: Checkpoint, blob: bytes, key: bytes) -> bool:
    try:
        verify_cosignature(checkpoint, blob, key)
    except VerificationError:
        return False
    return True


def _in_tiles(entries: Iterator[bytes]) -> Iterator[list[bytes]]:
    while tile := list(itertools.islice(entries, TILE_WIDTH)):
        yield tile
