"""What a run costs in privacy, and what else its release says of it, for programs."""

from dataclasses import asdict
from typing import Any

from greylag_protocols import accounting
from greylag_protocols.releases import ReleaseFacts, day
from greylag_protocols.terms import Terms

COPIES = (2, 5, 10)
HOLDOUT_NOTE = (
    "measured by the lead alone, on rows that nobody else sees: outside every guarantee, and not "
    "checked by any audit"
)


def privacy_facts(terms: Terms, *, attempts: int) -> dict[str, Any]:
    """What a run costs one unit: ``epsilon`` is the price of all planned attempts, which budgets
    are charged; ``epsilon_used`` of those that took place."""
    privacy = terms.privacy
    return {
        "unit": privacy.unit,
        "epsilon": privacy.epsilon,
        "delta": privacy.delta,
        "noise_multiplier": privacy.noise_multiplier,
        "max_colluding": privacy.max_colluding,
        "epsilon_used": terms.epsilon_after(attempts),
    }


def wider_facts(terms: Terms, *, firms: int) -> dict[str, Any]:
    """What the promise does not cover, as numbers: epsilon of several equal units (not of firms,
    which are told apart by name), and of one unit if all other firms colluded, so that a firm's own
    noise alone protected it."""
    privacy, mechanism = terms.privacy, terms.mechanism
    honest = max(1, firms - privacy.max_colluding)
    counts = () if privacy.unit == "firm" else COPIES
    return {
        "epsilon_for_copies": {
            str(copies): accounting.epsilon_of_copies(
                mechanism, copies=copies, releases=privacy.max_attempts, delta=privacy.delta
            )
            for copies in counts
        },
        "epsilon_if_all_collude": accounting.epsilon_of(
            mechanism.scaled(honest**-0.5), releases=privacy.max_attempts, delta=privacy.delta
        ),
    }


def release_facts(
    terms: Terms, run: str, model: bytes, facts: ReleaseFacts, *, firms: int, roster: int
) -> dict[str, Any]:
    """What stands in ``release.json``; nothing of it is about the files of the release."""
    holdout = None if facts.holdout is None else {**asdict(facts.holdout), "note": HOLDOUT_NOTE}
    return {
        "run": run,
        "name": facts.name,
        "version": facts.version,
        "purpose": terms.run.purpose,
        "rounds": facts.rounds,
        "attempts": facts.attempts,
        "firms": firms,
        "model": model.hex(),
        "terms": facts.terms,
        "issued": day(facts.issued_s),
        "expires": day(facts.expires_s),
        "licence": facts.licence,
        "permitted_uses": list(facts.permitted_uses),
        "holdout": holdout,
        "because": facts.because,
        "audit": "by_bundle",
        **privacy_facts(terms, attempts=facts.attempts),
        **wider_facts(terms, firms=roster),
    }


def outcome(facts: ReleaseFacts, run: str, model: bytes) -> dict[str, Any]:
    """What the commands show of a release."""
    return {
        "run": run,
        "name": facts.name,
        "version": facts.version,
        "model": model.hex(),
        "terms": facts.terms,
        "expires": day(facts.expires_s),
    }
