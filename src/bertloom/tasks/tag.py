"""A label for every token: entities, parts of speech (Devlin et al. 2019, §5.3)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, compress, islice
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np

from bertloom.config import EncoderConfig
from bertloom.errors import InputError
from bertloom.tasks import metrics, schemes
from bertloom.tasks.tagged import Tagged, Unit, joined, tags_of_spans, tags_of_words, words_of
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
    label_names,
    learned,
    lonely,
    named,
    option,
    require_stride,
    softmax,
)
from bertloom.text.conll import Token, by_characters, is_column, is_universal, sentences
from bertloom.text.records import Place, Row, in_rows, require_file, rows, text_of
from bertloom.text.sequence import room, sequence
from bertloom.text.sources import ReadCounts, plain_suffix
from bertloom.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bertloom.model.packed import Batch

# Rows of tables and data sets whose words and tags are lists, and texts with spans; by the Hub's names.
WORDS, TAGS, SPANS = ("tokens", "words"), ("ner_tags", "tags", "pos_tags", "labels"), ("entities", "spans", "labels")
# Columns of comma-separated tables with a word a row.
SENTENCE = ("sentence #", "sentence", "sentence_id", "sent_id")
WORD, WORD_TAG = ("word", "token", *WORDS), ("tag", "ner_tag", "label", *TAGS)
WAYS = ("auto", *schemes.SCHEMES, schemes.PLAIN)
ILLEGAL = ("refuse", "repair")
DECODINGS = ("legal", "argmax")


@dataclass(frozen=True, kw_only=True)
class Tag(OnFeatures):
    """Entities by character offsets, or a label for each word."""

    name: ClassVar[str] = "tag"
    architecture: ClassVar[str] = "ForTokenClassification"
    pipeline: ClassVar[str] = "token-classification"
    form: ClassVar[str] = (
        '{"text": …, "entities": [{"start": …, "end": …, "label": …}]} or {"tokens": […], "tags": […]}'
    )

    text: str = option(
        "",
        "Column of the words, by name or number (-1 the last); the first, or CoNLL-U's FORM, unless given.",
        of_data=True,
    )
    label: str = option(
        "",
        "Column of the tags, by name or number (-1 the last); the last, or CoNLL-U's UPOS, unless given.",
        of_data=True,
    )
    sentence: str = option(
        "",
        "Column of a comma-separated table that tells of which sentence a word is, once or in each row.",
        of_data=True,
    )
    scheme: str = option(
        "auto", "How tags are written: io, iob1, iob2, bioes (bilou), or plain labels.", WAYS, of_data=True
    )
    illegal: str = option("refuse", "Tag sequences that are not legal: refuse or repair.", ILLEGAL, of_data=True)
    stride: int = option(0, "Tokens that windows of a long text share; 0 for a quarter of the length.")
    decoding: str = option(
        "legal", "How tags are chosen: legal, the likeliest legal sequence, or argmax, each by itself.", DECODINGS
    )
    labels: tuple[str, ...] = learned(())
    # Whether training texts were given in words, as other texts then are cut.
    by_words: bool = learned(False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "labels", tuple(self.labels))
        if self.stride < 0:
            raise InputError(f"stride: {self.stride} given, at least 0 allowed")
        apart(text=self.text, label=self.label, sentence=self.sentence)
        if self.columns:
            raise InputError("columns: given, --text and --label name the columns of a tagger's files")

    # Reading

    def read(self, source: str, counts: ReadCounts) -> Iterator[Record]:
        """CoNLL and CoNLL-U by lines; JSON, Parquet and data sets of the Hub by rows, CSV by words."""
        require_file(source)
        if in_rows(source):
            yield from self.made(rows(source, (), self.reading, counts), counts)
            return
        if plain_suffix(source) == ".csv":
            yield from self._by_words(rows(source, (), self.reading, counts), counts)
            return
        alike = bool(self.labels) and not self.by_words
        found = sentences(source, self.reading, counts, spaces=alike)
        first = list(islice(found, 200))
        if not self.text and not is_universal(source):
            self._require_words(list(chain(*first)))
        characters = by_characters(first, alike)
        for tokens in chain(first, found):
            try:
                yield self._sentence(tokens, is_universal(source), characters)
            except InputError:
                if self.on_bad == "error":
                    raise
                counts.mended["malformed sentence, left out"] += 1

    def _by_words(self, found: Iterator[tuple[Place, Row]], counts: ReadCounts) -> Iterator[Tagged]:
        """Sentences of a table with a word a row; texts, a row each, where such a table is only asked about."""
        if (first := next(found, None)) is None:
            return
        place, row = first
        # A text's own column may be called a sentence.
        by_words = self.sentence or {name.casefold() for name in row} & {*SENTENCE} - {self.plain.casefold()}
        if self.asks and not by_words and self.plain in row:
            yield from cast(Iterator[Tagged], self.made(chain([first], found), counts))
            return
        sentence = column(row, self.sentence, SENTENCE, "sentence of a word", place, "--sentence", headless=False)
        word = column(row, self.text, WORD, "words", place, "--text", headless=False)
        tag = "" if self.asks else column(row, self.label, WORD_TAG, "tags", place, "--label", headless=False)
        held: list[tuple[Place, Row]] = []
        last = ""
        for place, row in chain([first], found):
            told = row[sentence].strip()
            if held and told not in ("", last):
                yield from self._sentence_of(held, word, tag, counts)
                held = []
            last = told or last
            held.append((place, row))
        yield from self._sentence_of(held, word, tag, counts)

    def _sentence_of(self, held: Sequence[tuple[Place, Row]], word: str, tag: str, counts: ReadCounts) -> list[Tagged]:
        try:
            text, units = joined([text_of(row, word, place) for place, row in held], " ")
            tags = tuple(text_of(row, tag, place).strip() for place, row in held) if tag else None
        except InputError:
            if self.on_bad == "error":
                raise
            counts.mended["malformed sentence, left out"] += 1
            return []
        lines = tuple(cast(int, place.line) for place, _ in held)
        return [Tagged(place=held[0][0], text=text, units=units, words=True, tags=tags, lines=lines)]

    def _require_words(self, tokens: Sequence[Token]) -> None:
        """Raise where lines hold sentences: several words in the first column, or no tag in the last."""
        several = sum(len(token.cells[0].split()) > 2 for token in tokens) > len(tokens) / 2
        tags = [token.cells[-1].strip() for token in tokens if len(token.cells) > 1]
        if self.asks and self.labels and tags:
            known = {*self.labels, *(label[2:] for label in self.labels)}
            several = several or not any(tag in known or schemes.is_tag(tag) for tag in tags)
        if several:
            first = tokens[0]
            raise first.place.error(
                f"{' '.join(first.cells)[:60]!r} given, a word a line and its tag last allowed; texts go into rows, "
                '{"text": …}, and --text 1 says that words stand in the first column'
            )

    def _sentence(self, tokens: Sequence[Token], universal: bool, characters: bool) -> Tagged:
        word, tag = self.text or ("form" if universal else "1"), self.label or ("upos" if universal else "-1")
        words = [token.cell(word, universal) for token in tokens]
        text, units = joined(words, "" if characters else " ")
        return Tagged(
            place=tokens[0].place,
            text=text,
            units=units,
            words=not characters,
            tags=tuple(token.cell(tag, universal).strip() for token in tokens)
            if len(tokens[0].cells) > 1 and not self.asks
            else None,
            lines=tuple(cast(int, token.place.line) for token in tokens),
        )

    def record(self, row: Row, place: Place) -> Tagged:
        """A JSON row: words with tags, or a text with spans."""
        # Numbers and CoNLL-U's names may have been columns of lines.
        text, label = ("" if is_column(one) and one not in row else one for one in (self.text, self.label))
        words = named(row, text, WORDS)
        identity = identity_of(row, place)
        if words and isinstance(row[words], list):
            given = row[words]
            if not given or not all(isinstance(word, str) and word for word in given):
                wrong = next((word for word in given if not isinstance(word, str) or not word), given)
                raise place.error(f"field {words!r} holds {wrong!r}, a list of words that are not empty allowed")
            tags = tags_of_words(row, named(row, label, TAGS), len(given), place)
            whole, units = joined(given, " ")
            return Tagged(place=place, id=identity, text=whole, units=units, words=True, tags=tags)
        whole = text_of(row, text or "text", place)
        spans = named(row, label, SPANS)
        if spans is None and self.by_words:
            return Tagged(place=place, id=identity, text=whole, units=words_of(whole), words=True, given=False)
        units = tuple((number, number + 1) for number in range(len(whole)))
        tags = None if spans is None else tags_of_spans(row[spans], whole, spans, place)
        return Tagged(place=place, id=identity, text=whole, units=units, words=False, tags=tags)

    @property
    def example(self) -> Row:
        """A text."""
        return {self.plain: "Anna lives in Paris."}

    def without_gold(self, row: Row) -> Row:
        """Without the tags of words or the spans of a text; words stay."""
        gold = {*TAGS, *SPANS, self.label} - {self.text, *WORDS}
        return {name: value for name, value in row.items() if name not in gold}

    @property
    def plain(self) -> str:
        """The text's, where it was one of rows."""
        return "text" if is_column(self.text) else self.text or "text"

    # Learning

    @classmethod
    def foreign(cls, labels: Sequence[str], problem: str | None) -> Self:
        """Entities where the labels are IOB2's, else plain labels."""
        entities = schemes.told([labels]) != schemes.PLAIN and all(label[:2] in ("O", "B-", "I-") for label in labels)
        return cls(labels=tuple(labels), scheme="iob2" if entities else schemes.PLAIN, by_words=True)

    def learn(self, records: Sequence[Record]) -> Self:
        """The scheme, and the labels: IOB2 of every type, or plain ones."""
        tagged = [one for one in cast(Sequence[Tagged], records) if one.tags is not None]
        if not tagged:
            self.require(records[0])
        scheme = self.scheme if self.scheme != "auto" else schemes.told([one.tags or () for one in tagged])
        made = replace(self, scheme=scheme, by_words=tagged[0].words)
        if scheme == schemes.PLAIN:
            labels = tuple(sorted({tag for one in tagged for tag in one.tags or ()}))
            if len(labels) < 2:
                raise tagged[0].place.error(f"every tag is {labels[0]!r}, two different ones needed")
            return replace(made, labels=labels)
        types: set[str] = set()
        for one in tagged:
            with suppress(InputError):
                types.update(span.label for span in made.spans(one))
        if not types:
            made.spans(tagged[0])
            raise tagged[0].place.error("no entity in any sentence, tags other than O needed")
        return replace(made, labels=(schemes.OUTSIDE, *(f"{kind}-{label}" for label in sorted(types) for kind in "BI")))

    def spans(self, record: Tagged) -> list[schemes.Span]:
        """A record's gold entities by units; tags that are not legal raise, or are mended where the user asked."""

        def refuse(unit: int, said: str) -> None:
            mend = "--illegal repair mends such sequences, --scheme names another scheme"
            raise record.place_of(unit).error(f"{said} (unit {unit + 1} of the sentence); {mend}")

        try:
            return schemes.spans(record.tags or (), self.scheme, None if self.illegal == "repair" else refuse)
        except InputError:
            raise
        except ValueError as error:
            unit = next(number for number, tag in enumerate(record.tags or ()) if not schemes.is_tag(tag))
            raise record.place_of(unit).error(f"{error}; --scheme plain takes any") from None

    def require(self, record: Record) -> None:
        """Tags of the training file."""
        one = cast(Tagged, record)
        if one.tags is None:
            where = f"no tags in field {self.label!r}" if self.label else "no tags"
            raise one.place.error(f"{where}, one for each word needed: CoNLL's last column, or JSON like {self.form}")
        for number, tag in enumerate(self._gold_tags(one)):
            # Another library's model may begin its entities with I-.
            if tag not in self.labels and (self.scheme == schemes.PLAIN or f"I{tag[1:]}" not in self.labels):
                known = ", ".join(self.labels[:12]) + (" …" if len(self.labels) > 12 else "")
                raise one.place_of(number).error(
                    f"tag {tag!r} given, those of the training file allowed: {known}; {LEAVE_OUT}"
                )

    def key(self, record: Record) -> Hashable:
        """The text."""
        return cast(Tagged, record).text

    def gold(self, record: Record) -> Hashable:
        """The tags."""
        return cast(Tagged, record).tags

    def remarks(self, records: Sequence[Record]) -> list[str]:
        """The scheme and counts by type."""
        tagged = [cast(Tagged, record) for record in records]
        counts = Counter(label for one in tagged for label in self._named(one))
        if self.scheme == schemes.PLAIN:
            what = "labels"
            if schemes.OUTSIDE in counts:
                what = "plain labels, scored by accuracy, O too; --scheme io reads the others as entities"
        else:
            what = f"entities, tags read as {self.scheme.upper()}"
        named = ", ".join(f"{label} {count:,}" for label, count in counts.most_common(20))
        said = [
            f"{sum(len(one.units) for one in tagged):,} {'words' if tagged[0].words else 'characters'}; {what}: {named}"
        ]
        owners = ((label, one.place) for one in tagged for label in self._named(one))
        return [*said, *lonely(owners, "add more of it")]

    def remarks_on_dev(self, records: Sequence[Record]) -> list[str]:
        """Whether nothing is to be found, or one label only."""
        named = {label for one in records for label in self._named(cast(Tagged, one))}
        if self.scheme == schemes.PLAIN:
            return [f"every dev tag is {named.pop()!r}: scores on them say little"] if len(named) == 1 else []
        return [] if named else ["dev has no entity: F1 is 0 whatever is answered"]

    def _named(self, record: Tagged) -> list[str]:
        """What a record's tags name: types of entities, or labels."""
        if self.scheme == schemes.PLAIN:
            return list(record.tags or ())
        return [span.label for span in self.spans(record)]

    def _gold_tags(self, record: Tagged) -> list[str]:
        """The tags in the form they are learned in."""
        if self.scheme == schemes.PLAIN:
            return list(record.tags or ())
        return schemes.iob2(len(record.units), self.spans(record))

    def _tags_known(self, record: Tagged) -> list[str] | None:
        """The same, None where a record that is only asked about has none, or others than those learned."""
        try:
            return None if record.tags is None else self._gold_tags(record)
        except InputError:
            return None

    # Computing

    def features(self, records: Sequence[Record], tokenizer: Tokenizer, config: EncoderConfig) -> list[list[Feature]]:
        """Windows of each text; each labelled piece is labelled in the window that shows most around it."""
        most = room(tokenizer.special, self.most(config))
        require_stride(self.stride, most)
        stride = self.stride or most // 4
        tagged = [cast(Tagged, record) for record in records]
        numbers = {label: number for number, label in enumerate(self.labels)}
        made = []
        for record, (ids, places) in zip(tagged, tokenizer.pieces([one.text for one in tagged])):
            labelled, units = _labelled(record, places)  # (m,), (m, 2)
            tags = self._tags_known(record)
            gold = np.array([0 if tags is None else numbers.get(tags[unit], 0) for unit, _ in units], np.int64)
            features = []
            for start, stop, low, high in _windows(len(ids), most, stride):
                inside = (labelled >= low) & (labelled < high)
                if not inside.any():
                    continue
                whole, segments = sequence(tokenizer.special, ids[start:stop])
                target = (labelled[inside] - start + 1, gold[inside])
                features.append(Feature(whole, segments, {TARGET: target}, where=units[inside]))
            made.append(features)
        return made

    def reachable(self, record: Record, features: Sequence[Feature]) -> bool:
        """Whether every entity begins and ends with what a piece stands for."""
        if self.scheme == schemes.PLAIN:
            return True
        starts, ends = ({unit for one in features for unit in one.where[:, side]} for side in range(2))
        return all(span.start in starts and span.stop in ends for span in self.spans(cast(Tagged, record)))

    def head(self, config: EncoderConfig) -> nn.Module:
        """On each first piece, or on frozen features."""
        from bertloom.tasks.heads import FeatureHead, RowHead

        if self.features_from:
            return FeatureHead(config, len(self.labels), self.features_from, self.body, pooled=False)
        return RowHead(config, len(self.labels))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross entropy."""
        import torch.nn.functional as F

        return F.cross_entropy(logits.float(), batch.targets[TARGET][1], reduction="sum")

    def said(self, logits: Array, segments: Array) -> list[Said]:
        """The tag of every place that is not outside of all entities."""
        best = logits.argmax(1).tolist()
        outside = None if self.scheme == schemes.PLAIN else schemes.OUTSIDE
        return [
            Said(self.labels[tag], ((place, tag),))
            for place, tag in enumerate(best)
            if segments[place] >= 0 and self.labels[tag] != outside
        ]

    def decode(self, record: Record, features: Sequence[Feature], logits: Sequence[Array]) -> Prediction:
        """Entities with character offsets and probabilities, and the tag of every unit of a text given in words.

        A word that the vocabulary makes nothing of belongs to what is around it.
        """
        one = cast(Tagged, record)
        units = np.concatenate([feature.where for feature in features]) if features else np.zeros((0, 2), np.int64)
        shares = softmax(np.concatenate(logits) / self.temperature) if features else np.zeros((0, len(self.labels)))
        if self.scheme == schemes.PLAIN:
            best = shares.argmax(1)
            tags = ["" for _ in one.units]
            sure = [0.0 for _ in one.units]
            for (unit, _), number, share in zip(units, best, shares.max(1)):
                tags[unit], sure[unit] = self.labels[number], float(share)
            for unit in range(len(tags)):
                if not tags[unit]:
                    # Later characters of a piece, and what no piece stands for.
                    tags[unit], sure[unit] = (tags[unit - 1], sure[unit - 1]) if unit else (self.labels[0], 0.0)
            if one.words and one.given:
                return {"tags": tags, "probabilities": sure}
            tokens = [
                {"start": start, "end": end, "label": tag, "text": one.text[start:end], "probability": share}
                for (start, end), tag, share in zip(one.units, tags, sure)
            ]
            return {"text": one.text, "tokens": tokens, "tags": tags}
        legal = self.decoding == "legal"
        best = _likeliest(np.log(shares + 1e-30), self.labels) if legal else shares.argmax(1).tolist()
        found = schemes.spans([self.labels[number] for number in best], "iob2")
        spans = [schemes.Span(int(units[span.start, 0]), int(units[span.stop - 1, 1]), span.label) for span in found]
        entities = []
        for (start, stop, label), piece in zip(spans, found):
            first, last = one.units[start][0], one.units[stop - 1][1]
            share = float(np.mean([shares[n, best[n]] for n in range(piece.start, piece.stop)]))
            entities.append(
                {"start": first, "end": last, "label": label, "text": one.text[first:last], "probability": share}
            )
        made: Prediction = {"text": one.text, "entities": entities}
        if one.words and one.given:
            made["tags"] = schemes.iob2(len(one.units), spans)
            if not legal:
                for (unit, _), number in zip(units, best):
                    made["tags"][unit] = self.labels[number]
        return made

    def decisions(
        self, record: Record, features: Sequence[Feature], logits: Sequence[Array]
    ) -> Iterator[tuple[Array, int]]:
        """Every labelled piece is one."""
        for feature, rows_ in zip(features, logits):
            yield from zip(rows_, map(int, feature.targets[TARGET][1]))

    # Measuring

    @property
    def metrics(self) -> tuple[str, ...]:
        """Entity F1, strict, or accuracy of plain labels."""
        if self.scheme == schemes.PLAIN:
            return ("accuracy", "f1_macro_tags")
        types = dict.fromkeys(f"f1/{label[2:]}" for label in self.labels if label != schemes.OUTSIDE)
        return ("f1", "f1_conlleval", "f1_macro", "precision", "recall", "character_f1", *types)

    def metrics_on(self, records: Sequence[Record]) -> Sequence[str]:
        """F1 of types that dev has, and over characters where its texts are given by them."""
        tagged = cast(Sequence[Tagged], records)
        if self.scheme == schemes.PLAIN:
            return self.metrics
        types = {f"f1/{span.label}" for one in tagged for span in self.spans(one)}
        absent = {"character_f1"} if all(one.words for one in tagged) else set()
        return [name for name in self.metrics if name not in absent and ("/" not in name or name in types)]

    def score(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> dict[str, float]:
        """By seqeval over words; texts tagged by characters also by KLUE's macro F1 over characters."""
        tagged = [cast(Tagged, record) for record in records]
        gold = [self._gold_tags(one) for one in tagged]
        if self.scheme == schemes.PLAIN:
            return metrics.single_tags(gold, [one["tags"] for one in predictions])
        given = [self._unit_tags(one, prediction) for one, prediction in zip(tagged, predictions)]
        scores = metrics.entities(gold, given)
        if not all(one.words for one in tagged):
            # Spaces have no say, as in KLUE's own script.
            filled = [[not one.text[start:end].isspace() for start, end in one.units] for one in tagged]
            wanted, got = ([list(compress(tags, own)) for tags, own in zip(side, filled)] for side in (gold, given))
            scores["character_f1"] = metrics.character_f1(wanted, got, self.labels)
        return scores

    def _unit_tags(self, record: Tagged, prediction: Prediction) -> list[str]:
        if record.words:
            return list(prediction["tags"])
        # Units need not be single code points.
        starts = [start for start, _ in record.units]
        found = [
            schemes.Span(bisect_right(starts, one["start"]) - 1, bisect_left(starts, one["end"]), one["label"])
            for one in prediction["entities"]
        ]
        return schemes.iob2(len(record.units), found)

    def dead(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> str | None:
        """No entity anywhere, or one label alone."""
        if self.scheme == schemes.PLAIN:
            answers = {tag for one in predictions for tag in one["tags"]}
            gold = {tag for record in records for tag in cast(Tagged, record).tags or ()}
            return repr(answers.pop()) if len(answers) == 1 and len(gold) > 1 else None
        wanted = any(tag != schemes.OUTSIDE for record in records for tag in self._gold_tags(cast(Tagged, record)))
        return "no entity" if wanted and not any(one["entities"] for one in predictions) else None

    def labels_in_config(self) -> dict[str, Any]:
        """Names of the tags."""
        return label_names(self.labels)


def _labelled(record: Tagged, places: Sequence[Unit]) -> tuple[Array, Array]:
    """The pieces (m,) that carry a label, the first of each unit, and (m, 2) the units they stand for, first and end.

    A word's first piece stands for the word, a piece of a text given by characters for its characters.
    """
    starts = np.array([start for start, _ in record.units])
    pieces, units, last = [], [], -1
    for number, (start, stop) in enumerate(places):
        # Byte-level pieces begin with the space before a word.
        while start < stop and record.text[start].isspace():
            start += 1
        unit = int(np.searchsorted(starts, start, side="right")) - 1
        if start < stop and unit > last and start < record.units[unit][1]:
            end = unit + 1 if record.words else int(np.searchsorted(starts, stop))
            pieces.append(number)
            units.append((unit, end))
            last = unit if record.words else end - 1
    return np.array(pieces, np.int64), np.array(units, np.int64).reshape(-1, 2)


def _windows(count: int, most: int, stride: int) -> Iterator[tuple[int, int, int, int]]:
    """Windows `start` to `stop` over pieces, and `low` to `high`: those with more around them here than elsewhere."""
    start = low = 0
    while True:
        stop = min(count, start + most)
        following = start + most - stride
        high = count if stop == count else (following + stop) // 2
        yield start, stop, low, high
        if stop == count:
            return
        start, low = following, high


def _likeliest(scores: Array, labels: Sequence[str]) -> list[int]:
    """The best legal IOB2 sequence of log-probabilities (n, K), by Viterbi's algorithm."""
    if not len(scores):
        return []
    # A model of types without a B- begins its entities with I-.
    inside = [label.startswith("I-") and f"B-{label[2:]}" in labels for label in labels]
    legal = np.array(
        [[not on or before in (now, f"B-{now[2:]}") for on, now in zip(inside, labels)] for before in labels]
    )
    moves = np.where(legal, 0.0, -np.inf)
    begins = np.where(inside, -np.inf, 0.0)
    total, back = scores[0] + begins, []
    for row in scores[1:]:
        ways = total[:, None] + moves
        back.append(ways.argmax(0))
        total = ways.max(0) + row
    best = [int(total.argmax())]
    for pointers in reversed(back):
        best.append(int(pointers[best[-1]]))
    return best[::-1]
