"""The best of several continuations or answers (Devlin et al. 2019, §4.4)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np

from bertloom.config import EncoderConfig
from bertloom.errors import InputError
from bertloom.files import read_text
from bertloom.tasks.task import (
    TARGET,
    Array,
    Feature,
    Prediction,
    Record,
    Task,
    apart,
    identity_of,
    named,
    option,
    softmax,
)
from bertloom.text.records import Place, Row, require_file, rows, text_of
from bertloom.text.sequence import kept, room, sequence
from bertloom.text.sources import COMPRESSED, ReadCounts, open_bytes, plain_suffix
from bertloom.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bertloom.model.packed import Batch

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ENDING = re.compile(r"(?:ending|choice|option|answer)_?(\d+)")
CONTEXTS = ("context", "ctx", "passage", "article", "story", "sent1", "startphrase", "premise", "text")
QUESTIONS = ("question", "sent2")
CHOICES = ("choices", "endings", "options")
LABELS = ("label", "answer", "gold")
# An MCTest line: id, properties, story, then four times a question and four statements.
MCTEST, MCTEST_COLUMNS = re.compile(r"mc\d+\."), 23


@dataclass(frozen=True, kw_only=True)
class Choice(Record):
    """A text, choices that may follow it, a question before each of them, and the number of the right one."""

    context: str
    choices: tuple[str, ...]
    question: str = ""
    right: int | None = None


@dataclass(frozen=True, kw_only=True)
class Choose(Task):
    """SWAG, MCTest, and their like: one score a choice, softmax over them."""

    name: ClassVar[str] = "choose"
    architecture: ClassVar[str] = "ForMultipleChoice"
    pooled: ClassVar[bool] = True
    pipeline: ClassVar[str] = "multiple-choice"
    form: ClassVar[str] = '{"context": …, "question": …, "choices": […], "label": 0}'

    context: str = option("", "Column of the text; told by its name unless given.", of_data=True)
    question: str = option(
        "", "Column of the question before each choice; told by its name unless given.", of_data=True
    )
    choices: str = option(
        "", "Column of the list of choices, or their columns by commas; told unless given.", of_data=True
    )
    label: str = option("", "Column of the right one; told by its name unless given.", of_data=True)
    questions: bool = option(False, "Whether MCTest's questions stand before its choices; statements hold them.")

    def __post_init__(self) -> None:
        super().__post_init__()
        apart(context=self.context, question=self.question, choices=self.choices, label=self.label)

    # Reading

    def read(self, source: str, counts: ReadCounts) -> Iterator[Record]:
        """Rows, or MCTest's lines with the answers beside them."""
        require_file(source)
        if plain_suffix(source) == ".tsv" and not self.columns and MCTEST.match(_beginning(source)):
            own = replace(self, context="", question="", choices="", label="")
            yield from own.made(self._mctest(source, counts), counts)
        else:
            yield from super().read(source, counts)

    def _mctest(self, source: str, counts: ReadCounts) -> Iterator[tuple[Place, Row]]:
        names = [str(number) for number in range(MCTEST_COLUMNS)]
        beside, right = (None, []) if self.asks else _right_letters(source)
        number = 0
        for place, row in rows(source, names, self.reading, counts):
            number = place.line or 1
            if beside and number > len(right):
                raise place.error(f"no answers for it in {beside}, which has {len(right)} lines, one a story needed")
            cells = list(row.values())
            for asked in range(4):
                question, *choices = cells[3 + 5 * asked : 8 + 5 * asked]
                made: Row = {
                    "id": f"{cells[0]}.{asked}",
                    "context": cells[2].replace("\\newline", "\n").replace("\\tab", "\t"),
                    "choices": choices,
                }
                # Statements hold the question themselves.
                if self.questions:
                    made["question"] = question.partition(": ")[2]
                if beside:
                    made["label"] = right[number - 1][asked]
                yield place, made
        if beside and number < len(right) and self.on_bad == "error":
            raise InputError(f"{len(right)} lines of answers given, {number} as {source} has stories allowed", beside)

    @property
    def example(self) -> Row:
        """A text and two choices, under their columns' names."""
        columns, choices = self._columns, ["We got wet.", "We sang."]
        given: Row = {self.choices or "choices": choices}
        if len(columns) > 1:
            given = {name: f"We saw {number}." for number, name in enumerate(columns, 1)}
        return {self.context or "context": "It rained.", **given}

    @property
    def _columns(self) -> list[str]:
        return [name.strip() for name in self.choices.split(",") if name.strip()]

    def without_gold(self, row: Row) -> Row:
        """Without the right choice."""
        return {name: value for name, value in row.items() if name not in ([self.label] if self.label else LABELS)}

    def record(self, row: Row, place: Place) -> Choice:
        """A row: a context, perhaps a question, and choices as a list or as ending0, ending1, …"""
        choices = self._choices(row, place)
        asked = named(row, self.question, QUESTIONS)
        if self.question and not asked:
            raise place.error(f"no column {self.question!r}, columns given: {', '.join(map(repr, row))[:200]}")
        return Choice(
            place=place,
            id=identity_of(row, place),
            context=text_of(row, self.context or named(row, "", CONTEXTS) or "context", place),
            question=text_of(row, asked, place) if asked and row[asked] not in (None, "") else "",
            choices=choices,
            right=_right(row, named(row, self.label, LABELS), choices, place),
        )

    def _choices(self, row: Row, place: Place) -> tuple[str, ...]:
        """From the columns that were named, a list, or columns with numbers in their names."""
        given = self._columns
        listed = named(row, self.choices, CHOICES) if len(given) < 2 else None
        numbered = [(int(match[1]), name) for name in row if (match := ENDING.fullmatch(name))]
        columns = given if len(given) > 1 else [] if given else [name for _, name in sorted(numbered)]
        found = row[listed] if listed else [row.get(name) for name in columns]
        if not isinstance(found, list) or len(found) < 2 or None in found:
            where = f"in {self.choices}" if self.choices else f"in it, rows like {self.form} allowed"
            raise place.error(f"no two or more choices {where}")
        for number, one in enumerate(found, 1):
            if not isinstance(one, str) or not one:
                kind = "empty" if one == "" else f"a {type(one).__name__}"
                raise place.error(f"choice {number} of {len(found)} is {kind}, a text needed")
        return tuple(found)

    # Learning

    def require(self, record: Record) -> None:
        """A right choice."""
        if cast(Choice, record).right is None:
            where = f"no right choice in column {self.label!r}" if self.label else "no right choice, a label needed"
            raise record.place.error(f"{where}: a number from 0, a letter or a text; MCTest keeps them in NAME.ans")

    def key(self, record: Record) -> Hashable:
        """Context, question and choices."""
        one = cast(Choice, record)
        return (one.context, one.question, one.choices)

    def gold(self, record: Record) -> Hashable:
        """The number of the right one."""
        return cast(Choice, record).right

    def remarks(self, records: Sequence[Record]) -> list[str]:
        """How many choices, and which is how often right."""
        made = [cast(Choice, record) for record in records]
        sizes = Counter(len(one.choices) for one in made)
        places = Counter(cast(int, one.right) for one in made)
        named = ", ".join(f"{LETTERS[number % 26]} {places[number]:,}" for number in sorted(places)[:26])
        return [f"{' or '.join(map(str, sorted(sizes)))} choices each; right: {named}"]

    # Computing

    def features(self, records: Sequence[Record], tokenizer: Tokenizer, config: EncoderConfig) -> list[list[Feature]]:
        """One example a record: a sequence for each choice, end to end; the longer text gives way."""
        made, free = [cast(Choice, record) for record in records], room(tokenizer.special, self.most(config), True)
        contexts = tokenizer.ids([one.context for one in made], special=False)
        spelt = [f"{one.question} {choice}".lstrip() for one in made for choice in one.choices]
        endings = iter(tokenizer.ids(spelt, special=False))
        features = []
        for one, context in zip(made, contexts):
            parts, cut = [], False
            for ending in (next(endings) for _ in one.choices):
                first, second = kept(len(context), len(ending), free)
                cut = cut or first + second < len(context) + len(ending)
                parts.append(sequence(tokenizer.special, context[:first], ending[:second]))
            lengths = tuple(len(ids) for ids, _ in parts)
            labels = np.arange(len(parts)) == one.right
            target = (np.cumsum((0, *lengths[:-1])), labels.astype(np.int64))
            ids, segments = (np.concatenate(side) for side in zip(*parts))
            features.append([Feature(ids, segments, {TARGET: target}, lengths, cut=cut)])
        return features

    def head(self, config: EncoderConfig) -> nn.Module:
        """One score a choice."""
        from bertloom.tasks.heads import PooledHead

        return PooledHead(config, 1)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross entropy over the choices of each record."""
        from bertloom.model.packed import grouped_log_softmax

        shares = grouped_log_softmax(logits.float(), batch.groups)[:, 0]
        return -(shares * batch.targets[TARGET][1]).sum()

    def count(self, batch: Batch) -> int:
        """Records."""
        return len(batch.groups)

    def decode(self, record: Record, features: Sequence[Feature], logits: Sequence[Array]) -> Prediction:
        """The number and text of the best choice, and every one's probability."""
        one = cast(Choice, record)
        shares = softmax(logits[0][:, 0] / self.temperature)
        best = int(shares.argmax())
        return {
            "choice": best,
            "text": one.choices[best],
            "probability": float(shares[best]),
            "probabilities": shares.tolist(),
        }

    def decisions(
        self, record: Record, features: Sequence[Feature], logits: Sequence[Array]
    ) -> Iterator[tuple[Array, int]]:
        """A record's one choice."""
        yield logits[0][:, 0], int(features[0].targets[TARGET][1].argmax())

    # Measuring

    @property
    def metrics(self) -> tuple[str, ...]:
        """Accuracy."""
        return ("accuracy",)

    def score(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> dict[str, float]:
        """The share of right choices."""
        right = [one["choice"] == cast(Choice, record).right for one, record in zip(predictions, records)]
        return {"accuracy": float(np.mean(right))}

    def dead(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> str | None:
        """One number always."""
        numbers = {one["choice"] for one in predictions}
        wanted = {cast(Choice, record).right for record in records}
        return f"choice {numbers.pop()}" if len(numbers) == 1 and len(wanted) > 1 else None


def _right_letters(source: str) -> tuple[Path | None, list[list[str]]]:
    """MCTest's file of answers, the one beside the stories, and its letters by line; None where it is not there."""
    path = Path(source)
    beside = (path.with_suffix("") if path.suffix in COMPRESSED else path).with_suffix(".ans")
    if not beside.is_file():
        return None, []
    found = [line.split() for line in read_text(beside).rstrip().splitlines()]
    for number, letters in enumerate(found, 1):
        if len(letters) != 4 or not set(letters) <= set("ABCD"):
            raise InputError(f"{' '.join(letters)[:40]!r} given, four letters of A to D allowed", beside, number)
    return beside, found


def _beginning(source: str) -> str:
    with open_bytes(source) as file:
        return file.read(20).decode("utf-8", "replace").removeprefix("\ufeff")


def _right(row: Row, name: str | None, choices: Sequence[str], place: Place) -> int | None:
    """The number of the right choice: given as a number from 0, a letter or the text; None where it is not given."""
    value = row[name] if name else None
    # -1 is the Hub's way to leave one out.
    if value in (None, "", -1, "-1"):
        return None
    said = str(value).strip() if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
    readings = {number for number, choice in enumerate(choices) if choice == value}
    if re.fullmatch(r"\d{1,9}(\.0)?", said):
        readings.add(int(said.partition(".")[0]))
    if len(said) == 1 and said.upper() in LETTERS:
        readings.add(LETTERS.index(said.upper()))
    right = {number for number in readings if number < len(choices)}
    if len(right) > 1:
        both = " or ".join(map(str, sorted(right)))
        raise place.error(
            f"{name} {value!r} may be choice {both}; a number, letter or text that means one alone allowed"
        )
    if not right:
        last = LETTERS[min(len(choices), len(LETTERS)) - 1]
        given = repr(value)[:60]
        raise place.error(f"{name} {given} given, 0 to {len(choices) - 1}, A to {last} or a choice's text allowed")
    return right.pop()
