"""The settings of an edit: schema, defaults, checks, and the named presets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rose_easyedit.config.checks import setting_faults, unfit
from rose_easyedit.config.paths import conf_dir, hparams_dir
from rose_easyedit.config.rules import is_series, setting
from rose_easyedit.config.typed import UNUSABLE, key_faults, typed
from rose_easyedit.config.yaml_files import find_yaml, read_yaml
from rose_easyedit.errors import RoSEError, shown

logger = logging.getLogger(__name__)

# What stands for layers that are to be found.
AUTO = "auto"
INTEGRATIONS = ("hierarchical", "joint", "independent")
CONSTRAINTS = ("protected", "identity", "shrinkage", "covariance", "null_space")
KEY_COLUMNS = ("per_query", "merged")
PRECISIONS = ("auto", "bfloat16", "weights")
# Settings that are compared with each other, beside the layers.
_COMPARED = frozenset({"z_layer", "model_parallel", "contexts"})


@dataclass
class HierarchyHyperParams:
    """Stage 1, Hierarchical Knowledge Integration: the value that each subject shall have.

    Attributes:
        integration: `hierarchical` (a delta per fact, then one per subject from their mean),
            `joint` (one per subject, from zero: MEMIT-Merge), `independent` (one per fact: MEMIT).
        fact_steps: optimisation steps of a fact-level delta at the most.
        subject_steps: optimisation steps of a subject-level delta at the most.
        fact_learning_rate: Adam's step for fact-level deltas. This and the two below are in units
            of what tells one subject from another in the model (`method/stage1/units.py`): the
            spread of the hidden state over the built-in subjects, that of each coordinate behind a
            norm.
        subject_learning_rate: the same for subject-level deltas.
        loss_threshold: a fact has converged when its mean negative log-likelihood per target
            token (nats) is below this.
        lone_fact_share: of the rates and of the threshold, for a subject with one fact: more steps,
            each smaller, change less of its rest (1: as the others; `independent` has 1).
        kl_factor: weight of the mean drift of what is kept of a subject (`kept_queries`).
        weight_decay: weight of |delta| / |h|**2, as MEMIT has it.
        clamp_norm: longest delta, root mean square of its coordinates in that unit.
        context_batches: the contexts of a fact are taken in this many turns, one turn a step; a
            step costs so many times less (1: all contexts at every step).
        smoothing_radius: largest random displacement of the subject-level delta during its
            optimisation, root mean square in that unit (0 turns randomised smoothing off).
        on_failure: what becomes of a fact whose loss is not finite: `refuse` the batch, or
            `leave_out` that fact, which the edit's log then names, and write the others.
    """

    integration: str = setting("hierarchical", words=INTEGRATIONS)
    fact_steps: int = setting(15, above=0)
    subject_steps: int = setting(75, above=0)
    fact_learning_rate: float = setting(0.18, above=0)
    subject_learning_rate: float = setting(0.18, above=0)
    loss_threshold: float = setting(0.05, least=0)
    lone_fact_share: float = setting(0.5, above=0, most=1)
    kl_factor: float = setting(0.7, least=0)
    weight_decay: float = setting(0.5, least=0)
    clamp_norm: float = setting(8.0, above=0)
    context_batches: int = setting(5, above=0)
    smoothing_radius: float = setting(0.6, least=0)
    on_failure: str = setting("refuse", words=("refuse", "leave_out"))


@dataclass
class AlignmentHyperParams:
    """Stage 2, Isotropic Geometric Alignment: which directions of the keys an update may use.

    Attributes:
        constraint: `protected` (the identity, and the directions that generic keys use most left
            untouched: what is recommended), `identity` (the paper's), `shrinkage` (between
            covariance and identity), `covariance` (MEMIT), `null_space` (AlphaEdit).
        strength: weight of the identity constraint (protected, identity, null_space), relative to
            the mean squared norm of the key columns, preserved ones too, in the directions left
            free.
        protected_share: with `protected`, the share of the directions of the keys, those that
            generic keys use most, that the update must not touch.
        protected_directions: their number, in place of the share; null takes the share.
        covariance_weight: weight of the second moment (covariance, shrinkage), in MEMIT's units
            (`mom2_update_weight`).
        shrinkage: gamma of `shrinkage`: 0 is the covariance, 1 a multiple of the identity.
        null_space_threshold: with `null_space`, eigenvalues above this are kept untouched.
        statistics_text: text file with generic text, as it is or in the model's folder; null takes
            the built-in sentences.
        statistics_tokens: how many tokens of that text to use at the most.
        statistics_subjects: text file with a subject a line, found likewise, in place of the
            built-in ones; every sixth of them is held out, to measure drift on.
        subject_weight: weight of the keys of the built-in subjects, at their last tokens in
            statements and chat queries, beside all tokens of the text (MEMIT has 0).
        preserved_columns: how many prompts of the edit with a built-in subject in place of its own
            become columns too, whose hidden states shall stay (MEMIT has none); no more than two
            thirds of the entries of a key.
        locality_budget: how far the next token may drift at the most (KL, nats) on prompts of the
            edit with subjects that it was told nothing of; the edit is scaled to it. null writes
            all of it.
    """

    constraint: str = setting("protected", words=CONSTRAINTS)
    strength: float = setting(0.5, above=0)
    protected_share: float = setting(0.16667, least=0, below=1)
    protected_directions: int | None = setting(None, least=0)
    covariance_weight: float = setting(15000.0, above=0)
    shrinkage: float = setting(0.3, least=0, most=1)
    null_space_threshold: float = setting(0.02, least=0)
    statistics_text: str | None = None
    statistics_tokens: int = setting(8192, above=0)
    statistics_subjects: str | None = None
    subject_weight: float = setting(1.0, least=0)
    preserved_columns: int = setting(1000, least=0)
    locality_budget: float | None = setting(None, above=0)

    @property
    def needs_statistics(self) -> bool:
        """Whether the constraint depends on generic text at all."""
        if self.constraint != "protected":
            return self.constraint != "identity"
        number = self.protected_directions
        return self.protected_share > 0 if number is None else number > 0

    def protected(self, width: int) -> int:
        """How many directions of keys with so many entries the constraint leaves untouched."""
        if self.constraint != "protected":
            return 0
        if self.protected_directions is not None:
            return self.protected_directions
        return round(self.protected_share * width)


@dataclass
class SelfCheckHyperParams:
    """What an edit may look like before it is called damaged; none of it changes the edit.

    Attributes:
        most_loss: of a fact, when it has been learned and once it is written (-log P of a target
            token, nats).
        least_reached: share of its way to the target that a subject's hidden state shall go at the
            least; it may go as much too far.
        most_drift: of what follows generic texts (KL, nats).
        most_neighbour_drift: of what follows the edit's own prompts with other subjects in them.
        must_answer: whether a fact is written only if its target is what the model goes on with.
    """

    most_loss: float = setting(1.0, least=0)
    least_reached: float = setting(0.5, most=1)
    most_drift: float = setting(0.3, least=0)
    most_neighbour_drift: float = setting(0.5, least=0)
    must_answer: bool = True


@dataclass
class RoSEHyperParams:
    """All settings of an edit. The first block is what EasyEdit asks of any method.

    Attributes:
        alg_name: always "RoSE".
        model_name: "embedded", "gemma-3-270m", a folder, a GGUF file, or a name on the hub.
        measured: whether these settings were measured on that model; if not, it is said when they
            are read from their file.
        device: where the model runs: "cpu", "cuda:0", or a CUDA index.
        model_parallel: refused when true; the replay of the later layers needs one device.
        fp16: load the weights in half precision when EasyEdit loads the model.
        batch_size: facts that `BaseEditor.batch_edit` writes at once; facts about one subject
            must share a batch to be integrated.
        max_length: EasyEdit's evaluation truncates prompts to this many tokens.
        layers: the edited layers, in ascending order, or "auto": where causal tracing finds that
            this model reads its subjects (once per model, kept in the cache).
        z_layer: layer where the target hidden state is set; null means the last edited layer.
        n_contexts: prefixes, 8 at the most, under which each statement is learned; the first is
            the bare one.
        contexts: own prefixes instead of the built-in ones, "" for the bare statement.
        chat_contexts: how many of the 4 chat contexts (the statement inside a chat turn) are
            learned as well, for tokenizers with a chat template.
        answered_queries: in how many more chat contexts, 2 at the most, a statement answers a query
            of its subject ("Tell me about {}."), which is then named, and moved by the edit, in
            both turns.
        restatements: in how many more chat contexts, 4 at the most, a user's turn holds the
            statement as a gap ("{} what?") and the answer is the whole sentence, which is learned
            from its first word on, the subject's name with it.
        key_columns: `per_query` (each prompt in each context is a column of its own) or
            `merged` (one averaged column per target: MEMIT, MEMIT-Merge).
        query_formats: how many of 6 relation-agnostic chat queries of the subject ("Tell me about
            {}") become columns too, for tokenizers with a chat template.
        kept_queries: how many of 5 beginnings of a sentence about the subject ("{} is known for")
            and, for tokenizers with a chat template, of 5 questions for it in general keep their
            answers, beside the essence prompt "It is well known that {subject} is a".
        kept_tokens: how many tokens of the unedited model's own answers to them are kept; they end
            before what a fact replaces.
        template_arguments: what the tokenizer's chat template is told beside the messages, by name;
            `enable_thinking` is false where the template knows it, unless it is given here.
        sink_ratio: a subject token whose hidden norm exceeds this many times the median of generic
            text is an attention sink; its context is left out.
        precision: in which the model runs for an edit: `auto` is bfloat16 autocast where the
            hardware has it, `bfloat16` always, `weights` the weights' own precision. Updates are
            solved in float64 whatever it is.
        micro_batch: sequences optimised at once; bounds the memory, and is halved where that does
            not hold them.
        seed: of every random choice.
        tracking: of edits through EasyEdit: `auto` logs them to the W&B run that is open
            (`wandb.run`), if there is one, `none` never. The edit does not depend on it.
        on_damage: what becomes of an edit that its own check finds damaged: `warn` and hand it
            out, or `refuse` it.
        hierarchy: stage 1.
        alignment: stage 2.
        self_check: from where on an edit is called damaged.
    """

    alg_name: str = setting("RoSE", words=("RoSE",))
    model_name: str = "embedded"
    measured: bool = True
    device: Any = "cpu"
    model_parallel: bool = False
    fp16: bool = False
    batch_size: int = setting(1000, above=0)
    max_length: int = setting(256, above=0)

    layers: Any = AUTO
    z_layer: int | None = None
    n_contexts: int = setting(3, above=0, most=8)
    contexts: list[str] | None = None
    chat_contexts: int = setting(0, least=0, most=4)
    answered_queries: int = setting(0, least=0, most=2)
    restatements: int = setting(2, least=0, most=4)
    key_columns: str = setting("per_query", words=KEY_COLUMNS)
    query_formats: int = setting(4, least=0, most=6)
    kept_queries: int = setting(3, least=0, most=5)
    kept_tokens: int = setting(8, above=0)
    template_arguments: dict[str, Any] = field(default_factory=dict)
    sink_ratio: float = setting(3.0, above=1)
    precision: str = setting("auto", words=PRECISIONS)
    micro_batch: int = setting(64, above=0)
    seed: int = setting(0, least=0)
    tracking: str = setting("auto", words=("auto", "none"))
    on_damage: str = setting("warn", words=("warn", "refuse"))
    hierarchy: HierarchyHyperParams = field(default_factory=HierarchyHyperParams)
    alignment: AlignmentHyperParams = field(default_factory=AlignmentHyperParams)
    self_check: SelfCheckHyperParams = field(default_factory=SelfCheckHyperParams)

    def __post_init__(self) -> None:
        groups = {name: getattr(self, name) for name in _GROUPS}
        if faults := key_faults(groups, RoSEHyperParams, _GROUPS):
            raise RoSEError.of(UNUSABLE, faults)
        for name, group in groups.items():
            if isinstance(group, Mapping):
                setattr(self, name, _GROUPS[name](**group))
        for name in ("layers", "contexts"):
            if is_series(value := getattr(self, name)):
                setattr(self, name, list(value))
        self.check()

    @property
    def target_layer(self) -> int:
        """The layer where the target hidden state is set; the layers are named."""
        return self.layers[-1] if self.z_layer is None else self.z_layer

    def check(self) -> None:
        """Checks values and their combinations.

        Raises:
            RoSEError: with every fault, its value and what would do.
        """
        if faults := _faults(self):
            raise RoSEError.of(UNUSABLE, faults)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain nested data, as `from_dict` reads it.

        A (model, tokenizer) pair, which EasyEdit takes for a name, is recorded by the model's name.
        """
        named: Any = self.model_name
        if not isinstance(named, str):
            named = named[0].name_or_path
        return asdict(replace(self, model_name=named))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RoSEHyperParams:
        """Builds settings from nested data, with types checked.

        Raises:
            RoSEError: an unknown key (with the nearest known one), a wrong type, a wrong value.
        """
        return _typed(values)

    @classmethod
    def from_hparams(cls, hparams_name_or_path: str | Path) -> RoSEHyperParams:
        """Reads a YAML file, or one of the shipped ones by its bare name ("smollm2-135m").

        Raises:
            RoSEError: no such file (with the names that exist), or faulty settings.
        """
        path = find_yaml(hparams_name_or_path, hparams_dir() / "RoSE", "settings")
        hparams = _typed(read_yaml(path))
        if not hparams.measured:
            logger.warning(
                "%s: these settings were not measured on %s; look at what the edit says of itself, "
                "and try `rose-edit locate` or `layers: auto`",
                path.name,
                hparams.model_name,
            )
        return hparams

    @classmethod
    def preset(cls, name: str, base: str | Path = "smollm2-135m") -> RoSEHyperParams:
        """A named method on top of a model's settings.

        Args:
            name: "rose", "rose-paper", "memit-merge", "memit" or "alphaedit".
            base: a settings file or the bare name of a shipped one.

        Raises:
            RoSEError: no such preset or base, or faulty settings.
        """
        return cls.from_hparams(base).with_preset(name)

    def with_preset(self, name: str) -> RoSEHyperParams:
        """A copy of these settings with the preset's values in place."""
        path = find_yaml(name, conf_dir() / "method", "preset")
        return _typed(self.as_dict(), read_yaml(path))

    def with_overrides(self, **values: Any) -> RoSEHyperParams:
        """A copy with some values replaced; groups are given as mappings and merged."""
        return _typed(self.as_dict(), values)


_GROUPS: dict[str, type[Any]] = {
    "hierarchy": HierarchyHyperParams,
    "alignment": AlignmentHyperParams,
    "self_check": SelfCheckHyperParams,
}


def _typed(*layers: Mapping[str, Any]) -> RoSEHyperParams:
    found: RoSEHyperParams = typed(RoSEHyperParams, _GROUPS, layers)
    return found


def _faults(hparams: RoSEHyperParams) -> list[str]:
    """Every fault, with the setting's name, its value and what would do.

    How some go together is looked at where each of those will do.
    """
    of_layers = _layers_faults(hparams.layers)
    faults = of_layers + setting_faults(hparams)
    for name in _GROUPS:
        faults += setting_faults(getattr(hparams, name), f"{name}.")
    if of_layers or _COMPARED.intersection(unfit(hparams)):
        return faults
    return faults + _combination_faults(hparams)


def _layers_faults(layers: Any) -> list[str]:
    """What is neither a list of layers nor "auto"."""
    is_list = is_series(layers) and all(type(layer) is int for layer in layers)
    if is_list or layers == AUTO:
        return []
    return [f"layers is {shown(layers)}; give a list of whole numbers, or auto"]


def _combination_faults(hparams: RoSEHyperParams) -> list[str]:
    faults = []
    layers = [] if hparams.layers == AUTO else list(hparams.layers)
    if hparams.layers == AUTO and hparams.z_layer is not None:
        faults.append(f"z_layer is {hparams.z_layer}, but layers is auto; leave z_layer null")
    elif hparams.layers != AUTO and not layers:
        faults.append("layers is empty; name the layers to edit, or write auto")
    elif layers != sorted(set(layers)) or layers and layers[0] < 0:
        faults.append(f"layers is {layers}; list different layers, 0 or more, in order")
    if layers and hparams.z_layer is not None and hparams.z_layer < layers[-1]:
        faults.append(
            f"z_layer is {hparams.z_layer}, before the last edited layer {layers[-1]}; "
            "leave it null or set it to that layer or a later one"
        )
    if hparams.model_parallel:
        faults.append(
            "model_parallel is true; the layers after z_layer are replayed on one device, so put "
            "the model on one device (device: cpu works for any size)"
        )
    if hparams.contexts is not None and not hparams.contexts:
        faults.append(
            'contexts is an empty list; leave it null or give prefixes ("" is the bare one)'
        )
    return faults
