"""The forms of data files that are known, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rose_easyedit.evaluation.datasets.layout import FileForm, Record, find


def _of_star(record: Record, element: Record) -> Record:
    return {**element, "subject": record.get("subject")}


def _of_question(record: Record, element: Record) -> Record:
    return {
        **element,
        "target_aliases": _hop_aliases(record, "new_single_hops", element, "target_new.str"),
        "truth_aliases": _hop_aliases(record, "single_hops", element, "target_true.str"),
    }


def _hop_aliases(record: Record, hops: str, element: Record, answer: str) -> list[Any]:
    """MQuAKE keeps the aliases of an answer with the single hop that asks for the same."""
    same = element.get("question"), find(element, answer)
    return [
        hop.get("answer_alias", [])
        for hop in find(record, f"{hops}.*") or ()
        if isinstance(hop, Mapping) and (hop.get("question"), hop.get("answer")) == same
    ]


# What stands around the subject in CKnowEdit's prompts; of any other, EasyEdit takes all of it.
_ASKED = (
    ("\u8bf7\u586b\u5199\u4e0b\u5217\u53e4\u8bd7\u6587\u7684\u540e\u4e00\u53e5\uff1a", ""),
    ("\u8bf7\u89e3\u91ca\u5982\u4e0b\u6210\u8bed\uff1a", ""),
    ("\u8bf7\u7ed9\u4e0b\u9762\u7684\u5b57\u6ce8\u97f3\uff1a", ""),
    ("\u8bf7\u89e3\u91ca\u5982\u4e0b\u4fd7\u8bed\u6216\u8c1a\u8bed\uff1a", ""),
    (
        "\u8bf7\u89e3\u91ca",
        "\u4e2d\u7684\u610f\u601d\u3002\u4ec5\u9700\u7ed9\u51fa\u8be5\u5b57\u610f\u601d\u5373\u53ef\uff0c\u65e0\u9700\u89e3\u91ca\u5168\u6587\u3002",
    ),
)


def _with_subject(record: Record, element: Record) -> Record:
    """CKnowEdit's records name no subject; as EasyEdit's CKnowEditDataset finds it."""
    prompt = element.get("prompt")
    if element.get("subject") is not None or not isinstance(prompt, str):
        return element
    for before, after in _ASKED:
        if prompt.startswith(before) and prompt.endswith(after):
            return {**element, "subject": prompt[len(before) : len(prompt) - len(after)]}
    return {**element, "subject": prompt}


_REWRITE = {
    "subject": ("requested_rewrite.subject",),
    "relation": ("requested_rewrite.relation_id",),
    "prompt": ("requested_rewrite.prompt",),
    "target_new": ("requested_rewrite.target_new.str",),
    "ground_truth": ("requested_rewrite.target_true.str",),
    "paraphrases": ("paraphrase_prompts",),
    "neighbours": ("neighborhood_prompts",),
}

# The fields of an EasyEdit request, and those of a `Fact`.
_REQUEST = {
    "subject": ("subject",),
    "relation": ("relation",),
    "prompt": ("prompt",),
    "target_new": ("target_new",),
    "ground_truth": ("ground_truth",),
    "paraphrases": ("rephrase_prompt", "paraphrases"),
    "questions": ("questions",),
    "instructions": ("instructions",),
    "target_aliases": ("target_aliases",),
    "truth_aliases": ("truth_aliases",),
    "neighbours": ("locality_prompt", "neighbours"),
}

# https://github.com/Zhow01/S2RKE: a subject and several facts about it
_S2RKE = FileForm(
    name="s2rke",
    marks=("Star_Topology",),
    places={
        **_REWRITE,
        "subject": ("subject.name", "subject"),
        "relation": ("requested_rewrite.relation",),
        "target_new": ("requested_rewrite.target_new",),
        "ground_truth": ("requested_rewrite.target_true",),
    },
    spread="Star_Topology",
    join=_of_star,
)

# https://github.com/princeton-nlp/MQuAKE: the edits behind a question of several hops. The
# question itself is about no single fact and is not read.
_MQUAKE = FileForm(
    name="mquake",
    marks=("requested_rewrite.*.prompt",),
    places={
        "subject": ("subject",),
        "relation": ("relation_id",),
        "prompt": ("prompt",),
        "target_new": ("target_new.str",),
        "ground_truth": ("target_true.str",),
        "questions": ("question",),
        "target_aliases": ("target_aliases",),
        "truth_aliases": ("truth_aliases",),
    },
    spread="requested_rewrite",
    join=_of_question,
)

# https://github.com/kmeng01/rome: counterfact.json and multi_counterfact.json
_COUNTERFACT = FileForm(name="counterfact", marks=("requested_rewrite.prompt",), places=_REWRITE)

# zsre_mend_eval.json and its kin, as ROME and EasyEdit publish them
_ZSRE = FileForm(
    name="zsre",
    marks=("src", "prompt loc"),
    places={
        **_REQUEST,
        "prompt": ("src", "prompt"),
        "target_new": ("alt", "target_new"),
        "ground_truth": ("answers", "ground_truth"),
        "paraphrases": ("rephrase", "rephrase_prompt", "paraphrases"),
        "neighbours": ("loc", "locality_prompt", "neighbours"),
    },
)

# https://huggingface.co/datasets/zjunlp/KnowEdit: ZsRE, WikiBio, wiki_counterfact, wiki_recent,
# and requests whose locality EasyEdit's editor would take (one object with lists of prompts).
# The portability prompts ask for what follows from the edit, not for the fact, and are not read.
_KNOWEDIT = FileForm(
    name="knowedit",
    marks=("locality", "portability"),
    places={
        **_REQUEST,
        "subject": ("subject", "concept"),
        "prompt": ("prompt", "text"),
        "target_new": ("target_new", "labels"),
        "paraphrases": ("rephrase_prompt", "rephrase", "paraphrases"),
        "neighbours": ("locality.*.*.prompt", "locality.*.prompt", "neighbours"),
    },
    needs_truth=False,
)

# https://huggingface.co/datasets/zjunlp/CKnowEdit: Chinese; what the model is wrong about stands
# in the place of the true answer, as in EasyEdit's own evaluation.
_CKNOWEDIT = FileForm(
    name="cknowedit",
    marks=("prompt target_old target_new",),
    places={
        **_REQUEST,
        "ground_truth": ("target_old",),
        "paraphrases": ("rephrase",),
        "neighbours": ("locality.*.prompt", "locality.*.*.prompt"),
    },
    needs_truth=False,
    join=_with_subject,
)

# EasyEdit's counterfact-edit.json and counterfact-train.json
_COUNTERFACT_EASYEDIT = FileForm(
    name="counterfact-easyedit",
    marks=("prompt target_new rephrase_prompt locality_prompt",),
    places=_REQUEST,
)

# one's own
_REQUESTS = FileForm(
    name="requests", marks=("subject prompt target_new",), places=_REQUEST, needs_truth=False
)

# In the order in which they are tried: a form stands before those whose marks its records hold.
FILE_FORMS: Mapping[str, FileForm] = {
    form.name: form
    for form in (
        _S2RKE,
        _MQUAKE,
        _COUNTERFACT,
        _ZSRE,
        _CKNOWEDIT,
        _KNOWEDIT,
        _COUNTERFACT_EASYEDIT,
        _REQUESTS,
    )
}
