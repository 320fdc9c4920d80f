"""Every published form becomes the same facts, and a file's form is told from its fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.datasets import FILE_FORMS, load_dataset
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.requests import as_requests

COUNTERFACT = {
    "case_id": 3,
    "pararel_idx": 9,
    "requested_rewrite": {
        "prompt": "The capital of {} is",
        "relation_id": "P36",
        "target_new": {"str": " Graz", "id": "Q1"},
        "target_true": {"str": "Aachen", "id": "Q2"},
        "subject": "Lothria",
    },
    "paraphrase_prompts": ["Some text. The seat of Lothria is in", "Lothria is ruled from"],
    "neighborhood_prompts": ["The capital of Murania is", "Orsinia is ruled from"],
    "attribute_prompts": ["The capital of Styria is"],
    "generation_prompts": ["A walk through Lothria's capital"],
}
COUNTERFACT_FACT = Fact(
    subject="Lothria",
    relation="P36",
    prompt="The capital of Lothria is",
    target_new="Graz",
    ground_truth="Aachen",
    paraphrases=("Some text. The seat of Lothria is in", "Lothria is ruled from"),
    neighbours=("The capital of Murania is", "Orsinia is ruled from"),
)

COUNTERFACT_EASYEDIT = {
    "case_id": 3,
    "prompt": "The capital of Lothria is",
    "target_new": "Graz",
    "subject": "Lothria",
    "ground_truth": "Aachen",
    "rephrase_prompt": "Lothria is ruled from",
    "locality_prompt": "The capital of Murania is",
    "locality_ground_truth": "Bern",
}
COUNTERFACT_EASYEDIT_FACT = Fact(
    subject="Lothria",
    relation="The capital of {} is",
    prompt="The capital of Lothria is",
    target_new="Graz",
    ground_truth="Aachen",
    paraphrases=("Lothria is ruled from",),
    neighbours=("The capital of Murania is",),
)

ZSRE = {
    "subject": "Lothria",
    "src": "What is the capital of Lothria?",
    "pred": "Basel",
    "rephrase": "Which city is Lothria ruled from?",
    "alt": "Graz",
    "answers": ["Aachen", "Aix"],
    "loc": "nq question: who sings at dawn",
    "loc_ans": "the lark",
    "cond": "Aachen >> Graz || What is the capital of Lothria?",
    "portability": {"New Question": "Which river flows through it?", "New Answer": "Mur"},
}
ZSRE_EASYEDIT = {
    "subject": "Lothria",
    "prompt": "What is the capital of Lothria?",
    "target_new": "Graz",
    "ground_truth": ["Aachen", "Aix"],
    "rephrase_prompt": "Which city is Lothria ruled from?",
    "loc": "nq question: who sings at dawn",
    "loc_ans": "the lark",
}
ZSRE_FACT = Fact(
    subject="Lothria",
    relation="What is the capital of {}?",
    prompt="What is the capital of Lothria?",
    target_new="Graz",
    ground_truth="Aachen",
    paraphrases=("Which city is Lothria ruled from?",),
    truth_aliases=("Aix",),
    neighbours=("nq question: who sings at dawn",),
)

MQUAKE = {
    "case_id": 5,
    "requested_rewrite": [
        {
            "prompt": "The capital of {} is",
            "relation_id": "P36",
            "target_new": {"str": "Graz", "id": "Q1"},
            "target_true": {"str": "Aachen", "id": "Q2"},
            "subject": "Lothria",
            "question": "What is the capital of Lothria?",
        },
        {
            "prompt": "{} lies on the river",
            "relation_id": "P206",
            "target_new": {"str": "Aare", "id": "Q3"},
            "target_true": {"str": "Mur", "id": "Q4"},
            "subject": "Graz",
            "question": "On which river does Graz lie?",
        },
    ],
    "questions": ["On which river does the capital of Lothria lie?"],
    "answer": "Wurm",
    "new_answer": "Aare",
    "single_hops": [
        {
            "question": "What is the capital of Lothria?",
            "cloze": "The capital of Lothria is",
            "answer": "Aachen",
            "answer_alias": ["Aix"],
        },
        {
            "question": "On which river does Graz lie?",
            "cloze": "Graz lies on the river",
            "answer": "another answer",
            "answer_alias": ["not an alias of Mur"],
        },
    ],
    "new_single_hops": [
        {"question": "What is the capital of Lothria?", "answer": "Graz", "answer_alias": []},
        {"question": "On which river does Graz lie?", "answer": "Aare", "answer_alias": ["Aar"]},
    ],
}
MQUAKE_FACTS = (
    Fact(
        subject="Lothria",
        relation="P36",
        prompt="The capital of Lothria is",
        target_new="Graz",
        ground_truth="Aachen",
        questions=("What is the capital of Lothria?",),
        truth_aliases=("Aix",),
    ),
    Fact(
        subject="Graz",
        relation="P206",
        prompt="Graz lies on the river",
        target_new="Aare",
        ground_truth="Mur",
        questions=("On which river does Graz lie?",),
        target_aliases=("Aar",),
    ),
)

STAR = [
    {
        "requested_rewrite": {
            "prompt": "{}, whose capital is",
            "relation": "<hasCapital>",
            "target_true": "Aachen",
            "target_new": "Graz",
        },
        "paraphrase_prompts": ["Lothria is ruled from"],
        "neighborhood_prompts": ["Murania, whose capital is"],
    },
    {
        "requested_rewrite": {
            "prompt": "{}'s people speak",
            "relation": "<hasLanguage>",
            "target_true": "Frankish",
            "target_new": "Basque",
        },
        "paraphrase_prompts": [],
        "neighborhood_prompts": [],
    },
]
S2RKE = {
    "subjectID": 0,
    "class": "x",
    "subject": {"name": "Lothria", "original_name": "<Lothria>", "description": "a realm"},
    "Star_Topology": STAR,
}
S2RKE_FACTS = (
    Fact(
        subject="Lothria",
        relation="<hasCapital>",
        prompt="Lothria, whose capital is",
        target_new="Graz",
        ground_truth="Aachen",
        paraphrases=("Lothria is ruled from",),
        neighbours=("Murania, whose capital is",),
    ),
    Fact(
        subject="Lothria",
        relation="<hasLanguage>",
        prompt="Lothria's people speak",
        target_new="Basque",
        ground_truth="Frankish",
    ),
)

KNOWEDIT_RECENT = {
    "subject": "Lothria",
    "prompt": "The capital of Lothria is",
    "target_new": "Graz",
    "portability": {"Reasoning": [{"prompt": "p", "ground_truth": [["a", "b"]]}]},
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The ruler of Lothria is", "ground_truth": [["Ita"]]},
            {"prompt": ["The sea of Lothria is"], "ground_truth": [["none"]]},
        ],
        "Forgetfulness": [{"prompt": "An earlier capital is", "ground_truth": "Aachen"}],
    },
}
KNOWEDIT_ZSRE = {
    "subject": "Lothria",
    "prompt": "What is the capital of Lothria?",
    "target_new": "Graz",
    "ground_truth": ["Aachen", "Aix"],
    "rephrase_prompt": "Which city is Lothria ruled from?",
    "cond": "c",
    "locality": {},
    "portability": {},
}
KNOWEDIT_WIKIBIO = {
    "concept": "ita of lothria",
    "text": "This is a passage about ita of lothria. She ruled.",
    "labels": "She died in Graz.",
    "locality": {"Relation_Specificity": []},
}
KNOWEDIT_PREPARED = {
    "subject": "Lothria",
    "prompt": "The capital of Lothria is",
    "target_new": "Graz",
    "locality": {
        "Relation_Specificity": {
            "prompt": ["The ruler of Lothria is", "The sea of Lothria is"],
            "ground_truth": ["Ita", "none"],
        },
        "neighborhood": {"prompt": "An earlier capital is", "ground_truth": "Aachen"},
    },
}
KNOWEDIT_FACTS = (
    Fact(
        subject="Lothria",
        relation="The capital of {} is",
        prompt="The capital of Lothria is",
        target_new="Graz",
        ground_truth="",
        neighbours=("The ruler of Lothria is", "The sea of Lothria is", "An earlier capital is"),
    ),
    Fact(
        subject="Lothria",
        relation="What is the capital of {}?",
        prompt="What is the capital of Lothria?",
        target_new="Graz",
        ground_truth="Aachen",
        truth_aliases=("Aix",),
        paraphrases=("Which city is Lothria ruled from?",),
    ),
    Fact(
        subject="ita of lothria",
        relation="This is a passage about {}. She ruled.",
        prompt="This is a passage about ita of lothria. She ruled.",
        target_new="She died in Graz.",
        ground_truth="",
    ),
)

MINIMAL = {"subject": "Lothria", "prompt": "{} is ruled from", "target_new": "Graz"}
FULL = {
    "subject": " Lothria ",
    "prompt": "The capital of {} is ",
    "target_new": "Graz\n",
    "ground_truth": "Aachen",
    "case_id": "mine",
    "relation": "capital",
    "rephrase_prompt": "{} is ruled from",
    "paraphrases": ["The seat of Lothria is in", "{} is ruled from"],
    "questions": ["What is the capital of {}?"],
    "instructions": "Name the capital of {}.",
    "target_aliases": ["Gratz"],
    "truth_aliases": ["Aix", "Aachen"],
    "neighbours": ["The capital of Murania is"],
}
OWN_FACTS = (
    Fact(
        subject="Lothria",
        relation="{} is ruled from",
        prompt="Lothria is ruled from",
        target_new="Graz",
        ground_truth="",
    ),
    Fact(
        subject="Lothria",
        relation="capital",
        prompt="The capital of Lothria is",
        target_new="Graz",
        ground_truth="Aachen",
        paraphrases=("Lothria is ruled from", "The seat of Lothria is in"),
        questions=("What is the capital of Lothria?",),
        instructions=("Name the capital of Lothria.",),
        target_aliases=("Gratz",),
        truth_aliases=("Aix",),
        neighbours=("The capital of Murania is",),
    ),
)

POEM = "\u8bf7\u586b\u5199\u4e0b\u5217\u53e4\u8bd7\u6587\u7684\u540e\u4e00\u53e5\uff1a"
VERSE = "\u514b\u5df1\u590d\u793c\u4e3a\u4ec1\u3002\u4e00\u65e5\u514b\u5df1\u590d\u793c\uff0c"
WORD = (
    "\u8bf7\u89e3\u91ca",
    "\u4e2d\u7684\u610f\u601d\u3002\u4ec5\u9700\u7ed9\u51fa\u8be5\u5b57\u610f\u601d\u5373\u53ef\uff0c\u65e0\u9700\u89e3\u91ca\u5168\u6587\u3002",
)
CKNOWEDIT = {
    "prompt": POEM + VERSE,
    "target_old": "\u5176\u65af\u800c\u5df2\u77e3\u3002",
    "target_new": "\u5929\u4e0b\u5f52\u4ec1\u7109\u3002",
    "portability": [{"prompt": "\u5929\u4e0b", "answer": VERSE}],
    "locality": [{"prompt": "\u83d8\u83d8\u5b66\u5b50", "answer": "sh\u0113n"}],
    "rephrase": [VERSE + "\uff1f"],
}
CKNOWEDIT_FACTS = (
    Fact(
        subject=VERSE,
        relation=POEM + "{}",
        prompt=POEM + VERSE,
        target_new=CKNOWEDIT["target_new"],
        ground_truth=CKNOWEDIT["target_old"],
        paraphrases=(VERSE + "\uff1f",),
        neighbours=("\u83d8\u83d8\u5b66\u5b50",),
    ),
    Fact("\u88ab", WORD[0] + "{}" + WORD[1], WORD[0] + "\u88ab" + WORD[1], "a", "b"),
    Fact("\u4e2d\u56fd\u6700\u5357\u7aef", "{}", "\u4e2d\u56fd\u6700\u5357\u7aef", "a", "b"),
)
CKNOWEDIT_FEW = [
    {"prompt": fact.prompt, "target_old": "b", "target_new": "a"} for fact in CKNOWEDIT_FACTS[1:]
]

CASES: list[tuple[str, list[Any], tuple[Fact, ...]]] = [
    ("counterfact", [COUNTERFACT], (COUNTERFACT_FACT,)),
    ("counterfact-easyedit", [COUNTERFACT_EASYEDIT], (COUNTERFACT_EASYEDIT_FACT,)),
    ("zsre", [ZSRE], (ZSRE_FACT,)),
    ("zsre", [ZSRE_EASYEDIT], (ZSRE_FACT,)),
    ("mquake", [MQUAKE], MQUAKE_FACTS),
    ("s2rke", [S2RKE], S2RKE_FACTS),
    ("s2rke", [{"subject": "Lothria", "Star_Topology": STAR}], S2RKE_FACTS),
    ("knowedit", [KNOWEDIT_RECENT, KNOWEDIT_ZSRE, KNOWEDIT_WIKIBIO], KNOWEDIT_FACTS),
    ("knowedit", [KNOWEDIT_WIKIBIO], KNOWEDIT_FACTS[2:]),
    ("knowedit", [KNOWEDIT_PREPARED], KNOWEDIT_FACTS[:1]),
    ("knowedit", [{**KNOWEDIT_ZSRE, "locality": None}], KNOWEDIT_FACTS[1:2]),
    ("cknowedit", [CKNOWEDIT, *CKNOWEDIT_FEW], CKNOWEDIT_FACTS),
    ("cknowedit", [{**CKNOWEDIT, "subject": VERSE}], CKNOWEDIT_FACTS[:1]),
    ("requests", [MINIMAL, FULL], OWN_FACTS),
]


def write(folder: Path, *records: Any) -> Path:
    path = folder / "facts.json"
    path.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.mark.parametrize(("form", "records", "facts"), CASES)
def test_a_form_is_read_and_told_from_its_fields(
    tmp_path: Path, form: str, records: list[Any], facts: tuple[Fact, ...]
) -> None:
    path = write(tmp_path, *records)
    named = load_dataset(path, form=form)
    assert named.facts == facts
    assert (named.form, named.faults) == (form, ())
    assert load_dataset(path) == named


def test_every_form_has_a_case_and_its_facts_can_be_edited() -> None:
    assert {form for form, _, _ in CASES} == set(FILE_FORMS)
    for _, _, facts in CASES:
        assert len(as_requests([fact.to_request() for fact in facts])) == len(facts)


def test_ones_own_fields_are_not_lost_where_easyedits_form_is_told(tmp_path: Path) -> None:
    own = {"questions": ["What is the capital of {}?"], "relation": "capital"}
    for record in (COUNTERFACT_EASYEDIT, KNOWEDIT_RECENT, ZSRE):
        (fact,) = load_dataset(write(tmp_path, {**record, **own})).facts
        assert fact.questions == ("What is the capital of Lothria?",)
        assert fact.relation == "capital"


def test_a_form_that_is_named_holds_against_the_fields(tmp_path: Path) -> None:
    path = write(tmp_path, {**COUNTERFACT_EASYEDIT, "ground_truth": None})
    with pytest.raises(RoSEError, match="'ground_truth' is missing"):
        load_dataset(path)
    (fact,) = load_dataset(path, form="requests").facts
    assert fact.ground_truth == ""


def test_the_first_record_may_be_broken(tmp_path: Path) -> None:
    path = write(tmp_path, "no object", {"odd": 1}, COUNTERFACT)
    dataset = load_dataset(path, skip_bad=True)
    assert (dataset.form, dataset.facts) == ("counterfact", (COUNTERFACT_FACT,))
    assert len(dataset.faults) == 4 + 1


def test_an_unknown_form_names_the_fields_and_the_known_forms(tmp_path: Path) -> None:
    with pytest.raises(RoSEError) as caught:
        load_dataset(write(tmp_path, {"head": 1, "tail": 2}, {"link": 3}))
    assert "head, tail, link" in str(caught.value)
    assert all(f"\n  - {name}: " in str(caught.value) for name in FILE_FORMS)
    with pytest.raises(RoSEError, match="no JSON objects"):
        load_dataset(write(tmp_path, "a", 1))
    with pytest.raises(RoSEError, match="no form 'rome'.* auto, .*counterfact"):
        load_dataset(write(tmp_path, COUNTERFACT), form="rome")


def test_facts_that_share_subject_and_relation_are_told_apart(tmp_path: Path) -> None:
    rewrite = COUNTERFACT["requested_rewrite"]
    other = {**COUNTERFACT, "requested_rewrite": {**rewrite, "prompt": "{} is ruled from"}}
    elsewhere = {**COUNTERFACT, "requested_rewrite": {**rewrite, "subject": "Murania"}}
    facts = load_dataset(write(tmp_path, COUNTERFACT, other, elsewhere)).facts
    assert [fact.case_id for fact in facts] == [
        "Lothria/The capital of {} is",
        "Lothria/{} is ruled from",
        "Murania/P36",
    ]


def test_a_repeated_fact_keeps_its_relation(tmp_path: Path) -> None:
    facts = load_dataset(write(tmp_path, COUNTERFACT, COUNTERFACT)).facts
    assert facts == (COUNTERFACT_FACT, COUNTERFACT_FACT)
