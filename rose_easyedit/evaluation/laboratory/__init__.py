"""A laboratory: a small model of an invented world, which answers every form of what it knows.

A real model of this size cannot answer most questions about what it knows, edit or no edit. This
one can, so that what an edit does to an answer is seen with narrow intervals, in minutes.
"""

from rose_easyedit.evaluation.laboratory.laboratory import (
    FULL,
    MINUTE,
    Laboratory,
    laboratory_folder,
    laboratory_rates,
    load_laboratory,
    population,
)
from rose_easyedit.evaluation.laboratory.population import Population
from rose_easyedit.evaluation.laboratory.training import Recipe

__all__ = [
    "FULL",
    "MINUTE",
    "Laboratory",
    "Population",
    "Recipe",
    "laboratory_folder",
    "laboratory_rates",
    "load_laboratory",
    "population",
]
