"""One text or two into one class, several, or a score (Devlin et al. 2019, §4.1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np

from bertloom.config import EncoderConfig
from bertloom.errors import InputError
from bertloom.tasks import metrics
from bertloom.tasks.task import (
    LEAVE_OUT,
    TARGET,
    Array,
    Feature,
    OnFeatures,
    Prediction,
    Record,
    Said,
    apart,
    column,
    identity_of,
    in_order,
    label_names,
    learned,
    lonely,
    option,
    require_stride,
    softmax,
)
from bertloom.text.records import Place, Row, text_of
from bertloom.text.sequence import kept, room, sequence
from bertloom.text.tokenizer import Special, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bertloom.model.packed import Batch

SINGLE, MULTI, REGRESSION = "single", "multi", "regression"
# The names that `transformers` has for them.
PROBLEMS = {
    SINGLE: "single_label_classification",
    MULTI: "multi_label_classification",
    REGRESSION: "regression",
}
LONG = ("truncate", "head-tail", "windows")
# What a window counts for, so that every text weighs the same; the mean over all windows is 1.
SHARE = "share"
# Columns known by name, in the order in which they are looked for.
TEXTS = ("text", "sentence", "sentence1", "question1", "premise", "text1", "#1 string", "document", "review", "content",
         "comment", "question")  # fmt: skip
# First and second texts; looked for before single ones.
PAIRS = (("sentence1", "sentence2"), ("question1", "question2"), ("premise", "hypothesis"), ("text1", "text2"),
         ("sentence_a", "sentence_b"), ("text_a", "text_b"), ("#1 string", "#2 string"), ("text", "text_pair"),
         ("question", "sentence"), ("question", "text"), ("query", "passage"))  # fmt: skip
LABELS = ("label", "labels", "class", "category", "score", "similarity", "gold_label", "quality", "is_duplicate",
          "target", "sentiment")  # fmt: skip
# A correlation of so many deviations is no chance, and one above this is worth something.
SURE, LITTLE = 2.0, 0.1
# Beyond this many times the rarest label, the most frequent one is worth a remark.
IMBALANCE = 4


@dataclass(frozen=True, kw_only=True)
class Text(Record):
    """A text, or two, and the labels or the score."""

    text: str
    pair: str | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Classify(OnFeatures):
    """Sentiment, topic, acceptability; paraphrase, entailment, similarity."""

    name: ClassVar[str] = "classify"
    architecture: ClassVar[str] = "ForSequenceClassification"
    pipeline: ClassVar[str] = "text-classification"
    form: ClassVar[str] = '{"text": …, "label": …}'

    text: str = option("", "Column of the text; told by its name unless given.", of_data=True)
    pair: str = option(
        "", "Column of the second text; told by its name unless given, none for no second text.", of_data=True
    )
    label: str = option("", "Column of the label; told by its name unless given.", of_data=True)
    problem: str = option(
        "auto", "What labels are: single, multi (several at once) or regression.", ("auto", *PROBLEMS)
    )
    separator: str = option("", "What stands between several labels in one column, as a semicolon.", of_data=True)
    long: str = option("truncate", "Texts over the length: truncate, head-tail or windows, which are pooled.", LONG)
    stride: int = option(0, "Tokens that windows share; 0 for a quarter of the length.")
    class_weights: bool = option(False, "Weigh labels by how rare they are.")
    labels: tuple[str, ...] = learned(())
    weights: tuple[float, ...] = learned(())
    # Where scores begin, before anything is learned.
    middle: float = learned(0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        # JSON has lists alone.
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "weights", tuple(self.weights))
        if self.stride < 0:
            raise InputError(f"stride: {self.stride} given, at least 0 allowed")

    @property
    def paired(self) -> bool:
        """Whether there is a second text."""
        return self.pair not in ("", "none")

    @property
    def pooled(self) -> bool:  # type: ignore[override]
        """Whether the pooler is used."""
        return not self.features_from

    # Reading

    @property
    def plain(self) -> str:
        """The first text's."""
        return self.text or "text"

    def shown(self, row: Row, place: Place) -> Self:
        """Columns by their names."""
        names = {name.casefold(): name for name in row}
        both = next((two for two in PAIRS if names.keys() >= set(two)), None)
        text = self.text or (names[both[0]] if both and not self.pair else "")
        text = column(row, text, TEXTS, "text", place, "--text")
        pair = self.pair or next((names[two] for one, two in PAIRS if one == text.casefold() and two in names), "")
        if pair not in ("none", "") and pair not in row:
            column(row, pair, (), "second text", place, "--pair")
        label = self.label
        if not label:
            label = next((names[one] for one in LABELS if one in names), "")
        if not self.asks:
            apart(text=text, pair=pair, label=label)
        return replace(self, text=text, pair=pair or "none", label=label)

    def told_by(self, source: str) -> Self:
        """Columns by the names of the first rows."""
        first = self.first_row(source)
        return self.shown(first[1], first[0]) if first else self

    @property
    def example(self) -> Row:
        """One text or two, under their columns' names."""
        return {self.plain: "A fine text."} | ({self.pair: "Another one."} if self.paired else {})

    def without_gold(self, row: Row) -> Row:
        """Without the label's column."""
        return {name: value for name, value in row.items() if name != self.label}

    def record(self, row: Row, place: Place) -> Text:
        """A row's texts and labels; those of several labels are a list or separated."""
        if not (self.text and self.pair):
            # As in another library's model; what is not named and not there is no second text.
            told = self.shown(row, place)
            if not self.pair and row.get(told.pair) in (None, ""):
                told = replace(told, pair="none")
            return told.record(told.without_gold(row) if self.asks else row, place)
        return Text(
            place=place,
            id=identity_of(row, place),
            text=text_of(row, self.plain, place),
            pair=text_of(row, self.pair, place) if self.paired else None,
            labels=self._labels(row, place),
        )

    def _labels(self, row: Row, place: Place) -> tuple[str, ...] | None:
        value = row.get(self.label)
        if value is None or (isinstance(value, str) and not value.strip() and not self.separator):
            return None
        if isinstance(value, list | tuple):
            return tuple(dict.fromkeys(_label(one, place) for one in value))
        if self.separator and isinstance(value, str):
            return tuple(dict.fromkeys(part.strip() for part in value.split(self.separator) if part.strip()))
        return (_label(value, place),)

    # Learning

    @classmethod
    def foreign(cls, labels: Sequence[str], problem: str | None) -> Self:
        """By `problem_type`; where that is missing one label is a score, as `transformers` has it.

        Which columns there are each row tells.
        """
        kinds = {theirs: ours for ours, theirs in PROBLEMS.items()}
        kind = kinds.get(problem or "", REGRESSION if len(labels) == 1 else SINGLE)
        return cls(problem=kind, labels=() if kind == REGRESSION else tuple(labels))

    def learn(self, records: Sequence[Record]) -> Self:
        """The kind of problem, the labels in order, and their weights."""
        rows = [row for row in cast(Sequence[Text], records) if row.labels is not None]
        if not rows:
            raise self._unlabelled(cast(Text, records[0]))
        given = [row.labels or () for row in rows]
        problem = self.problem
        if problem == "auto":
            single = {one[0] for one in given if len(one) == 1}
            if any(len(one) != 1 for one in given):
                problem = MULTI
            else:
                # Slips among scores are named as such.
                numbers = sum(_number(one) is not None for one in single) > 0.5 * len(single)
                decimal = numbers and any(_number(one) is not None and "." in one for one in single)
                problem = REGRESSION if decimal else SINGLE
        made = replace(self, problem=problem)
        if problem == REGRESSION:
            if self.class_weights:
                raise InputError("class-weights: given, labels that are classes needed")
            scores = [score for one in given if len(one) == 1 and (score := _number(one[0])) is not None]
            if not scores:
                made.require(rows[0])
            return replace(made, labels=(), middle=float(np.mean(scores)))
        if problem == SINGLE:
            given = [one for one in given if len(one) == 1]
        counts = Counter(label for one in given for label in one)
        labels = in_order(counts)
        if len(labels) < 2:
            for record in records if self.on_bad == "error" else rows:
                replace(made, labels=labels).require(record)
            known = ", ".join(map(repr, labels)) or "none"
            raise rows[0].place.error(f"labels given: {known}; two different ones needed, as yes and no are")
        weights: tuple[float, ...] = ()
        if self.class_weights:
            # Their mean over the training records is 1, so that the rate means the same.
            inverse = np.array([1 / counts[label] for label in labels])
            weights = tuple((inverse * counts.total() / len(labels)).tolist())
            if problem == MULTI:
                # How much rarer a label is than its absence; one that is always there counts as absent once.
                weights = tuple(max(1, len(rows) - counts[label]) / counts[label] for label in labels)
        return replace(made, labels=labels, weights=weights)

    def _unlabelled(self, row: Text) -> InputError:
        if not (self.text or self.label):
            return row.place.error("no label, one needed; --label NAME names its column")
        if not self.label:
            return row.place.error(
                "which column holds the label cannot be told; --label NAME names it, --columns A,B,… names all of a "
                "table without a header"
            )
        return row.place.error(f"no label in column {self.label!r}, one needed")

    def require(self, record: Record) -> None:
        """A known label, or a number."""
        row = cast(Text, record)
        if row.labels is None:
            raise self._unlabelled(row)
        if self.problem == REGRESSION:
            if len(row.labels) != 1 or _number(row.labels[0]) is None:
                raise row.place.error(f"score {' '.join(row.labels)!r} given, a number allowed")
            return
        if self.problem == SINGLE and len(row.labels) != 1:
            raise row.place.error(f"{len(row.labels)} labels given, one allowed; --problem multi takes several")
        for label in row.labels:
            if label not in self.labels:
                known = ", ".join(map(repr, self.labels[:10])) + (" …" if len(self.labels) > 10 else "")
                raise row.place.error(
                    f"label {label!r} given, those of the training file allowed: {known}; {LEAVE_OUT}"
                )

    def key(self, record: Record) -> Hashable:
        """The texts."""
        row = cast(Text, record)
        return (row.text.strip(), (row.pair or "").strip())

    def gold(self, record: Record) -> Hashable:
        """The labels; of several at once in any order."""
        labels = cast(Text, record).labels
        return labels if labels is None or self.problem != MULTI else tuple(sorted(labels))

    def remarks(self, records: Sequence[Record]) -> list[str]:
        """Counts by label, imbalance, labels with one example."""
        rows = cast(Sequence[Text], records)
        pair = f", second text {self.pair!r}" if self.paired else ""
        told = f"text {self.text!r}{pair}, label {self.label!r}: {PROBLEMS[self.problem].replace('_', ' ')}"
        if self.problem == REGRESSION:
            scores = [float((row.labels or ("0",))[0]) for row in rows]
            spread = f"{min(scores):g} to {max(scores):g}, mean {np.mean(scores):.2f}, deviation {np.std(scores):.2f}"
            return [told, f"scores from {spread}"]
        counts = Counter(label for row in rows for label in row.labels or ())
        if self.problem == SINGLE and len(self.labels) == 2:
            told += f"; f1 is that of {self.labels[1]!r}"
        said = [
            told,
            ", ".join(f"{label} {count:,}" for label, count in counts.most_common(12))
            + (" …" if len(counts) > 12 else ""),
        ]
        (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
        if many > IMBALANCE * few and not self.class_weights:
            said.append(
                f"labels are not balanced: {most!r} is {many / few:.0f} times as frequent as {least!r}; "
                "--class-weights weighs them, --metric f1_macro chooses by all of them alike"
            )
        owners = ((label, row.place) for row in rows for label in row.labels or ())
        return [*said, *lonely(owners, "join it with another or add more")]

    def remarks_on_dev(self, records: Sequence[Record]) -> list[str]:
        """Whether every answer is the same."""
        answers = {self.gold(one) for one in records}
        if len(answers) > 1 or len(records) < 2:
            return []
        (labels,) = answers
        same = ", ".join(cast(tuple[str, ...], labels)) or "no label"
        return [f"every dev record has {same!r}: scores on them say little"]

    def augmentable(self, record: Record) -> str:
        """The first text."""
        return cast(Text, record).text

    def with_text(self, record: Record, text: str) -> Record:
        """The record with another first text."""
        return replace(cast(Text, record), text=text)

    # Computing

    def features(self, records: Sequence[Record], tokenizer: Tokenizer, config: EncoderConfig) -> list[list[Feature]]:
        """One example a record, or one a window."""
        rows, most = cast(Sequence[Text], records), self.most(config)
        firsts = tokenizer.ids([row.text for row in rows], special=False)
        seconds: Sequence[list[int] | None] = [None] * len(rows)
        if any(row.pair is not None for row in rows):
            seconds = list(tokenizer.ids([row.pair or "" for row in rows], special=False))
            if self.long == "windows":
                raise InputError("long: windows given, truncate or head-tail allowed for pairs of texts")
        if self.long == "windows":
            require_stride(self.stride, room(tokenizer.special, most))
        made = []
        for row, first, second in zip(rows, firsts, seconds):
            parts, cut = self._cut(tokenizer.special, first, second if row.pair is not None else None, most)
            labels = self._target(row)
            made.append(
                [
                    Feature(*sequence(tokenizer.special, *part), {TARGET: (np.array([0]), labels)}, cut=cut)
                    for part in parts
                ]
            )
        if self.long == "windows":
            mean = sum(map(len, made)) / len(made)
            for windows in made:
                for one in windows:
                    one.targets[SHARE] = (np.array([0]), np.array([mean / len(windows)], np.float32))
        return made

    def limit(self, config: EncoderConfig) -> str:
        """More than the tokens that fit; single texts may be read in windows."""
        single = not self.paired
        return super().limit(config) + ("; --long windows reads it whole" if single else "")

    def _cut(
        self, special: Special, first: list[int], second: list[int] | None, most: int
    ) -> tuple[list[tuple[list[int], list[int] | None]], bool]:
        """The texts as they fit, in windows if so wanted, and whether anything was left out."""
        free = room(special, most, second is not None)
        if len(first) + len(second or ()) <= free:
            return [(first, second)], False
        if self.long == "windows":
            share = self.stride or free // 4
            starts = range(0, max(1, len(first) - share), free - share)
            return [(first[start : start + free], None) for start in starts], False
        if second is None:
            return [(self._ends(first, free), None)], True
        one, two = kept(len(first), len(second), free)
        return [(self._ends(first, one), self._ends(second, two))], True

    def _ends(self, ids: list[int], most: int) -> list[int]:
        """The first tokens, or a quarter of the room from the beginning and the rest from the end (Sun et al. 2019)."""
        if len(ids) <= most or self.long != "head-tail":
            return ids[:most]
        head = most // 4
        return ids[:head] + ids[len(ids) - (most - head) :]

    def _target(self, row: Text) -> Array:
        if self.problem == REGRESSION:
            return np.array([(_number(row.labels[0]) if row.labels else None) or 0.0], np.float32)
        if self.problem == MULTI:
            return np.array([[label in (row.labels or ()) for label in self.labels]], np.float32)
        # A record that is only asked about may have any label.
        known = row.labels and row.labels[0] in self.labels
        return np.array([self.labels.index(row.labels[0]) if row.labels and known else 0])

    def head(self, config: EncoderConfig) -> nn.Module:
        """On the pooled token, or on frozen features."""
        from bertloom.tasks.heads import FeatureHead, PooledHead

        outputs = len(self.labels) or 1
        made: nn.Module
        if self.features_from:
            made = FeatureHead(config, outputs, self.features_from, self.body, pooled=True)
            last = made.output
        else:
            made = last = PooledHead(config, outputs)
        if self.problem == REGRESSION:
            last.bias.data.fill_(self.middle)
        return made

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross entropy, binary cross entropy over all labels, or squared error."""
        import torch
        import torch.nn.functional as F

        labels = batch.targets[TARGET][1]
        weights = torch.tensor(self.weights, device=logits.device) if self.weights else None
        if self.problem == REGRESSION:
            each = F.mse_loss(logits[:, 0].float(), labels, reduction="none")
        elif self.problem == MULTI:
            decisions = F.binary_cross_entropy_with_logits(logits.float(), labels, pos_weight=weights, reduction="none")
            each = decisions.sum(1)
        else:
            each = F.cross_entropy(logits.float(), labels, weight=weights, reduction="none")
        return (each * batch.targets[SHARE][1] if SHARE in batch.targets else each).sum()

    def count(self, batch: Batch) -> int:
        """Labels; of several at once all yes and no."""
        return batch.targets[TARGET][1].numel()

    def decode(self, record: Record, features: Sequence[Feature], logits: Sequence[Array]) -> Prediction:
        """The label and its probability, the labels above ½, or the score; windows are pooled by their mean."""
        mean = np.concatenate(logits).mean(0)
        if self.problem == REGRESSION:
            return {"score": float(mean[0])}
        if self.problem == MULTI:
            shares = 1 / (1 + np.exp(-mean / self.temperature))
            named = {label: float(share) for label, share in zip(self.labels, shares)}
            return {"labels": [label for label, share in named.items() if share > 0.5], "probabilities": named}
        shares = softmax(mean / self.temperature)
        best = int(shares.argmax())
        named = {label: float(share) for label, share in zip(self.labels, shares)}
        return {"label": self.labels[best], "probability": float(shares[best]), "probabilities": named}

    def said(self, logits: Array, segments: Array) -> list[Said]:
        """Each label, the best first, or the score."""
        names = self.labels or ("score",)
        return [Said(names[one], ((0, one),)) for one in (-logits[0]).argsort(kind="stable").tolist()]

    @property
    def calibrates(self) -> bool:
        """But for a score."""
        return self.problem != REGRESSION

    def decisions(
        self, record: Record, features: Sequence[Feature], logits: Sequence[Array]
    ) -> Iterator[tuple[Array, int]]:
        """A record's one choice, or of several labels each one's yes or no."""
        mean, gold = np.concatenate(logits).mean(0), features[0].targets[TARGET][1][0]
        if self.problem == MULTI:
            yield from ((np.array([0.0, yes]), int(wanted)) for yes, wanted in zip(mean, gold))
        else:
            yield mean, int(gold)

    # Measuring

    @property
    def metrics(self) -> tuple[str, ...]:
        """By the kind of problem."""
        if self.problem == REGRESSION:
            return ("pearson", "spearman", "pearson_spearman")
        if self.problem == MULTI:
            return ("f1_micro", "f1_macro", "f1_samples", "exact")
        return ("accuracy", *(["f1"] if len(self.labels) == 2 else []), "f1_macro", "f1_micro", "matthews")

    def score(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> dict[str, float]:
        """By scikit-learn and scipy."""
        rows = cast(Sequence[Text], records)
        if self.problem == REGRESSION:
            gold = [float((row.labels or ("0",))[0]) for row in rows]
            return metrics.correlation(gold, [one["score"] for one in predictions])
        if self.problem == MULTI:
            sides = [[row.labels or () for row in rows], [one["labels"] for one in predictions]]
            return metrics.several_labels(
                *(np.array([[label in one for label in self.labels] for one in side]) for side in sides)
            )
        return metrics.classification(*self._sides(predictions, rows), self.labels)

    def confusion(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> tuple[list[str], Array] | None:
        """Gold labels by given ones where they are a single choice."""
        if self.problem != SINGLE:
            return None
        sides = self._sides(predictions, cast(Sequence[Text], records))
        return list(self.labels), metrics.confusion(*sides, self.labels)

    def _sides(self, predictions: Sequence[Prediction], rows: Sequence[Text]) -> tuple[list[str], list[str]]:
        return [(row.labels or ("",))[0] for row in rows], [one["label"] for one in predictions]

    def dead(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> str | None:
        """The one label given to everything, where there are two or more to give."""
        if self.problem == REGRESSION:
            given = [one["score"] for one in predictions]
            gold = [float((cast(Text, row).labels or ("0",))[0]) for row in records]
            # A model that begins at the mean may say little yet, and rightly.
            told = metrics.correlation(gold, given)["pearson"] > max(LITTLE, SURE / len(gold) ** 0.5)
            return f"{np.mean(given):.2f}" if np.std(given) < 0.01 * np.std(gold) and not told else None
        answers = {one["label"] if self.problem == SINGLE else tuple(one["labels"]) for one in predictions}
        wanted = set(map(self.gold, records))
        return repr(answers.pop()) if len(answers) == 1 and len(wanted) > 1 else None

    def labels_in_config(self) -> dict[str, Any]:
        """Names and the kind of problem; a score is one label without a name."""
        if self.problem == REGRESSION:
            return {**label_names(["LABEL_0"]), "problem_type": PROBLEMS[REGRESSION]}
        return {**label_names(self.labels), "problem_type": PROBLEMS[self.problem]}


def _label(value: Any, place: Place) -> str:
    told = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    if not told or not str(value).strip():
        raise place.error(f"label {value!r} given, a text or number allowed")
    return str(value).strip()


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
