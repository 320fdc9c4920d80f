"""Stage 1 driven: from requests to the hidden state that each subject shall have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.config.hparams import HierarchyHyperParams, RoSEHyperParams
from rose_easyedit.errors import FactError
from rose_easyedit.forward.activations import frozen, read_subject_states
from rose_easyedit.method.kept import kept_queries
from rose_easyedit.method.plan import Plan, check_kept, check_tokens, make_plan
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage1.cached_targets import CachedTarget, GroupKey, group_key, joined
from rose_easyedit.method.stage1.failures import usable, without_failures
from rose_easyedit.method.stage1.integration import optimise
from rose_easyedit.method.stage1.pieces import Group
from rose_easyedit.method.stage1.ranks import Ranks
from rose_easyedit.method.stage1.setting import Level, Setting
from rose_easyedit.method.stage1.shifts import Shifts
from rose_easyedit.method.stage1.sinks import usual_norm, without_sinks
from rose_easyedit.method.stage1.store import ShiftStore
from rose_easyedit.method.stage1.units import subject_unit
from rose_easyedit.models.lock import one_at_a_time
from rose_easyedit.requests import EditRequest, as_requests

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Targets:
    """What stage 1 gives stage 2; several constraints can be solved for the same targets.

    Attributes:
        plan: the usable queries of the requests.
        values: z_s = h_L(s) + delta_s of each subject, or of each fact, [n, d].
        per_fact: whether each fact has a value of its own, instead of each subject.
        unit: of each coordinate of a hidden state, [d] (`units.subject_unit`).
        shifts: how the values were found.
        log: what was left out.
        unedited: per request, h_L at the subject in each of its contexts, [contexts, d].
    """

    plan: Plan
    values: Tensor
    per_fact: bool
    unit: Tensor
    shifts: Shifts
    log: list[str]
    unedited: Sequence[Tensor]

    @property
    def groups(self) -> list[list[int]]:
        """The requests that share each value, by index, in the order of `values`."""
        return _groups(self.plan, self.per_fact)

    @property
    def losses(self) -> list[float]:
        """The last loss of each request, nats per target token."""
        losses = [0.0] * len(self.plan.requests)
        for indices, values in zip(self.groups, self.shifts.losses, strict=True):
            for index, value in zip(indices, values, strict=True):
                losses[index] = value
        return losses


@one_at_a_time
def compute_targets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Iterable[EditRequest | Mapping[str, Any]],
    hparams: RoSEHyperParams,
    store: ShiftStore | None = None,
    cached: Mapping[GroupKey, CachedTarget] | None = None,
    ranks: Ranks | None = None,
) -> Targets:
    """Stage 1: the costly part of an edit, independent of `alignment`.

    Args:
        model: a causal language model of a known architecture that computes on one device; not
            changed.
        tokenizer: its tokenizer, which is left as it is.
        requests: the facts.
        hparams: the method's settings.
        store: where shifts found before are taken from, and new ones kept; None computes them.
        cached: targets found before, with this model and these settings; their groups are not
            optimised again.
        ranks: the processes that share the work; each is called with the same arguments and is
            given all targets. None: this one alone.

    Raises:
        RoSEError: as `compute_edit`.
    """
    facts = as_requests(requests)
    return find_targets(Prepared.of(model, tokenizer, hparams), facts, store, cached, ranks)


# The shifts need gradients, even where the caller has turned them off, and tensors that can be kept
# for them; those of inference mode cannot.
@torch.inference_mode(False)
@torch.enable_grad()
def find_targets(
    prepared: Prepared,
    requests: Sequence[EditRequest],
    store: ShiftStore | None = None,
    cached: Mapping[GroupKey, CachedTarget] | None = None,
    ranks: Ranks | None = None,
) -> Targets:
    """As `compute_targets`, of what is prepared for an edit; `requests` are checked facts."""
    hparams = prepared.hparams
    plan = make_plan(prepared.tokenizer, requests, hparams, prepared.editable.context_length)
    check_tokens(prepared.model, plan)
    per_fact = hparams.hierarchy.integration == "independent"
    groups = _Groups.of(plan, per_fact, cached or {})
    asked = groups.asked
    # only now: what is too long is refused before anything is generated
    plan = _with_answers(prepared, plan, asked)
    with frozen(prepared.model):
        usual = usual_norm(prepared)
        unit = subject_unit(prepared)
        unedited, plan, log = _base_hidden(prepared, plan, usual)
        found, kept = _shared(ranks or Ranks(), prepared, plan.only(asked), unit, store)
    if asked and not kept and not groups.at_hand:
        raise FactError(
            "The loss of every fact is not finite, so there is nothing to write; lower the "
            "learning rates or use precision: weights."
        )
    lost = set(asked).difference(asked[place] for place in kept)
    log += [
        f"{requests[index].label}: its loss is not finite; it is left out and not edited"
        for index in sorted(lost)
    ]
    for line in log:
        logger.warning("%s", line)
    remaining = [index for index in range(len(requests)) if index not in lost]
    plan, unedited = plan.only(remaining), [unedited[index] for index in remaining]
    groups = groups.without(lost)
    values, shifts = joined(_means(plan, per_fact, unedited), found, groups.new, groups.at_hand)
    return Targets(plan, values, per_fact, unit, shifts, log, unedited)


@dataclass(frozen=True)
class _Groups:
    """The groups of a plan.

    Attributes:
        requests: of each group, by index.
        at_hand: group to its target, where that was found before.
    """

    requests: Sequence[Sequence[int]]
    at_hand: Mapping[int, CachedTarget]

    @classmethod
    def of(cls, plan: Plan, per_fact: bool, cached: Mapping[GroupKey, CachedTarget]) -> _Groups:
        """The groups of a plan, with the targets that some of them have already."""
        groups = _groups(plan, per_fact)
        keys = [group_key(plan.requests[index] for index in group) for group in groups]
        return cls(groups, {i: cached[key] for i, key in enumerate(keys) if key in cached})

    @property
    def new(self) -> list[int]:
        """The groups that are to be optimised."""
        return [i for i in range(len(self.requests)) if i not in self.at_hand]

    @property
    def asked(self) -> list[int]:
        """The requests of those, in ascending order."""
        return sorted(index for i in self.new for index in self.requests[i])

    def without(self, lost: set[int]) -> _Groups:
        """The groups that have a request left, which keep their numbers; `lost` are of new ones."""
        alive = [i for i, group in enumerate(self.requests) if not lost.issuperset(group)]
        return _Groups(
            [[index for index in self.requests[i] if index not in lost] for i in alive],
            {place: self.at_hand[i] for place, i in enumerate(alive) if i in self.at_hand},
        )


def _with_answers(prepared: Prepared, plan: Plan, asked: Sequence[int]) -> Plan:
    """The plan with what the model says of the subjects of some requests, where that is kept.

    It is asked in its weights' own precision, as its users ask it; in bfloat16 it says otherwise.
    """
    if not prepared.hparams.kept_queries:
        return plan
    model, tokenizer = prepared.model, prepared.tokenizer
    subjects = {plan.requests[index].subject for index in asked}
    about = [request for request in plan.requests if request.subject in subjects]
    kept = kept_queries(model, tokenizer, about, prepared.hparams)
    plan = replace(plan, kept=plan.kept | kept)
    check_kept(model, plan)
    return plan


def _means(plan: Plan, per_fact: bool, unedited: Sequence[Tensor]) -> Tensor:
    """The unedited hidden state of each group, [n, d], over requests over their contexts."""
    hidden = torch.stack([contexts.mean(0) for contexts in unedited])
    return torch.stack([hidden[group].mean(0) for group in _groups(plan, per_fact)])


def integrate(
    prepared: Prepared, plan: Plan, unit: Tensor, store: ShiftStore | None = None
) -> tuple[Shifts, list[int]]:
    """Stage 1 (HKI): the shift of each subject, or of each fact with `independent`, [n, d].

    Args:
        prepared: the model and the settings; call inside `activations.frozen`.
        plan: the usable queries.
        unit: of each coordinate of a shift, [d].
        store: where shifts found before are.

    Returns:
        The shifts, and which requests they are for: all, unless the settings leave out those
        whose loss is not finite.
    """
    hierarchy = prepared.hparams.hierarchy
    if not plan.requests:
        return Shifts.none(len(unit)), []
    run = partial(_optimised, _setting(prepared, unit), store, prepared.computation)
    if hierarchy.integration == "joint":
        return _of_subjects(run, plan, _zeros(len(plan.subjects), unit), hierarchy)
    level = Level(hierarchy.fact_steps, hierarchy.fact_learning_rate, name="facts")
    n_facts = len(plan.requests)
    found = run(_fact_groups(plan, hierarchy), _zeros(n_facts, unit), level)
    facts, kept = usable(found, [[i] for i in range(n_facts)])
    if hierarchy.integration == "independent" or not kept:
        return facts, kept
    plan = plan.only(kept)
    means = torch.stack([facts.deltas[indices].mean(0) for indices in plan.subjects.values()])
    found, kept_again = _of_subjects(run, plan, means, hierarchy)
    both = replace(found, trajectories=facts.trajectories | found.trajectories)
    return both, [kept[i] for i in kept_again]


Run = Callable[[Sequence[Group], Tensor, Level], Shifts]


def _setting(prepared: Prepared, unit: Tensor) -> Setting:
    """What both levels have in common."""
    hparams = prepared.hparams
    return Setting(
        editable=prepared.editable,
        layer=hparams.target_layer,
        unit=unit,
        hparams=hparams.hierarchy,
        micro_batch=hparams.micro_batch,
        seed=hparams.seed,
        autocast=prepared.autocast,
    )


def _optimised(
    setting: Setting,
    store: ShiftStore | None,
    computation: Callable[[], str],
    groups: Sequence[Group],
    start: Tensor,
    level: Level,
) -> Shifts:
    """A level's shifts, with a bar on a terminal; from the store, what it has."""
    with tqdm(
        total=len(groups) * level.steps, desc=level.name, unit="step", leave=False, disable=None
    ) as bar:
        setting = replace(setting, on_step=bar.update)
        if store is None:
            return optimise(setting, groups, start, level)
        return store.through(optimise, setting, groups, start, level, computation())


