"""Thirty steps of 200,003 weights by either optimiser; prints numpy's version and the digests.

Needs the protocol core alone: other interpreters, numpys and thread counts run it.
"""

import numpy as np
from greylag_protocols.optimiser import ModelState, StepRule, take_step

WEIGHTS, ROUNDS = 200_003, 30
NOISE_VARIANCE, GRID_STEP, DENOMINATOR = 1e-4, 2.0**-12, 137.0


def digests() -> list[str]:
    found = []
    for optimiser, tail, floor in (("adam", 0, 0.5), ("adam", 7, None), ("momentum", 7, None)):
        rule = StepRule(
            optimiser=optimiser,
            learning_rate=0.03,
            schedule="linear",
            rounds=ROUNDS,
            momentum=0.9,
            second_moment=0.99,
            stabiliser=1e-8,
            ema=0.9,
            warmup_rounds=3,
            tail_rounds=tail,
            noise_floor=floor,
        )
        rng = np.random.Generator(np.random.PCG64(7))
        state = ModelState.start(rng.integers(-(10**6), 10**6, WEIGHTS) / 3e6)
        for _ in range(ROUNDS):
            total = rng.integers(-(10**6), 10**6, WEIGHTS, dtype=np.int32)
            state = take_step(
                state,
                total,
                rule=rule,
                grid_step=GRID_STEP,
                denominator=DENOMINATOR,
                noise_variance=NOISE_VARIANCE,
            )
        found.append(state.digest().hex())
    return found


if __name__ == "__main__":
    print(np.__version__, *digests())
