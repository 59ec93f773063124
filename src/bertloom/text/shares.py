"""How texts of unlike sizes share what is drawn of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

# Multilingual BERT's (Devlin 2018).
EXPONENT = 0.7
# Of texts that are repeated: beyond it the large ones would be, without end.
MOST_EXPONENT = 1.0


def smoothed(sizes: npt.NDArray[np.float64], exponent: float) -> npt.NDArray[np.float64]:
    """Shares p^exponent of what has the shares p by size: 1 leaves them as they are, 0 makes them equal.

    In between, the small are drawn more often than they would be.
    """
    # By the largest, so that no exponent makes all of them vanish.
    powers = (sizes / sizes.max()) ** exponent
    return powers / powers.sum()  # type: ignore[no-any-return]


def balanced(texts: Sequence[Callable[[], Iterable[str]]], exponent: float) -> Iterator[str]:
    """The lines of several texts, those of the small ones repeated until characters have smoothed shares.

    Each text is read twice; the largest is left as it is.
    """
    sizes = np.array([sum(map(len, text())) for text in texts], float)
    there = sizes > 0
    rates = np.ones(len(texts))
    rates[there] = smoothed(sizes[there], exponent) / sizes[there]
    rates[there] /= rates[there].min()
    for text, rate in zip(texts, rates):
        due = 0.0
        for line in text():
            due += rate
            # A hair more, so that thirds add up to one.
            for _ in range(int(due + 1e-9)):
                yield line
            due -= int(due + 1e-9)