def _of_subjects(
    run: Run, plan: Plan, start: Tensor, hierarchy: HierarchyHyperParams
) -> tuple[Shifts, list[int]]:
    """The shift of each subject from where it begins, [n, d]; as `integrate`."""
    level = Level(
        hierarchy.subject_steps, hierarchy.subject_learning_rate, hierarchy.smoothing_radius
    )
    found = without_failures(
        lambda groups, first: run(groups, first, level), _subject_groups(plan, hierarchy), start
    )
    return usable(found, list(plan.subjects.values()))


def _fact_groups(plan: Plan, hierarchy: HierarchyHyperParams) -> list[Group]:
    share = _shares(plan, hierarchy)
    return [
        Group(
            f"{r.subject}\n{r.prompt}",
            (tuple(queries),),
            tuple(plan.kept[r.subject]),
            share[r.subject],
        )
        for r, queries in zip(plan.requests, plan.statements, strict=True)
    ]


def _subject_groups(plan: Plan, hierarchy: HierarchyHyperParams) -> list[Group]:
    share = _shares(plan, hierarchy)
    return [
        Group(
            subject,
            tuple(tuple(plan.statements[i]) for i in facts),
            tuple(plan.kept[subject]),
            share[subject],
        )
        for subject, facts in plan.subjects.items()
    ]


