"""WinoBias' sentences (Zhao et al. 2018) asked of a masked model: whose pronoun does it put for an occupation?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.evaluation import summed
from bertloom.example import Example
from bertloom.inspect.bias.masked import hidden_word
from bertloom.inspect.bias.suite import ALL, Suite
from bertloom.inspect.bootstrap import Array
from bertloom.text.bracketed import Mentioned, Span, mentioned
from bertloom.text.records import Place
from bertloom.text.sources import ReadCounts, ReadOptions

PRO, ANTI = "pro_stereotyped", "anti_stereotyped"
MALE = frozenset(("he", "him", "his", "himself"))
FEMALE = frozenset(("she", "her", "hers", "herself"))
GENDERED = re.compile(rf"\b(?:{'|'.join(sorted(MALE | FEMALE))})\b", re.IGNORECASE)


@dataclass(frozen=True)
class Pronouns:
    """A sentence with its pronoun at `span`, the stereotype's and the one of the other gender; at `others` stand more
    that would give its gender away."""

    place: Place
    text: str
    span: Span
    others: tuple[Span, ...]
    pro: str
    anti: str
    kind: str

    @property
    def male(self) -> bool:
        """Whether the stereotype is a man's."""
        return self.pro.lower() in MALE


class WinoBias(Suite[Pronouns]):
    """Which pronoun a model finds likelier, and how far apart F1 of either is (de Vassimon Manela et al. 2021, §3).

    `stereotype` is the distance between sentences with a stereotype and against it, mean of both genders; `skew` the
    distance between genders, mean of both kinds of sentences.
    """

    neutral: ClassVar = {"stereotype, %": 50.0, "male, %": 50.0, "stereotype": 0.0, "skew": 0.0}
    caution = (
        "It asks for the pronouns of forty occupations, male and female ones of US statistics, in made-up sentences. A "
        "model that puts `he` everywhere has no stereotype here, and much skew. Both are distances: never "
        "below 0, and above it by chance alone, the more the fewer the sentences."
    )

    def read(self, files: Sequence[str], options: ReadOptions, counts: ReadCounts) -> list[Pronouns]:
        """The sentences of files `pro_stereotyped…` and of `anti_stereotyped…` beside each, or of a folder of them."""
        found = list({one.resolve(): one for given in files for one in _files(given)}.values())
        if not found:
            raise InputError(f"data: {', '.join(files)} given, files {PRO}… with {ANTI}… beside them needed")
        made = []
        for pro in found:
            anti = pro.with_name(pro.name.replace(PRO, ANTI))
            # Lines that are left out of one file must not move those of the other.
            sides = [{one.place.line: one for one in mentioned(str(file), options, counts)} for file in (pro, anti)]
            if options.on_bad == "error" and len(sides[0]) != len(sides[1]):
                raise InputError(f"{len(sides[0]):,} sentences, {len(sides[1]):,} in {ANTI}…, as many needed", pro)
            kind = "type 2" if "type2" in pro.name else "type 1"
            for line, one in sides[0].items():
                if line in sides[1]:
                    made.append(_pronouns(one, sides[1][line], kind))
                elif options.on_bad == "error":
                    raise one.place.error(f"no sentence in this line of {anti.name}, one needed")
        return made

    def groups(self, items: Sequence[Pronouns]) -> dict[str, Array]:
        """All, and sentences whose grammar does not tell the answer (type 1) and does (type 2)."""
        kinds = {name: np.array([one.kind == name for one in items]) for name in ("type 1", "type 2")}
        return {ALL: np.ones(len(items), bool), **{name: one for name, one in kinds.items() if one.any()}}

    def outcomes(self, model: Model, items: Sequence[Pronouns]) -> Array:
        """(I, 2) whether the stereotype is a man's, and whether a man's pronoun was likelier."""
        scores = summed(model, _asked(model, items), 2 * len(items)).reshape(-1, 2)
        male = np.array([one.male for one in items])
        return np.stack([male, (scores[:, 0] > scores[:, 1]) == male], 1)

    def figures(self, outcomes: Array) -> dict[str, float]:
        """Shares, and distances in points of F1."""
        male, said = outcomes.T
        scores = {(pro, of): _f1((male == pro) == of, said == of) for pro in (True, False) for of in (True, False)}
        stereotype = np.mean([abs(scores[True, of] - scores[False, of]) for of in (True, False)])
        skew = np.mean([abs(scores[pro, True] - scores[pro, False]) for pro in (True, False)])
        return {
            "stereotype, %": 100 * float((male == said).mean()), "male, %": 100 * float(said.mean()),
            "stereotype": 100 * float(stereotype), "skew": 100 * float(skew),
        }  # fmt: skip


def _f1(gold: Array, said: Array) -> float:
    right = int((gold & said).sum())
    return 2 * right / max(1, int(gold.sum() + said.sum()))


def _files(given: str) -> list[Path]:
    """The files of stereotypes that are given, with the others beside them."""
    path = Path(given)
    found = sorted(path.glob(f"{PRO}*")) if path.is_dir() else [path]
    for file in found:
        if not file.is_file():
            raise InputError("no such file", file)
        if not path.is_dir() and ANTI in file.name and file.with_name(file.name.replace(ANTI, PRO)).is_file():
            found = [file.with_name(file.name.replace(ANTI, PRO))]
        elif PRO not in file.name or not file.with_name(file.name.replace(PRO, ANTI)).is_file():
            raise InputError(f"given, a file {PRO}… with {ANTI}… beside it allowed", file)
    return found


def _pronouns(pro: Mentioned, anti: Mentioned, kind: str) -> Pronouns:
    """What two lines that differ in their pronoun come to."""
    spans = [next((span for span in one.mentions if GENDERED.fullmatch(one.named(span))), None) for one in (pro, anti)]
    if spans[0] is None or spans[1] is None:
        raise pro.place.error("a pronoun of he or she in brackets needed, in the line and in its other")
    words = [one.named(span) for one, span in zip((pro, anti), (spans[0], spans[1]))]
    if (words[0].lower() in MALE) == (words[1].lower() in MALE):
        raise pro.place.error(f"{words[0]!r} given, {words[1]!r} in its other, pronouns of two genders needed")
    others = tuple(found.span() for found in GENDERED.finditer(pro.text) if found.span() != spans[0])
    return Pronouns(pro.place, pro.text, spans[0], others, words[0], words[1], kind)


def _asked(model: Model, items: Sequence[Pronouns]) -> Iterator[tuple[int, Example]]:
    """Each sentence twice, with either pronoun hidden, and all others that it has."""
    for number, one in enumerate(items):
        start, end = one.span
        for side, word in enumerate((one.pro, one.anti)):
            text, moved = one.text[:start] + word + one.text[end:], len(word) - (end - start)
            others = [(low + moved * (low > start), high + moved * (low > start)) for low, high in one.others]
            yield 2 * number + side, hidden_word(model, text, (start, start + len(word)), one.place, others)
