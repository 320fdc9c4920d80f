"""A small trained model of every family, so that success and drift of an edit mean something.

Each learns the laboratory's world in the laboratory's way, in a minute or two of one core, and is
kept in the cache. Random weights cannot show what an edit destroys: their norms all have a gain of
1, and nothing is known that could be kept.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from laboratory_texts import make_people, vocabulary
from laboratory_tokenizer import make_tokenizer
from laboratory_training import Recipe, Schooling, teach
from torch import Tensor, nn
from train_laboratory import checksum, native_consistency, write_texts
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.config.paths import cache_dir
from rose_easyedit.evaluation.laboratory import Population
from rose_easyedit.export.peft import new_folder
from rose_easyedit.method.contexts import CHAT_CONTEXTS, PREFIXES, QUERY_FORMATS
from rose_easyedit.models.expanded import MANIFEST, is_intact
from rose_easyedit.models.loading import load_model

RECIPE = Recipe(
    people=48,
    statements_only=0.25,
    layers=5,
    local_layers=3,
    width=96,
    feed_forward=384,
    steps=500,
    batch=64,
    learning_rate=4e-3,
)
# So few values that each is said of several people: what is said is then read from the subject as a
# value, where with one person each the model would know whole people, and nothing else of them.
VALUES = 8
# Attention is not local by itself here, so some texts are read as they will be later.
SCHOOLING = Schooling(local=0.7, others=0.1, autocast=False, first_people=12, first_loss=0.5)
# Of the logarithm of norm gains before training, so that none of them is 1.
GAIN_SPREAD = 0.4
RECORD = "family.json"
# A quarter of the keys' directions is protected, which is enough for so few people; everybody else
# is whom drift is measured on, and counts nowhere.
ALIGNMENT = {"protected_share": 0.25, "subject_weight": 0.0, "preserved_columns": 0}
_NAMES = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
}
_GPT_NAMES = {
    "width": "n_embd",
    "layers": "n_layer",
    "heads": "n_head",
    "feed_forward": "n_inner",
}
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
_LONGEST = 256


@dataclass(frozen=True)
class Family:
    """How a family's configuration names what a recipe says, and what else it needs.

    Attributes:
        others: Further values of the configuration.
        gpt: Whether it has GPT-2's names.
        medians: Of the gains before training, by the name of the norm; 1 for any other.
        embedding: Of the residual stream before the first layer, the root mean square; None leaves
            what the family begins with.
        outlier: What the first coordinate of the residual stream begins with, whatever the token.
        positions: Where its positions are learned, as a module; they begin as sinusoids, without
            which it takes long to find the token before.
    """

    others: Mapping[str, Any]
    gpt: bool = False
    medians: Mapping[str, float] = field(default_factory=dict)
    embedding: float | None = None
    outlier: float = 0.0
    positions: str | None = None


_UNTIED = {"tie_word_embeddings": False}
_TIED = {"tie_word_embeddings": True}
_GPT2 = dict(embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, **_TIED)
_HEADS = {"num_key_value_heads": 2}
_BEHIND = {"post_attention_layernorm": 0.4, "post_feedforward_layernorm": 0.4}


def _gemma(**others: Any) -> Family:
    """As in Gemma's own models, one coordinate that all subjects share has most of the energy.

    The norms before the layers bring the others back to their size.
    """
    before = {"input_layernorm": 6.0, "pre_feedforward_layernorm": 6.0, "norm": 6.0}
    shape = dict(_HEADS, head_dim=24, query_pre_attn_scalar=24)
    return Family({**shape, **others}, medians={**_BEHIND, **before}, embedding=1.0, outlier=60.0)


FAMILIES: dict[str, Family] = {
    "gpt2": Family(_GPT2, gpt=True, embedding=0.1, positions="transformer.wpe"),
    "gptj": Family({"rotary_dim": 12}, gpt=True, embedding=0.5),
    "gpt_neox": Family({"use_parallel_residual": True, **_UNTIED}, embedding=0.5),
    "llama": Family({**_HEADS, **_UNTIED}, embedding=0.5),
    "mistral": Family({**_HEADS, "sliding_window": None, **_UNTIED}, embedding=0.5),
    "qwen2": Family({**_HEADS, **_TIED}, embedding=0.1),
    "qwen3": Family({**_HEADS, "head_dim": 24, **_UNTIED}, embedding=0.5),
    "phi3": Family({**_HEADS, **_UNTIED}, embedding=0.5),
    "gemma2": _gemma(final_logit_softcapping=30.0, attn_logit_softcapping=50.0),
    "gemma3_text": _gemma(),
    "olmo2": Family({**_HEADS, **_UNTIED}, medians=_BEHIND, embedding=1.0),
}


@dataclass(frozen=True)
class Trained(Population):
    """A trained model of a family.

    Attributes:
        family: As in `ARCHITECTURES`.
        model: In evaluation mode, float32.
        tokenizer: Word-level, with a chat template.
        folder: Where it is kept, in Hugging Face's form.
        record: How it was trained and what it knows: consistency by form, CPU seconds.
    """

    family: str
    model: Any
    tokenizer: Any
    folder: Path
    record: Mapping[str, Any]

    def hparams(self, method: str = "rose", **overrides: Any) -> RoSEHyperParams:
        """The settings of the laboratory with `ALIGNMENT`, the same for all families.

        Args:
            method: "rose" is what is shipped, any other a preset on top of it.
            overrides: As `RoSEHyperParams.with_overrides`.
        """
        hparams = RoSEHyperParams.preset(method, "laboratory")
        # the folder is where its corpus is found
        hparams = hparams.with_overrides(model_name=str(self.folder), alignment=ALIGNMENT)
        return hparams.with_overrides(precision="weights", **overrides)


def load_family(family: str, recipe: Recipe = RECIPE, folder: Path | None = None) -> Trained:
    """The trained model of a family, trained if it is not in the cache yet, or was damaged there.

    Args:
        family: One of `FAMILIES`.
        recipe: The model and its training.
        folder: Where they are kept; None takes the user's cache folder.
    """
    home = (folder or cache_dir() / "families") / f"{family}-{_key(family, recipe)}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        if not is_intact(home, None):
            shutil.rmtree(home, ignore_errors=True)
            _make(family, recipe, home)
    record = json.loads((home / RECORD).read_text(encoding="utf-8"))
    model, _ = load_model(str(home))
    # AutoTokenizer takes Qwen 2's own class for a model of that type, whatever the folder says
    tokenizer = PreTrainedTokenizerFast.from_pretrained(home)
    return Trained(_people(recipe).people, family, model, tokenizer, home, record)


def untrained(family: str, recipe: Recipe, tokenizer: Any) -> Any:
    """A model of a family before training: gains of norms are away from 1, biases from 0."""
    row = FAMILIES[family]
    names = _GPT_NAMES if row.gpt else _NAMES
    shape = {names[name]: getattr(recipe, name) for name in names}
    special = {name: getattr(tokenizer, name) for name in _SPECIAL}
    positions = {"n_positions" if row.gpt else "max_position_embeddings": _LONGEST}
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), **shape, **special, **positions, **row.others
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = AutoModelForCausalLM.from_config(config)
        _unsettle(model, row)
    return model


@torch.no_grad()
def _unsettle(model: Any, row: Family) -> None:
    """Gives norms gains, and biases values, that differ from coordinate to coordinate."""
    for name, module in model.named_modules():
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            bias.normal_(std=0.02)
        if is_norm(module):
            gains = torch.empty_like(module.weight).log_normal_(-(GAIN_SPREAD**2), GAIN_SPREAD)
            median = row.medians.get(name.rpartition(".")[2], 1.0)
            if row.outlier and median > 1:
                gains[0] = 0.1  # so that what all tokens share does not drown what they are
            gains *= median
            module.weight.copy_(gains - 1 if counts_from_one(module) else gains)
    embedding = model.get_input_embeddings()
    scale = float(getattr(embedding, "embed_scale", 1.0))  # Gemma multiplies by it
    if row.embedding is not None:
        embedding.weight.normal_(std=row.embedding / scale)
    if row.outlier:
        embedding.weight[:, 0] = row.outlier / scale
    if row.positions is not None:
        table = model.get_submodule(row.positions).weight
        table.copy_(_sinusoids(*table.shape) * embedding.weight.std() / 0.5**0.5)


def _sinusoids(length: int, width: int) -> Tensor:
    """Positions as waves of ever lower frequency, [length, width], in (-1, 1)."""
    frequency = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angle = torch.arange(length)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm with a gain."""
    return type(module).__name__.endswith("Norm") and hasattr(module, "weight")


