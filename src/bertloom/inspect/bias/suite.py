"""What every measure of bias shares: groups of its items, figures with bootstrap intervals, models beside each other.

I items, M models, S draws.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect import bootstrap
from bertloom.inspect.bias.masked import require_masked
from bertloom.inspect.bootstrap import SAMPLES, Array
from bertloom.text.sources import ReadCounts, ReadOptions

Item = TypeVar("Item")
ALL = "all"


class Suite(ABC, Generic[Item]):
    """A published procedure: items are read, a model's outcomes of them are rows, and rows come to figures."""

    # What a figure would be of a model without preference, by its name, and what it does not show.
    neutral: ClassVar[Mapping[str, float]]
    caution: ClassVar[str]
    # Items that a group must have for a row of its own.
    least: ClassVar[int] = 5

    @abstractmethod
    def read(self, files: Sequence[str], options: ReadOptions, counts: ReadCounts) -> list[Item]:
        """The items of files; another form raises with its line."""

    def require(self, model: Model, items: Sequence[Item]) -> None:
        """Raise where a model cannot be asked, before any is: by most suites masked language models alone can."""
        require_masked(model)

    @abstractmethod
    def outcomes(self, model: Model, items: Sequence[Item]) -> Array:
        """(I, …) numbers of each item."""

    @abstractmethod
    def groups(self, items: Sequence[Item]) -> dict[str, Array]:
        """(I,) whether an item belongs to a group, by its name, `all` first."""

    @abstractmethod
    def figures(self, outcomes: Array) -> dict[str, float]:
        """What some items' outcomes come to."""

    def drawn(self, outcomes: Array, rng: np.random.Generator) -> Array:
        """(I,) numbers of a bootstrap's items."""
        return rng.integers(0, len(outcomes), len(outcomes))

    def exact(self, outcomes: Array, rng: np.random.Generator) -> dict[str, float]:
        """Figures that have no interval."""
        return {}


@dataclass(frozen=True)
class Figure:
    """A value and the bounds of its interval of 95 %, `nan` where it has none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """A measure of a group: each model's figure, and how far each but the first is from the first, of those with
    intervals."""

    group: str
    measure: str
    count: int
    figures: list[Figure]
    changes: list[Figure]


def measured(
    suite: Suite[Item],
    models: Iterable[Model],
    items: Sequence[Item],
    seed: int = 0,
    watch: Callable[[str], None] = lambda what: None,
) -> list[Row]:
    """Every group by every model; the intervals of changes are of the same draws for both."""
    if not items:
        raise InputError("no items are left to score, at least one needed")
    models, found = list(models), []
    for model in models:
        suite.require(model, items)
    for model in models:
        watch(str(model.path))
        found.append(suite.outcomes(model, items))
    rows = []
    for group, chosen in suite.groups(items).items():
        if group == ALL or chosen.sum() >= suite.least:
            rows += _rows(suite, group, [one[chosen] for one in found], seed)
    return rows


def _rows(suite: Suite[Any], group: str, found: list[Array], seed: int) -> list[Row]:
    count, rng = len(found[0]), np.random.default_rng(seed)
    values = [suite.figures(one) for one in found]
    draws: list[list[dict[str, float]]] = []
    with np.errstate(invalid="ignore", divide="ignore"):
        # Of one item nothing can be drawn but itself.
        for _ in range(SAMPLES if count > 1 else 0):
            chosen = suite.drawn(found[0], rng)
            draws.append([suite.figures(one[chosen]) for one in found])
    rows = []
    for name in dict.fromkeys(name for one in values for name in one):
        drawn = np.array([[one.get(name, np.nan) for one in draw] for draw in draws]).reshape(-1, len(found))  # (S, M)
        own = [one.get(name, np.nan) for one in values]
        figures, changes = _figures(own, drawn), _figures([one - own[0] for one in own], drawn - drawn[:, :1])[1:]
        rows.append(Row(group, name, count, figures, changes))
    exact = [suite.exact(one, np.random.default_rng(seed)) for one in found]
    for name in exact[0]:
        rows.append(Row(group, name, count, [Figure(one[name], np.nan, np.nan) for one in exact], []))
    return rows


def _figures(values: Sequence[float], drawn: Array) -> list[Figure]:
    return [Figure(float(one), float(low), float(high)) for one, low, high in zip(values, *bootstrap.bounds(drawn))]


def masks(names: Sequence[str]) -> dict[str, Array]:
    """`all`, and a group for each name, in alphabetic order."""
    known = np.array(names)
    return {ALL: np.ones(len(names), bool), **{name: known == name for name in sorted(set(names))}}


def one_file(files: Sequence[str], suite: str) -> str:
    """The only file given."""
    if len(files) != 1 or Path(files[0]).is_dir():
        raise InputError(f"data: {', '.join(files)} given, one file of {suite} allowed")
    return files[0]
