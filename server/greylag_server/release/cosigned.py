"""The release entry under a checkpoint that firms cosigned, and the proof that goes with a model.

``serve`` shows the log to the firms that are connected whenever it has grown, and keeps what they
cosign; whoever releases a model waits for it here.
"""

import functools
import itertools
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.errors import VerificationError
from greylag_protocols.membership import Membership
from greylag_protocols.merkle import hash_leaf, nodes_of, prove_inclusion
from greylag_protocols.notes import (
    cosigner_name,
    sign_checkpoint,
    verify_cosignature,
    with_cosignatures,
)
from greylag_protocols.proofs import format_proof
from greylag_protocols.signing import Signer

from greylag_server.consortium import ConsortiumSettings
from greylag_server.store import Store

POLL_S = 0.2
KNOCK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """A checkpoint and its members' cosignatures, each of which was checked."""

    checkpoint: Checkpoint
    words: Mapping[str, bytes]


def find_cosigned(store: Store, membership: Membership, *, position: int) -> list[Cosigned]:
    """Checkpoints that hold the entry at ``position``, with those of the members' words that are
    genuine."""
    keys = {item.name: item.identity_key for item in membership.members}
    found = []
    for checkpoint, words in store.cosigned():
        if checkpoint.size <= position:
            continue
        genuine = {}
        for firm, word in words.items():
            try:
                verify_cosignature(checkpoint, word, keys[firm])
            except (KeyError, VerificationError):
                continue  # of a firm that left, or under a key that it had before
            genuine[firm] = word
        found.append(Cosigned(checkpoint=checkpoint, words=genuine))
    return found


def wait_for_cosigners(
    store: Store,
    membership: Membership,
    *,
    position: int,
    wanted: int,
    wait_s: float,
    progress: Callable[[int], None],
) -> Cosigned | None:
    """The checkpoint that most cosigned, as soon as ``wanted`` did; after ``wait_s`` whatever there
    is."""
    until_s = time.monotonic() + wait_s
    while True:
        found = find_cosigned(store, membership, position=position)
        best = max(found, key=lambda item: len(item.words), default=None)
        count = 0 if best is None else len(best.words)
        progress(count)
        if count >= wanted or time.monotonic() >= until_s:
            return best
        time.sleep(POLL_S)


def serves(settings: ConsortiumSettings) -> bool:
    """Whether anybody listens where ``serve`` does."""
    try:
        with socket.create_connection((settings.host, settings.enrol_port), timeout=KNOCK_S):
            return True
    except OSError:
        return False


def make_proofs(
    store: Store,
    signer: Signer,
    membership: Membership,
    cosigned: Cosigned,
    *,
    positions: Sequence[int],
) -> list[bytes]:
    """For each position, the proof that its entry is in the log, in the form of C2SP tlog-proof."""
    checkpoint = cosigned.checkpoint
    entries = itertools.islice(store.entries(), checkpoint.size)
    # Kept: what lies beside one entry in the tree lies beside its neighbours too.
    node = functools.cache(nodes_of([hash_leaf(envelope) for envelope in entries]))
    note = with_cosignatures(
        sign_checkpoint(signer, checkpoint),
        (
            (cosigner_name(checkpoint.origin, firm), membership.member(firm).identity_key, word)
            for firm, word in sorted(cosigned.words.items())
        ),
    )
    text = note.encode().decode()
    return [
        format_proof(position, prove_inclusion(node, position, checkpoint.size), text)
        for position in positions
    ]
