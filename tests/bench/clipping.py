"""The clipped sum against plain SGD on the same batch, and against Opacus' two modes.

Plain SGD is a forward and a backward pass and the step, in the same precision. Opacus computes what
the trainer does (per-record norms, clipping, the sum) without noise or step.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from greylag_client.clipping.choice import choose_way
from greylag_client.clipping.losses import RowLosses
from greylag_client.models import build_mlp, record_losses
from greylag_client.trainer import Trainer
from greylag_protocols.features import Records
from greylag_protocols.plan import parse_plan, settle_terms
from harness import Figure, compare, say
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from torch import nn

FEATURES = 83
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
    """The trainer as the agent uses it, then the book-keeping on larger models."""
    warnings.filterwarnings("ignore")  # opacus' notes on hooks
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return [figure for case in (_mlp(), _cnn(), _lora()) for figure in _measure(case)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, a batch of one row a unit, and how it is clipped here."""

    name: str
    module: nn.Module
    losses: RowLosses
    inputs: torch.Tensor
    targets: torch.Tensor
    clipped: Callable[[], object]
    bound: float
    of_opacus: float  # at most, of Opacus' best mode
    steps: int


def _measure(case: Case) -> list[Figure]:
    say(f"clipped sum, {case.name}, batch of {len(case.inputs)}")
    plain_module = copy.deepcopy(case.module)
    weights = [item for item in plain_module.parameters() if item.requires_grad]
    optimiser = torch.optim.SGD(weights, lr=1e-6)

    def plain() -> None:
        optimiser.zero_grad()
        case.losses(plain_module(case.inputs), case.targets).sum().backward()
        optimiser.step()

    where = {"batch": len(case.inputs), "d": sum(item.numel() for item in weights)}
    clipped_s, plain_s = compare(
        _repeated(case.clipped, case.steps), _repeated(plain, case.steps), repeats=REPEATS
    )
    opacus_s, memory = {}, {"plain": _peak_mb(plain), "greylag": _peak_mb(case.clipped)}
    for mode, run in (("hooks", _hooks(case)), ("ghost", _ghost(case))):
        ours_s, theirs_s = compare(
            _repeated(case.clipped, case.steps), _repeated(run, case.steps), repeats=2
        )
        opacus_s[mode] = theirs_s / ours_s
        memory[mode] = _peak_mb(run)
    return [
        Figure(
            name=f"clipped sum / plain SGD, {case.name}",
            where=where,
            value=clipped_s / plain_s,
            unit="x",
            bound=case.bound,
            details={"peak_mb": memory},
        ),
        Figure(
            name=f"clipped sum / Opacus' best mode, {case.name}",
            where=where,
            value=1 / min(opacus_s.values()),
            unit="x",
            bound=case.of_opacus,
            details={"opacus_modes": opacus_s},
        ),
        Figure(
            name=f"clipped sum, peak memory beyond the model's, {case.name}",
            where=where,
            value=memory["greylag"],
            unit="MB",
        ),
    ]


