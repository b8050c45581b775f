"""Keyed marks of a table: by them a ledger knows a record again without holding it.

A record is its features: the same recipe measured again, with another target or in a file with
more columns, has the same tag. A column that is zero or empty does not count, so that a plan which
knows further constituents marks an old recipe as before. A category counts by its name: its number
depends on the plan's list.
"""

import hashlib

import numpy as np

from greylag_client.datasets import Content
from greylag_client.table import Table

KEY_BYTES = 32
TAG_BYTES = 16


def content_of(table: Table, key: bytes) -> Content:
    """What ``table`` holds, in marks made with ``key`` (32 bytes)."""
    whole = hashlib.blake2b(key=key, digest_size=32, person=b"greylag-content")
    for part in (table.features, table.targets):
        whole.update(np.ascontiguousarray(part + 0.0).tobytes())  # no minus zero
    whole.update("\0".join(table.groups).encode())
    named = table.data.group is not None
    return Content(
        commitment=whole.digest(),
        records=frozenset(record_tags(table, key)),
        groups=frozenset(
            _tag(key, b"greylag-group", f"{table.data.group}\0{name}".encode())
            for name in set(table.groups)
        )
        if named
        else frozenset(),
    )


def record_tags(table: Table, key: bytes) -> list[bytes]:
    """The tag of each row, in order."""
    names = np.array(table.data.feature_names)
    order = np.argsort(names)
    encoded = [name.encode() + b"\0" for name in names[order]]
    values = table.features[:, order]
    kinds = table.data.by_feature
    labels = [kinds[name].categories for name in names[order]]
    texts = np.array([item is not None for item in labels])
    used = ~np.isnan(values) & ((values != 0) | texts)

    def content(at: int, value: np.float64) -> bytes:
        known = labels[at]
        if known is None:
            return value.tobytes()
        number = int(value)
        label = known[number] if number < len(known) else ""  # beyond the list: other = true
        return label.encode() + b"\0"

    return [
        _tag(
            key,
            b"greylag-record",
            b"".join(encoded[at] + content(at, row[at]) for at in np.flatnonzero(mask).tolist()),
        )
        for row, mask in zip(values, used, strict=True)
    ]


def key_tag(key: bytes) -> bytes:
    """By which a ledger knows the key again."""
    return _tag(key, b"greylag-key", b"")


def _tag(key: bytes, person: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, key=key, digest_size=TAG_BYTES, person=person).digest()