def _shares(plan: Plan, hierarchy: HierarchyHyperParams) -> dict[str, float]:
    """Of each subject, `Group.share`.

    A fact that is integrated with none is found alike whatever else is said of its subject.
    """
    apart = hierarchy.integration == "independent"
    lone = 1.0 if apart else hierarchy.lone_fact_share
    return {name: lone if len(facts) == 1 else 1.0 for name, facts in plan.subjects.items()}


def _shared(
    ranks: Ranks, prepared: Prepared, plan: Plan, unit: Tensor, store: ShiftStore | None
) -> tuple[Shifts, list[int]]:
    """Stage 1 by several processes, each for whole subjects of its own; in all of them, the result.

    Returns:
        As `integrate`.
    """
    if ranks.count == 1:
        return integrate(prepared, plan, unit, store)
    subjects = list(plan.subjects.values())
    own = ranks.shares([len(facts) for facts in subjects])[ranks.rank]
    mine = sorted(index for subject in own for index in subjects[subject])
    sent = ranks.exchange(partial(_share, prepared, plan, mine, unit, store))
    kept = sorted(index for tensors in sent for index in tensors["kept"].tolist())
    per_fact = prepared.hparams.hierarchy.integration == "independent"
    place_of = {group[0]: place for place, group in enumerate(_of_plan(plan, kept, per_fact))}
    parts = [
        (
            [place_of[group[0]] for group in _of_plan(plan, tensors["kept"].tolist(), per_fact)],
            Shifts.from_tensors(tensors),
        )
        for tensors in sent
    ]
    return Shifts.of_parts(parts), kept


def _share(
    prepared: Prepared, plan: Plan, mine: list[int], unit: Tensor, store: ShiftStore | None
) -> dict[str, Tensor]:
    """What one process finds for its own requests of a plan, and which these are."""
    found, places = integrate(prepared, plan.only(mine), unit, store)
    kept = torch.tensor([mine[place] for place in places], dtype=torch.long, device="cpu")
    return {**found.as_tensors(), "kept": kept}


def _of_plan(plan: Plan, kept: Sequence[int], per_fact: bool) -> list[list[int]]:
    """The groups of some requests of a plan, by index in that plan."""
    return [[kept[place] for place in group] for group in _groups(plan.only(kept), per_fact)]


def _groups(plan: Plan, per_fact: bool) -> list[list[int]]:
    """The requests of each group, by index."""
    if per_fact:
        return [[index] for index in range(len(plan.requests))]
    return list(plan.subjects.values())


def _zeros(n: int, unit: Tensor) -> Tensor:
    return torch.zeros(n, len(unit), dtype=torch.float32, device=unit.device)


def _base_hidden(
    prepared: Prepared, plan: Plan, usual: float
) -> tuple[list[Tensor], Plan, list[str]]:
    """h_L of each request in each of its usable contexts [contexts, d], and the usable plan."""
    hparams = prepared.hparams
    with prepared.autocast():
        states = read_subject_states(
            prepared.editable,
            plan.queries,
            key_layer=hparams.layers[0],
            hidden_layer=hparams.target_layer,
            batch=hparams.micro_batch,
        )
    plan, rows, log = without_sinks(plan, states.hidden, usual, hparams.sink_ratio)
    n_statements = [len(queries) for queries in plan.statements]
    of_statements = states.hidden[rows[: sum(n_statements)]].split(n_statements)
    return list(of_statements), plan, log
