"""The precision in which shifts are optimised; weights and shifts keep their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def precision_context(
    precision: str, device: torch.device
) -> Callable[[], AbstractContextManager[None]]:
    """A factory of contexts in which the optimisation runs: bfloat16 autocast, or nothing.

    Args:
        precision: `auto` (bfloat16 where the hardware computes in it), `bfloat16` or `weights`.
        device: where the model is.
    """
    if precision == "auto":
        precision = "bfloat16" if _has_bfloat16(device) else "weights"
    if precision == "weights":
        return nullcontext
    return lambda: _bfloat16(device)


@contextmanager
def _bfloat16(device: torch.device) -> Iterator[None]:
    # On a CPU the fused attention kernel takes ten times as long in bfloat16 for these short
    # sequences as the plain products do.
    attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    with torch.autocast(device.type, dtype=torch.bfloat16), attention:
        yield


def attention_as_now() -> AbstractContextManager[None]:
    """A context, for later, in which attention uses the kernels that it may use now."""
    flags = torch.backends.cuda  # where they are, for a CPU as well
    may = {
        SDPBackend.MATH: flags.math_sdp_enabled(),
        SDPBackend.FLASH_ATTENTION: flags.flash_sdp_enabled(),
        SDPBackend.EFFICIENT_ATTENTION: flags.mem_efficient_sdp_enabled(),
        SDPBackend.CUDNN_ATTENTION: flags.cudnn_sdp_enabled(),
    }
    return sdpa_kernel([backend for backend, enabled in may.items() if enabled])


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
