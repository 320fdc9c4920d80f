"""How alike keys are: within a subject, whatever is asked about it, and across subjects."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class KeySimilarity:
    """Mean pairwise cosines of keys.

    Attributes:
        cells: subject and form of each row and column of the matrix, C.
        matrix: mean cosine between the keys of two cells, [C, C].
        within: mean over the pairs of queries about one subject; None without such a pair.
        across: mean over the pairs of queries about two subjects; None without such a pair.
    """

    cells: tuple[tuple[str, str], ...]
    matrix: tuple[tuple[float, ...], ...]
    within: float | None
    across: float | None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def cosines(vectors: Tensor) -> Tensor:
    """Cosine of every pair of the rows of [N, width], in float64, [N, N]; 0 with a zero row."""
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    return unit @ unit.T


def key_similarity(
    keys: Tensor, subjects: Sequence[str], forms: Sequence[str], texts: Sequence[Hashable]
) -> KeySimilarity:
    """The cosines of Q keys, averaged over the queries of each subject and form.

    Queries that read the same up to their subject have one key, whatever follows: such a pair
    says nothing and is not counted, and a cell made of nothing else is 1.

    Args:
        keys: [Q, d_ff].
        subjects: of each query, Q.
        forms: of each query, Q.
        texts: what each query reads up to its subject, Q.
    """
    cosine = cosines(keys.cpu())
    labels = list(zip(subjects, forms, strict=True))
    cells = list(dict.fromkeys(labels))
    member = _equal(cells, labels).double()  # [C, Q]
    counted = ~_equal(texts, texts)  # [Q, Q]
    pairs = member @ counted.double() @ member.T  # [C, C]
    total = member @ (cosine * counted) @ member.T
    same_subject = _equal(subjects, subjects)
    return KeySimilarity(
        cells=tuple(cells),
        matrix=tuple(map(tuple, torch.where(pairs > 0, total / pairs, 1.0).tolist())),
        within=_mean(cosine[counted & same_subject]),
        across=_mean(cosine[counted & ~same_subject]),
    )


def _equal(first: Sequence[Hashable], second: Sequence[Hashable]) -> Tensor:
    """Whether the items of two lists are equal, bool [len(first), len(second)]."""
    number: dict[Hashable, int] = {}
    kind: dict[str, Any] = dict(dtype=torch.long, device="cpu")
    left, right = (
        torch.tensor([number.setdefault(item, len(number)) for item in items], **kind)
        for items in (first, second)
    )
    return left[:, None] == right[None]


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
