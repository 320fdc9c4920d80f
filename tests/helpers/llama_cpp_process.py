"""llama.cpp beside a model of transformers: its answers, and how far they are from the model's."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch


def needs_llama_cpp() -> None:
    """Skips the test where llama.cpp is not installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama_cpp is not installed: `pip install llama-cpp-python` compiles it")


def llama_cpp_answers(
    model: Path, adapter: Path | None, sequences: list[list[int]]
) -> list[dict[str, Any]]:
    """llama.cpp's answers on a quantised file, with an adapter or without."""
    script = Path(__file__).with_name("llama_cpp_answers.py")
    command = [sys.executable, str(script), str(model), str(adapter or ""), json.dumps(sequences)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    return json.loads(found.stdout)


def divergence(model: Any, ids: list[int], answer: dict[str, Any]) -> float:
    """KL(ours || llama.cpp's) of the next token, in nats."""
    with torch.no_grad():
        ours = model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
    theirs = torch.tensor(answer["logprobs"], dtype=torch.float64)
    return float((ours.exp() * (ours - theirs)).sum())
