"""The field's data files as facts: CounterFact, zsRE, MQuAKE, S2RKE, KnowEdit, and one's own.

`load_dataset` reads a file, `merged` makes one fact of the records that repeat it,
`same_subject_view` keeps the subjects with several facts,
`with_wrapped_forms` gives every fact a question and instructions, and `neighbour_prompts` are the
data set's own prompts that an edit should leave alone.
"""

from __future__ import annotations

from rose_easyedit.evaluation.datasets.file_forms import FILE_FORMS
from rose_easyedit.evaluation.datasets.loading import Dataset, load_dataset
from rose_easyedit.evaluation.datasets.locality import neighbour_prompts
from rose_easyedit.evaluation.datasets.merging import merged
from rose_easyedit.evaluation.datasets.subjects import same_subject_view
from rose_easyedit.evaluation.datasets.wrapping import with_wrapped_forms

__all__ = [
    "FILE_FORMS",
    "Dataset",
    "load_dataset",
    "merged",
    "neighbour_prompts",
    "same_subject_view",
    "with_wrapped_forms",
]