def _repeated(work: Callable[[], object], steps: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(steps):
            work()

    return run


def _peak_mb(work: Callable[[], object]) -> float:
    """How far resident memory grows while ``work`` runs."""
    work()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    before = _status_kb("VmRSS")
    work()
    return (_status_kb("VmHWM") - before) / 1024


def _status_kb(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def _hooks(case: Case) -> Callable[[], object]:
    module = GradSampleModule(copy.deepcopy(case.module), loss_reduction="sum")
    weights = [item for item in module.parameters() if item.requires_grad]

    def run() -> list[torch.Tensor]:
        module.zero_grad()
        case.losses(module(case.inputs), case.targets).sum().backward()
        norms = torch.stack([item.grad_sample.flatten(1).norm(dim=1) for item in weights])
        factors = (1.0 / norms.norm(dim=0)).clamp(max=1.0)
        return [torch.tensordot(factors, item.grad_sample, 1) for item in weights]

    return run


def _ghost(case: Case) -> Callable[[], object]:
    module = GradSampleModuleFastGradientClipping(
        copy.deepcopy(case.module), loss_reduction="sum", max_grad_norm=1.0
    )

    def run() -> None:
        losses = case.losses(module(case.inputs), case.targets)
        losses.sum().backward(retain_graph=True)
        module.zero_grad()
        factors = module.get_clipping_coef()
        module.disable_hooks()
        (factors * losses).sum().backward()
        module.enable_hooks()
        module.zero_grad()

    return run


def _kept(
    name: str, module: nn.Module, losses: RowLosses, inputs: torch.Tensor, targets: torch.Tensor
) -> Callable[[], object]:
    """The book-keeping itself, as the trainer calls it."""
    data = inputs[:, None], targets[:, None], torch.ones(len(inputs), 1, dtype=torch.bool)
    state = copy.deepcopy(module.state_dict())
    way = choose_way(name, module, losses, (data[0][:3], data[1][:3], data[2][:3]))
    module.load_state_dict(state)

    def clipped() -> list[torch.Tensor]:
        measured = way.measure(*data)
        squares = torch.stack([item.squares for item in measured]).sum(0)
        factors = (1.0 / squares.sqrt().clamp(min=1e-30)).clamp(max=1.0)
        return way.in_order([item for part in measured for item in part.add(factors)])

    return clipped


def _mlp() -> Case:
    batch = 512
    names = ", ".join(f'"x{index}"' for index in range(FEATURES))
    terms = settle_terms(
        parse_plan(PLAN.format(features=names)), consortium="bench-00000000", run_id="bench"
    )
    rng = np.random.default_rng(0)
    records = Records(
        inputs=rng.normal(size=(batch, FEATURES)), targets=rng.normal(size=(batch, 1))
    )
    trainer = Trainer(terms, records, pad=False)
    weights = (0.1 * rng.normal(size=terms.dimension)).astype(np.float32)
    return Case(
        name="MLP",
        module=build_mlp(terms),
        losses=partial(record_losses, terms),
        inputs=torch.from_numpy(records.inputs),
        targets=torch.from_numpy(records.targets),
        clipped=lambda: trainer.clipped_sum(weights, np.arange(batch)),
        bound=1.5,
        of_opacus=0.5,
        steps=10,
    )


def _squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ((outputs - targets) ** 2).flatten(1).sum(1)


def _cnn() -> Case:
    module = nn.Sequential(
        nn.Conv2d(1, 16, 8, stride=2, padding=3),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    ).double()
    inputs, targets = torch.randn(128, 1, 28, 28).double(), torch.randn(128, 10).double()
    return Case(
        name="CNN",
        module=module,
        losses=_squared,
        inputs=inputs,
        targets=targets,
        clipped=_kept("CNN", copy.deepcopy(module), _squared, inputs, targets),
        bound=1.5,
        of_opacus=1.0,
        steps=2,
    )


class _Adapted(nn.Module):
    """A frozen linear layer and an adapter of rank 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.base = nn.Linear(width, width).requires_grad_(False)
        self.down, self.up = nn.Linear(width, 8, bias=False), nn.Linear(8, width, bias=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.base(values) + self.up(self.down(values))


class _Block(nn.Module):
    """An encoder's block of BERT's proportions, with adapters in its attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value = _Adapted(width), _Adapted(width)
        self.key, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        for layer in (self.key, self.out, self.wide, self.narrow, self.first, self.second):
            layer.requires_grad_(False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(values).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, -1) @ value
        values = self.first(values + self.out(mixed.transpose(1, 2).flatten(2)))
        return self.second(values + self.narrow(nn.functional.gelu(self.wide(values))))


def _lora() -> Case:
    width, length = 256, 64
    module = nn.Sequential(*[_Block(width, 4) for _ in range(4)])
    inputs, targets = torch.randn(32, length, width), torch.randn(32, length, width)
    return Case(
        name="LoRA",
        module=module,
        losses=_squared,
        inputs=inputs,
        targets=targets,
        clipped=_kept("LoRA", copy.deepcopy(module), _squared, inputs, targets),
        bound=1.15,
        of_opacus=1.0,
        steps=1,
    )
