"""What a task is (the contract), and what tasks share: options, records, features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from bertloom.config import EncoderConfig
from bertloom.errors import InputError, nearest
from bertloom.example import Example
from bertloom.text.records import Place, Row, require_characters, rows
from bertloom.text.sources import ReadCounts, ReadOptions
from bertloom.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    # Tasks bring torch when they compute, and not when their options are listed.
    from torch import Tensor, nn

    from bertloom.model.packed import Batch

# Which hidden states a frozen encoder gives, as slices of embeddings and layers (Devlin et al. 2019, Table 7), and what
# they go into.
FEATURES: dict[str, slice] = {
    "embeddings": slice(0, 1),
    "second-to-last": slice(-2, -1),
    "last": slice(-1, None),
    "weighted-sum": slice(-4, None),
    "weighted-sum-all": slice(0, None),
    "concat": slice(-4, None),
}
BODIES = ("linear", "bilstm")
# Options that tell of a file and not of the task: they are not saved with a model.
OF_A_FILE = ("encoding", "fallback", "on_bad", "asks")
# Labels of one example that a remark names.
MOST_NAMED = 5
# Rows that tell which fields there are.
BEGINNING = 100
# What may be done with a record whose answer cannot be learned or scored.
LEAVE_OUT = "--on-bad skip leaves such records out"
# The one target of a task's examples.
TARGET = "labels"
# The one that holds a teacher's logits, and what else of a teacher may be learned.
SOFT, MATCHES = "soft", ("states", "relations")
Prediction = dict[str, Any]
Array = npt.NDArray[Any]


def option(default: Any, text: str, known: Sequence[str] = (), of_data: bool = False) -> Any:
    """A field that the user sets, with its help; `known` are the only values it may have.

    `of_data` is whether it tells of a data set, so that it may be another one's when the model is used.
    """
    return field(default=default, metadata={"help": text, "known": tuple(known), "of_data": of_data})


def options(task: Task | type[Task]) -> list[Field[Any]]:
    """The fields of a task that the user sets."""
    return [one for one in fields(task) if "help" in one.metadata]


def learned(default: Any) -> Any:
    """A field that the training file or the run sets; saved with the model like the others."""
    return field(default=default, metadata={})


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row as a task understands it; subclasses add the texts, and the gold answer, None where there is none."""

    place: Place
    id: str | int = ""


@dataclass
class Feature(Example):
    """An example made of a record: whether text was `cut` off it, and `where`, what `decode` needs to find its place.

    `where` is the task's own: (m, 2) units of the labelled rows in `tag`, the first row of the text and (n, 2)
    characters of its pieces in `answer`.
    """

    cut: bool = False
    where: Any = None


