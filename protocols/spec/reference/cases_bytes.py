"""Cases for JSON, hashes, frames, messages, trees, contexts and masks (see ``gen_vectors``)."""

import base64
import json
from typing import Any

from reference import slow_bytes as b
from reference.vector_file import Vectors, flip

RING = 2**32
CONTEXT = bytes(range(32))
CONSORTIUM, RUN = "glass", "glass-tg-1"


# -- encoding --------------------------------------------------------------------------------------


def encoding(v: Vectors) -> None:
    for name, tag, parts in (
        ("tagged_hash_no_parts", "greylag/x/v1", []),
        ("tagged_hash_two_parts", "greylag/x/v1", [b"ab", b"c"]),
        ("tagged_hash_empty_part", "greylag/x/v1", [b"", b"abc"]),
    ):
        v.good(name, "tagged_hash", b.tagged_hash(tag, *parts), tag=tag, parts=parts)
    joined, apart = (b.tagged_hash("greylag/x/v1", *parts) for parts in ([b"abc"], [b"ab", b"c"]))
    v.differs("tagged_hash_bad_joined", "tagged_hash", apart, joined, "no lengths between parts",
              tag="greylag/x/v1", parts=[b"ab", b"c"])  # fmt: skip
    texts = {
        "numbers": "[0, -0.0, 1.0, 1e21, 1e20, 123456789012345680000, 1e-6, 1e-7, 4.5, 5e-324,"
        " 1.7976931348623157e308, 333333333.33333329, 9007199254740991, 0.1, 1e16, -2.5e-9]",
        "strings": '["\\u20ac$\\u000f\\nA\\"\\\\/\\u0007", "\\ud83d\\ude00", "\\u007f", ""]',
        "key_order": '{"\\ufb33": 1, "\\ud83d\\ude00": 2, "b": 3, "a": {"z": 1, "": 2}, "A": 4}',
        "literals": ' { "x" : [ null , true , false , { } , [ ] ] } ',
        "beyond_2_53_is_a_double": "[9007199254740993]",
    }
    for name, text in texts.items():
        value = json.loads(text, parse_int=lambda digits: float(digits))
        v.good(f"jcs_{name}", "jcs", b.jcs(value).hex(), text=text)
    for name, digits in (("2_53", str(2**53)), ("minus_2_53", str(-(2**53)))):
        v.bad(f"jcs_bad_integer_{name}", "jcs_integer", "beyond 2^53 - 1", digits=digits)
    refused: dict[str, bytes] = {
        "duplicate_key": b'{"a":1,"a":1}',
        "duplicate_key_escaped": b'{"a":1,"\\u0061":2}',
        "duplicate_key_below": b'[{"a":{"b":1,"b":2}}]',
        "nan": b"[NaN]",
        "infinity": b"[-Infinity]",
        "beyond_doubles": b"[1e309]",
        "lone_high_surrogate": b'["\\ud83d"]',
        "lone_low_surrogate": b'["\\ude00\\ud83d"]',
        "surrogate_in_utf8": b'["\xed\xa0\x80"]',
        "not_utf8": b'["\xff"]',
        "byte_order_mark": b"\xef\xbb\xbf[]",
        "utf16": "[1]".encode("utf-16-le"),
        "too_deep": b"[" * 33 + b"]" * 33,
        "trailing": b"[1] 2",
        "leading_zero": b"[01]",
        "empty": b"",
    }
    for name, data in refused.items():
        v.bad(f"json_bad_{name}", "parse_json", name.replace("_", " "), data=data.hex())
    v.good("json_deep_enough", "parse_json", None, data=(b"[" * 32 + b"]" * 32).hex())
    good = b.frame({"kind": "x", "n": 1}, [b"abc", b"", b"\0\1"])
    v.good("frame", "frame", good, header={"kind": "x", "n": 1}, blobs=[b"abc", b"", b"\0\1"])

    def raw(header: bytes, rest: bytes = b"") -> bytes:
        return b.MAGIC + len(header).to_bytes(4, "big") + header + rest

    for name, data in {
        "magic": b"GLG2" + good[4:],
        "cut_short": good[:-1],
        "too_long": good + b"\0",
        "header_beyond_end": b.MAGIC + (500).to_bytes(4, "big") + good[8:],
        "no_blobs": raw(b'{"kind":"x"}'),
        "negative_blob": raw(b'{"blobs":[-1,2],"kind":"x"}', b"a"),
        "blob_true": raw(b'{"blobs":[true],"kind":"x"}', b"a"),
        "blob_double": raw(b'{"blobs":[1.0],"kind":"x"}', b"a"),
        "header_list": raw(b"[]"),
        "seven_bytes": good[:7],
    }.items():
        v.bad(f"frame_bad_{name}", "parse_frame", name.replace("_", " "), data=data.hex())
    ask = {"kind": "ask", "run": RUN, "firms": ["bert"], "nonces": ["ab" * 32]}
    v.good("message_ask", "message", b.frame(ask), frame=b.frame(ask))
    view = (5).to_bytes(8, "big") + bytes([7]) * 32 + bytes([8]) * 64 + bytes([9]) * 64
    plain = {"kind": "offer", "run": RUN, "next_attempt": 1, "seen": 0, "peers": 1}
    offer = b.frame(plain, [b"{}", b"{}", b"{}", view, b"p", b"r"])
    v.good("message_offer", "message", offer, frame=offer)
    lost = {**plain, "seen": 7, "entries": 2, "past": 1}
    parts = [b"{}", b"{}", b"{}", view, b"p", b"six", b"seven", b"t", b"r"]
    offer = b.frame(lost, parts)
    v.good("message_offer_of_entries", "message", offer, frame=offer)
    for name, header, blobs in (
        ("offer_short_of_entries", {**lost, "past": 9}, parts),
        ("offer_of_no_entries", {**lost, "entries": 0}, parts),
        ("unknown_key", {**ask, "x": 1}, []),
        ("unknown_kind", {**ask, "kind": "asks"}, []),
        ("missing_key", {"kind": "ask", "run": RUN, "firms": ["bert"]}, []),
        ("lists_differ", {**ask, "nonces": []}, []),
        ("upper_case_hex", {**ask, "nonces": ["AB" * 32]}, []),
        ("blob_too_many", ask, [b"x"]),
        ("true_for_integer", {"kind": "close", "run": RUN, "seen": True}, []),
        ("integer_beyond_2_53", {"kind": "close", "run": RUN, "seen": 2**53}, []),
        ("negative", {"kind": "close", "run": RUN, "seen": -1}, []),
    ):
        v.bad(f"message_bad_{name}", "message", name.replace("_", " "),
              frame=b.frame(header, blobs))  # fmt: skip


