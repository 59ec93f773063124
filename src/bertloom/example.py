"""One training or evaluation example: plain arrays that the corpus makes and the model packs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass
class Example:
    """`input_ids` and `segment_ids` of shape (n,), and per target its `(positions, labels)`, both (m,).

    A position is a place in this example, from 0; a target without labels has two empty arrays, and labels may be rows
    of several numbers. `lengths` are those of its sequences where it is made of more than one, end to end.
    """

    input_ids: Ints
    segment_ids: Ints
    targets: dict[str, tuple[Ints, npt.NDArray[Any]]] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.input_ids)
