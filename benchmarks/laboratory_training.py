"""Training of the laboratory's model: a few minutes of two cores, the same weights for a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from laboratory_texts import render, tell
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from rose_easyedit.evaluation.laboratory.world import Person, relations
from rose_easyedit.forward.batches import pad_right
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.models.precision import has_bfloat16

_LEAST_ROWS = 32  # of a part: fewer cost more in calls than they save in padding


@dataclass(frozen=True)
class Recipe:
    """What the laboratory's model is and how it is trained.

    Attributes:
        people: How many people it learns about, eight facts of each.
        statements_only: Share of the people whom no question, instruction or paraphrase is about.
        layers: Decoder layers.
        local_layers: The first layers, where a token sees itself and the one before it only.
        width: Of the residual stream.
        heads: Attention heads.
        feed_forward: Width of the keys.
        steps: Of the optimiser.
        batch: Texts a step.
        learning_rate: At its height, a tenth of the way.
        hidden_names: Share of the texts whose first names the later layers cannot see.
        seed: Of people, texts and weights.
    """

    people: int = 120
    statements_only: float = 0.4
    layers: int = 6
    local_layers: int = 4
    width: int = 128
    heads: int = 4
    feed_forward: int = 512
    steps: int = 1200
    batch: int = 256
    learning_rate: float = 2e-3
    hidden_names: float = 0.5
    seed: int = 0


def new_model(recipe: Recipe, tokenizer: Any) -> Any:
    """The model before training."""
    from transformers import AutoModelForCausalLM, Qwen3Config

    n_global = recipe.layers - recipe.local_layers
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        head_dim=recipe.width // recipe.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        use_sliding_window=True,
        sliding_window=2,
        layer_types=["sliding_attention"] * recipe.local_layers + ["full_attention"] * n_global,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # in this type and place, whatever the defaults of the process are
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


@dataclass(frozen=True)
class Schooling:
    """How a model is taught, beside the recipe; the values here are the laboratory's.

    Attributes:
        local: Share of the texts whose early attention is local and whose first names may be
            hidden. 1 is for a model whose early layers are local by themselves; any other has to
            read some texts as it will read them later.
        others: Weight of the tokens that are no value, relative to the value's own.
        autocast: Whether matrix products are in bfloat16, where the CPU computes in it.
        first_people: How many people it hears of first, all of them spoken of; 0 for all. It takes
            far fewer steps to learn how a few are asked about, and then of the others.
        first_loss: It hears of the others once a step's mean loss of values (nats) is below this.
    """

    local: float = 1.0
    others: float = 1.0
    autocast: bool = True
    first_people: int = 0
    first_loss: float = 0.3


def train(recipe: Recipe, tokenizer: Any, people: Sequence[Person]) -> Any:
    """The laboratory's model, which knows these people.

    Args:
        recipe: The model and its training.
        tokenizer: Of the world.
        people: Whom the texts are about.
    """
    return teach(new_model(recipe, tokenizer), recipe, tokenizer, people, Schooling())


def teach(
    model: Any, recipe: Recipe, tokenizer: Any, people: Sequence[Person], schooling: Schooling
) -> Any:
    """Trains a causal language model of any family in `ARCHITECTURES`, in place.

    Args:
        model: The untrained model.
        recipe: Its training; what the model itself is, is not read, but for `local_layers`.
        tokenizer: Of the world.
        people: Whom the texts are about.
        schooling: How they are read.

    Returns:
        The same model, in evaluation mode.
    """
    # With masks of our own, twice as fast on a CPU as the fused attention.
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    first_names = {person.name.split()[0] for person in people}
    names = sorted(tokenizer.convert_tokens_to_ids(list(first_names)))
    hidden = torch.tensor(names, device="cpu")
    dice = random.Random(recipe.seed)
    chance = torch.Generator().manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.1
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
    )
    in_bfloat16 = schooling.autocast and has_bfloat16(torch.device("cpu"))
    model.train()
    known = people[-schooling.first_people :]  # those spoken of come last
    steps = range(recipe.steps)
    for _ in tqdm(steps, desc="laboratory", unit="step", leave=False, disable=None):
        optimiser.zero_grad()
        parts = list(_texts(recipe, tokenizer, known, dice))
        n_predicted = sum(int(mask[:, 1:].sum()) for _, mask in parts)
        total = schooling.others * n_predicted + (1 - schooling.others) * recipe.batch
        surprise = 0.0  # at the values, over the step
        for ids, mask in parts:
            unseen = torch.isin(ids, hidden)
            unseen &= _chance(len(ids), chance) < recipe.hidden_names
            local = torch.ones(len(ids), 1, dtype=torch.bool, device="cpu")
            if schooling.local < 1:
                local = _chance(len(ids), chance) < schooling.local
            seen = _masks(mask, unseen & local, local)
            with (
                _attention(model, recipe.local_layers, seen),
                torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16),
            ):
                logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            wanted = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
            loss = schooling.others * _loss(logits, wanted)
            if schooling.others < 1:
                said = _loss(logits, _values(wanted, mask))
                surprise += float(said.detach()) / recipe.batch
                loss += (1 - schooling.others) * said
            (loss / total).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if surprise < schooling.first_loss:
            known = people
    model.set_attn_implementation(usual)
    return model.eval()


def _texts(
    recipe: Recipe, tokenizer: Any, people: Sequence[Person], dice: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """The texts of a step in four parts of like length, or fewer: ids and mask, [B, T] each."""
    told = [
        render(tell(dice.choice(people), dice.choice(relations()), dice))
        for _ in range(recipe.batch)
    ]
    rows = sorted(tokenizer(told, add_special_tokens=False)["input_ids"], key=len)
    size = max(-(-recipe.batch // 4), _LEAST_ROWS)
    for start in range(0, recipe.batch, size):
        yield pad_right(rows[start : start + size], torch.device("cpu"))


def _loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Summed cross-entropy of the tokens that are wanted behind each, [B, T - 1]; -100 is none."""
    return cross_entropy(logits[:, :-1].float().flatten(0, 1), wanted.flatten(), reduction="sum")