# -- masking ---------------------------------------------------------------------------------------


def masking(v: Vectors) -> None:
    leaves = [bytes([at]) * at for at in range(7)]
    v.good("merkle_leaf", "merkle_root", b.merkle_root([b"abc"]), leaves=["616263"])
    for size in (0, 1, 2, 3, 5, 7):
        given = [leaf.hex() for leaf in leaves[:size]]
        v.good(f"merkle_root_of_{size}", "merkle_root", b.merkle_root(leaves[:size]), leaves=given)
    for size, index in ((1, 0), (2, 1), (3, 2), (5, 4), (7, 3), (7, 6)):
        tree = leaves[:size]
        facts = {"leaf": tree[index].hex(), "index": index, "size": size}
        proof, root = b.merkle_path(tree, index), b.merkle_root(tree)
        v.good(f"merkle_proof_{index}_of_{size}", "merkle_proof", proof,
               leaves=[leaf.hex() for leaf in tree], index=index)  # fmt: skip
        v.good(f"merkle_verify_{index}_of_{size}", "merkle_verify", None, **facts,
               proof=proof, root=root)  # fmt: skip
    for name, change in {
        "index": {"index": 4},
        "index_beyond": {"index": 7},
        "index_negative": {"index": -1},
        "size": {"size": 9},
        "leaf": {"leaf": "00"},
        "root": {"root": flip(root, 9)},
        "short": {"proof": proof[:-1]},
        "long": {"proof": [*proof, bytes(32)]},
        "swapped": {"proof": proof[::-1]},
    }.items():
        v.bad(f"merkle_verify_bad_{name}", "merkle_verify", f"wrong {name}",
              **{**facts, "proof": proof, "root": root, **change})  # fmt: skip

    attempt: dict[str, Any] = {
        "terms": bytes([1]) * 32, "run": RUN, "round": 3, "attempt": 4, "model": bytes([2]) * 32,
        "origin": CONSORTIUM, "log_size": 300, "log_root": bytes([3]) * 32,
        "roster": [["anna", bytes([4]) * 32], ["bert", bytes([5]) * 32]],
    }  # fmt: skip

    def context(facts: dict[str, Any]) -> bytes:
        note = base64.b64encode(facts["log_root"]).decode()
        checkpoint = f"{facts['origin']}\n{facts['log_size']}\n{note}\n"
        roster = [part for name, key in facts["roster"] for part in (name.encode(), key)]
        numbers = [facts[key].to_bytes(8, "big") for key in ("round", "attempt")]
        return b.tagged_hash("greylag/context/v1", facts["terms"], facts["run"].encode(), *numbers,
                             facts["model"], checkpoint.encode(), *roster)  # fmt: skip

    v.good("context", "context", context(attempt), **attempt)
    for name, change in {
        "attempt": {"attempt": 5},
        "model": {"model": bytes(32)},
        "log": {"log_size": 301},
        "roster": {"roster": attempt["roster"][:1]},
    }.items():
        other = {**attempt, **change}
        v.good(f"context_of_another_{name}", "context", context(other), **other)
        v.differs(f"context_bad_without_{name}", "context", context(other), context(attempt),
                  f"the {name} is not bound", **other)  # fmt: skip
    first, second = attempt["roster"]
    for name, roster in {
        "unsorted": [second, first],
        "doubled_firm": [first, [first[0], second[1]]],
        "doubled_key": [first, [second[0], first[1]]],
    }.items():
        v.bad(f"context_bad_{name}", "context", f"{name} roster", **{**attempt, "roster": roster})

    # RFC 7748, section 6.1
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    keys = [alice, bob, bytes([9]) * 32]
    public = [b.x25519_public(key) for key in keys]
    for who, private, shown in zip("abc", keys, public, strict=True):
        v.good(f"public_key_{who}", "public_key", shown, private=private)
    for one, two in ((0, 1), (1, 0), (0, 2)):
        v.good(f"pair_key_{'abc'[one]}_{'abc'[two]}", "pair_key",
               b.pair_key(keys[one], public[two], CONTEXT),
               private=keys[one], peer=public[two], context=CONTEXT)  # fmt: skip
    twin = pow(int.from_bytes(public[1], "little"), -1, b.P).to_bytes(32, "little")
    high_bit = flip(public[1], 255)
    pair = {"private": keys[0], "context": CONTEXT}
    for name, peer in (("twin", twin), ("high_bit", high_bit)):
        right, alike = (b.pair_key(keys[0], shown, CONTEXT) for shown in (peer, public[1]))
        v.good(f"pair_key_{name}", "pair_key", right, **pair, peer=peer)
        v.differs(
            f"pair_key_bad_{name}_alike",
            "pair_key",
            right,
            alike,
            "public keys not bound: another key has the same secret",
            **pair,
            peer=peer,
        )
    low = {
        "zero": 0, "one": 1, "minus_one": b.P - 1, "p": b.P, "p_plus_one": b.P + 1,
        "order_8a": 325606250916557431795983626356110631294008115727848805560023387167927233504,
        "order_8b": 39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }  # fmt: skip
    for name, point in low.items():
        peer = point.to_bytes(32, "little")
        if b.x25519(keys[0], peer) != bytes(32):
            raise SystemExit(f"{name} is not of small order")
        v.bad(f"pair_key_bad_{name}", "pair_key", "a key of small order", **pair, peer=peer)
    v.bad("pair_key_bad_short", "pair_key", "31 bytes", **pair, peer=public[1][:31])
    v.bad("pair_key_bad_long", "pair_key", "33 bytes", **pair, peer=public[1] + b"\0")

    stream = b.keystream(bytes(range(32)), 9)
    v.good("keystream", "mask", stream, vector=[0] * 9, add=[bytes(range(32))], subtract=[])
    v.differs(
        "keystream_bad_endian",
        "mask",
        stream,
        [int.from_bytes(word.to_bytes(4, "big"), "little") for word in stream],
        "words read big endian",
        vector=[0] * 9,
        add=[bytes(range(32))],
        subtract=[],
    )

    grid = {"firms": 3, "max_colluding": 1, "clip_norm": 1.0, "noise_multiplier": 4.0,
            "batch_cap": 50, "dimension": 24}  # fmt: skip
    plains = [
        [(7919 * (at + 1) * (who + 1) - 90000) % RING for at in range(24)] for who in range(3)
    ]
    together = [sum(column) % RING for column in zip(*plains, strict=True)]

    def masked(signs: list[int], contexts: list[bytes]) -> list[list[int]]:
        result = []
        for own in range(3):
            pairs = {
                peer: b.pair_key(keys[own], public[peer], contexts[own])
                for peer in range(3) if peer != own
            }  # fmt: skip
            after = [key for peer, key in pairs.items() if (peer - own) * signs[own] > 0]
            before = [key for peer, key in pairs.items() if (peer - own) * signs[own] < 0]
            result.append(b.mask(plains[own], after, before))
        return result

    honest = masked([1, 1, 1], [CONTEXT] * 3)
    for own, vector in enumerate(honest):
        v.good(f"masked_vector_{own}", "masked_vector", vector, vector=plains[own], own=own,
               privates=keys, context=CONTEXT)  # fmt: skip
    v.differs("masked_vector_bad_sign", "masked_vector", honest[1],
              masked([1, -1, 1], [CONTEXT] * 3)[1],
              "added and subtracted the wrong way round", vector=plains[1], own=1, privates=keys,
              context=CONTEXT)  # fmt: skip
    signed = [word - RING * (word >= RING // 2) for word in together]
    v.good("sum_of_all", "decode_sum", signed, **grid, vectors=honest)
    for name, vectors in {
        "swapped_sign": masked([1, -1, 1], [CONTEXT] * 3),
        "other_context": masked([1, 1, 1], [CONTEXT, flip(CONTEXT), CONTEXT]),
        "one_missing": honest[:2],
        "one_twice": [*honest[:2], honest[1]],
    }.items():
        v.bad(f"sum_bad_{name}", "decode_sum", "masks do not cancel", **grid, vectors=vectors)
