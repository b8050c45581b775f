"""An auditor's CPU and memory on a log of 200 firms and 1,000 rounds: 201,402 signed entries.

Receipts, records and signatures are real; the sums are of a model with few weights, since the log
does not grow with the model. The audit runs in a process of its own, on one core.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from greylag_protocols import log
from greylag_protocols.membership import LIFETIME_S, Member, Membership, SignedMembership
from greylag_protocols.notes import cosign
from greylag_protocols.optimiser import ModelState, model_digest, take_step
from greylag_protocols.parameters import initial_weights
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.round import initial_seed
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import terms_digest
from greylag_server.bundle import write_bundle
from greylag_server.store import Store
from harness import Figure, say

FIRMS, ROUNDS = 200, 1000
NAME, RUN = "bench", "bench-1"
NOW_S = 1_800_000_000
QUICK_S, FULL_S, MEMORY_MB = 10.0, 60.0, 500.0
PLAN = """
[run]
name = "bench"
purpose = "a long log"
[data]
standard = "bench@1"
task = "regression"
targets = [ { name = "y", range = [-1, 1] } ]
features = [ { names = ["a", "b", "c"], range = [-1, 1] } ]
expected_records = 20000
max_records_per_firm = 200
[model]
hidden = [8]
[privacy]
noise_multiplier = 8.0
delta = 1e-6
max_colluding = 60
min_firms = 100
max_attempts = MAX
[training]
rounds = ROUNDS
sampling_rate = 0.1
"""


def measure_audit() -> list[Figure]:
    """Quick and full verification, and a replay."""
    with tempfile.TemporaryDirectory(prefix="greylag-bench-") as name:
        root = Path(name)
        say(f"a log of {FIRMS} firms and {ROUNDS} rounds: signing")
        entries = write_evidence(root, FIRMS, ROUNDS)
        where = {"firms": FIRMS, "rounds": ROUNDS, "entries": entries}
        figures = []
        for mode, bound in (("--quick", QUICK_S), ("", FULL_S)):
            say(f"audit {mode or 'in full'}")
            spent = run_audit(root, mode)
            figures += [
                Figure(
                    name=f"audit, {'quick' if mode else 'full'}",
                    where=where,
                    value=spent["cpu_s"],
                    unit="s CPU",
                    bound=bound,
                ),
                Figure(
                    name=f"audit's memory, peak, {'quick' if mode else 'full'}",
                    where=where,
                    value=spent["peak_mb"],
                    unit="MB",
                    bound=MEMORY_MB,
                ),
            ]
        return figures


def run_audit(root: Path, mode: str) -> dict[str, float]:
    """What `greylag-audit verify` takes, as a process of its own."""
    command = [sys.executable, __file__, str(root / "bundle"), str(root / "trust.json")]
    ended = subprocess.run([*command, *filter(None, [mode])], capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"the audit found fault with the log: {ended.stdout}{ended.stderr}")
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def write_evidence(root: Path, firms: int, rounds: int, *, plan: str = "") -> int:
    """A bundle and a trust file below ``root``; returns the number of entries.

    Args:
        plan: another one than this file's.
    """
    text = PLAN.replace("MAX", str(rounds)).replace("ROUNDS", str(rounds))
    text = text if firms >= 100 else text.replace("= 100\n", f"= {firms}\n").replace("= 60", "= 1")
    terms = settle_terms(parse_plan(plan or text), consortium=NAME, run_id=RUN)
    encoded, digest = terms.encode(), terms_digest(terms.encode())
    lead = Ed25519Signer(b"\x01" * 32)
    names = [f"supplier-{at:03d}" for at in range(firms)]
    signers = {name: Ed25519Signer(os.urandom(32)) for name in names}
    membership = Membership(
        consortium=NAME,
        lead="lead",
        epoch=1,
        issued_s=NOW_S,
        expires_s=NOW_S + LIFETIME_S,
        members=tuple(
            Member(
                name=name,
                operator=name,
                identity=signers[name].public_key.hex(),
                recovery=os.urandom(32).hex(),
            )
            for name in names
        ),
    )
    signed = SignedMembership.sign(membership, lead)
    store = Store(":memory:", origin=NAME)
    tips = dict.fromkeys(names, log.ChainTip())

    def chained(name: str, envelope: bytes) -> bytes:
        tips[name] = log.ChainTip(seq=tips[name].seq + 1, head=log.entry_head(envelope))
        return envelope

    with store.transaction():
        store.queue_run(RUN, encoded, firms=firms)
        store.keep(membership.digest(), signed.document)
        store.keep(digest, encoded)
        store.append([signed.statement, lead.sign(log.TERMS_KIND, RUN, digest, {"run": RUN})])
        store.open_run(RUN, signed)
        facts = {"run": RUN, "terms": digest, "epoch": 1}
        acceptances = [
            chained(name, log.sign_acceptance(signers[name], tips[name], firm=name, **facts))
            for name in names
        ]
        state = ModelState.start(
            initial_weights(initial_seed(digest, acceptances), terms.parameters)
        )
        start = {"run": RUN, "terms": digest, "acceptances": acceptances}
        store.append([*acceptances, log.sign_start(lead, **start, state=state.digest())])
    grid, rng = terms.grid(firms), np.random.default_rng(0)
    event = terms.mechanism.event_type
    for number in range(1, rounds + 1):
        context = rng.bytes(32)
        total = rng.integers(-(10**6), 10**6, terms.dimension, dtype=np.int32)
        content = total.astype("<i4").tobytes()
        model_in = model_digest(state.published())
        state = take_step(
            state,
            total,
            rule=terms.step_rule,
            grid_step=grid.step,
            denominator=terms.denominator,
            noise_variance=terms.noise_variance(firms),
        )
        entries = []
        for name in names:
            envelope = log.sign_receipt(
                signers[name],
                tips[name],
                firm=name,
                run=RUN,
                round_number=number,
                attempt=number,
                context=context,
                roster_size=firms,
                event_type=event,
                charged=number,
            )
            entries.append(chained(name, envelope))
        record = log.AttemptRecord(
            run=RUN,
            round_number=number,
            attempt=number,
            context=context,
            roster=names,
            tips=[tips[name] for name in names],
        )
        facts = {"model_in": model_in, "state_out": state.digest()}
        commit = log.sign_round(
            lead,
            record,
            **facts,
            sum_digest=log.sum_digest(content),
            grid_step=grid.step.hex(),
            event_type=event,
        )
        with store.transaction():
            if number >= rounds - 1:
                checkpoint = store.checkpoint()
                words = {name: cosign(signers[name], checkpoint, time_s=NOW_S) for name in names}
                store.keep_cosignatures(checkpoint, words)
            store.append([*entries, commit])
            store.keep(log.sum_digest(content), content)
            store.save_state(RUN, state)
    with store.transaction():
        predicate = {"terms": digest.hex(), "rounds": rounds, "attempts": rounds}
        predicate["state"] = state.digest().hex()
        model = model_digest(state.released())
        store.append([lead.sign(log.RELEASE_KIND, RUN, model, predicate)])
    size = write_bundle(store, store.run(RUN), root / "bundle", signer=lead)
    trusted = {
        name: {"identity": signer.public_key.hex(), "operator": name}
        for name, signer in signers.items()
    }
    facts = {"version": "trust/v1", "consortium": NAME, "lead": lead.public_key.hex()}
    (root / "trust.json").write_text(json.dumps({**facts, "firms": trusted}))
    return size


def main() -> None:
    """The audit itself: what it costs, on stdout."""
    from greylag_audit import cli

    code = 0
    started_s = time.process_time()
    bundle, trust, *mode = sys.argv[1:]
    sys.argv[1:] = ["verify", bundle, "--trust", trust, *mode, "--format", "json"]
    try:
        cli.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"cpu_s": time.process_time() - started_s, "peak_mb": peak_mb}))
    sys.exit(code)


if __name__ == "__main__":
    main()
