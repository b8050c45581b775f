"""The operations that ``protocols/spec/vectors`` name, carried out by the package."""

from collections.abc import Callable
from typing import Any

import numpy as np
from greylag_protocols import (
    accounting,
    encoding,
    endorsement,
    features,
    keys,
    log,
    masking,
    membership,
    merkle,
    optimiser,
    parameters,
    parsing,
    peers,
    plan,
    signing,
    terms,
)
from greylag_protocols import round as rounds
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.quantise import RingGrid

GRID = ("firms", "max_colluding", "clip_norm", "noise_multiplier", "batch_cap", "dimension")
Given = dict[str, Any]
OPERATIONS: dict[str, Callable[[Given], Any]] = {}


def operation(function: Callable[[Given], Any]) -> Callable[[Given], Any]:
    OPERATIONS[function.__name__] = function
    return function


def raw(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def number(value: str | float) -> float:
    return float.fromhex(value) if isinstance(value, str) else value


def hexed(values: Any) -> list[str]:
    return [float(value).hex() for value in values]


# -- encoding --------------------------------------------------------------------------------------


@operation
def frame(given: Given) -> str:
    blobs = raw(given["blobs"])
    packed = encoding.pack_frame(given["header"], blobs)
    header, parts = encoding.parse_frame(packed)
    assert (header, [bytes(part) for part in parts]) == (given["header"], blobs)
    return packed.hex()


@operation
def parse_json(given: Given) -> None:
    encoding.parse_json(bytes.fromhex(given["data"]))


# -- masking ---------------------------------------------------------------------------------------


@operation
def merkle_root(given: Given) -> str:
    leaves = [merkle.hash_leaf(leaf) for leaf in raw(given["leaves"])]
    frontier = merkle.Frontier()
    for leaf in leaves:
        frontier = frontier.append(leaf)
    assert frontier.root == merkle.root_of(leaves)
    return frontier.root.hex()


@operation
def merkle_verify(given: Given) -> None:
    merkle.verify_inclusion(
        merkle.hash_leaf(bytes.fromhex(given["leaf"])),
        index=given["index"],
        size=given["size"],
        proof=raw(given["proof"]),
        root=bytes.fromhex(given["root"]),
    )


@operation
def context(given: Given) -> str:
    root = bytes.fromhex(given["log_root"])
    attempt = rounds.Attempt(
        terms=bytes.fromhex(given["terms"]),
        run=given["run"],
        round_number=given["round"],
        attempt=given["attempt"],
        model=bytes.fromhex(given["model"]),
        checkpoint=Checkpoint(origin=given["origin"], size=given["log_size"], root=root),
        roster=tuple(
            rounds.RosterKey(firm=firm, key=bytes.fromhex(key), proof=())
            for firm, key in given["roster"]
        ),
    )
    return attempt.context().hex()


@operation
def mask(given: Given) -> list[int]:
    vector = np.array(given["vector"], dtype=np.uint32)
    masking.add_masks(vector, add=raw(given["add"]), subtract=raw(given["subtract"]))
    return vector.tolist()


@operation
def masked_vector(given: Given) -> list[int]:
    privates, own = raw(given["privates"]), given["own"]
    public = [masking.public_key(private) for private in privates]
    shared = masking.pair_keys(
        privates[own], public[:own] + public[own + 1 :], bytes.fromhex(given["context"])
    )
    vector = np.array(given["vector"], dtype=np.uint32)
    masking.add_masks(vector, add=shared[own:], subtract=shared[:own])
    return vector.tolist()


@operation
def decode_sum(given: Given) -> list[int]:
    vectors = np.array(given["vectors"], dtype=np.uint32)
    return grid_of(given).decode(np.add.reduce(vectors, axis=0, dtype=np.uint32)).tolist()


# -- quantisation ----------------------------------------------------------------------------------


def grid_of(given: Given) -> RingGrid:
    return RingGrid.of(**{name: number(given[name]) for name in GRID})


def shown(grid: RingGrid) -> Given:
    values = {name: getattr(grid, name).hex() for name in ("step", "noise_std", "norm_limit")}
    return {"share": grid.share, **values}


@operation
def grid(given: Given) -> Given:
    return shown(grid_of(given))


@operation
def encode(given: Given) -> list[int]:
    data, normals = (np.array([number(x) for x in given[name]]) for name in ("data", "normals"))
    return grid_of(given).encode(data, normals).tolist()


# -- accounting ------------------------------------------------------------------------------------


def mechanism_of(given: Given) -> accounting.Mechanism:
    rate, sigma = number(given["rate"]), number(given["sigma"])
    if given.get("event") == accounting.FIRM_GAUSSIAN:
        return accounting.Mechanism(
            event_type=accounting.FIRM_GAUSSIAN,
            sampling_rate=rate,
            noise_multiplier=sigma,
            records_cap=1,
            batch_cap=1,
        )
    return accounting.poisson_gaussian(
        sampling_rate=rate, noise_multiplier=sigma, records_cap=given["records"]
    )


@operation
def epsilon(given: Given) -> float:
    facts = {"releases": given["releases"], "delta": number(given["delta"])}
    return accounting.epsilon_of(mechanism_of(given), **facts)


@operation
def epsilon_of_copies(given: Given) -> float:
    facts = {"releases": given["releases"], "delta": number(given["delta"])}
    return accounting.epsilon_of_copies(mechanism_of(given), copies=given["copies"], **facts)


def finer_unit(given: Given) -> tuple[float, float]:
    return accounting.cost_in_finer_unit(number(given["epsilon"]), number(given["delta"]))


# -- step ------------------------------------------------------------------------------------------


@operation
def initial_seed(given: Given) -> str:
    acceptances = [text.encode() for text in given["acceptances"]]
    return rounds.initial_seed(bytes.fromhex(given["terms"]), acceptances).hex()


def first_weights(given: Given) -> Any:
    shape = {name: given[name] for name in ("inputs", "hidden", "outputs")}
    tensors = parameters.mlp_parameters(**shape)
    return parameters.initial_weights(bytes.fromhex(given["seed"]), tensors)


@operation
def model_digest(given: Given) -> str:
    weights = np.array([number(value) for value in given["weights"]])
    return optimiser.model_digest(weights.astype(np.float32)).hex()


@operation
def steps(given: Given) -> Given:
    text = ("optimiser", "schedule")
    facts = {key: value if key in text else number(value) for key, value in given["rule"].items()}
    state, digests = optimiser.ModelState.start(first_weights(given)), []
    for integers in given["sums"]:
        state = optimiser.take_step(
            state,
            np.array(integers, dtype=np.int32),
            rule=optimiser.StepRule(**facts),
            grid_step=number(given["grid_step"]),
            denominator=number(given["denominator"]),
            noise_variance=number(given.get("noise_variance", 0.0)),
        )
        digests.append(state.digest().hex())
    return {
        "weights": hexed(state.weights),
        "average": hexed(state.average),
        "states": digests,
        "published": optimiser.model_digest(state.published()).hex(),
        "released": optimiser.model_digest(state.released()).hex(),
    }


# -- terms -----------------------------------------------------------------------------------------


@operation
def settled(given: Given) -> Given:
    encoded = given["text"].encode()
    found = plan.parse_terms(encoded)
    assert found.encode() == encoded
    return {
        "digest": terms.terms_digest(encoded).hex(),
        "dimension": found.dimension,
        "batch_cap": found.batch_cap,
        "rows_per_unit": found.rows_per_unit,
        "grid_of_8": shown(found.grid(8)),
        "denominator": found.denominator.hex(),
    }


OPERATIONS["terms"] = settled  # the module has that name


@operation
def inputs(given: Given) -> list[list[str]]:
    rows = [[np.nan if cell is None else number(cell) for cell in row] for row in given["rows"]]
    data = plan.parse_terms(given["text"].encode()).data
    return [hexed(row) for row in features.encode_features(data, np.array(rows))]


@operation
def parsed_plan(given: Given) -> None:
    plan.parse_plan(given["text"])


OPERATIONS["plan"] = parsed_plan


# -- membership ------------------------------------------------------------------------------------


@operation
def signed_membership(given: Given) -> Given:
    signed = membership.SignedMembership(
        document=given["document"].encode(), statement=given["statement"].encode()
    )
    key = bytes.fromhex(given["lead_key"])
    found = signed.verify(key, consortium=given["consortium"], now_s=given["now_s"])
    return {
        "epoch": found.epoch,
        "digest": membership.membership_digest(signed.document).hex(),
        "members": len(found.members),
    }


OPERATIONS["membership"] = signed_membership


def members_of(given: Given) -> membership.Membership:
    value = encoding.parse_json(given["document"].encode())
    return encoding.parse_as(membership.Membership, value, what="membership")


def operators_of(given: Given) -> membership.Membership:
    return membership.Membership(
        consortium="glass",
        lead=given["lead"],
        epoch=1,
        issued_s=0,
        expires_s=1,
        members=tuple(
            membership.Member(name=name, operator=operator, identity="", recovery="")
            for name, operator in given["operators"].items()
        ),
    )


@operation
def revocation(given: Given) -> str:
    found, envelope = members_of(given), given["envelope"].encode()
    name = membership.verify_revocation(envelope, found).name
    assert membership.revoked_in(found, [envelope]) == {name}
    return name


@operation
def endorsements(given: Given) -> list[str]:
    found = endorsement.endorsing_operators(
        members_of(given),
        [text.encode() for text in given["envelopes"]],
        trusted=[members_of({"document": document}) for document in given["trusted"]],
        firm=given["firm"],
        revoked=given["revoked"],
    )
    return sorted(found)


@operation
def counted_peers(given: Given) -> int:
    heads = {int(seq): bytes.fromhex(head) for seq, head in given["heads"].items()}
    return peers.count_peers(
        [text.encode() for text in given["statements"]],
        membership=members_of(given),
        firm=given["firm"],
        nonce=given["nonce"],
        tip=log.ChainTip(seq=given["seq"], head=heads[given["seq"]]),
        head_at=heads.get,
        max_colluding=given["max_colluding"],
    )


OPERATIONS["peers"] = counted_peers


# -- statements ------------------------------------------------------------------------------------


@operation
def statement(given: Given) -> Given:
    key, envelope = bytes.fromhex(given["key"]), given["envelope"].encode()
    found = signing.verify_statement(envelope, key, given["kind"])
    return {"subject": found.subject, "digest": found.digest.hex()}


@operation
def chain(given: Given) -> Given:
    tip = log.ChainTip()
    for text in given["entries"]:
        key = bytes.fromhex(given["key"])
        tip = tip.follow(text.encode(), firm=given["firm"], identity_key=key)
    return {"seq": tip.seq, "head": tip.head.hex()}


@operation
def key_batch(given: Given) -> Given:
    batch = keys.verify_batch(given["envelope"].encode(), bytes.fromhex(given["identity"]))
    key, proof = bytes.fromhex(given["key"]), raw(given["proof"])
    batch.check_key(key, proof, attempt=given["attempt"])
    names = ("firm", "consortium", "epoch", "run", "terms", "first", "size", "seq", "head")
    return {name: getattr(batch.facts, name) for name in names}


OPERATIONS |= {
    "tagged_hash": lambda given: encoding.tagged_hash(given["tag"], *raw(given["parts"])).hex(),
    "jcs": lambda given: encoding.canonical_json(encoding.parse_json(given["text"].encode())).hex(),
    "jcs_integer": lambda given: encoding.canonical_json(int(given["digits"])),
    "parse_frame": lambda given: encoding.parse_frame(bytes.fromhex(given["data"])),
    "message": lambda given: (
        parsing.parse_coordinator_message(bytes.fromhex(given["frame"])).encode().hex()
    ),
    "merkle_proof": lambda given: [
        step.hex()
        for step in merkle.prove_inclusion(
            merkle.nodes_of([merkle.hash_leaf(leaf) for leaf in raw(given["leaves"])]),
            given["index"],
            len(given["leaves"]),
        )
    ],
    "public_key": lambda given: masking.public_key(bytes.fromhex(given["private"])).hex(),
    "pair_key": lambda given: masking.pair_key(
        *raw([given["private"], given["peer"], given["context"]])
    ).hex(),
    "decode": lambda given: (
        grid_of(given).decode(np.array(given["total"], dtype=np.uint32)).tolist()
    ),
    "batch_cap": lambda given: accounting.batch_cap(given["records"], number(given["rate"])),
    "finer_unit_epsilon": lambda given: finer_unit(given)[0].hex(),
    "finer_unit_delta_e9": lambda given: 1e9 * finer_unit(given)[1],
    "initial_weights": lambda given: hexed(first_weights(given)),
    "sum_digest": lambda given: log.sum_digest(np.array(given["sum"], dtype="<i4").tobytes()).hex(),
    "fingerprint": lambda given: signing.fingerprint(bytes.fromhex(given["key"])),
    "coalition": lambda given: operators_of(given).coalition(given["roster"]),
    "independent": lambda given: operators_of(given).independent(
        given["firms"], given["max_colluding"]
    ),
}
