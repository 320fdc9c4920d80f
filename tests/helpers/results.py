"""A result that nobody measured, with texts that a page must escape."""

from __future__ import annotations

from dataclasses import replace

from pages import ATTACK

from rose_easyedit.evaluation.facts import LocalityPrompt
from rose_easyedit.evaluation.records import OtherRecord, Record
from rose_easyedit.evaluation.result import EvaluationResult, GenericText, LocalityText
from rose_easyedit.evaluation.teacher_forcing import TargetReading

RECORD = Record(
    subject="Oslo",
    relation="country",
    form="statement",
    query="Oslo is in",
    target="Peru",
    before=" Norway.",
    answer=" Peru, in peru & more",
    success=True,
    success_before=False,
    old_answer=False,
    other_target=False,
    exact_prefix=True,
    reading=TargetReading(0.5, -1.0),
    reading_before=TargetReading(0.0, -5.0),
    truth="Norway",
)
RESULT = EvaluationResult(
    records=(
        RECORD,
        replace(
            RECORD,
            form="question",
            query="Where is Oslo?",
            answer=f"Norway {ATTACK}",
            success=False,
            old_answer=True,
            kept=False,
            replaced=True,
            broken=True,
        ),
    ),
    locality=(LocalityPrompt("unrelated", "Two and two is", False),),
    kl=(0.25,),
    top1=(True,),
    texts=(LocalityText(" four", " five", 0.0, 0.0),),
    others=(
        OtherRecord(
            "Oslo", "river", "statement", "Oslo's river is", "Akerselva", "", "", False, False, True
        ),
    ),
    generic=GenericText((0.1, 0.3), (True, False), 12.0, 10.0),
    settings={"max_new_tokens": 24, "system_prompt": ATTACK},
    native={("country", "question"): 0.8},
    edited={"Oslo": 2},
)