class Said(NamedTuple):
    """One thing that a model says: its name, and the places and columns of the logits that it is the sum of."""

    name: str
    where: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Options and what was learned, a value that is saved in `config.json`; the methods are the contract."""

    name: ClassVar[str]
    # What the classes of `transformers` that compute the same end in, and where their head's weights stand.
    architecture: ClassVar[str]
    part: ClassVar[str] = "classifier"
    # Whether the head stands on the pooled first token.
    pooled: ClassVar[bool] = False
    # The form of a record when it is written as JSON, for messages.
    form: ClassVar[str] = ""
    # How the Hub names what such models do.
    pipeline: ClassVar[str]
    # Whether official scripts know records by their ids, so that none may stand twice.
    by_id: ClassVar[bool] = False
    # Most tokens of a sequence unless a length is given.
    usual_length: ClassVar[int] = 1 << 30

    length: int = option(0, "Most tokens of a sequence; 0 for as many as the model has learned positions.")
    columns: str = option("", "Names of a table's columns, by commas, where its first line is no header.", of_data=True)
    encoding: str = option("utf-8", "Encoding of text files.", of_data=True)
    fallback: str = option("", "Encoding of lines that are not in it, as latin-1; counted.", of_data=True)
    on_bad: str = option(
        "error", "Stop at a bad row, or leave it out and count it: error or skip.", ("error", "skip"), of_data=True
    )
    temperature: float = learned(1.0)
    # Whether records are only asked about, so that gold answers are not looked at.
    asks: bool = learned(False)

    def __post_init__(self) -> None:
        for one in fields(self):
            known, value = one.metadata.get("known"), getattr(self, one.name)
            if known and value not in known:
                raise InputError(f"{one.name.replace('_', '-')}: {nearest(str(value), known)}")
        if self.length and self.length < 8:
            raise InputError(f"length: {self.length} given, at least 8 allowed, or 0")
        if not (isinstance(self.temperature, int | float) and 0 < self.temperature < np.inf):
            raise InputError(f"temperature: {self.temperature!r} given, a number above 0 allowed")

    # Reading

    @property
    def reading(self) -> ReadOptions:
        """How files are read."""
        on_bad = cast(Literal["error", "skip"], self.on_bad)
        # A document may be a whole book.
        return ReadOptions(encoding=self.encoding, fallback=self.fallback or None, on_bad=on_bad, max_line=1 << 30)

    def read(self, source: str, counts: ReadCounts) -> Iterator[Record]:
        """The records of a file or data set, streamed; a bad one raises with its line, or is counted."""
        return self.made(rows(source, self.names, self.reading, counts), counts)

    @property
    def names(self) -> list[str]:
        """The columns of a table that has no header."""
        return [name.strip() for name in self.columns.split(",")] if self.columns else []

    def made(self, given: Iterable[tuple[Place, Row]], counts: ReadCounts) -> Iterator[Record]:
        """Records of rows, as `read` treats them."""
        for place, row in given:
            try:
                require_characters(row, place)
                yield self.record(self.without_gold(row) if self.asks else row, place)
            except InputError:
                if self.on_bad == "error":
                    raise
                counts.mended["unusable row, left out"] += 1

    def shown(self, row: Row, place: Place) -> Self:
        """The task with what a row tells: which columns hold what."""
        return self

    def first_row(self, source: str) -> tuple[Place, Row] | None:
        """A file's first row that can be read, with the fields that only rows soon after it have, which are None."""
        found = list(islice(rows(source, self.names, self.reading, ReadCounts()), BEGINNING))
        names = dict.fromkeys(name for _, row in found for name in row)
        return (found[0][0], {**names, **found[0][1]}) if found else None

    def told_by(self, source: str) -> Self:
        """The task with what a file's first row tells, where a task needs to know before it reads."""
        return self

    @property
    def plain(self) -> str:
        """The column that a text stands in which is given alone."""
        return "text"

    @property
    @abstractmethod
    def example(self) -> Row:
        """A record, to show how the model is asked."""

    @abstractmethod
    def without_gold(self, row: Row) -> Row:
        """A row without its gold answer."""

    @abstractmethod
    def record(self, row: Row, place: Place) -> Record:
        """The record of a row; raises with its place where it is none."""

    # Learning

    @classmethod
    def foreign(cls, labels: Sequence[str], problem: str | None) -> Self:
        """The task of another library's fine-tuned model."""
        return cls()

    def learn(self, records: Sequence[Record]) -> Self:
        """The task with what its training records tell: labels, kinds, weights; bad ones are `require`'s to refuse."""
        return self

    @abstractmethod
    def require(self, record: Record) -> None:
        """Raise unless a record has a gold answer that can be learned and scored."""

    def usable(self, records: Sequence[Record], counts: ReadCounts) -> list[Record]:
        """Those that can be learned from and scored; one that cannot raises, or is counted where the user asked."""
        kept: list[Record] = []
        places: dict[str | int, Place] = {}
        for record in records:
            try:
                self.require(record)
                if self.by_id and record.id != "" and places.setdefault(record.id, record.place) is not record.place:
                    first = places[record.id]
                    where = f"stands at {first} too" if first != record.place else "is that of two"
                    raise record.place.error(f"id {record.id!r} {where}, once allowed")
            except InputError:
                if self.on_bad == "error":
                    raise
                counts.mended["record without a usable answer, left out"] += 1
            else:
                kept.append(record)
        return kept

    @abstractmethod
    def key(self, record: Record) -> Hashable:
        """What makes two records the same input."""

    @abstractmethod
    def gold(self, record: Record) -> Hashable:
        """The gold answer as something to count and compare."""

    def remarks(self, records: Sequence[Record]) -> list[str]:
        """What the user should know of the training records."""
        return []

    def remarks_on_dev(self, records: Sequence[Record]) -> list[str]:
        """What the user should know of dev records that can be scored, but say little."""
        return []

    def augmentable(self, record: Record) -> str | None:
        """The text that augmentation may change; None where that would make the answer wrong."""
        return None

    def with_text(self, record: Record, text: str) -> Record:
        """The record with another such text."""
        raise NotImplementedError

    # Computing

    @abstractmethod
    def features(self, records: Sequence[Record], tokenizer: Tokenizer, config: EncoderConfig) -> list[list[Feature]]:
        """Of each record its examples, several where it is read in windows."""

    def reachable(self, record: Record, features: Sequence[Feature]) -> bool:
        """Whether some logits of its features make a record's gold answer."""
        return True

    def limit(self, config: EncoderConfig) -> str:
        """What records have whose text was cut, and what may be done."""
        return f"more text than fits into {self.most(config)} tokens, which was cut"

    @abstractmethod
    def head(self, config: EncoderConfig) -> nn.Module:
        """A new head: `head(encoder, batch)` gives the logits (M, K) of the labelled rows."""

    @abstractmethod
    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Summed loss, a scalar."""

    def count(self, batch: Batch) -> int:
        """What the summed loss is divided by."""
        return len(batch.targets[TARGET][1])

    @abstractmethod
    def decode(self, record: Record, features: Sequence[Feature], logits: Sequence[Array]) -> Prediction:
        """The user's answer of the logits of a record's features."""

    def said(self, logits: Array, segments: Array) -> list[Said]:
        """What the logits (n, K) of one text's places, or of its first (1, K), come to, for those who ask why.

        `segments` (n,) are -1 at special tokens. Nothing where an answer takes several sequences.
        """
        return []

    # Measuring

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The names that `score` gives, the main one first; more is better."""

    def metrics_on(self, records: Sequence[Record]) -> Sequence[str]:
        """Those that some records can be scored by."""
        return self.metrics

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> dict[str, float]:
        """The official metrics."""

    def confusion(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> tuple[list[str], Array] | None:
        """Labels, and (K, K) how often each gold one was given each; None where no single label is given."""
        return None

    def dead(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> str | None:
        """What a run that learned nothing answers always, None where it lives."""
        return None

    def tuned(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> Self:
        """The task with what the dev set tells beyond weights, such as a threshold."""
        return self

    @property
    def calibrates(self) -> bool:
        """Whether answers have probabilities, whose temperature can be fitted."""
        return True

    @abstractmethod
    def decisions(
        self, record: Record, features: Sequence[Feature], logits: Sequence[Array]
    ) -> Iterator[tuple[Array, int]]:
        """Logits (K,) of everything that is chosen in a record, and which choice is right, -1 where none is."""

    @property
    def frozen(self) -> bool:
        """Whether the encoder stays as it is and only the head learns."""
        return False

    def settings(self) -> dict[str, Any]:
        """The task as JSON, without how the training file was encoded and what was done with its bad rows."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in OF_A_FILE}
        return {"task": self.name, **own}

    def pools(self, config: EncoderConfig) -> bool:
        """Whether the head stands on a model's pooler."""
        return self.pooled or (config.pooler == "rows" and not self.frozen)

    def labels_in_config(self) -> dict[str, Any]:
        """What `config.json` says of labels, for `transformers`."""
        return {}

    def most(self, config: EncoderConfig) -> int:
        """Most tokens of a sequence."""
        if self.length > config.longest:
            raise InputError(f"length: {self.length} given, at most {config.longest} positions of the model allowed")
        return self.length or min(config.longest, self.usual_length)


@dataclass(frozen=True, kw_only=True)
class OnFeatures(Task):
    """What tasks share that may stand on a frozen encoder's features."""

    features_from: str = option(
        "", "Frozen encoder, its features into a new head: " + ", ".join(FEATURES) + ".", ("", *FEATURES)
    )
    body: str = option("linear", "What such features go into: linear or bilstm.", BODIES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.body != BODIES[0] and not self.features_from:
            raise InputError(f"body: {self.body} given, --features-from {' or '.join(FEATURES)} needed with it")

    @property
    def frozen(self) -> bool:
        """Whether a frozen encoder's features are asked for."""
        return bool(self.features_from)

    @property
    def part(self) -> str:  # type: ignore[override]
        """The head's name among the weights."""
        return "features" if self.frozen else "classifier"


def identity_of(row: Row, place: Place) -> str | int:
    """A row's id, a text or a whole number, "" where it has none; raises where it is a list or the like."""
    given = row.get("id")
    if isinstance(given, bool | list | dict):
        raise place.error(f"id {str(given)[:80]} given, a text or a number allowed")
    return "" if given is None else given if type(given) is int else str(given)


def lonely(owners: Iterable[tuple[str, Place]], advice: str) -> list[str]:
    """A remark on labels with one example, of labels and where they stand."""
    counts: Counter[str] = Counter()
    places: dict[str, Place] = {}
    for label, place in owners:
        counts[label] += 1
        places[label] = place
    alone = [f"{label!r} ({places[label]})" for label, count in counts.items() if count == 1]
    if not alone:
        return []
    named = ", ".join(alone[:MOST_NAMED]) + (" …" if len(alone) > MOST_NAMED else "")
    return [f"{len(alone):,} label{'s have' if len(alone) > 1 else ' has'} one example: {named}; {advice}"]


def label_names(labels: Sequence[str]) -> dict[str, Any]:
    """`id2label` and `label2id`."""
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels as people sort them: numbers by value, words by letters."""
    distinct = sorted(set(labels))
    try:
        return tuple(sorted(distinct, key=float))
    except ValueError:
        return tuple(distinct)


def named(row: Row, given: str, known: Sequence[str]) -> str | None:
    """The name of a column: the one given or the first of those known, None where it is not there."""
    return next((name for name in ([given] if given else known) if name in row), None)


def apart(**columns: str) -> None:
    """Raise where one column is named for two things."""
    owners: dict[str, str] = {}
    for role, name in reversed(columns.items()):
        if name not in ("", "none") and (other := owners.setdefault(name, role)) != role:
            raise InputError(f"{role}: column {name!r} given, which is {other} too; a column of its own needed")


def column(
    row: Row, given: str, known: Sequence[str], what: str, place: Place, flag: str, headless: bool = True
) -> str:
    """The name of a column: the one given, or the first of those known that is there; else raises.

    `headless` is whether the columns of a table without a header may be named.
    """
    names = list(row)
    if given:
        if given not in row:
            raise place.error(f"{flag}: no column {given!r}, columns given: {', '.join(map(repr, names))[:200]}")
        return given
    folded = {name.casefold(): name for name in reversed(names)}
    found = next((folded[name] for name in known if name in folded), None)
    if found is None:
        rest = ", --columns A,B,… names all of a table without a header" if headless else ""
        raise place.error(
            f"which column holds the {what} cannot be told from {', '.join(map(repr, names))[:120]}; {flag} NAME names "
            f"it{rest}"
        )
    return found


def require_stride(stride: int, most: int) -> None:
    """Raise where windows of so many tokens would share more than half of them, and be read over and over."""
    if stride > most // 2:
        raise InputError(f"stride: {stride} given, at most half of a window's {most} tokens allowed")


def softmax(logits: Array) -> Array:
    """Probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return cast(Array, shifted / shifted.sum(-1, keepdims=True))


def with_options(task: Task, given: dict[str, Any]) -> Task:
    """The task with some of the options that tell of a data set; one it does not have raises and names those it has."""
    known = [one.name for one in options(task) if one.metadata["of_data"]]
    for name in given:
        if name not in known:
            raise InputError(f"{task.name}: {nearest(name, known)}")
    return replace(task, **given)
