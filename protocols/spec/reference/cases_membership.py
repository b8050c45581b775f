"""Cases for memberships, coalitions, revocations, endorsements and peers' words."""

import copy
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from reference import slow_bytes as b
from reference.vector_file import Vectors

CONSORTIUM, NOW = "glass", 1_800_000_000
SEEDS = {name: bytes([7, at]) * 16 for at, name in enumerate(("lead", "anna", "bert", "carl"))}
RECOVERY = {name: bytes([8, at]) * 16 for at, name in enumerate(SEEDS)}
KEYS = {name: b.ed25519_public(seed) for name, seed in SEEDS.items()}
Change = Callable[[dict[str, Any]], None]


def members(**operators: str) -> list[dict[str, str]]:
    return [
        {"name": name, "operator": operators.get(name, name), "identity": KEYS[name].hex(),
         "recovery": b.ed25519_public(RECOVERY[name]).hex()}
        for name in sorted(KEYS)
    ]  # fmt: skip


DOCUMENT: dict[str, Any] = {
    "consortium": CONSORTIUM, "lead": "lead", "epoch": 3, "issued_s": NOW,
    "expires_s": NOW + 30 * 86400, "members": members(),
}  # fmt: skip


def signed(document: dict[str, Any], /, by: str = "lead", **changes: Any) -> dict[str, Any]:
    encoded = b.jcs(document)
    facts = {"epoch": document["epoch"], "expires_s": document["expires_s"]}
    subject = changes.pop("subject", document["consortium"])
    kind = changes.pop("kind", "membership/v1")
    digest = b.tagged_hash("greylag/membership/v1", encoded)
    given = {"document": encoded, "statement": b.sign(SEEDS[by], kind, subject, digest, facts),
             "lead_key": KEYS["lead"], "consortium": CONSORTIUM, "now_s": NOW}  # fmt: skip
    return {**given, **changes}


def membership(v: Vectors) -> None:
    digest = b.tagged_hash("greylag/membership/v1", b.jcs(DOCUMENT))
    out = {"epoch": 3, "digest": digest, "members": len(KEYS)}
    v.good("membership", "membership", out, **signed(DOCUMENT))
    for name, at in (("early_clock", NOW - 300), ("last_second", NOW + 30 * 86400 - 1)):
        v.good(f"membership_{name}", "membership", out, **signed(DOCUMENT, now_s=at))

    def changed(make: Change) -> dict[str, Any]:
        document = copy.deepcopy(DOCUMENT)
        make(document)
        return document

    def copied(to: int, source: int, key: str, new: str = "") -> Change:
        def change(document: dict[str, Any]) -> None:
            people = document["members"]
            people[to][key] = people[source][new or key]

        return change

    makers: dict[str, Change] = {
        "unsorted": lambda document: document["members"].reverse(),
        "name_twice": copied(1, 0, "name"),
        "identity_twice": copied(1, 0, "identity"),
        "recovery_is_own_identity": copied(1, 1, "recovery", "identity"),
        "recovery_is_anothers_identity": copied(1, 2, "recovery", "identity"),
        "lasts_too_long": lambda document: document.update(expires_s=NOW + 30 * 86400 + 1),
        "other_consortium": lambda document: document.update(consortium="steel"),
        "epoch_zero": lambda document: document.update(epoch=0),
        "unknown_key": lambda document: document.update(note="x"),
        "upper_case_key": lambda document: document["members"][0].update(
            identity=KEYS["anna"].hex().upper()
        ),
        "name_with_space": lambda document: document["members"][0].update(name="an na"),
    }
    for name, make in makers.items():
        v.bad(f"membership_bad_{name}", "membership", name.replace("_", " "),
              **signed(changed(make)))  # fmt: skip
    other = b.jcs({**DOCUMENT, "epoch": 4})
    spaced = b.jcs(DOCUMENT).replace(b'"epoch":', b'"epoch": ')
    for name, given in {
        "expired": signed(DOCUMENT, now_s=NOW + 30 * 86400),
        "from_the_future": signed(DOCUMENT, now_s=NOW - 301),
        "signed_by_a_member": signed(DOCUMENT, by="anna"),
        "other_document": signed(DOCUMENT, document=other),
        "same_content_other_bytes": signed(DOCUMENT, document=spaced),
        "other_subject": signed(DOCUMENT, subject="steel"),
        "other_kind": signed(DOCUMENT, kind="terms/v1"),
        "for_another_consortium": signed(DOCUMENT, consortium="steel"),
    }.items():
        v.bad(f"membership_bad_{name}", "membership", name.replace("_", " "), **given)
    v.good("fingerprint", "fingerprint", b.fingerprint(KEYS["anna"]), key=KEYS["anna"])
    coalitions(v)
    revocations(v)
    endorsements(v)
    peers(v)


