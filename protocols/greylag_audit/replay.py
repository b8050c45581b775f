"""From the first weights, through every logged sum, to the released ones: bit by bit.

The step is plain IEEE arithmetic (``greylag_protocols.optimiser``), so that whoever repeats it gets
the same bits, whatever machine it was first done on.
"""

import numpy as np
from greylag_protocols import log
from greylag_protocols.errors import ConfigError
from greylag_protocols.optimiser import ModelState, model_digest, take_step
from greylag_protocols.terms import Terms

from greylag_audit.bundle_files import Bundle
from greylag_audit.facts import AttemptFact
from greylag_audit.findings import Finding, Findings
from greylag_audit.runs import RunBook
from greylag_audit.verify import Progress, Verdict, verify


def replay(
    bundle: Bundle, *, progress: Progress = lambda done, of: None
) -> tuple[Verdict, Finding]:
    """Read the log, then repeat the training of the bundle's run.

    Returns: what a quick audit without trust says, and whether the released weights follow.

    Raises:
        ConfigError: it is no bundle, or has not what a replay needs.
    """
    verdict = verify(bundle, trust=None, quick=True)
    book = verdict.runs.get(verdict.run)
    if book is None or book.terms is None or book.started is None:
        raise ConfigError(
            f"the bundle has no log or terms of a run {verdict.run!r:.60} that started; ask for a "
            "whole bundle"
        )
    return verdict, replay_run(bundle, book, book.terms, progress=progress)


def replay_run(bundle: Bundle, book: RunBook, terms: Terms, *, progress: Progress) -> Finding:
    """Repeat a run's training; names the first round that differs."""
    findings = Findings()
    rounds = [fact for fact in book.attempts if fact.completed]
    state = book.first_state()
    if state.digest().hex() != book.start_state:
        findings.broken("replay.follows:start", entry=book.started)
    step = _Step(bundle, terms)
    for done, fact in enumerate(rounds):
        if findings.kept:
            break
        progress(done, len(rounds))
        following = step.after(state, fact, findings)
        if following is None:
            break
        state = following
    progress(len(rounds), len(rounds))
    if not findings.kept:
        _check_released(bundle, book, state, findings)
    return findings.kept[0]


class _Step:
    """One round after the other; what depends on the size of the roster alone is kept."""

    def __init__(self, bundle: Bundle, terms: Terms) -> None:
        self._bundle = bundle
        self._terms = terms
        self._scales: dict[int, tuple[float, float]] = {}

    def after(self, state: ModelState, fact: AttemptFact, findings: Findings) -> ModelState | None:
        """The state that a round leads to; None, with a finding, if it cannot be told."""
        at, number = fact.position, fact.round_number
        if model_digest(state.published()).hex() != fact.model_in:
            findings.broken("replay.follows:model", entry=at, round=number)
            return None
        content = self._bundle.read(f"sums/{fact.sum_digest}")
        if (
            content is None
            or log.sum_digest(content).hex() != fact.sum_digest
            or len(content) != 4 * self._terms.dimension
        ):
            findings.broken("replay.follows:sum", entry=at, round=number)
            return None
        grid_step, noise_variance = self._scale(len(fact.roster))
        with np.errstate(all="ignore"):  # made-up sums may overflow; the digest then tells
            following = take_step(
                state,
                np.frombuffer(content, dtype="<i4").astype(np.int32),
                rule=self._terms.step_rule,
                grid_step=grid_step,
                denominator=self._terms.denominator,
                noise_variance=noise_variance,
            )
        if following.digest().hex() != fact.state_out:
            findings.broken("replay.follows:state", entry=at, round=number)
            return None
        return following

    def _scale(self, firms: int) -> tuple[float, float]:
        if firms not in self._scales:
            step = self._terms.grid(firms).step
            self._scales[firms] = step, self._terms.noise_variance(firms)
        return self._scales[firms]


def _check_released(bundle: Bundle, book: RunBook, state: ModelState, findings: Findings) -> None:
    rounds, weights = state.rounds_done, state.released().astype("<f4")
    if book.release is None:
        findings.add("unknown", "replay.follows:unreleased", rounds=rounds)
    elif (
        model_digest(weights).hex() != book.release.model
        or bundle.read("weights/released") != weights.tobytes()
    ):
        findings.broken("replay.follows:released", entry=book.release.position)
    else:
        findings.add("holds", "replay.follows:holds", rounds=rounds)