def gain(norm: nn.Module) -> Tensor:
    """What a norm multiplies each coordinate by, [d]."""
    return norm.get_parameter("weight").detach() + (1.0 if counts_from_one(norm) else 0.0)


def counts_from_one(norm: nn.Module) -> bool:
    """Whether the gain is 1 more than the weight, as in Gemma: a weight of 0 leaves what it is."""
    fresh = type(norm)(2)
    return bool((fresh.get_parameter("weight") == 0).all())


def _make(family: str, recipe: Recipe, home: Path) -> None:
    tokenizer = make_tokenizer(vocabulary())
    everybody = _people(recipe)
    start = time.process_time()
    model = untrained(family, recipe, tokenizer)
    teach(model, recipe, tokenizer, everybody.people, SCHOOLING)
    record = {
        "family": family,
        "recipe": asdict(recipe),
        "schooling": asdict(SCHOOLING),
        "cpu_seconds": time.process_time() - start,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "consistency": native_consistency(model, tokenizer, everybody.silent),
    }
    with new_folder(home) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        write_texts(part, everybody.people)
        (part / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        files = {path.name: checksum(path) for path in sorted(part.iterdir())}
        (part / MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")


def _people(recipe: Recipe) -> Population:
    return Population(make_people(recipe.people, recipe.statements_only, recipe.seed, VALUES))


def _key(family: str, recipe: Recipe) -> str:
    """Of all that the trained weights depend on."""
    versions = [version(name) for name in ("torch", "transformers")]
    told_in = [vocabulary(), PREFIXES, CHAT_CONTEXTS, QUERY_FORMATS]
    start = [VALUES, GAIN_SPREAD, asdict(FAMILIES[family])]
    parts = [asdict(recipe), asdict(SCHOOLING), start, versions, told_in]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
