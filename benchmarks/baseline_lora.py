"""A plain LoRA adapter (PEFT), trained on the statements for a given CPU time and then merged."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional

from rose_easyedit.forward.next_tokens import last_logits
from rose_easyedit.forward.shared_prefix import families, price_of_a_pass
from rose_easyedit.models.precision import precision_context
from rose_easyedit.text.locate_subject import TokenQuery

RANK = 8
ALPHA = 16
BATCH = 8
KEPT_TOKENS = 32


def train_lora(
    model: Any,
    queries: Sequence[TokenQuery],
    *,
    learning_rate: float,
    seconds: float,
    kept: Sequence[Sequence[int]] = (),
    kl_weight: float = 0.0,
    seed: int = 0,
) -> Any:
    """Trains an adapter of all linear layers with AdamW until its time is up, and merges it.

    The loss is the mean over the targets' tokens; the learning rate falls to 0 with the time left.
    Products are in bfloat16 where the hardware computes in it, as in an edit.

    Args:
        model: in evaluation mode; changed in place.
        queries: statements in their forms, each with its target behind it.
        learning_rate: of the first step.
        seconds: of CPU time; the step that passes it is the last.
        kept: token ids of generic texts, of which each step takes two, cut off at `KEPT_TOKENS`.
        kl_weight: of KL(before || after) at the tokens of these texts.
        seed: of the adapter and of the order of the statements.

    Returns:
        The model with the adapter in its weights.
    """
    began = time.process_time()
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=learning_rate)
    autocast = precision_context("auto", model)
    generator = random.Random(seed)
    for batch in shuffled_batches(queries, generator):
        left = 1 - (time.process_time() - began) / seconds
        if left <= 0:
            break
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * left
        with torch.enable_grad(), autocast():
            loss = target_loss(model, batch)
            if kl_weight:
                rows = [text[:KEPT_TOKENS] for text in generator.sample(list(kept), 2)]
                loss = loss + kl_weight * kept_loss(adapted, rows)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return adapted.merge_and_unload()


def target_loss(model: Any, queries: Sequence[TokenQuery]) -> Tensor:
    """Mean cross-entropy of the targets' tokens of a batch."""
    logits = last_logits(model, [query.ids for query in queries], [q.n_target + 1 for q in queries])
    read = torch.cat([row[-q.n_target - 1 : -1] for row, q in zip(logits, queries, strict=True)])
    wanted = [token for query in queries for token in query.ids[-query.n_target :]]
    return functional.cross_entropy(read, torch.tensor(wanted, device=read.device))


def kept_loss(adapted: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """Mean KL(before || after) of the next token over the tokens of some texts."""
    model = adapted.get_base_model()
    loss = torch.zeros((), device=model.device)
    for row in rows:
        ids = torch.tensor([list(row)], device=model.device)
        with torch.no_grad(), adapted.disable_adapter():
            before = model(ids, use_cache=False).logits.float().log_softmax(-1)
        after = model(ids, use_cache=False).logits.float().log_softmax(-1)
        loss = loss + (before.exp() * (before - after)).sum(-1).mean() / len(rows)
    return loss


def shuffled_batches(
    queries: Sequence[TokenQuery], generator: random.Random
) -> Iterator[Sequence[TokenQuery]]:
    """Batches without end, each round over all queries in a new order.

    Queries that open alike (a chat's system prompt) share batches, where it is read once.
    """
    rows = [query.ids for query in queries]
    alike = families(rows, price_of_a_pass(torch.device("cpu")))
    while True:
        batches = []
        for family in alike:
            family = generator.sample(family, len(family))
            batches += [family[start : start + BATCH] for start in range(0, len(family), BATCH)]
        generator.shuffle(batches)
        for batch in batches:
            yield [queries[index] for index in batch]