def coalitions(v: Vectors) -> None:
    firms = {"lead": "lead", "a": "lead", "b": "host", "c": "host", "d": "host", "e": "e", "f": "f"}

    def together(roster: Sequence[str]) -> int:
        counts = Counter(firms[name] for name in roster)
        others = [count for operator, count in counts.items() if operator != "lead"]
        return counts["lead"] + max(others, default=0)

    def independent(names: Sequence[str], most: int) -> int:
        """By trying every subset."""
        return max(
            size
            for size in range(len(names) + 1)
            for some in itertools.combinations(names, size)
            if together(some) <= most
        )

    facts = {"operators": firms, "lead": "lead"}
    for roster in (["b", "c", "e"], ["a", "b", "c", "lead"], ["a", "lead"], ["e", "f"], [*firms]):
        name = "".join(item[0] for item in roster)
        v.good(f"coalition_{name}", "coalition", together(roster), **facts, roster=roster)
        for most in (1, 2, 3):
            v.good(f"independent_{name}_{most}", "independent", independent(roster, most),
                   **facts, firms=roster, max_colluding=most)  # fmt: skip
    v.differs("coalition_bad_lead_alone", "coalition", 4, 2, "hosts not counted", **facts,
              roster=["lead", "a", "b", "c"])  # fmt: skip
    v.bad("coalition_bad_stranger", "coalition", "not a member", **facts, roster=["a", "z"])


def revocations(v: Vectors) -> None:
    def by(seed: bytes, *, kind: str = "revocation/v1", subject: str = "bert",
           identity: bytes = KEYS["bert"], **changes: Any) -> bytes:  # fmt: skip
        facts = {"firm": "bert", "consortium": CONSORTIUM, **changes}
        return b.sign(seed, kind, subject, identity, facts)

    given = {"document": b.jcs(DOCUMENT)}
    v.good("revocation", "revocation", "bert", **given, envelope=by(RECOVERY["bert"]))
    for name, envelope in {
        "by_identity": by(SEEDS["bert"]),
        "by_lead": by(SEEDS["lead"]),
        "by_anothers_recovery": by(RECOVERY["carl"]),
        "other_identity": by(RECOVERY["bert"], identity=KEYS["carl"]),
        "other_consortium": by(RECOVERY["bert"], consortium="steel"),
        "other_firm": by(RECOVERY["bert"], firm="carl"),
        "stranger": by(RECOVERY["bert"], firm="zora"),
        "other_kind": by(RECOVERY["bert"], kind="closed/v1"),
        "unknown_key": by(RECOVERY["bert"], note="x"),
    }.items():
        v.bad(f"revocation_bad_{name}", "revocation", name.replace("_", " "), **given,
              envelope=envelope)  # fmt: skip


