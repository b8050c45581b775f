"""What a run would ask of this firm's machine and line: measured, or counted on real messages."""

import sys
import time
from dataclasses import dataclass

import numpy as np
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.features import Records
from greylag_protocols.keys import MAX_BATCH, prove_batch, sign_batch
from greylag_protocols.log import ChainTip, sign_receipt
from greylag_protocols.log_view import COSIGNERS_SHOWN, show_log
from greylag_protocols.messages import Contribution, Round, SignedBatch
from greylag_protocols.notes import cosign
from greylag_protocols.parameters import initial_weights
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import Terms

from greylag_client.engine import make_engine
from greylag_client.sampling import place_units, sample_units

MEASURED_ROUNDS = 3
NAME = "f" * 12  # of a firm that nobody knows yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Seconds on this machine, bytes on the line.

    Attributes:
        round_s: of gradients at the public batch size, which is the same however few rows there
            are; the median of a few rounds.
        memory_bytes: most that this process ever held, where the system tells.
        up_bytes, down_bytes: one round's messages; every 64th brings new keys (``keys_bytes``, and
            about as many from each other firm).
    """

    round_s: float
    rounds: int
    max_attempts: int
    batch: int
    memory_bytes: int | None
    up_bytes: int
    down_bytes: int
    keys_up_bytes: int
    keys_down_bytes: int

    def total_bytes(self, attempts: int) -> tuple[int, int]:
        """(up, down) for that many attempts."""
        renewals = -(-attempts // MAX_BATCH)
        return (
            attempts * self.up_bytes + renewals * self.keys_up_bytes,
            attempts * self.down_bytes + renewals * self.keys_down_bytes,
        )


def effort_of(terms: Terms, records: Records, *, firms: int) -> Effort:
    """Measure a few real rounds of gradients, and the size of real messages.

    Raises:
        ConfigError: the records do not fit the terms.
    """
    engine = make_engine(terms, records)
    weights = initial_weights(b"rehearsal", terms.parameters).astype(np.float32)
    cap, rate, times = terms.batch_cap, terms.training.sampling_rate, []
    for number in range(MEASURED_ROUNDS + 1):
        secret = number.to_bytes(32, "big")  # the sample shows nothing to anybody: it stays here
        chosen = sample_units(secret, bytes(32), units=len(engine), rate=rate, cap=cap)
        places = place_units(secret, bytes(32), chosen, places=cap)
        started_s = time.perf_counter()
        engine.clipped_sum(weights, places)
        times.append(time.perf_counter() - started_s)
    up, down, keys_up, keys_down = message_bytes(terms, firms=firms)
    return Effort(
        round_s=float(np.median(times[1:])),  # the first one warms up
        rounds=terms.training.rounds,
        max_attempts=terms.privacy.max_attempts,
        batch=cap * terms.rows_per_unit,
        memory_bytes=_peak_bytes(),
        up_bytes=up,
        down_bytes=down,
        keys_up_bytes=keys_up,
        keys_down_bytes=keys_down,
    )


def message_bytes(terms: Terms, *, firms: int) -> tuple[int, int, int, int]:
    """(up, down) of a usual round, and what new keys add to each: from the encoders."""
    signer = Ed25519Signer(bytes(32))  # no firm's key: its length is all that counts
    tip = ChainTip(seq=terms.privacy.max_attempts, head=bytes(32))
    count = min(MAX_BATCH, terms.privacy.max_attempts)
    keys = tuple(number.to_bytes(32, "big") for number in range(count))
    proofs = prove_batch(keys, 1)[1]
    root = sign_batch(
        signer, keys, firm=NAME, consortium=terms.consortium, epoch=1, run=terms.run_id,
        terms=bytes(32), first=1, tip=tip,
    )  # fmt: skip
    receipt = sign_receipt(
        signer, tip, firm=NAME, run=terms.run_id, round_number=terms.training.rounds,
        attempt=terms.privacy.max_attempts, context=bytes(32), roster_size=firms,
        event_type=terms.mechanism.event_type, charged=terms.privacy.max_attempts,
    )  # fmt: skip

    checkpoint = Checkpoint(origin=terms.consortium, size=firms + 1, root=bytes(32))
    view = show_log(signer, checkpoint, [bytes(32)] * (firms + 1))  # what a round adds to the log
    word = cosign(signer, checkpoint, time_s=0)

    def up(batch: SignedBatch | None) -> int:
        vector = np.zeros(terms.dimension, dtype=np.uint32)
        message = Contribution(
            run=terms.run_id, attempt=1, vector=vector, cosignature=word, entries=(receipt,),
            batch=batch,
        )  # fmt: skip
        return len(message.encode())

    def down(batches: tuple[bytes, ...]) -> int:
        roster = tuple(f"{number:0{len(NAME)}d}" for number in range(firms))
        message = Round(
            run=terms.run_id, round_number=1, attempt=1, log=view, cosigned=firms,
            cosignatures=(word,) * min(firms, COSIGNERS_SHOWN),
            roster=roster, seen=(tip.seq,) * firms, keys=(bytes(32),) * firms,
            proofs=(proofs[0],) * firms, batches=batches,
            weights=np.zeros(terms.dimension, dtype=np.float32),
        )  # fmt: skip
        return len(message.encode())

    usual_up, usual_down = up(None), down(())
    new_up = up(SignedBatch(statement=root, keys=keys)) - usual_up
    return usual_up, usual_down, new_up, down((root,) * firms) - usual_down


def _peak_bytes() -> int | None:
    if sys.platform == "win32":  # has no such count in Python's own library
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else 1024 * peak)
