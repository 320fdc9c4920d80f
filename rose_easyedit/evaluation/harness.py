"""EleutherAI's lm-evaluation-harness on a model before and after an edit (an optional extra)."""

from __future__ import annotations

import copy
import importlib.util
import random
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rose_easyedit.errors import RoSEError
from rose_easyedit.forward.generation import filler, inference
from rose_easyedit.restoring import restoring

if TYPE_CHECKING:
    from rose_easyedit.edits.delta import EditDelta

INSTALL = 'pip install "rose-easyedit[lm-eval]"'

# Task to metric to score.
Scores = dict[str, dict[str, float]]


def require_harness() -> None:
    """Raises a RoSEError that says how to install the harness where it is missing."""
    if importlib.util.find_spec("lm_eval") is None:
        raise RoSEError(f"lm-evaluation-harness is not installed: run `{INSTALL}`.")


def run_harness(
    model: Any,
    tokenizer: Any,
    delta: EditDelta,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 8,
    task_folder: Path | None = None,
) -> dict[str, Any]:
    """Scores the unedited and the edited model on tasks of the harness.

    Its few-shot numbers and prompts are those of the tasks; no chat template is applied. Random
    states, training mode and tokenizer are as before when this returns.

    Args:
        model: The unedited model, and unedited again afterwards.
        tokenizer: Its tokenizer.
        delta: The edit.
        tasks: Names of tasks or groups, such as "piqa". Most of them load a data set by network.
        limit: Examples per task; None takes all. Only for a first look.
        batch_size: Rows that are computed at once.
        task_folder: A folder with tasks of one's own, in the harness's YAML; they replace its own.

    Returns:
        "settings", and "before" and "after": task to metric to score.

    Raises:
        RoSEError: If the harness is not installed or has no such task.
    """
    require_harness()
    from lm_eval.tasks import TaskManager

    own = None if task_folder is None else str(task_folder)
    manager = TaskManager(include_path=own, include_defaults=own is None)
    if unknown := sorted(set(tasks) - set(manager.all_tasks)):
        raise RoSEError(
            f"lm-evaluation-harness has no task {', '.join(map(repr, unknown))}; "
            "`lm-eval ls tasks` lists its tasks."
        )
    run = dict(tasks=list(tasks), limit=limit, batch_size=batch_size, task_manager=manager)
    with _random_states_kept():
        before = _scores(model, tokenizer, run)
        with delta.applied(model):
            after = _scores(model, tokenizer, run)
    settings = {"lm_eval": version("lm_eval"), "limit": limit, "chat_template": False}
    return {"settings": settings, "before": before, "after": after}


def _scores(model: Any, tokenizer: Any, run: dict[str, Any]) -> Scores:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    with inference(model, None):
        # It sets padding of the tokenizer that it is given, and puts it to the model.
        own = copy.deepcopy(tokenizer)
        own.pad_token = own.convert_ids_to_tokens(filler(model, own))
        evaluated = HFLM(pretrained=model, tokenizer=own, batch_size=run["batch_size"])
        results = simple_evaluate(model=evaluated, log_samples=False, **run)
    return {
        task: {
            metric.removesuffix(",none"): float(score)
            for metric, score in metrics.items()
            if isinstance(score, int | float) and "," in metric
        }
        for task, metrics in results["results"].items()
    }


@restoring
def _random_states_kept() -> Iterator[None]:
    """The harness seeds Python, NumPy and PyTorch; their states are put back."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
