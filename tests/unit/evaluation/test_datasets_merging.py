"""Records that say the same thing are one fact, and count once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from rose_easyedit.cli.diagnose import _read
from rose_easyedit.evaluation.datasets import merged
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.evaluation.selection import select_facts

ONE = Fact(
    subject="Japan",
    relation="capital",
    prompt="The capital of Japan is",
    target_new="Madrid",
    ground_truth="",
    paraphrases=("Japan is ruled from",),
    target_aliases=("Madrid City",),
    neighbours=("The capital of Peru is",),
)
TWO = replace(
    ONE,
    relation="P36",
    ground_truth="Tokyo",
    paraphrases=("Japan is ruled from", "Japan has its capital in"),
    questions=("What is the capital of Japan?",),
    target_aliases=("Villa de Madrid",),
    truth_aliases=("Edo",),
    neighbours=("The capital of Chad is",),
)


def test_wordings_aliases_and_neighbours_are_joined() -> None:
    other = replace(ONE, target_new="Rome", target_aliases=())
    assert merged([ONE, other, TWO]) == [
        replace(
            TWO,
            relation="capital",
            target_aliases=("Madrid City", "Villa de Madrid"),
            neighbours=("The capital of Peru is", "The capital of Chad is"),
        ),
        other,
    ]


def test_another_true_answer_is_an_alias_of_the_first() -> None:
    (fact,) = merged([TWO, replace(ONE, ground_truth="Kyoto")])
    assert (fact.ground_truth, fact.truth_aliases) == ("Tokyo", ("Edo", "Kyoto"))


def test_a_fact_stays_as_it_is() -> None:
    assert merged([ONE]) == [ONE] and merged([]) == []


def test_repeated_records_of_a_file_are_read_as_one_fact(tmp_path: Path) -> None:
    request = {"subject": "Japan", "prompt": ONE.prompt, "target_new": "Madrid"}
    records = [{**request, "rephrase_prompt": f"Japan, {word},"} for word in ("now", "then")]
    data = tmp_path / "facts.json"
    data.write_text(json.dumps(records))
    for facts in (select_facts([request], str(data)).asked, _read(str(data), None)):
        (fact,) = facts
        assert fact.paraphrases == ("Japan, now,", "Japan, then,")
    (fact,) = select_facts([request, {**request, "ground_truth": "Tokyo"}], None).edited
    assert fact.ground_truth == "Tokyo"
