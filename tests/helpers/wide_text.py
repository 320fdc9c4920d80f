"""Texts of many scripts and shapes, and one number for how a tokenizer splits them all."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from typing import Any

SHAPES = (
    "  leading",
    "trailing  ",
    "a\tb\n\n\nc",
    "x  =  1;\n    return x\n\n",
    "123456789 3.14159 \u00bd \u0661\u0662 \u2167 x\u00b2",
    "don't I'LL we've THEY'RE",
    "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3002",
    "\u0e01\u0e23\u0e38\u0e07\u0e40\u0e17\u0e1e",
    "\u0645\u0631\u062d\u0628\u0627",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 ok",
    "na\u00efve cafe\u0301",
    "<|im_start|>user\nhi<|im_end|>",
    "<start_of_turn>user\nhi<end_of_turn>",
    "\u00a0nbsp\u2003em",
    "\ufeffbom",
    " ",
    "   ",
    "\n\n",
    "\u200bzero",
    "e.g. www.x.org/a?b=c&d",
    "\r\nwin\r\n",
)


def wide_text() -> list[str]:
    """The package's generic text, line by line, and shapes that tokenizers stumble over."""
    text = resources.files("rose_easyedit.method") / "data" / "generic_text.txt"
    return [*text.read_text(encoding="utf-8").splitlines(), *SHAPES]


def splitting(tokenizer: Any) -> str:
    """The first digits of the SHA-256 of all tokens of `wide_text`."""
    ids = [tokenizer(line).input_ids for line in wide_text()]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16]
