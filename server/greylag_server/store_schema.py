"""The tables of the lead's database, and the one packed value in them."""

from io import BytesIO
from typing import Any

import numpy as np
from greylag_protocols.optimiser import ModelState

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY CHECK (position >= 0),
    envelope BLOB NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_remain BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TABLE IF NOT EXISTS frontier (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    peaks BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS cosignatures (
    size INTEGER NOT NULL,
    firm TEXT NOT NULL,
    root BLOB NOT NULL,
    cosignature BLOB NOT NULL,
    PRIMARY KEY (size, firm)
) STRICT;
CREATE TABLE IF NOT EXISTS artefacts (
    digest BLOB PRIMARY KEY,
    content BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS tips (
    firm TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    head BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS revocations (
    envelope BLOB PRIMARY KEY
) STRICT;
CREATE TABLE IF NOT EXISTS endorsements (
    envelope BLOB PRIMARY KEY,
    membership BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY,
    terms BLOB NOT NULL,
    firms INTEGER NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    membership BLOB,
    membership_statement BLOB,
    rounds_done INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    roster TEXT NOT NULL DEFAULT '[]',
    retrying INTEGER NOT NULL DEFAULT 0,
    state BLOB,
    frame BLOB
) STRICT;
CREATE TABLE IF NOT EXISTS participants (
    run TEXT NOT NULL,
    firm TEXT NOT NULL,
    acceptance BLOB NOT NULL,
    voids INTEGER NOT NULL DEFAULT 0,
    closed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, firm)
) STRICT;
CREATE TABLE IF NOT EXISTS wishes (
    number INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    wish TEXT NOT NULL CHECK (wish IN ('pause', 'resume', 'cancel')),
    because TEXT NOT NULL,
    who TEXT NOT NULL,
    at_s INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS wishes_of ON wishes (run, number);
CREATE TABLE IF NOT EXISTS paces (
    run TEXT PRIMARY KEY,
    pace TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS ahead (
    firm TEXT PRIMARY KEY,
    size INTEGER NOT NULL
) STRICT;
"""

STATE_VECTORS = ("weights", "first", "second", "average")
STATE_NUMBERS = ("rounds_done", "bias_first", "bias_second")


def pack_state(state: ModelState) -> bytes:
    buffer = BytesIO()
    fields = (*STATE_VECTORS, *STATE_NUMBERS)
    arrays: dict[str, Any] = {name: np.asarray(getattr(state, name)) for name in fields}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack_state(content: bytes) -> ModelState:
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        return ModelState(
            rounds_done=int(arrays["rounds_done"]),
            bias_first=float(arrays["bias_first"]),
            bias_second=float(arrays["bias_second"]),
            **{name: arrays[name] for name in STATE_VECTORS},
        )
