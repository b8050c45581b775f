"""Real messages, made by the protocol core itself: what corpora and donors consist of."""

import functools
from dataclasses import dataclass, field

import numpy as np
from greylag_protocols import invite, keys, log, log_view, membership, messages, peers
from greylag_protocols.checkpoint import Checkpoint
from greylag_protocols.encoding import tagged_hash
from greylag_protocols.merkle import hash_leaf, nodes_of, prove_inclusion, root_of
from greylag_protocols.notes import cosign, cosigner_name, sign_checkpoint, with_cosignatures
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.proofs import format_proof
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import Terms

NOW_S = 1_800_000_000
CONSORTIUM = "glass"
RUN = "small-1"
NONCE = "5" * 64
LEAD = Ed25519Signer(b"\x01" * 32)
FIRMS = {f"firm-{letter}": Ed25519Signer(bytes([10 + at]) * 32) for at, letter in enumerate("abc")}
RECOVERY = Ed25519Signer(b"\x09" * 32)
TOKEN = invite.encode_token(bytes(range(32)))

PLANS = {
    "record": """
[run]
name = "small"
purpose = "a test"
[data]
standard = "test@1"
task = "regression"
targets = [ { name = "y", range = [-1, 1] }, { name = "z", unit = "K", range = [-1, 1] } ]
features = [ { names = ["a", "b"], unit = "mol%", range = [-1, 1], scale = "sqrt" } ]
missing = "zero-and-flag"
group = "patent"
expected_records = 120
max_records_per_firm = 60
[model]
hidden = [8]
[privacy]
noise_multiplier = 2.0
delta = 1e-6
max_colluding = 1
min_firms = 3
max_attempts = 8
[training]
rounds = 4
sampling_rate = 0.3
""",
    "group": """
[run]
name = "groups"
purpose = "classes"
[data]
standard = "test@1"
task = "classification"
targets = [ { name = "y", classes = ["good", "bad"] } ]
features = [ { names = ["a"], range = [0, 10] }, { names = ["b"], range = [0, 1] } ]
group = "patent"
expected_records = 120
max_records_per_firm = 60
expected_groups = 30
max_groups_per_firm = 20
max_records_per_group = 4
[privacy]
unit = "group"
noise_multiplier = 2.0
delta = 1e-6
max_colluding = 1
min_firms = 3
[training]
rounds = 2
sampling_rate = 0.5
optimiser = "momentum"
""",
    "firm": """
run = { name = "whole", purpose = "one firm" }
data = { standard = "s", task = "regression", targets = [{ name = "y", range = [0, 1] }], \
features = [{ names = ["a"], range = [0, 1] }], expected_records = 9, max_records_per_firm = 9, \
expected_firms = 5 }
privacy = { unit = "firm", noise_multiplier = 9.0, delta = 1e-6, max_colluding = 1, min_firms = 3 }
training = { rounds = 1, sampling_rate = 1.0, local_epochs = 2, local_batches = 2 }
""",
    "mixed": """
run = { name = "mixed", purpose = "kinds of columns" }
[data]
standard = "test@1"
task = "regression"
targets = [ { name = "y", range = [0, 1] }, { name = "z", range = [0, 9] } ]
features = [
  { names = ["a"], categories = ["low", "high"], ordered = true, multiplier = 2 },
  { names = ["b"], categories = ["A", "B", "C"], other = true, missing = "zero-and-flag" },
  { names = ["c"], range = [0, 100] },
]
missing_values = ["-99", "?"]
expected_records = 120
max_records_per_firm = 60
[privacy]
noise_multiplier = 2.0
delta = 1e-6
max_colluding = 1
min_firms = 3
[training]
rounds = 2
sampling_rate = 0.5
""",
}


@functools.cache
def make_terms() -> tuple[Terms, ...]:
    """Terms of each plan."""
    return tuple(
        settle_terms(parse_plan(text), consortium=CONSORTIUM, run_id=f"{unit}-1")
        for unit, text in PLANS.items()
    )


