"""Cases for signed statements, firms' chains and key batches (see ``gen_vectors``)."""

import base64
from typing import Any

from reference import slow_bytes as b
from reference.cases_membership import CONSORTIUM, KEYS, SEEDS
from reference.vector_file import Vectors, flip

RUN, DIGEST = "glass-tg-1", bytes([7]) * 32


def statements(v: Vectors) -> None:
    seed, key = SEEDS["anna"], KEYS["anna"]
    payload = b.payload_of("closed/v1", RUN, DIGEST, {"firm": "anna"})
    facts = {"key": key, "kind": "closed/v1"}
    whole = b.envelope(seed, payload)
    v.good("statement", "statement", {"subject": RUN, "digest": DIGEST}, **facts,
           envelope=b.jcs(whole))  # fmt: skip
    signature = base64.b64decode(whole["signatures"][0]["sig"])
    scalar = int.from_bytes(signature[32:], "little") + b.ED_ORDER
    second = b.envelope(SEEDS["bert"], payload)["signatures"]

    def resigned(**changes: Any) -> bytes:
        return b.jcs({**whole, "signatures": [{**whole["signatures"][0], **changes}]})

    def coded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    def paid(old: bytes, new: bytes) -> bytes:
        if old not in payload:
            raise SystemExit(f"{old!r} is not in the payload")
        return b.jcs(b.envelope(seed, payload.replace(old, new)))

    for name, envelope in {
        "spaced": b.jcs(whole).replace(b'":', b'": ', 1),
        "extra_key": b.jcs({**whole, "note": "x"}),
        "extra_key_of_signature": resigned(note="x"),
        "two_signatures": b.jcs({**whole, "signatures": whole["signatures"] + second}),
        "no_signature": b.jcs({**whole, "signatures": []}),
        "other_keyid": resigned(keyid=b.fingerprint(KEYS["bert"])),
        "flipped_bit": resigned(sig=coded(flip(signature, 300))),
        "scalar_beyond_order": resigned(sig=coded(signature[:32] + scalar.to_bytes(32, "little"))),
        "signed_by_another": b.jcs(b.envelope(SEEDS["bert"], payload)),
        "other_payload_type": b.jcs(b.envelope(seed, payload, payloadType="text/plain")),
        "other_payload": b.jcs({**whole, "payload": coded(payload.replace(b"anna", b"bert"))}),
        "payload_key_twice": paid(b'{"firm":', b'{"firm":"bert","firm":'),
        "other_kind": paid(b"closed/v1", b"closed/v2"),
        "other_prefix": paid(b"urn:greylag:", b"urn:greylog:"),
        "other_type": paid(b"Statement/v1", b"Statement/v2"),
        "upper_case_digest": paid(b'"' + DIGEST.hex().encode(), b'"0A' + DIGEST.hex()[2:].encode()),
        "short_digest": paid(DIGEST.hex().encode(), b"07"),
        "no_subject": paid(b'"subject":[', b'"subject":[],"x":['),
        "not_json": b.jcs(b.envelope(seed, b"closed")),
    }.items():
        v.bad(f"statement_bad_{name}", "statement", name.replace("_", " "), **facts,
              envelope=envelope.decode())  # fmt: skip
    chain(v)
    batches(v)


