"""Which way takes a model's gradients apart, what is refused, and how much goes into one pass."""

import logging

import pytest
import torch
from greylag_client.clipping import choice
from greylag_client.clipping.bookkeeping import BookKeeper, UnfitError
from greylag_client.clipping.choice import Way, choose_way
from greylag_client.clipping.fallback import Loop, Vectorised
from greylag_client.clipping.passes import PASS_FLOATS, units_per_pass
from torch import nn


class Twice(nn.Module):
    """One layer that is used two times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.tanh(self.layer(values)))


class Scale(nn.Module):
    """A weight outside of any known layer."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(4))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.factor


class Branching(Scale):
    """Flow that depends on values."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.factor if float(values.detach().sum()) > 0 else -values * self.factor


class RowsTogether(nn.Module):
    """A row's output depends on the other rows of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.layer(values - values.mean(0))


def tied() -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    return module


def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ((outputs - targets) ** 2).sum(1)


def chosen(module: nn.Module, rows: int = 1) -> Way:
    trial = (
        torch.randn(3, rows, 4).double(),
        torch.randn(3, rows, 1).double(),
        torch.ones(3, rows, dtype=torch.bool),
    )
    return choose_way("test", module.double(), losses, trial)


@pytest.mark.parametrize(
    ("module", "way"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4)), BookKeeper),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)), Vectorised),
        (Twice(), Vectorised),
        (tied(), Vectorised),
        (nn.Sequential(nn.Linear(4, 4), Scale()), Vectorised),
        (nn.Sequential(nn.Linear(4, 4), Branching()), Loop),
        (RowsTogether(), Vectorised),  # each unit by itself, so that none sees another
    ],
    ids=["known", "in place", "twice", "tied", "own weight", "branching", "rows together"],
)
def test_the_fastest_way_that_is_right_is_taken(module: nn.Module, way: type[Way]) -> None:
    torch.manual_seed(0)
    assert type(chosen(module, rows=2)) is way


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.5), nn.BatchNorm1d(4)], ids=["random numbers", "keeps what it saw"]
)
def test_what_is_no_function_of_unit_and_weights_is_refused(layer: nn.Module) -> None:
    with pytest.raises(UnfitError, match="not a function of a unit and the weights"):
        chosen(nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 2)), rows=2)


def test_the_way_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_said", set())
    with caplog.at_level(logging.INFO, logger=choice.__name__):
        for _ in range(3):
            chosen(Twice())
    assert len(caplog.messages) == 1
    assert "by torch.func; not by book-keeping: Linear is not used once" in caplog.text


def test_a_pass_holds_what_it_may() -> None:
    small, large = nn.Linear(4, 4), nn.Linear(4096, 4096)
    kept = BookKeeper(small, losses)
    assert units_per_pass(kept, small, torch.zeros(1, 4)) > 1000
    # Formed gradients are held for every unit of a pass; one row needs none.
    kept = BookKeeper(large, losses)
    assert units_per_pass(kept, large, torch.zeros(2, 4096)) == 1
    assert units_per_pass(kept, large, torch.zeros(1, 4096)) > 1000
    assert units_per_pass(Loop(large, losses), large, torch.zeros(1, 4096)) == 1
    assert PASS_FLOATS < 4 * 4096 * 4096
