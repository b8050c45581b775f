"""The clipped sum against a plain forward and backward pass on the same batch."""

import numpy as np
import torch
from greylag_client.models import build_mlp, record_losses
from greylag_client.trainer import Trainer
from greylag_protocols.features import Records
from greylag_protocols.plan import parse_plan, settle_terms
from harness import Figure, compare, say

BATCH = 512
FEATURES = 83
STEPS = 10
REPEATS = 5
PLAN = """
[run]
name = "bench"
purpose = "timing"
[data]
standard = "bench@1"
task = "regression"
targets = [{{ name = "y", range = [0, 1] }}]
features = [{{ names = [{features}], range = [0, 1] }}]
expected_records = 8000
max_records_per_firm = 1000
[model]
hidden = [128, 128]
[privacy]
noise_multiplier = 5.0
delta = 1e-6
max_colluding = 1
min_firms = 3
[training]
rounds = 10
sampling_rate = 0.2
"""


def measure_clipping() -> list[Figure]:
    """The trainer, as the agent uses it."""
    say(f"clipped sum, batch of {BATCH}")
    torch.set_num_threads(1)
    names = ", ".join(f'"x{index}"' for index in range(FEATURES))
    terms = settle_terms(
        parse_plan(PLAN.format(features=names)), consortium="bench-00000000", run_id="bench"
    )
    rng = np.random.default_rng(0)
    records = Records(
        inputs=rng.normal(size=(BATCH, FEATURES)), targets=rng.normal(size=(BATCH, 1))
    )
    trainer = Trainer(terms, records, pad=False)
    weights = (0.1 * rng.normal(size=terms.dimension)).astype(np.float32)
    module = build_mlp(terms)
    inputs, targets = torch.from_numpy(records.inputs), torch.from_numpy(records.targets)

    def clipped() -> None:
        for _ in range(STEPS):
            trainer.clipped_sum(weights, np.arange(BATCH))

    def plain() -> None:
        for _ in range(STEPS):
            module.zero_grad()
            record_losses(terms, module(inputs), targets).sum().backward()

    clipped_s, plain_s = compare(clipped, plain, repeats=REPEATS)
    return [
        Figure(
            name="clipped sum / plain gradient, MLP",
            where={"batch": BATCH, "d": terms.dimension},
            value=clipped_s / plain_s,
            unit="x",
        )
    ]