def chain(v: Vectors) -> None:
    seed, key, first = SEEDS["anna"], KEYS["anna"], bytes(32)

    def entry(kind: str, seq: Any, prev: bytes, /, *, by: bytes = seed, **changes: Any) -> bytes:
        facts = {"firm": "anna", "seq": seq, "prev": prev.hex(), "run": RUN}
        if kind == "receipt/v1":
            facts |= {"round": seq - 1, "attempt": seq - 1, "roster_size": 8,
                      "event": "poisson-gaussian/v1", "charged": seq - 1}  # fmt: skip
        if kind == "acceptance/v1":
            facts |= {"epoch": 3}
        return b.sign(by, kind, RUN, DIGEST, {**facts, **changes})

    def head(envelope: bytes) -> bytes:
        return b.tagged_hash("greylag/entry/v1", envelope)

    acceptance = entry("acceptance/v1", 1, first)
    one = entry("receipt/v1", 2, head(acceptance))
    two = entry("receipt/v1", 3, head(one))
    fork = entry("receipt/v1", 2, head(acceptance), attempt=9)
    closed = entry("closed/v1", 4, head(two), charged=2)
    entries, given = [acceptance, one, two, closed], {"firm": "anna", "key": key}
    for length in range(5):
        out = {"seq": length, "head": head(entries[length - 1]) if length else first}
        v.good(f"chain_of_{length}", "chain", out, **given, entries=entries[:length])
    v.good("chain_other_branch", "chain", {"seq": 2, "head": head(fork)}, **given,
           entries=[acceptance, fork])  # fmt: skip
    payload = b.payload_of("acceptance/v1", RUN, DIGEST, {"firm": "anna", "seq": 1,
                                                          "prev": first.hex()})  # fmt: skip
    as_double = b.jcs(b.envelope(seed, payload.replace(b'"seq":1', b'"seq":1.0')))
    as_true = b.jcs(b.envelope(seed, payload.replace(b'"seq":1', b'"seq":true')))
    for name, bad in {
        "gap": [acceptance, two],
        "late_start": [one],
        "replay": [acceptance, one, one],
        "swapped": [acceptance, two, one],
        "fork": [acceptance, fork, two],
        "both_branches": [acceptance, one, fork],
        "other_firm": [entry("acceptance/v1", 1, first, firm="bert")],
        "signed_by_another": [entry("acceptance/v1", 1, first, by=SEEDS["bert"])],
        "refusal": [entry("refusal/v1", 1, first)],
        "unknown_kind": [entry("receipt/v2", 1, first)],
        "seq_double": [as_double],
        "seq_true": [as_true],
        "seq_text": [entry("acceptance/v1", "1", first)],
        "prev_upper_case": [acceptance, entry("closed/v1", 2, head(acceptance),
                                              prev=head(acceptance).hex().upper())],
    }.items():  # fmt: skip
        v.bad(f"chain_bad_{name}", "chain", name.replace("_", " "), **given, entries=bad)


def batches(v: Vectors) -> None:
    private = [bytes([9, at]) * 16 for at in range(5)]
    public = [b.x25519_public(key) for key in private]
    first, index = 41, 3
    leaves = [b.key_leaf(key, first + at) for at, key in enumerate(public)]
    facts: dict[str, Any] = {
        "firm": "anna", "consortium": CONSORTIUM, "epoch": 3, "run": RUN, "terms": DIGEST.hex(),
        "first": first, "size": 5, "seq": 12, "head": (bytes([6]) * 32).hex(),
    }  # fmt: skip

    def batch(by: str = "anna", kind: str = "key-batch/v1", **changes: Any) -> bytes:
        return b.sign(SEEDS[by], kind, RUN, b.merkle_root(leaves), {**facts, **changes})

    given: dict[str, Any] = {
        "envelope": batch(), "identity": KEYS["anna"], "attempt": first + index,
        "key": public[index], "proof": b.merkle_path(leaves, index),
    }  # fmt: skip
    v.good("key_batch", "key_batch", facts, **given)
    v.good("key_batch_last", "key_batch", facts, **{**given, "attempt": 45, "key": public[4],
           "proof": b.merkle_path(leaves, 4)})  # fmt: skip
    for name, change in {
        "other_firm_signed": {"envelope": batch("bert")},
        "other_identity": {"identity": KEYS["bert"]},
        "other_kind": {"envelope": batch(kind="receipt/v1")},
        "other_attempt": {"attempt": 43},
        "attempt_before": {"attempt": 40},
        "attempt_after": {"attempt": 46},
        "other_key": {"key": public[2]},
        "wrong_proof": {"proof": b.merkle_path(leaves, 2)},
        "short_proof": {"proof": given["proof"][1:]},
        "other_first": {"envelope": batch(first=42), "attempt": 44},
        "too_large": {"envelope": batch(size=65)},
        "other_size": {"envelope": batch(size=4)},
        "empty": {"envelope": batch(size=0)},
        "epoch_zero": {"envelope": batch(epoch=0)},
        "unknown_key": {"envelope": batch(note="x")},
        "short_head": {"envelope": batch(head="06")},
    }.items():
        v.bad(f"key_batch_bad_{name}", "key_batch", name.replace("_", " "),
              **{**given, **change})  # fmt: skip
