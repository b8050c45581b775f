"""Puts the experiments together: what they found at this build and at the wrong ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import Terms

from greylag_lab.probe import bounds, canaries, experiments
from greylag_lab.probe.experiments import Check
from greylag_lab.probe.release import Roster, masks_hold
from greylag_lab.probe.variants import THIS_BUILD, wrong_builds

MAX_NUMBERS = 200_000_000  # firms times weights: minutes beyond

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What all tests found at one build."""

    build: str
    checks: tuple[Check, ...]

    @property
    def flagged_by(self) -> tuple[str, ...]:
        return tuple(check.test for check in self.checks if check.flagged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The outcome.

    Attributes:
        canaries: how many there were.
        reach: the largest epsilon that the canaries could have shown.
    """

    terms: Terms
    firms: int
    canaries: int
    reach: float
    this: Finding
    wrong: tuple[Finding, ...]

    @property
    def missed(self) -> tuple[str, ...]:
        """Wrong builds that nothing told from a true one."""
        return tuple(item.build for item in self.wrong if not item.flagged_by)

    @property
    def verdict(self) -> str:
        """``sound``; ``broken``: this build was flagged; ``blind``: a wrong one was not."""
        if self.this.flagged_by:
            return "broken"
        return "blind" if self.missed else "sound"


def run_probe(terms: Terms, *, firms: int, seed: bytes, progress: Progress) -> Probe:
    """Probe this build, and the wrong ones, under ``terms`` with a roster of ``firms``.

    Args:
        seed: 32 bytes of entropy; all randomness is made from them.

    Raises:
        ConfigError: the roster does not fit the terms, or is too much for a probe.
        GreylagError: the training engine failed.
    """
    if firms * terms.dimension > MAX_NUMBERS:
        raise ConfigError(
            f"{firms} firms times {terms.dimension} weights would take many minutes: probe the "
            "same plan with fewer firms (--firms) or a smaller model; the privacy path is the same"
        )
    terms.grid(firms)  # refuses a roster that is too small
    canaries.single_thread()
    roster = Roster(terms=terms, firms=firms, master=seed)
    rng = np.random.default_rng(list(roster.secret("probe")))
    builds = (THIS_BUILD, *wrong_builds(terms))
    steps = experiments.canary_releases(roster)[0] + experiments.noise_attempts(terms)
    steps += len(builds) + 2
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, steps)

    masks = _check_masks(roster)
    advance()
    audited, count = experiments.check_canaries(roster, builds, rng, advance)
    noise = experiments.check_noise(roster, builds, rng, advance)
    engines = {build.clips: build for build in builds}  # clipping is the engine's alone
    clipping = {
        clips: experiments.check_clipping(roster, build, rng) for clips, build in engines.items()
    }
    advance()
    findings = []
    for number, build in enumerate(builds):
        sampling = experiments.check_sampling(roster, build)
        advance()
        checks = (audited[number], *noise[number], *sampling, clipping[build.clips])
        findings.append(Finding(build=build.name, checks=checks))
    delta = min(experiments.AUDIT_DELTA, terms.privacy.delta)
    return Probe(
        terms=terms,
        firms=firms,
        canaries=count,
        reach=bounds.largest_bound(count, delta=delta, level=bounds.LEVEL),
        this=Finding(build=THIS_BUILD.name, checks=(*findings[0].checks, masks)),
        wrong=tuple(findings[1:]),
    )


def _check_masks(roster: Roster) -> Check:
    weights = np.zeros(roster.terms.dimension, dtype=np.float32)
    fault = masks_hold(roster, weights)
    return Check(
        test="masks",
        flagged=bool(fault),
        figure=float(bool(fault)),
        expected=0.0,
        p_value=None,
        words=fault or "masks cancel in the sum to the bit, and hide each honest vector",
    )
