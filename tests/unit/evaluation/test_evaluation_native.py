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
FILES = [
    ("core", "native_consistency.json", "DATASHEET.md"),
    ("wide", "native_consistency_wide.json", "DATASHEET_WIDE.md"),
]


@pytest.mark.parametrize(("name", "numbers", "datasheet"), FILES)
def test_the_numbers_are_those_of_the_datasheet(name: str, numbers: str, datasheet: str) -> None:
    measured = json.loads((DATA / numbers).read_text(encoding="utf-8"))
    sheet = (DATA / datasheet).read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (.+) \| (\d+) of \d+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", sheet, re.M
    )
    assert {row[0] for row in rows} == set(relation_names(name)) == set(measured["rates"])
    for relation, known, *rates in rows:
        assert measured["known"][relation] == int(known)
        expected = dict(zip(FORMS[1:], map(float, rates), strict=True))
        assert measured["rates"][relation] == expected


def test_another_model_has_no_rates(tiny_llama: Any) -> None:
    assert bundled_native_rates(tiny_llama) is None
    assert bundled_native_rates(tiny_llama, "wide") is None


@pytest.mark.model
def test_the_embedded_model_has_them() -> None:
    from rose_easyedit.models.loading import load_model

    model = load_model("embedded")[0]
    rates = bundled_native_rates(model)
    assert rates is not None and rates["capital", "question"] == 0.75
    wide = bundled_native_rates(model, "wide")
    assert wide is not None and ("river sea", "question") in wide
