"""Training of the laboratory's model: a few minutes of two cores, the same weights for a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from rose_easyedit.evaluation.laboratory.tokenizer import ASSISTANT, BEGIN, END, USER
from rose_easyedit.evaluation.laboratory.world import Person, Turn, relations, tell
from rose_easyedit.method.batches import pad_right


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


def train(recipe: Recipe, tokenizer: Any, people: Sequence[Person]) -> Any:
    """A model that knows these people.

    Args:
        recipe: The model and its training.
        tokenizer: Of the world.
        people: Whom the texts are about.
    """
    model = new_model(recipe, tokenizer)
    # With masks of our own, twice as fast on a CPU as the fused attention.
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
    model.train()
    for _ in tqdm(range(recipe.steps), desc="laboratory", unit="step", leave=False, disable=None):
        optimiser.zero_grad()
        parts = list(_texts(recipe, tokenizer, people, dice))
        n_predicted = sum(int(mask[:, 1:].sum()) for _, mask in parts)
        for ids, mask in parts:
            unseen = torch.isin(ids, hidden)
            drawn = torch.rand(len(ids), 1, generator=chance, dtype=torch.float32, device="cpu")
            unseen &= drawn < recipe.hidden_names
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(
                    input_ids=ids, attention_mask=_masks(mask, unseen), use_cache=False
                ).logits
            wanted = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
            loss = cross_entropy(
                logits[:, :-1].float().flatten(0, 1), wanted.flatten(), reduction="sum"
            )
            (loss / n_predicted).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.set_attn_implementation("sdpa")
    return model.eval()


def render(turn: Turn) -> str:
    """A training text as the model reads it, chat template included."""
    if turn.user is None:
        return f"{BEGIN} {turn.text} {END}"
    return f"{BEGIN} {USER} {turn.user} {END} {ASSISTANT} {turn.text} {END}"


def _texts(
    recipe: Recipe, tokenizer: Any, people: Sequence[Person], dice: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """The texts of a step in four parts of like length: ids and mask, [batch / 4, T] each."""
    told = [
        render(tell(dice.choice(people), dice.choice(relations()), dice))
        for _ in range(recipe.batch)
    ]
    rows = sorted(tokenizer(told, add_special_tokens=False)["input_ids"], key=len)
    size = -(-recipe.batch // 4)
    for start in range(0, recipe.batch, size):
        yield pad_right(rows[start : start + size], torch.device("cpu"))


def _masks(mask: Tensor, unseen: Tensor) -> dict[str, Tensor]:
    """What is added to the attention scores, [B, 1, T, T], in local layers and in the others.

    Args:
        mask: 1 at real tokens, [B, T].
        unseen: tokens that the later layers cannot see, [B, T].
    """
    place = torch.arange(mask.shape[1], device=mask.device)
    back = place[:, None] - place[None, :]  # how far the seen token is behind
    real = mask.bool()[:, None, None, :]
    itself = back == 0
    seen = {
        "sliding_attention": ((back >= 0) & (back < 2) & real) | itself,
        "full_attention": ((back >= 0) & real & ~unseen[:, None, None, :]) | itself,
    }
    hidden = torch.tensor(-1e9, dtype=torch.float32, device=mask.device)
    nothing = torch.zeros_like(hidden)
    return {kind: torch.where(which, nothing, hidden) for kind, which in seen.items()}
