"""What a lead learns that breaks no rule: sums of its choice, and differences of them.

Nothing here is refused; the noise is what protects. Figures are signal to noise: how far what the
attacker is after stands out of the noise of what it got, 1 being one standard deviation.

- **One crafted model for all**: one record moves the sum by C at most, against noise of sigma C:
  1 / sigma. Without noise: infinite.
- **Two rosters that differ by one firm**: the difference is that firm's own sum with noise of
  sqrt(2) sigma C. For many rows that agree it stands far out: this is the residual that ``record``
  does not cover, why rosters change rarely, and what ``unit = "firm"`` bounds.
- **Poisoned first weights**: not refused, since privacy holds for any model; but the log names the
  acceptances that the weights must follow from, and anybody can recompute them.
- **A revocation that the lead keeps back**: who has it refuses, who has not goes on, until the
  member list expires.
"""

from pathlib import Path

import numpy as np
import pytest
from attacks.machines import answered, sums_of, watched_lead
from consortium_in_memory import Consortium, make_terms, run_on
from greylag_client.engine import make_engine
from greylag_client.recovery import make_revocation
from greylag_protocols import log
from greylag_protocols.features import Records
from greylag_protocols.membership import LIFETIME_S
from greylag_protocols.optimiser import ModelState
from greylag_protocols.parameters import initial_weights
from greylag_protocols.quantise import RingGrid
from greylag_protocols.round import initial_seed
from greylag_protocols.signing import parse_statement
from greylag_protocols.terms import terms_digest
from greylag_server import coordinator
from lying_lead import ALL, Lead
from numpy.typing import NDArray

RECOVERY = b"\x66" * 32


def decoded(lead: Lead, attempt: int, roster: tuple[str, ...] = ALL) -> NDArray[np.float64]:
    """The sum that an attempt gives, in units of the gradient."""
    message = lead.round(attempt, roster=roster)
    firms = [lead.consortium.firms[name].participant for name in roster]
    total = np.sum([answered(firm, message).vector for firm in firms], axis=0, dtype=np.uint32)
    grid: RingGrid = lead.consortium.terms.grid(len(roster))
    return grid.decode(total) * grid.step


def test_one_crafted_model_shows_a_record_no_better_than_one_to_sigma(memory_path: Path) -> None:
    terms = make_terms()
    lead = watched_lead(memory_path, terms).enter()
    truth_and_sum = []
    for attempt in (1, 2, 3):
        total = decoded(lead, attempt)
        truth = sum(sums_of(lead.consortium.firms[name].participant, lead.run)[-1] for name in ALL)
        truth_and_sum.append(total - truth)
    noise = np.concatenate(truth_and_sum)
    sigma, clip = terms.privacy.noise_multiplier, terms.privacy.clip_norm
    share = np.sqrt(4 / 3)  # all four firms are honest, three are counted on
    assert np.std(noise) == pytest.approx(share * sigma * clip, rel=0.2)
    assert clip / (np.std(noise) / share) == pytest.approx(1 / sigma, rel=0.2)


def test_two_rosters_show_the_difference_and_only_the_unit_firm_bounds_it(
    memory_path: Path,
) -> None:
    """Rows that agree, sixty and ten; the model is the lead's choice."""
    signal = {}
    for unit in ("record", "firm"):
        terms = make_terms(unit=unit)
        rate, privacy = terms.training.sampling_rate, terms.privacy
        for rows in (10, 60):
            records = Records(
                inputs=np.tile([[1.0, -1.0, 0.5]], (rows, 1)), targets=np.ones((rows, 2))
            )
            engine = make_engine(terms, records)
            weights = np.full(terms.dimension, 0.9, np.float32)
            total = engine.clipped_sum(weights, np.arange(len(engine))[: terms.batch_cap])
            seen = np.linalg.norm(total) * (rate if unit == "record" else 1.0)
            noise = np.sqrt(2) * privacy.noise_multiplier * privacy.clip_norm
            signal[unit, rows] = seen / noise
    assert signal["record", 60] > 3.5 * signal["record", 10]  # grows with the rows
    assert signal["record", 60] > 3
    bound = 1 / (np.sqrt(2) * 2.0)
    assert signal["firm", 60] <= bound
    assert signal["firm", 10] <= bound
    # How often: rosters change as rarely as the firm's policy says.
    lead = watched_lead(memory_path, make_terms()).enter()
    both = decoded(lead, 1) - decoded(lead, 2, ALL[:3])
    terms = lead.consortium.terms
    spread = terms.grid(4).noise_std ** 2 * 4 + terms.grid(3).noise_std ** 2 * 3
    own = sums_of(lead.consortium.firms["firm-d"].participant, lead.run)[-1]
    others = sum(
        sums_of(lead.consortium.firms[name].participant, lead.run)[-2]
        - sums_of(lead.consortium.firms[name].participant, lead.run)[-1]
        for name in ALL[:3]
    )
    assert np.std(both - own - others) == pytest.approx(spread**0.5, rel=0.35)


def start_of(consortium: Consortium) -> tuple[str, str]:
    """The first state's digest as the log states it, and as the acceptances give it."""
    store = consortium.open_store()
    entries = list(store.entries())
    acceptances = [item for item in entries if parse_statement(item).kind == log.ACCEPTANCE_KIND]
    statements = [parse_statement(item) for item in entries]
    (start,) = [item for item in statements if item.kind == log.START_KIND]
    named = sorted(log.entry_head(item).hex() for item in acceptances)
    assert start.predicate["acceptances"] == named
    seed = initial_seed(terms_digest(consortium.encoded), acceptances)
    state = ModelState.start(initial_weights(seed, consortium.terms.parameters))
    store.close()
    return start.predicate["state"], state.digest().hex()


@pytest.mark.parametrize("poisoned", [False, True])
def test_poisoned_first_weights_are_found_out(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, poisoned: bool
) -> None:
    consortium = Consortium(memory_path, terms=make_terms(rounds=1))
    if poisoned:
        honest = coordinator.initial_weights
        monkeypatch.setattr(
            coordinator, "initial_weights", lambda seed, shape: honest(seed, shape) + 1.0
        )
    store = consortium.open_store()
    run_on(consortium.local_grid(), consortium.coordinator(store))
    assert store.run(consortium.terms.run_id).status == "done"  # nobody refused
    store.close()
    stated, follows = start_of(consortium)
    assert (stated != follows) == poisoned


def test_a_revocation_that_the_lead_keeps_back(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    consortium = Consortium(memory_path, terms=make_terms(), recoveries={"firm-b": RECOVERY})
    lead = Lead(consortium).enter()
    envelope = make_revocation(RECOVERY.hex(), consortium.membership, "firm-b")
    lead.answered(lead.round(1))  # it has not heard: the residual
    lead.victim.memberships.store_revocation(envelope, consortium.membership)
    lead.refused(lead.round(2), "identity revoked")
    # Without the rule the thief sits in the roster for good.
    with monkeypatch.context() as change:
        change.setattr("greylag_client.participant.revoked_in", lambda *_: frozenset[str]())
        lead.answered(lead.round(2))
    # For the others the residual ends with the list, whatever the lead keeps back.
    consortium.now_s += LIFETIME_S
    other = consortium.firms["firm-c"].participant
    caplog.clear()
    other.handle(lead.round(3))
    assert "has expired" in caplog.text
