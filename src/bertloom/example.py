"""One training or evaluation example: plain arrays that the corpus makes and the model packs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass
class Example:
    """`input_ids` and `segment_ids` of shape (n,), and per target its `(positions, labels)`, both (m,).

    A position is a place in this example, from 0; a target without labels has two empty arrays.
    """

    input_ids: Ints
    segment_ids: Ints
    targets: dict[str, tuple[Ints, Ints]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.input_ids)
