"""The terms' model as a torch module, its loss, and its weights from a flat vector."""

from collections.abc import Callable

import numpy as np
import torch
from greylag_protocols.errors import RefusedError
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

from greylag_client.plugins import import_plugin

ACTIVATIONS: dict[str, Callable[[], torch.nn.Module]] = {
    "tanh": torch.nn.Tanh,
    "relu": torch.nn.ReLU,
}


# What the trainer's one backward pass can take apart (``trainer``): between linear layers, whatever
# works number by number, so that a row's outputs depend on that row alone. Not what draws random
# numbers (dropout) or looks at the batch (normalisation by batches).
ELEMENTWISE: frozenset[type[torch.nn.Module]] = frozenset(
    {
        torch.nn.ELU,
        torch.nn.GELU,
        torch.nn.Hardtanh,
        torch.nn.Identity,
        torch.nn.LeakyReLU,
        torch.nn.ReLU,
        torch.nn.SELU,
        torch.nn.SiLU,
        torch.nn.Sigmoid,
        torch.nn.Softplus,
        torch.nn.Softsign,
        torch.nn.Tanh,
    }
)


def build_model(terms: Terms) -> torch.nn.Sequential:
    """The terms' model in float64.

    Raises:
        RefusedError: class ``policy``: the plugin is not what the terms pin, or cannot be trained.
    """
    return build_mlp(terms) if terms.model.plugin is None else _build_plugin(terms)


def _build_plugin(terms: Terms) -> torch.nn.Sequential:
    build = import_plugin(terms)
    try:
        module = build(terms.data)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises, this run is refused
        raise _unfit(terms, f"building the model failed: {type(error).__name__}") from None
    if type(module) is not torch.nn.Sequential:
        raise _unfit(terms, f"it built a {type(module).__name__}, not a torch.nn.Sequential")
    _check_layers(terms, module)
    found = [(name, tuple(item.shape)) for name, item in module.named_parameters()]
    declared = [(item.name, item.shape) for item in terms.parameters]
    if found != declared:
        raise _unfit(terms, f"it has parameters {found}, the terms say {declared}")
    module.to(torch.float64)
    width, outputs = terms.data.input_width, terms.data.outputs
    try:  # now, since nothing may fail once budget was spent
        shape = tuple(module(torch.zeros(1, width, dtype=torch.float64)).shape)
    except RuntimeError:
        raise _unfit(terms, f"its layers do not take {width} inputs one after the other") from None
    if shape != (1, outputs):
        raise _unfit(terms, f"it has {shape[-1]} outputs, the data have {outputs}")
    return module


def _check_layers(terms: Terms, module: torch.nn.Sequential) -> None:
    """Linear layers with biases, each used once, and elementwise ones between them.

    Types are compared exactly: a subclass may compute anything.
    """
    layers = list(module)
    linear = [layer for layer in layers if type(layer) is torch.nn.Linear]
    if not linear or len({id(layer) for layer in linear}) != len(linear):
        raise _unfit(terms, "each torch.nn.Linear must stand in it once, and one at least")
    for layer in [module, *layers]:
        known = layer is module or type(layer) in ELEMENTWISE or type(layer) is torch.nn.Linear
        if not known or (type(layer) is torch.nn.Linear and layer.bias is None):
            kinds = ", ".join(sorted(kind.__name__ for kind in ELEMENTWISE))
            raise _unfit(
                terms,
                f"{type(layer).__name__} is no layer that gradients can be clipped through; allowed"
                f" are Linear with a bias, {kinds}",
            )
        altered = "forward" in vars(layer) or any(
            hooks for name, hooks in vars(layer).items() if name.endswith("_hooks")
        )
        if altered:
            raise _unfit(terms, f"its {type(layer).__name__} carries hooks or another forward")


def _unfit(terms: Terms, cause: str) -> RefusedError:
    return RefusedError(f"{terms.model.family}: {cause}", refusal_class="policy")


def build_mlp(terms: Terms) -> torch.nn.Sequential:
    """The terms' multilayer perceptron in float64; tensors as ``terms.parameters`` orders them."""
    layers: list[torch.nn.Module] = []
    shapes = [item.shape for item in terms.parameters if len(item.shape) == 2]
    for fan_out, fan_in in shapes:
        layers.append(torch.nn.Linear(fan_in, fan_out, dtype=torch.float64))
        layers.append(ACTIVATIONS[terms.model.activation]())
    return torch.nn.Sequential(*layers[:-1])


def record_losses(terms: Terms, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each record, shape (n,): half the mean squared error over the targets that are
    present, or cross-entropy.

    Args:
        outputs: shape (n, outputs).
        targets: shape (n, targets).
    """
    if terms.data.task == "classification":
        return torch.nn.functional.cross_entropy(
            outputs, targets[:, 0].to(torch.int64), reduction="none"
        )
    present = ~torch.isnan(targets)
    errors = torch.where(present, outputs - torch.nan_to_num(targets), 0.0)
    return 0.5 * (errors**2).sum(1) / present.sum(1).clamp(min=1)


def load_weights(module: torch.nn.Module, weights: NDArray[np.float32]) -> None:
    """Copy a flat weight vector, shape (d,), into the weights of ``module`` that are trained."""
    at = 0
    with torch.no_grad():
        flat = torch.from_numpy(weights.astype(np.float64))
        for tensor in [item for item in module.parameters() if item.requires_grad]:
            tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
            at += tensor.numel()
