"""The consortium that the figures are measured on: terms, names, keys, membership.

Identity keys follow from names, so that the processes of one measurement need not exchange them.
"""

import hashlib
import time

from greylag_protocols.membership import LIFETIME_S, Member, Membership, SignedMembership
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import Terms

CONSORTIUM = "bench-00000000"
LEAD = "lead"

# Features and hidden units of one layer with one target: the models have exactly d weights.
SHAPES = {10_000: (97, 101), 100_000: (367, 271), 1_000_000: (999, 999)}
ROWS = 100  # of a firm

PLAN = """
[run]
name = "bench"
purpose = "timing"
[data]
standard = "bench@1"
task = "regression"
targets = [{{ name = "y", range = [0, 1] }}]
features = [{{ names = [{features}], range = [0, 1] }}]
expected_records = {records}
max_records_per_firm = 200
[model]
hidden = [{hidden}]
[privacy]
noise_multiplier = 10.0
delta = 1e-6
max_colluding = {max_colluding}
min_firms = {firms}
max_attempts = {max_attempts}
[training]
rounds = {rounds}
sampling_rate = 0.2
"""


def feature_names(dimension: int) -> list[str]:
    """The columns of a model with ``dimension`` weights (one of ``SHAPES``)."""
    return [f"x{index}" for index in range(SHAPES[dimension][0])]


def plan_text(
    *, firms: int, dimension: int, rounds: int, max_attempts: int, max_colluding: int
) -> str:
    """The plan of a run with ``dimension`` weights (one of ``SHAPES``)."""
    return PLAN.format(
        features=", ".join(f'"{name}"' for name in feature_names(dimension)),
        hidden=SHAPES[dimension][1],
        records=ROWS * firms,
        max_colluding=max_colluding,
        firms=firms,
        rounds=rounds,
        max_attempts=max_attempts,
    )


def make_terms(*, firms: int, dimension: int, rounds: int, max_attempts: int) -> Terms:
    """The settled terms of such a plan."""
    text = plan_text(
        firms=firms,
        dimension=dimension,
        rounds=rounds,
        max_attempts=max_attempts,
        max_colluding=max(1, firms // 10),
    )
    return settle_terms(parse_plan(text), consortium=CONSORTIUM, run_id="bench-run")


def firm_names(count: int) -> list[str]:
    """Names of the firms, sorted."""
    return [f"supplier-{index:03d}" for index in range(count)]


def signer_of(name: str) -> Ed25519Signer:
    """The identity key of a firm, or of the lead."""
    return Ed25519Signer(hashlib.sha256(b"bench|" + name.encode()).digest())


def make_membership(firms: int) -> SignedMembership:
    """An epoch of ``firms`` firms, each an operator of its own, signed by the lead."""
    now_s = int(time.time())
    membership = Membership(
        consortium=CONSORTIUM,
        lead="acme",
        epoch=1,
        issued_s=now_s,
        expires_s=now_s + LIFETIME_S,
        members=tuple(
            Member(
                name=name,
                operator=name,
                identity=signer_of(name).public_key.hex(),
                recovery=signer_of(f"{name}/recovery").public_key.hex(),
            )
            for name in firm_names(firms)
        ),
    )
    return SignedMembership.sign(membership, signer_of(LEAD))


def open_membership(signed: SignedMembership) -> Membership:
    """The membership of a signed epoch."""
    return signed.verify(signer_of(LEAD).public_key, consortium=CONSORTIUM, now_s=time.time())