def endorsements(v: Vectors) -> None:
    """``old`` is the list that the people of anna approved; the one at hand follows it."""
    digest = b.tagged_hash("greylag/membership/v1", b.jcs(DOCUMENT))
    old = copy.deepcopy(DOCUMENT)
    old["epoch"] = 2

    def by(name: str, *, seed: bytes = b"", kind: str = "endorsement/v1", digest: bytes = digest,
           subject: str = CONSORTIUM, **changes: Any) -> bytes:  # fmt: skip
        facts = {"by": name, "consortium": CONSORTIUM, "epoch": 3, **changes}
        return b.sign(seed or SEEDS[name], kind, subject, digest, facts)

    given = {"document": b.jcs(DOCUMENT), "trusted": [b.jcs(old)], "firm": "anna", "revoked": []}
    both = [by("bert"), by("carl")]
    v.good("endorsements", "endorsements", ["bert", "carl"], **given, envelopes=both)
    v.good("endorsements_twice", "endorsements", ["bert"], **given, envelopes=[both[0]] * 2)
    v.good("endorsements_revoked", "endorsements", ["carl"],
           **given | {"revoked": ["bert"]}, envelopes=both)  # fmt: skip
    v.good("endorsements_nobody_known", "endorsements", [],
           **given | {"trusted": []}, envelopes=both)  # fmt: skip
    hosted, swapped = copy.deepcopy(old), copy.deepcopy(old)
    hosted["members"][1]["operator"] = "host"
    swapped["members"][1]["identity"] = b.ed25519_public(bytes(32)).hex()
    for name, trusted in (("operator_changed", hosted), ("key_changed", swapped)):
        v.good(f"endorsements_{name}", "endorsements", ["carl"],
               **given | {"trusted": [b.jcs(trusted)]}, envelopes=both)  # fmt: skip
    for name, envelope in {
        "own_word": by("anna"),
        "leads_agent": by("lead"),
        "under_anothers_name": by("bert", seed=SEEDS["carl"]),
        "other_list": by("bert", digest=bytes(32)),
        "other_epoch": by("bert", epoch=2),
        "other_consortium": by("bert", consortium="steel"),
        "other_kind": by("bert", kind="membership/v1"),
        "unknown_key": by("bert", note="x"),
        "no_statement": b"{}",
    }.items():
        v.good(f"endorsements_without_{name}", "endorsements", [], **given, envelopes=[envelope])


def peers(v: Vectors) -> None:
    nonce, heads = "ab" * 32, {str(seq): bytes([seq]) * 32 for seq in range(1, 6)}

    def seen(firm: str = "bert", *, seq: Any = 5, head: bytes = bytes([5]) * 32,
             about: str = "anna", seed: bytes = b"", subject: str = "anna",
             **changes: Any) -> bytes:  # fmt: skip
        facts = {"firm": firm, "consortium": CONSORTIUM, "about": about, "nonce": nonce,
                 "seq": seq, **changes}  # fmt: skip
        return b.sign(seed or SEEDS[firm], "seen/v1", subject, head, facts)

    given = {"document": b.jcs(DOCUMENT), "firm": "anna", "nonce": nonce, "seq": 5,
             "heads": heads, "max_colluding": 3}  # fmt: skip
    never = seen("carl", seq=0, head=bytes(32))
    older = seen("carl", seq=2, head=heads["2"])
    for name, statements_, count in (
        ("none", [], 0),
        ("one", [seen()], 1),
        ("twice_the_same", [seen(), seen()], 1),
        ("one_that_saw_nothing", [seen(), never], 2),
        ("one_that_saw_less", [older, seen(), seen("lead")], 3),
    ):
        v.good(f"peers_{name}", "peers", count, **given, statements=statements_)
    for name, statement in {
        "saw_more": seen(seq=6, head=bytes([6]) * 32),
        "saw_another_branch": seen(seq=4, head=bytes([9]) * 32),
        "old_nonce": seen(nonce="cd" * 32),
        "own_word": seen("anna"),
        "about_another": seen(about="carl", subject="carl"),
        "subject_of_another": seen(subject="carl"),
        "other_consortium": seen(consortium="steel"),
        "signed_by_another": seen(seed=SEEDS["carl"]),
        "stranger": seen("zora", seed=SEEDS["carl"]),
        "negative": seen(seq=-1),
        "true": seen(seq=True),
        "unknown_key": seen(note="x"),
    }.items():
        v.bad(f"peers_bad_{name}", "peers", name.replace("_", " "), **given,
              statements=[older, statement])  # fmt: skip
