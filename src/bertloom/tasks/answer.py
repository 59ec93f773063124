"""A question answered by a span of a text, or by nothing (Devlin et al. 2019, §4.2, §4.3)."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
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
    Prediction,
    Record,
    Said,
    Task,
    apart,
    identity_of,
    learned,
    option,
    softmax,
)
from bertloom.text.records import Place, Row, json_of, text_of
from bertloom.text.sequence import room, sequence
from bertloom.text.sources import ReadCounts, plain_suffix
from bertloom.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bertloom.model.packed import Batch

# Candidates of a window, and of a question, that are weighed against each other; BERT's own numbers.
CANDIDATES, BEST = 20, 20
# A longer question is cut here, so that windows have room for the text.
LONGEST_QUESTION = 64
# Texts with this share of Hangul are scored as KorQuAD's.
HANGUL = 0.2


@dataclass(frozen=True, kw_only=True)
class Question(Record):
    """A question on a text; `answers` are spellings and where they begin, () where there is none, None if unknown."""

    question: str
    context: str
    answers: tuple[tuple[str, int], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Answer(Task):
    """SQuAD 1.1, 2.0, KorQuAD: the best span over windows, or nothing where that scores higher."""

    name: ClassVar[str] = "answer"
    architecture: ClassVar[str] = "ForQuestionAnswering"
    part: ClassVar[str] = "qa_outputs"
    pipeline: ClassVar[str] = "question-answering"
    by_id: ClassVar[bool] = True
    usual_length: ClassVar[int] = 384
    form: ClassVar[str] = '{"id": …, "question": …, "context": …, "answers": {"text": […], "answer_start": […]}}'

    question: str = option("", "Column of the question; question unless given.", of_data=True)
    context: str = option("", "Column of the text; context unless given.", of_data=True)
    answers: str = option("", "Column of the answers; answers unless given.", of_data=True)
    stride: int = option(128, "Tokens that windows of a long text share.")
    longest: int = option(30, "Most tokens of an answer.")
    script: str = option(
        "auto", "How answers are compared: squad (words), korquad (characters); auto tells by the text.",
        ("auto", "squad", "korquad"),
    )  # fmt: skip
    nothing: bool = learned(False)
    threshold: float = learned(0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("stride", 0), ("longest", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: {getattr(self, name)} given, at least {least} allowed")
        apart(question=self.question, context=self.context, answers=self.answers)

    # Reading

    def read(self, source: str, counts: ReadCounts) -> Iterator[Record]:
        """SQuAD's JSON, or a row for each question."""
        if plain_suffix(source) == ".json":
            yield from replace(self, question="", context="", answers="").made(_squad(source), counts)
        else:
            yield from super().read(source, counts)

    @property
    def example(self) -> Row:
        """A question and its text."""
        question, context = self.question or "question", self.context or "context"
        return {question: "Who lives in Paris?", context: "Anna lives in Paris."}

    def without_gold(self, row: Row) -> Row:
        """Without answers."""
        gold = (self.answers or "answers", "is_impossible")
        return {name: value for name, value in row.items() if name not in gold}

    def record(self, row: Row, place: Place) -> Question:
        """A question, its text, and answers that stand where they are said to."""
        context = text_of(row, self.context or "context", place)
        answers = _answers(row, self.answers or "answers", place)
        for text, start in answers or ():
            there = context[start : start + len(text)]
            if there != text or start < 0:
                raise place.error(f"answer {text[:60]!r} does not stand at {start}, {there[:60]!r} does")
        return Question(
            place=place,
            id=identity_of(row, place),
            question=text_of(row, self.question or "question", place),
            context=context,
            answers=answers,
        )

    # Learning

    def learn(self, records: Sequence[Record]) -> Self:
        """Whether nothing may be the answer, and which script compares."""
        questions = [one for one in cast(Sequence[Question], records) if one.answers is not None]
        if not questions:
            self.require(records[0])
        if not any(one.answers for one in questions):
            raise questions[0].place.error("no question has an answer, at least one needed")
        script = self.script
        if script == "auto":
            letters = "".join(text for one in questions[:500] for text, _ in one.answers or ())
            share = sum("\uac00" <= letter <= "\ud7a3" for letter in letters) / max(1, len(letters))
            script = "korquad" if share >= HANGUL else "squad"
        return replace(self, nothing=any(not one.answers for one in questions), script=script)

    def require(self, record: Record) -> None:
        """Answers, or the word that there are none."""
        one = cast(Question, record)
        if one.answers is None:
            where = f"no answers in column {self.answers!r}" if self.answers else "no answers"
            raise one.place.error(f"{where}, rows like {self.form} needed")

    def key(self, record: Record) -> Hashable:
        """Question and text."""
        one = cast(Question, record)
        return (one.question, one.context)

    def gold(self, record: Record) -> Hashable:
        """The answers."""
        return cast(Question, record).answers

    def remarks(self, records: Sequence[Record]) -> list[str]:
        """How many questions, texts and answers."""
        questions = [cast(Question, record) for record in records]
        none = sum(not one.answers for one in questions)
        texts = len({one.context for one in questions})
        return [
            f"{len(questions):,} questions on {texts:,} texts, {none:,} without an answer; compared as {self.script}"
        ]

    def remarks_on_dev(self, records: Sequence[Record]) -> list[str]:
        """Questions that nothing answers, where no training question was such."""
        none = sum(not cast(Question, one).answers for one in records)
        if self.nothing or not none:
            return []
        what = "dev questions have no answer, which no training question taught: each counts as wrong"
        return [f"{none:,} of {len(records):,} {what}"]

    # Computing

    def features(self, records: Sequence[Record], tokenizer: Tokenizer, config: EncoderConfig) -> list[list[Feature]]:
        """Windows over each text, the question before each; an answer outside a window is nothing there."""
        questions, most = [cast(Question, record) for record in records], self.most(config)
        texts = list(dict.fromkeys(one.context for one in questions))
        pieces = dict(zip(texts, tokenizer.pieces(texts)))
        asked = tokenizer.ids([one.question for one in questions], special=False)
        made = []
        for one, question in zip(questions, asked):
            ids, places = pieces[one.context]
            question, cut = (
                question[: min(LONGEST_QUESTION, most // 2)],
                len(question) > min(LONGEST_QUESTION, most // 2),
            )
            free = room(tokenizer.special, most, True) - len(question)
            # What is read in short windows is not read over and over.
            step = free - min(self.stride, free // 2)
            begins = range(0, max(1, len(ids) - free + step), step)
            gold = _gold_pieces(one, places)
            made.append([self._window(tokenizer, question, ids, places, at, free, gold, cut) for at in begins])
        return made

    def reachable(self, record: Record, features: Sequence[Feature]) -> bool:
        """Whether the pieces of an answer spell it as the script compares."""
        one = cast(Question, record)
        exact = metrics.SCRIPTS[self.script].exact

        def given(answer: tuple[str, int], places: Array) -> bool:
            found = _pieces_of(answer, places)
            if found is None or found[1] - found[0] >= self.longest:
                return False
            return bool(exact(answer[0], one.context[places[found[0]][0] : places[found[1]][1]]))

        answers = one.answers or ()
        return not answers or any(given(answer, made.where[1]) for answer in answers for made in features)

    def limit(self, config: EncoderConfig) -> str:
        """Texts are read whole, questions are not."""
        return f"a question of more than {min(LONGEST_QUESTION, self.most(config) // 2)} tokens, which was cut"

    def _window(
        self,
        tokenizer: Tokenizer,
        question: list[int],
        ids: list[int],
        places: list[tuple[int, int]],
        at: int,
        free: int,
        gold: tuple[int, int] | None,
        cut: bool,
    ) -> Feature:
        whole, segments = sequence(tokenizer.special, question, ids[at : at + free])
        first = len(question) + 1 + tokenizer.special.between
        labels = np.zeros((len(whole), 2), np.int8)
        inside = gold is not None and at <= gold[0] and gold[1] < at + free
        for side in range(2):
            labels[first + gold[side] - at if gold is not None and inside else 0, side] = 1
        target = (np.arange(len(whole)), labels)
        where = (first, np.array(places[at : at + free], np.int32).reshape(-1, 2))
        return Feature(whole, segments, {TARGET: target}, cut=cut, where=where)

    def head(self, config: EncoderConfig) -> nn.Module:
        """Two logits a token: begins here, ends here."""
        from bertloom.tasks.heads import RowHead

        return RowHead(config, 2, drops=False)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean of the cross entropies of start and end, over each sequence's tokens."""
        from bertloom.model.packed import grouped_log_softmax

        shares = grouped_log_softmax(logits.float(), batch.lengths)
        return -(shares * batch.targets[TARGET][1]).sum() / 2

    def count(self, batch: Batch) -> int:
        """Windows."""
        return len(batch.lengths)

    def said(self, logits: Array, segments: Array) -> list[Said]:
        """The best span of the second text: that it begins here and ends there."""
        rows = np.flatnonzero(segments == 1)
        found = _candidates(logits[rows], np.stack([rows, rows + 1], 1), self.longest)
        return [Said("answer", ((start, 0), (end - 1, 1))) for _, start, end in found[:1]]

    def decode(self, record: Record, features: Sequence[Feature], logits: Sequence[Array]) -> Prediction:
        """The best span over all windows with its place and probability, and how much better nothing is (`null`)."""
        one = cast(Question, record)
        found, null = self._ranked(features, logits)
        shares = softmax(self._scores(found, null) / self.temperature)
        score, start, end = found[0] if found else (null, 0, 0)
        margin = null - score
        told: Prediction
        if found and (not self.nothing or margin <= self.threshold):
            told = {"answer": one.context[start:end], "start": start, "end": end, "probability": float(shares[0])}
        else:
            told = {"answer": "", "start": None, "end": None, "probability": float(shares[-1])}
        return {**told, "null": margin, "best": one.context[start:end]}

    def decisions(
        self, record: Record, features: Sequence[Feature], logits: Sequence[Array]
    ) -> Iterator[tuple[Array, int]]:
        """The one choice among the best spans, and nothing where that may be; right is what the script holds exact."""
        one = cast(Question, record)
        found, null = self._ranked(features, logits)
        scores, exact = self._scores(found, null), metrics.SCRIPTS[self.script].exact
        (gold,) = _spellings([one])
        # Spans of nothing but punctuation are exact to the script too, but nothing is what is to be chosen.
        missing = -1 if gold or not self.nothing else len(scores) - 1
        spans = (one.context[start:end] for _, start, end in found)
        yield scores, next((n for n, span in enumerate(spans) if any(exact(text, span) for text in gold)), missing)

    def _ranked(
        self, features: Sequence[Feature], logits: Sequence[Array]
    ) -> tuple[list[tuple[float, int, int]], float]:
        """The best spans over all windows as (score, start, end), the best first, and the score of nothing."""
        null = min(float(window[0].sum()) for window in logits)
        found: list[tuple[float, int, int]] = []
        for feature, window in zip(features, logits):
            first, places = feature.where
            found += _candidates(window[first : first + len(places)], places, self.longest)
        # A span in two windows is one candidate.
        best: dict[tuple[int, int], float] = {}
        for score, start, end in found:
            best[start, end] = max(score, best.get((start, end), score))
        ranked = sorted(((score, *span) for span, score in best.items()), key=lambda one: (-one[0], *one[1:]))
        return ranked[:BEST], null

    def _scores(self, found: Sequence[tuple[float, int, int]], null: float) -> Array:
        """What the answer is chosen by: spans' scores, and last that of nothing, which has to beat the threshold."""
        nothing = [null - self.threshold] if self.nothing or not found else []
        return np.array([*(score for score, _, _ in found), *nothing])

    # Measuring

    @property
    def metrics(self) -> tuple[str, ...]:
        """By the script; where nothing may be the answer also of the questions with and without one."""
        own = {"f1": "f1", "exact": "exact" if self.nothing else "exact_match"}
        if self.script == "korquad":
            own = {name: f"korquad_{name}" for name in own}
        parts = ("HasAns_f1", "HasAns_exact", "NoAns_f1", "NoAns_exact") if self.nothing else ()
        return (*own.values(), *parts)

    def metrics_on(self, records: Sequence[Record]) -> Sequence[str]:
        """Without those of questions that dev has none of."""
        found = {"HasAns" if cast(Question, record).answers else "NoAns" for record in records}
        return [name for name in self.metrics if "Ans_" not in name or name.partition("_")[0] in found]

    def score(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> dict[str, float]:
        """In percent, by the names of the official scripts; another library's model goes by what is asked of it."""
        if self.script == "auto":
            return self.learn(records).score(predictions, records)
        f1, exact, *_ = self.metrics
        if self.nothing:
            names = {"f1": f1, "exact": exact}
            scores = self._with_nothing(predictions, records, self.threshold)
            return {names.get(name, name): value for name, value in scores.items()}
        script, answers = metrics.SCRIPTS[self.script], [one["answer"] for one in predictions]
        found = metrics.answer_scores(_spellings(records), answers, script.exact, script.f1)
        return metrics.means(found, {"f1": f1, "exact": exact})

    def _with_nothing(
        self, predictions: Sequence[Prediction], records: Sequence[Record], threshold: float
    ) -> dict[str, float]:
        best, nulls = [one["best"] for one in predictions], [one["null"] for one in predictions]
        return metrics.with_nothing(_spellings(records), best, nulls, threshold, metrics.SCRIPTS[self.script])

    def tuned(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> Self:
        """The threshold of nothing that gives the best F1."""
        if not self.nothing:
            return self

        def f1(threshold: float) -> float:
            return self._with_nothing(predictions, records, threshold)["f1"]

        nulls = [one["null"] for one in predictions]
        best = self._with_nothing(predictions, records, 0.0)["best_f1_thresh"]
        # Halfway to the next question, since rounding moves scores; below all where none is better answered.
        above = min((null for null in nulls if null > best), default=best + 1)
        return replace(self, threshold=max((best + above) / 2, min(nulls) - 1, key=f1))

    def dead(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> str | None:
        """One answer to every question, or nothing, where that is not right of all."""
        (answer, *others) = {one["answer"] for one in predictions}
        right = all(answer in (spelt or [""]) for spelt in _spellings(records))
        return None if others or right else repr(answer or "nothing")


def _spellings(records: Sequence[Record]) -> list[list[str]]:
    """Of each question its gold answers."""
    return [[text for text, _ in cast(Question, record).answers or ()] for record in records]


def _squad(source: str) -> Iterator[tuple[Place, Row]]:
    """SQuAD's JSON: articles of paragraphs of questions."""
    number = 0
    for article in _listed(json_of(source), "data", source):
        for paragraph in _listed(article, "paragraphs", f"{source}: article after question {number}"):
            for asked in _listed(paragraph, "qas", f"{source}: paragraph after question {number}"):
                number += 1
                if not isinstance(asked, dict) or "context" not in paragraph:
                    raise Place(source, number, "question").error("is no SQuAD JSON: no question with a context")
                row, named = {**asked, "context": paragraph["context"]}, asked.get("id", "")
                unnamed = named in ("", None)
                yield Place(source, number, "question") if unnamed else Place(f"{source}: question {named}"), row


def _listed(given: Any, name: str, where: str) -> list[Any]:
    """The list of that name."""
    if not isinstance(given, dict) or not isinstance(given.get(name), list):
        raise InputError(f"is no SQuAD JSON: an object with a list {name!r} needed", where)
    return cast(list[Any], given[name])


def _answers(row: Row, name: str, place: Place) -> tuple[tuple[str, int], ...] | None:
    """Spellings and starts, of SQuAD's list or the Hub's two lists; None where a row has no word on them."""
    impossible = row.get("is_impossible")
    if isinstance(impossible, str):
        impossible = {"true": True, "false": False, "": None}.get(impossible.strip().lower(), impossible)
    if impossible is not None and not isinstance(impossible, bool):
        raise place.error(f"is_impossible: {impossible!r} given, true or false allowed")
    given = row.get(name)
    if isinstance(given, str):
        # A cell of a table.
        try:
            given = json.loads(given) if given.strip() else None
        except ValueError:
            raise place.error(f"{name}: {str(row[name])[:60]!r} given, JSON like {Answer.form} holds allowed") from None
    if given is None:
        return () if impossible else None
    made: tuple[tuple[str, int], ...] = ()
    # What stands in for no answer may be anything.
    with suppress(InputError) if impossible else nullcontext():
        made = _listed_answers(given, name, place)
    if impossible is bool(made):
        had = "an answer" if made else "no answer"
        raise place.error(f"is_impossible {str(impossible).lower()} and {had} given, one of both allowed; {LEAVE_OUT}")
    return made


def _listed_answers(given: Any, name: str, place: Place) -> tuple[tuple[str, int], ...]:
    with_place = partial(_checked, place=place)
    if isinstance(given, dict):
        texts, starts = given.get("text"), given.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise place.error(f"{name} hold no lists text and answer_start of one length")
        return tuple(map(with_place, zip(texts, starts)))
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise place.error(f"{name}: a {type(given).__name__} given, a list of texts with answer_start allowed")
    return tuple(with_place((one.get("text"), one.get("answer_start"))) for one in given)


def _checked(answer: tuple[Any, Any], place: Place) -> tuple[str, int]:
    text, start = answer
    if not isinstance(text, str) or not text.strip() or type(start) is not int:
        raise place.error(f"answer {text!r} at {start!r} given, a text that is not blank and a whole number allowed")
    return text, start


def _gold_pieces(one: Question, places: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """First and last piece of the first answer; None where there is none, or no piece stands for it."""
    return _pieces_of(one.answers[0], places) if one.answers else None


def _pieces_of(answer: tuple[str, int], places: Array | Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    text, start = answer
    end = start + len(text)
    touched = [number for number, (low, high) in enumerate(places) if low < end and start < high]
    return (touched[0], touched[-1]) if touched else None


def _candidates(window: Array, places: Array, longest: int) -> list[tuple[float, int, int]]:
    """The best spans of a window (n, 2) as (score, first character, end), none longer than `longest` pieces."""
    if not len(window):
        return []
    begins, ends = ((-window[:, side]).argsort(kind="stable")[:CANDIDATES] for side in range(2))
    size = ends[None, :] - begins[:, None]
    rows, columns = np.nonzero((size >= 0) & (size < longest))
    scores = window[begins[rows], 0] + window[ends[columns], 1]
    best = (-scores).argsort(kind="stable")[:BEST]
    return [(float(scores[n]), int(places[begins[rows[n]], 0]), int(places[ends[columns[n]], 1])) for n in best]
