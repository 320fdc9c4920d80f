"""The native rates are those of the datasheet, and belong to the embedded model alone."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

import pytest

from rose_easyedit.evaluation.facts import FORMS, relation_names
from rose_easyedit.evaluation.native import bundled_native_rates

DATA = resources.files("rose_easyedit.evaluation") / "data"
MEASURED = json.loads((DATA / "native_consistency.json").read_text(encoding="utf-8"))


def test_the_numbers_are_those_of_the_datasheet() -> None:
    sheet = (DATA / "DATASHEET.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (.+) \| (\d+) of \d+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", sheet, re.M
    )
    assert {row[0] for row in rows} == set(relation_names()) == set(MEASURED["rates"])
    for relation, known, *rates in rows:
        assert MEASURED["known"][relation] == int(known)
        expected = dict(zip(FORMS[1:], map(float, rates), strict=True))
        assert MEASURED["rates"][relation] == expected


def test_another_model_has_no_rates(tiny_llama: Any) -> None:
    assert bundled_native_rates(tiny_llama) is None


@pytest.mark.model
def test_the_embedded_model_has_them() -> None:
    from rose_easyedit.models import load_model

    rates = bundled_native_rates(load_model("embedded")[0])
    assert rates is not None and rates["capital", "question"] == 0.75