def _values(wanted: Tensor, mask: Tensor) -> Tensor:
    """Of the wanted tokens [B, T - 1] each text's value, which a full stop and the end follow."""
    place = torch.arange(wanted.shape[1], device=wanted.device)
    return wanted.masked_fill(place != mask.sum(1, keepdim=True) - 4, -100)


@contextmanager
def _attention(model: Any, n_local: int, seen: Mapping[str, Tensor]) -> Iterator[None]:
    """Gives each decoder layer a mask of ours in place of the one that its model makes.

    Args:
        model: Of any family; how its layers are handed their mask is read from their signature.
        n_local: How many of the first layers get the local mask.
        seen: From `_masks`.
    """

    def replaced(layer: Any, args: Any, kwargs: Any, kind: str) -> Any:
        bound = signature(layer.forward).bind(*args, **kwargs)
        bound.arguments["attention_mask"] = seen[kind]
        return bound.args, bound.kwargs

    with ExitStack() as stack:
        for index, layer in enumerate(read_architecture(model).layers):
            kind = "sliding_attention" if index < n_local else "full_attention"
            hook = partial(replaced, kind=kind)
            stack.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _chance(rows: int, generator: torch.Generator) -> Tensor:
    """A number from 0 to 1 for each row, [B, 1]."""
    return torch.rand(rows, 1, generator=generator, dtype=torch.float32, device="cpu")


def _masks(mask: Tensor, unseen: Tensor, local: Tensor | None = None) -> dict[str, Tensor]:
    """What is added to the attention scores, [B, 1, T, T], in local layers and in the others.

    Args:
        mask: 1 at real tokens, [B, T].
        unseen: tokens that the later layers cannot see, [B, T].
        local: the rows whose local layers are local, [B, 1]; None for all.
    """
    place = torch.arange(mask.shape[1], device=mask.device)
    back = place[:, None] - place[None, :]  # how far the seen token is behind
    real = mask.bool()[:, None, None, :]
    itself = back == 0
    near = back < 2 if local is None else (back < 2) | ~local[:, :, None, None]
    seen = {
        "sliding_attention": ((back >= 0) & near & real) | itself,
        "full_attention": ((back >= 0) & real & ~unseen[:, None, None, :]) | itself,
    }
    hidden = torch.tensor(-1e9, dtype=torch.float32, device=mask.device)
    nothing = torch.zeros_like(hidden)
    return {kind: torch.where(which, nothing, hidden) for kind, which in seen.items()}
