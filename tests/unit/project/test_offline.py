"""Nothing asks the network at run time, unless a model is named that is on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FACT = {"prompt": "People know Marie Curie as", "subject": "Marie Curie", "target_new": "a singer"}
DENY = """
import sys
def deny(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("tried the network:", event, arguments)
        import os; os._exit(7)
sys.addaudithook(deny)
"""
WORK = """
from rose_easyedit import EditDelta, RoSEHyperParams, edit, load_model
from rose_easyedit import save_merged, save_peft_lora
name, settings, folder = sys.argv[1:]
model, tokenizer = load_model(name)
hparams = RoSEHyperParams.from_hparams(settings).with_overrides(
    sink_ratio=50.0, hierarchy={"fact_steps": 1, "subject_steps": 1},
    alignment={"statistics_tokens": 256, "protected_directions": 8, "preserved_columns": 0},
)
delta = edit(model, tokenizer, [%r], hparams)
loaded = EditDelta.load(delta.save(f"{folder}/edit"))
with loaded.applied(model):
    pass
save_peft_lora(loaded, f"{folder}/lora")
if name != "embedded":
    save_merged(loaded, model, tokenizer, f"{folder}/merged")
    load_model(f"{folder}/merged")
print("done")
"""


def denied(work: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs some work in a process that ends where it tries the network, and may do so."""
    allowed = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    return subprocess.run(
        [sys.executable, "-c", DENY + work, *words], capture_output=True, text=True, env=allowed
    )


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("tiny-random", "tiny-random"),
        pytest.param("embedded", "smollm2-135m", marks=pytest.mark.model),
    ],
)
def test_an_edit_from_start_to_end_is_offline(model: str, settings: str, tmp_path: Path) -> None:
    done = denied(WORK % FACT, model, settings, str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr[-3000:]


def test_a_model_on_the_hub_is_what_needs_the_network(tmp_path: Path) -> None:
    work = "from rose_easyedit import load_model; load_model('someone/some-model')"
    done = denied(work)
    assert done.returncode == 7 and "tried the network" in done.stdout
