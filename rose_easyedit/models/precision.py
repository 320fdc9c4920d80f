"""The precision in which the model runs for an edit; weights and shifts keep their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from rose_easyedit.errors import RoSEError
from rose_easyedit.models.cast_weights import CastWeights
from rose_easyedit.models.grouped_attention import attends_by_groups, grouped_attention
from rose_easyedit.models.offload import computing_device
from rose_easyedit.restoring import restoring


def precision_context(
    precision: str, model: PreTrainedModel
) -> Callable[[], AbstractContextManager[None]]:
    """A factory of contexts in which the model runs for an edit: bfloat16 autocast, or nothing.

    The weights must be the same in all of its contexts, which share copies of them.

    Args:
        precision: `auto` (bfloat16 where the hardware computes in it, and torch with these
            weights), `bfloat16` or `weights`.
        model: the model.

    Raises:
        RoSEError: torch does not compute in bfloat16 with these weights.
    """
    device = computing_device(model)
    if not _in_bfloat16(precision, model):
        return nullcontext
    if not _allows_bfloat16(model):
        raise RoSEError(
            f"precision is {precision!r}, but the layer norms of this model are in float16, with "
            "which a CPU does not compute in bfloat16; set it to auto or weights, or load the "
            "weights in float32."
        )
    weights = CastWeights(model, torch.bfloat16)
    return lambda: _bfloat16(model, device, weights)


@restoring
def _bfloat16(model: PreTrainedModel, device: torch.device, weights: CastWeights) -> Iterator[None]:
    on_cpu = device.type == "cpu"
    # On a CPU the fused attention kernel takes ten times as long in bfloat16 for these short
    # sequences as the plain products do.
    kernels = sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext()
    attention = grouped_attention(model) if on_cpu else nullcontext()
    autocast = torch.autocast(device.type, dtype=torch.bfloat16)
    with autocast, kernels, attention, weights.in_place():
        yield


def computing_dtype(precision: str, model: PreTrainedModel) -> torch.dtype:
    """What a model computes products in, in the contexts of `precision_context`."""
    return torch.bfloat16 if _in_bfloat16(precision, model) else model.dtype


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast computes products in on a device; None where it is off."""
    on = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if on else None


def attention_as_now(model: PreTrainedModel) -> AbstractContextManager[None]:
    """A context, for later, in which a model attends as it does now, by the kernels it may use."""
    flags = torch.backends.cuda  # where they are, for a CPU as well
    may = {
        SDPBackend.MATH: flags.math_sdp_enabled(),
        SDPBackend.FLASH_ATTENTION: flags.flash_sdp_enabled(),
        SDPBackend.EFFICIENT_ATTENTION: flags.mem_efficient_sdp_enabled(),
        SDPBackend.CUDNN_ATTENTION: flags.cudnn_sdp_enabled(),
    }
    kernels = sdpa_kernel([backend for backend, enabled in may.items() if enabled])
    by_groups = attends_by_groups(model)

    @restoring
    def again() -> Iterator[None]:
        with kernels, grouped_attention(model) if by_groups else nullcontext():
            yield

    return again()


def _in_bfloat16(precision: str, model: PreTrainedModel) -> bool:
    if precision == "auto":
        return has_bfloat16(computing_device(model)) and _allows_bfloat16(model)
    return precision == "bfloat16"


def _allows_bfloat16(model: PreTrainedModel) -> bool:
    """Whether autocast takes the model's weights: on a CPU it has no layer norm in float16."""
    return computing_device(model).type != "cpu" or not any(
        isinstance(module, nn.LayerNorm) and module.weight.dtype == torch.float16
        for module in model.modules()
    )


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16, which on one that does not is slower than float32."""
    if device.type == "cuda":
        found: bool = torch.cuda.is_bf16_supported(including_emulation=False)
        return found
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
