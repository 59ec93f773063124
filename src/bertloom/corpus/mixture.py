"""Several corpora of one vocabulary as one: how often each is drawn from, and which one a draw comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertloom.corpus.arrays import Corpus
from bertloom.corpus.draw import Draw, mix, permuted
from bertloom.errors import InputError, nearest
from bertloom.example import Ints
from bertloom.text.shares import EXPONENT, smoothed

# Of so many draws in a row each corpus has its share to the draw.
DEALT = 1000


class Mixture:
    """Corpora in one folder, drawn from by shares; the rest of it is as one corpus has it."""

    def __init__(self, path: Path, parts: Sequence[Corpus], shares: npt.NDArray[np.float64]):
        self.path, self.parts = path, tuple(parts)
        dealt = _dealt(shares)
        self.shares, self.ends = dealt / DEALT, dealt.cumsum()
        first = self.parts[0]
        self.special, self.vocab_size, self.ordinary = first.special, first.vocab_size, first.ordinary
        self.fingerprint, self.tokenizer_folder = first.fingerprint, first.tokenizer_folder

    def drawn(self, draw: Draw) -> tuple[Corpus, Draw]:
        """The corpus of a draw, and which draw of that one's it is: computed, as the order inside of each is."""
        deal, place = divmod(draw.index, DEALT)
        place = permuted(place, DEALT, mix(draw.seed, deal))
        number = int(np.searchsorted(self.ends, place, side="right"))
        first = int(self.ends[number - 1]) if number else 0
        index = deal * (int(self.ends[number]) - first) + place - first
        return self.parts[number], Draw(mix(draw.seed, number), index, draw.length)

    @property
    def identity(self) -> str:
        """A hash of each one's identity and how many of the draws it has."""
        said = [part.identity for part in self.parts] + [str(end) for end in self.ends]
        return hashlib.sha256("".join(said).encode()).hexdigest()[:32]

    @property
    def manifest(self) -> dict[str, Any]:
        """Sizes of all, and their sources."""
        every = [part.manifest for part in self.parts]
        return {
            **{name: sum(one[name] for one in every) for name in ("documents", "sentences", "tokens")},
            "sources": [name for one in every for name in one["sources"]],
            "vocabulary": every[0]["vocabulary"],
        }

    def require(self, fingerprint: str, whose: object) -> None:
        """Raise unless a tokenizer with this fingerprint made each."""
        for part in self.parts:
            part.require(fingerprint, whose)

    def verify(self) -> None:
        """Raise unless every array has the bytes its manifest tells of."""
        for part in self.parts:
            part.verify()

    @cached_property
    def frequencies(self) -> npt.NDArray[np.float64]:
        """(V,) the share of each id in what is drawn."""
        found = [share * part.frequencies / len(part.tokens) for share, part in zip(self.shares, self.parts)]
        return np.sum(found, axis=0)  # type: ignore[no-any-return]

    @property
    def held_out(self) -> Corpus | Mixture | None:
        """The held-out parts of those that have one, in the same proportions."""
        return _joined(self.path, [part.held_out for part in self.parts], self.shares)

    def said(self) -> str:
        """Each one's share, for people."""
        return ", ".join(f"{part.path.name} {100 * share:.1f} %" for part, share in zip(self.parts, self.shares))


Source = Corpus | Mixture


def _joined(path: Path, parts: Sequence[Corpus | None], shares: npt.NDArray[np.float64]) -> Source | None:
    there = [(part, share) for part, share in zip(parts, shares) if part]
    if len(there) < 2:
        return there[0][0] if there else None
    kept = np.array([share for _, share in there])
    return Mixture(path, [part for part, _ in there], kept / kept.sum())


def _dealt(shares: npt.NDArray[np.float64]) -> Ints:
    """How many of `DEALT` draws each has: one, and its share of the others, the largest remainders first."""
    above = np.maximum(shares * DEALT - 1, 0)
    # Those above one draw fill up those below, each by what it has to give.
    exact = 1 + above * ((DEALT - len(shares)) / (above.sum() or 1))
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(-(exact - counts), kind="stable")[: DEALT - int(counts.sum())]] += 1
    return counts


def opened(path: str | Path, exponent: float = EXPONENT, weights: str = "") -> Source:
    """The corpus in a folder, or the corpora in its folders as one.

    Each is drawn from by its weight (`en=2, ko=1`, all named), or else by the power `exponent` of its share of the
    tokens. Raises where vocabularies differ or a name is unknown.
    """
    path = Path(path)
    folders = sorted(one.parent for one in path.glob("*/manifest.json")) if path.is_dir() else []
    if (path / "manifest.json").is_file() or not folders:
        for name, given, usual in (("weights", weights, ""), ("exponent", exponent, EXPONENT)):
            if given != usual:
                raise InputError(f"{name}: {given!r} given, allowed with a folder of several corpora")
        return Corpus(path)
    if len(folders) > DEALT:
        raise InputError(f"{len(folders):,} corpora in it, at most {DEALT:,} allowed", path)
    parts = [Corpus(one) for one in folders]
    for part in parts[1:]:
        part.require(parts[0].fingerprint, parts[0].path)
    sizes = np.array([len(part.tokens) for part in parts], float)
    shares = _weighed(weights, [part.path.name for part in parts]) if weights else smoothed(sizes, exponent)
    joined = _joined(path, parts, shares)
    assert joined is not None
    return joined


def _weighed(text: str, names: list[str]) -> npt.NDArray[np.float64]:
    """`en=2, ko=1` as shares in the order of `names`."""
    found: dict[str, float] = {}
    for one in filter(None, text.replace(",", " ").split()):
        name, _, number = one.partition("=")
        if name not in names:
            raise InputError(f"weights: {nearest(name, names)}")
        if name in found:
            raise InputError(f"weights: {name} given twice, each once allowed")
        try:
            found[name] = float(number)
        except ValueError:
            raise InputError(f"weights: {one!r} given, a name, = and a number allowed") from None
        if not 0 < found[name] < float("inf"):
            raise InputError(f"weights: {one!r} given, a number above 0 allowed")
    if missing := [name for name in names if name not in found]:
        raise InputError(f"weights: {text!r} given, {missing[0]} needed too")
    made = np.array([found[name] for name in names])
    # By the largest, so that no sum is infinite.
    made /= made.max()
    return made / made.sum()  # type: ignore[no-any-return]
