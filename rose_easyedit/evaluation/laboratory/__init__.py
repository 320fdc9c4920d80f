"""A laboratory: a small model of an invented world, which answers every form of what it knows.

A real model of this size cannot answer most questions about what it knows, edit or no edit. This
one can, so that what an edit does to an answer is seen with narrow intervals, in seconds. It is
part of the package; `benchmarks/train_laboratory.py` is how it was made.
"""

from rose_easyedit.evaluation.laboratory.laboratory import (
    Laboratory,
    laboratory_rates,
    load_laboratory,
    population,
)
from rose_easyedit.evaluation.laboratory.population import Population

__all__ = [
    "Laboratory",
    "Population",
    "laboratory_rates",
    "load_laboratory",
    "population",
]