def make_membership() -> membership.Membership:
    """Three firms in one epoch."""
    return membership.Membership(
        consortium=CONSORTIUM,
        lead="acme",
        epoch=1,
        issued_s=NOW_S,
        expires_s=NOW_S + membership.LIFETIME_S,
        members=tuple(
            membership.Member(
                name=name,
                operator=name,
                identity=signer.public_key.hex(),
                recovery=RECOVERY.public_key.hex(),
            )
            for name, signer in FIRMS.items()
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One firm's entries, from its acceptance to the end of the run."""

    entries: list[bytes] = field(default_factory=list)
    tips: list[log.ChainTip] = field(default_factory=lambda: [log.ChainTip()])

    def add(self, envelope: bytes) -> None:
        seq = self.tips[-1].seq + 1
        self.entries.append(envelope)
        self.tips.append(log.ChainTip(seq=seq, head=log.entry_head(envelope)))


def make_chain(firm: str = "firm-a") -> Chain:
    chain, signer = Chain(), FIRMS[firm]
    facts = {"firm": firm, "run": RUN}
    terms = bytes(32)
    chain.add(log.sign_acceptance(signer, chain.tips[-1], **facts, terms=terms, epoch=1))
    receipt = {"round_number": 1, "attempt": 1, "context": bytes(32), "roster_size": 3}
    chain.add(
        log.sign_receipt(
            signer, chain.tips[-1], **facts, **receipt, event_type="poisson-gaussian/v1", charged=1
        )
    )
    chain.add(log.sign_closed(signer, chain.tips[-1], **facts, terms=terms, charged=1))
    return chain


def make_batch(firm: str = "firm-a") -> messages.SignedBatch:
    public = tuple(tagged_hash("key", firm.encode(), bytes([at])) for at in range(3))
    statement = keys.sign_batch(
        FIRMS[firm],
        public,
        firm=firm,
        consortium=CONSORTIUM,
        epoch=1,
        run=RUN,
        terms=bytes(32),
        first=1,
        tip=log.ChainTip(),
    )
    return messages.SignedBatch(statement=statement, keys=public)


def make_seen(firm: str = "firm-b") -> bytes:
    word = peers.Seen(firm=firm, consortium=CONSORTIUM, about="firm-a", nonce=NONCE, seq=1)
    return word.sign(FIRMS[firm], bytes(32))


def make_revocation() -> bytes:
    return membership.sign_revocation(
        RECOVERY, consortium=CONSORTIUM, firm="firm-a", identity=FIRMS["firm-a"].public_key
    )


def make_statements() -> list[bytes]:
    """One envelope of every kind that a firm or the lead signs."""
    signed = membership.SignedMembership.sign(make_membership(), LEAD)
    chain = make_chain()
    record = log.AttemptRecord(
        run=RUN,
        round_number=1,
        attempt=1,
        context=bytes(32),
        roster=("firm-a",),
        tips=chain.tips[:1],
    )
    ends = {"model_in": bytes(32), "state_out": bytes(32), "sum_digest": bytes(32)}
    return [
        signed.statement,
        *chain.entries,
        make_batch().statement,
        make_seen(),
        make_revocation(),
        log.sign_refusal(FIRMS["firm-a"], firm="firm-a", run=RUN, refusal_class="policy"),
        log.sign_start(LEAD, run=RUN, terms=bytes(32), acceptances=[b"x"], state=bytes(32)),
        log.sign_round(
            LEAD, record, **ends, grid_step=(0.5).hex(), event_type="poisson-gaussian/v1"
        ),
        log.sign_void(LEAD, record, missing=["firm-a"]),
    ]


def make_view(size: int) -> log_view.LogView:
    leaves = [hash_leaf(bytes([number])) for number in range(size)]
    checkpoint = Checkpoint(origin="glass", size=size, root=root_of(leaves))
    return log_view.show_log(LEAD, checkpoint, leaves)


def make_coordinator_messages() -> list[bytes]:
    signed = membership.SignedMembership.sign(make_membership(), LEAD)
    batches = [make_batch(name) for name in FIRMS]
    return [
        messages.Offer(
            run=RUN,
            next_attempt=1,
            seen=0,
            terms=make_terms()[0].encode(),
            membership=signed,
            log=make_view(3),
            peers=(make_seen(),),
            entries=tuple(make_chain().entries[:2]),
            past=(make_terms()[0].encode(),),
            statements=(make_revocation(),),
        ).encode(),
        messages.Ask(run=RUN, firms=("firm-a",), nonces=(NONCE,)).encode(),
        messages.Round(
            run=RUN,
            round_number=1,
            attempt=2,
            log=make_view(7),
            cosigned=3,
            cosignatures=(bytes(72),) * 3,
            roster=tuple(FIRMS),
            seen=(1, 0, 2),
            keys=tuple(batch.keys[1] for batch in batches),
            proofs=tuple(keys.prove_batch(batch.keys, 1)[1][1] for batch in batches),
            batches=tuple(batch.statement for batch in batches),
            weights=np.linspace(-1, 1, 50, dtype=np.float32),
        ).encode(),
        messages.Close(run=RUN, seen=3).encode(),
        messages.Show(run=RUN, log=make_view(5)).encode(),
    ]


def make_firm_messages() -> list[bytes]:
    chain, batch = make_chain(), make_batch()
    vector = np.arange(50, dtype=np.uint32) * np.uint32(85_899_345)
    receipt = tuple(chain.entries[1:2])
    return [
        messages.Asking(run=RUN, nonce=NONCE, log_size=3, seq=2).encode(),
        messages.Seen(run=RUN, statements=(make_seen(),)).encode(),
        messages.Accepted(
            run=RUN,
            log_size=3,
            cosignature=bytes(72),
            entries=tuple(chain.entries[:1]),
            batch=batch,
        ).encode(),
        messages.Cosigned(run=RUN, log_size=3, cosignature=bytes(72)).encode(),
        *(
            messages.Contribution(
                run=RUN,
                attempt=1,
                vector=vector,
                cosignature=bytes(72),
                entries=receipt,
                batch=new,
            ).encode()
            for new in (None, batch)
        ),
        messages.Closed(run=RUN, entries=tuple(chain.entries[2:])).encode(),
        messages.Refusal(run=RUN, refusal_class="policy", statement=b"{}").encode(),
    ]


def make_invite(*, port: int = 8443, token: str = TOKEN) -> invite.Invite:
    return invite.Invite(
        consortium="glass-00ff00ff",
        firm="firm-a",
        host="lead.example",
        port=port,
        pin="0" * 64,
        token=token,
        expires_s=NOW_S,
    )


def make_request() -> invite.EnrolmentRequest:
    """A firm's request; its CSR is none, which the core does not look at."""
    return invite.EnrolmentRequest.prove(
        make_invite(), csr="PEM", signer=FIRMS["firm-a"], recovery_key=RECOVERY.public_key
    )


def make_reply() -> invite.EnrolmentReply:
    signed = membership.SignedMembership.sign(make_membership(), LEAD)
    return invite.EnrolmentReply(
        certificate="PEM",
        ca="PEM",
        lead_key=LEAD.public_key.hex(),
        host="lead.example",
        port=9443,
        document=signed.document.decode(),
        statement=signed.statement.decode(),
    )


def make_proofs() -> list[bytes]:
    """Inclusion proofs as ``index (1) | size (1) | leaf hash | root | steps``."""
    found = []
    for size in (1, 2, 5, 8, 64):
        leaves = [hash_leaf(bytes([at])) for at in range(size)]
        for index in sorted({0, size // 2, size - 1}):
            steps = prove_inclusion(nodes_of(leaves), index, len(leaves))
            found.append(bytes([index, size]) + leaves[index] + root_of(leaves) + b"".join(steps))
    return found


LOGGED = tuple(bytes([at]) for at in range(5))


def make_tlog_proofs() -> list[bytes]:
    """Proofs that ``LOGGED[2]`` is in the log, cosigned by nobody and by everybody."""
    leaves = [hash_leaf(item) for item in LOGGED]
    checkpoint = Checkpoint(origin=CONSORTIUM, size=len(leaves), root=root_of(leaves))
    words = [
        (
            cosigner_name(CONSORTIUM, name),
            signer.public_key,
            cosign(signer, checkpoint, time_s=NOW_S),
        )
        for name, signer in FIRMS.items()
    ]
    note, hashes = sign_checkpoint(LEAD, checkpoint), prove_inclusion(nodes_of(leaves), 2, 5)
    return [
        format_proof(2, hashes, with_cosignatures(note, cosigned).encode().decode(), extra)
        for cosigned, extra in (([], None), (words, None), (words, b"of the seeds"))
    ]
