"""UltraEdit (arXiv 2505.14679): one gradient per request, then a closed form; nothing is optimised.

Every token of a statement and its target gives each edited module a key h (its input) and a
gradient g of the loss at its output. Both are normalised over all tokens seen so far, by modules of
one shape together, to h~ and g~. A token's value is v = -eta |h~|^2 g~, and with the keys H and the
values V

    dW = V^T H (H^T H + I)^-1

EasyEdit's implementation was read for what the paper leaves open: all tokens count, statistics are
shared by shape, and the gate and up projections of the upper layers are edited. Here a request is a
batch of its own, all requests are one edit, and all its tokens are seen before any is normalised.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rose_easyedit.forward.activations import frozen
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.text.locate_subject import TokenQuery

# EasyEdit's layers 18 to 26 of Qwen 2.5's 28, as parts of the depth
FIRST, LAST = 18 / 28, 26 / 28


def normalise(rows: Tensor, seen: Tensor) -> Tensor:
    """Rows [n, d] in standard deviations from the mean of all rows seen, [m, d]."""
    return (rows - seen.mean(0)) / (seen.std(0) + torch.finfo(rows.dtype).eps)


def weight_shift(keys: Tensor, unit_keys: Tensor, unit_gradients: Tensor, step: float) -> Tensor:
    """The change dW of a weight, [d_out, d_in].

    Args:
        keys: H, inputs of the module, [n, d_in].
        unit_keys: the same, normalised, [n, d_in].
        unit_gradients: normalised gradients of the loss at its outputs, [n, d_out].
        step: eta.
    """
    values = -step * unit_keys.square().sum(1, keepdim=True) * unit_gradients
    moment = keys.T @ keys + torch.eye(keys.shape[1], dtype=keys.dtype, device=keys.device)
    found: Tensor = torch.linalg.solve(moment, keys.T @ values).T
    return found


def ultraedit(model: Any, queries: Sequence[TokenQuery], step: float) -> None:
    """Writes the statements into the weights of a Llama-like model.

    Args:
        model: changed in place.
        queries: the statements, each with its target behind it.
        step: eta.
    """
    modules = edited_modules(model)
    with frozen(model):
        seen = [_read(model, modules, query) for query in queries]
    keys = [torch.cat([of_query[i][0] for of_query in seen]) for i in range(len(modules))]
    gradients = [torch.cat([of_query[i][1] for of_query in seen]) for i in range(len(modules))]
    by_shape = defaultdict(list)
    for index, module in enumerate(modules):
        by_shape[module.weight.shape].append(index)
    for indices in by_shape.values():
        all_keys = torch.cat([keys[i] for i in indices])
        all_gradients = torch.cat([gradients[i] for i in indices])
        for i in indices:
            shift = weight_shift(
                keys[i],
                normalise(keys[i], all_keys),
                normalise(gradients[i], all_gradients),
                step,
            )
            weight = modules[i].get_parameter("weight")
            weight.data += shift.to(weight)


def edited_modules(model: Any) -> list[nn.Module]:
    """The gate and up projections of the upper layers."""
    layers = read_architecture(model).layers
    first, last = int(FIRST * len(layers)), int(LAST * len(layers))
    return [
        layer.get_submodule(f"mlp.{name}_proj")
        for layer in layers[first : last + 1]
        for name in ("gate", "up")
    ]


def _read(
    model: Any, modules: Sequence[nn.Module], query: TokenQuery
) -> list[tuple[Tensor, Tensor]]:
    """Per module, its inputs [T, d_in] and the loss's gradients at its outputs [T, d_out]."""
    ids = torch.tensor([query.ids], device=model.device)
    with _recorded(modules) as (inputs, outputs), torch.enable_grad():
        logits = model(ids, use_cache=False).logits[0]
        n = query.n_target
        loss = nn.functional.cross_entropy(logits[-n - 1 : -1].float(), ids[0, -n:])
        gradients = torch.autograd.grad(loss, outputs)
    return [
        (key[0].float(), gradient[0].float())
        for key, gradient in zip(inputs, gradients, strict=True)
    ]


@contextlib.contextmanager
def _recorded(modules: Sequence[nn.Module]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """What goes into the modules and comes out of them, in the order in which they run."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not output.requires_grad:  # the weights are frozen: gradients begin at the first module
            output = output.requires_grad_()
        inputs.append(args[0].detach())
        outputs.append(output)
        return output

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield inputs, outputs
    finally:
        for handle in handles:
            handle.remove()
