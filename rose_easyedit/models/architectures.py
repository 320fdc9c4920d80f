"""Where each model family keeps what an edit needs: data, read by one function."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rose_easyedit.errors import RoSEError
from rose_easyedit.models.context import context_length
from rose_easyedit.models.offload import computing_device, computing_devices, stored_weight


@dataclass(frozen=True)
class Architecture:
    """Module paths of a family: `layers` and `final_norm` from the model, the rest from a layer.

    `gguf` is the family's name in GGUF files; None where llama.cpp does not run it.
    """

    layers: str = "model.layers"
    down_projection: str = "mlp.down_proj"
    post_norm: str | None = None
    final_norm: str = "model.norm"
    gguf: str | None = None

    def weight_name(self, layer: int) -> str:
        """Name of the edited weight of a layer, as in the model's state dict."""
        return f"{self.layers}.{layer}.{self.down_projection}.weight"


_POST_NORM = "post_feedforward_layernorm"

ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(gguf="llama"),
    "mistral": Architecture(gguf="llama"),
    "qwen2": Architecture(gguf="qwen2"),
    "qwen3": Architecture(gguf="qwen3"),
    "phi3": Architecture(gguf="phi3"),
    "gemma2": Architecture(post_norm=_POST_NORM, gguf="gemma2"),
    "gemma3_text": Architecture(post_norm=_POST_NORM, gguf="gemma3"),
    "olmo2": Architecture(post_norm=_POST_NORM, gguf="olmo2"),
    "gpt2": Architecture("transformer.h", "mlp.c_proj", None, "transformer.ln_f", "gpt2"),
    "gptj": Architecture("transformer.h", "mlp.fc_out", None, "transformer.ln_f"),
    "gpt_neox": Architecture(
        "gpt_neox.layers", "mlp.dense_4h_to_h", None, "gpt_neox.final_layer_norm", "gptneox"
    ),
}


@dataclass(frozen=True)
class EditableModel:
    """A causal language model with the modules that an edit reads.

    Attributes:
        model: the whole model, unchanged.
        layers: the decoder layers.
        down_projections: per layer, the module whose weight an edit changes.
        post_norms: per layer, the norm between down projection and residual stream, if any.
        final_norm: the norm before the head.
        head: from hidden states to logits.
        logit_softcap: the cap c of logits c * tanh(x / c), if the model has one.
        paths: where its family keeps its modules.
    """

    model: PreTrainedModel
    layers: list[nn.Module]
    down_projections: list[nn.Module]
    post_norms: list[nn.Module | None]
    final_norm: nn.Module
    head: nn.Module
    logit_softcap: float | None
    paths: Architecture

    @property
    def n_layers(self) -> int:
        """How many decoder layers there are."""
        return len(self.layers)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return computing_device(self.model)

    @property
    def context_length(self) -> int:
        """The most tokens that the model reads; a billion where its configuration has no limit."""
        return context_length(self.model)

    def weight(self, layer: int) -> Tensor:
        """The edited weight of a layer, as the module stores it; to be read only."""
        return stored_weight(self.model, self.weight_name(layer))

    def weight_name(self, layer: int) -> str:
        """Name of the edited weight of a layer, as in the model's state dict."""
        return self.paths.weight_name(layer)

    def key_width(self, layer: int) -> int:
        """How many entries d_ff a key of a layer has."""
        shape = self.down_projections[layer].get_parameter("weight").shape
        return shape[0 if self.is_transposed(layer) else 1]

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Log-probabilities [M, vocabulary] of the token after M final hidden states, in float32.

        Args:
            hidden: residual stream after the last layer, [M, d].
        """
        logits = self.head(self.final_norm(hidden)).float()
        if cap := self.logit_softcap:
            logits = cap * torch.tanh(logits / cap)
        found: Tensor = logits.log_softmax(-1)
        return found

    def is_transposed(self, layer: int) -> bool:
        """Whether the weight is stored as [d_ff, d] (Conv1D) instead of [d, d_ff] (Linear)."""
        return isinstance(self.down_projections[layer], Conv1D)


def read_architecture(model: PreTrainedModel) -> EditableModel:
    """Finds the modules of a model.

    Raises:
        RoSEError: the family is unknown, or the model is one whose weights cannot be edited in
            place (mixture of experts, quantised, split over devices, loaded in inference mode),
            with the reason.
    """
    config = model.config.get_text_config()
    model_type = model.config.model_type
    if reason := _refusal(model, config):
        raise RoSEError(reason)
    if model_type not in ARCHITECTURES:
        raise RoSEError(
            f"The architecture {model_type!r} is not known; known are "
            f"{', '.join(sorted(ARCHITECTURES))}. To add it, give ARCHITECTURES in "
            "rose_easyedit/models/architectures.py a row with the paths of its layers, down "
            "projection and final norm, and add its configuration to "
            "tests/unit/models/test_architectures.py."
        )
    row = ARCHITECTURES[model_type]
    try:
        layers = list(model.get_submodule(row.layers).children())
        down_projections = [layer.get_submodule(row.down_projection) for layer in layers]
        post_norms = [
            None if row.post_norm is None else layer.get_submodule(row.post_norm)
            for layer in layers
        ]
        final_norm = model.get_submodule(row.final_norm)
    except AttributeError as error:
        raise RoSEError(_not_plain(model, str(error))) from error
    head = model.get_output_embeddings()
    if head is None:
        raise RoSEError(_not_plain(model, "it has no language modelling head"))
    return EditableModel(
        model=model,
        layers=layers,
        down_projections=down_projections,
        post_norms=post_norms,
        final_norm=final_norm,
        head=head,
        logit_softcap=getattr(config, "final_logit_softcapping", None),
        paths=row,
    )


def first_tensor(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The hidden states of a layer's output, which some families wrap in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def _not_plain(model: PreTrainedModel, reason: str) -> str:
    return (
        f"{type(model).__name__} is not laid out as a causal language model of type "
        f"{model.config.model_type!r} ({reason}); load it with AutoModelForCausalLM, without "
        "adapters around it."
    )


def _refusal(model: PreTrainedModel, config: object) -> str | None:
    name = type(model).__name__
    experts = [
        key
        for key in ("num_local_experts", "num_experts", "n_routed_experts")
        if (getattr(config, key, None) or 0) > 1
    ]
    if experts:
        return (
            f"{name} is a mixture of experts ({experts[0]} = {getattr(config, experts[0])}): a "
            "subject's value is spread over several down projections, which this method does not "
            "solve for; edit a dense model."
        )
    if getattr(model, "quantization_method", None) or getattr(model, "is_quantized", False):
        return (
            f"{name} has quantised weights, which an update would be rounded away in; edit the "
            "unquantised model and load the edit beside the quantised one as a LoRA adapter "
            "(save_peft_lora)."
        )
    if any(parameter.is_inference() for parameter in model.parameters()):
        return (
            f"{name} was loaded within torch.inference_mode(), so its weights can neither be "
            "edited in place nor take part in gradients; load it outside (edits may run within)."
        )
    devices = sorted(map(str, computing_devices(model)))
    if "meta" in devices:
        return (
            f"{name} has weights that are not loaded, and no hook of Accelerate's brings them in; "
            "load them all, or those that one device does not hold with a device_map."
        )
    if len(devices) > 1:
        return (
            f"{name} computes on {', '.join(devices)}; the layers after z_layer are replayed on "
            "one device, so load the whole model on one, with what it does not hold offloaded to "
            'memory or disk (device_map=..., max_memory={0: "20GiB", "cpu": "200GiB"}).'
        )
    return None
