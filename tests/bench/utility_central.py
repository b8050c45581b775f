"""The same training where somebody is trusted with more: the rivals that greylag is held against.

Central DP-SGD takes its clipped, noisy sums from Opacus, on the rows of all firms together, by
Poisson sampling at the plan's rate. The first weights, the denominator, the step and the average
are the plan's own (``take_step``): only the mechanism differs. Client-level privacy is as Flower's
fixed clipping on the server has it: clipped updates of whole firms, averaged, the server's noise
upon the mean, no sampling, the last weights released.
"""

import os
from collections.abc import Callable, Mapping

import numpy as np
import torch
from greylag_client.local_training import LocalTrainer
from greylag_client.models import build_model, load_weights, record_losses
from greylag_client.prediction import Predictor
from greylag_client.table import Table
from greylag_lab.simulation import make_predictor
from greylag_protocols.optimiser import ModelState, take_step
from greylag_protocols.parameters import initial_weights
from greylag_protocols.terms import Terms
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler

CHUNK = 512  # rows whose gradients are held at a time

Progress = Callable[[int, int], None]


def train_central(
    terms: Terms, tables: Mapping[str, Table], noise: float, progress: Progress
) -> Predictor:
    """DP-SGD by Opacus on pooled rows; ``noise`` is the standard deviation in clip norms."""
    torch.set_num_threads(1)
    parts = [table.records(table.train) for table in tables.values()]
    inputs = torch.from_numpy(np.concatenate([part.inputs for part in parts]))
    targets = torch.from_numpy(np.concatenate([part.targets for part in parts]))
    module = GradSampleModule(build_model(terms), loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=0.0),
        noise_multiplier=noise,
        max_grad_norm=terms.privacy.clip_norm,
        expected_batch_size=None,
        loss_reduction="sum",
        generator=_generator(),
    )
    sampler = UniformWithReplacementSampler(
        num_samples=len(inputs),
        sample_rate=terms.training.sampling_rate,
        generator=_generator(),
        steps=terms.training.rounds,
    )
    state = ModelState.start(initial_weights(os.urandom(32), terms.parameters))
    variance = (noise * terms.privacy.clip_norm / terms.denominator) ** 2
    for rows in sampler:
        progress(state.rounds_done, terms.training.rounds)
        load_weights(module, state.published())
        chunks = torch.tensor(rows, dtype=torch.int64).split(CHUNK)
        for number, chunk in enumerate(chunks):
            optimizer.zero_grad()  # drops rows' gradients, keeps the sum that is under way
            optimizer.signal_skip_step(number < len(chunks) - 1)
            record_losses(terms, module(inputs[chunk]), targets[chunk]).sum().backward()
            optimizer.pre_step()
        grad = torch.cat([item.grad.reshape(-1) for item in module.parameters()]).numpy()
        optimizer.zero_grad()
        state = take_step(
            state, grad, rule=terms.step_rule, grid_step=1.0, denominator=terms.denominator,
            noise_variance=variance,
        )  # fmt: skip
    return make_predictor(terms, state)


def train_client_level(terms: Terms, tables: Mapping[str, Table], progress: Progress) -> Predictor:
    """DP-FedAvg under terms of unit = "firm": the server is trusted to clip and to add noise."""
    torch.set_num_threads(1)
    trainers = [
        LocalTrainer(terms, table.records(table.train), pad=False) for table in tables.values()
    ]
    rng = np.random.default_rng()
    deviation = terms.privacy.noise_multiplier * terms.privacy.clip_norm / len(trainers)
    weights = initial_weights(os.urandom(32), terms.parameters)
    for done in range(terms.training.rounds):
        progress(done, terms.training.rounds)
        sent = weights.astype(np.float32)
        mean = sum(item.clipped_sum(sent, np.zeros(1, dtype=np.intp)) for item in trainers)
        weights = sent - mean / len(trainers) + rng.normal(0.0, deviation, len(weights))
    return make_predictor(terms, ModelState.start(weights))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))
