from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertloom.corpus import Corpus, Draw
from bertloom.corpus.order import sentence_of
from bertloom.corpus.prepare import prepare
from bertloom.corpus.segments import Span, assembled, examples_per_epoch, full, pair, sentence, sentences
from bertloom.errors import InputError


def document_of(corpus: Corpus, token: int) -> int:
    return int(np.searchsorted(corpus.spans, token, side="right")) - 1


def inside_one_document(corpus: Corpus, span: Span) -> bool:
    return span.size > 0 and document_of(corpus, span.start) == document_of(corpus, span.stop - 1)


draws = st.builds(Draw, st.integers(0, 2**40), st.integers(0, 10**7), st.integers(8, 200))


@settings(max_examples=300, deadline=None)
@given(draw=draws)
def test_pairs(corpus: Corpus, draw: Draw) -> None:
    made = pair(corpus, draw, draw.rng())
    assert made == pair(corpus, Draw(draw.seed, draw.index, draw.length), draw.rng()), "a pure function of the draw"
    assert inside_one_document(corpus, made.first)
    assert inside_one_document(corpus, made.second)
    assert made.first.size + made.second.size <= draw.length - 3
    same = document_of(corpus, made.first.start) == document_of(corpus, made.second.start)
    assert same == made.is_next
    if made.is_next:
        assert made.second.start == made.first.stop
    assert made.second.start == corpus.sentences[sentence_of(corpus, made.second.start)], "B begins a sentence"
    assert made.first.stop in corpus.sentences, "A ends one"


@settings(max_examples=300, deadline=None)
@given(draw=draws)
def test_whole_sentences_end_where_one_does(corpus: Corpus, draw: Draw) -> None:
    (made,), (filled,) = (how(corpus, draw, draw.rng()) for how in (sentences, full))
    assert made.start == filled.start
    assert inside_one_document(corpus, made)
    room = draw.length - 2
    following = corpus.sentences[sentence_of(corpus, made.start) + 1]
    if following - made.start > room:
        assert made == filled, "one too long is cut"
        return
    assert made.stop in corpus.sentences
    after = corpus.sentences[sentence_of(corpus, made.stop) + 1] if made.stop < len(corpus.tokens) else None
    within = after is not None and document_of(corpus, made.stop) == document_of(corpus, made.start)
    assert not within or after - made.start > room, "as many as there is room for"


def test_half_are_true_one_in_ten_is_short_and_the_rest_are_full(corpus: Corpus) -> None:
    made = [pair(corpus, Draw(0, index, 24), Draw(0, index, 24).rng()) for index in range(4000)]
    assert abs(np.mean([one.is_next for one in made]) - 0.5) < 0.03
    # Only what reaches its document's end may be short beside the one in ten.
    ends = set(corpus.spans.tolist())
    short = [one for one in made if one.first.size + one.second.size < 21 and one.second.stop not in ends]
    assert 0.05 < len(short) / len(made) < 0.11


def test_a_random_second_segment_is_drawn_by_the_size_of_the_other_documents() -> None:
    corpus = Shaped([[10] * 2, [10] * 4, [10] * 6])
    drawn = [pair(corpus, Draw(0, index, 30), Draw(0, index, 30).rng()) for index in range(6000)]  # type: ignore[arg-type]
    places = [
        (document_of(corpus, one.first.start), document_of(corpus, one.second.start))  # type: ignore[arg-type]
        for one in drawn
        if not one.is_next
    ]
    for mine, others in ((0, {1: 4, 2: 6}), (1, {0: 2, 2: 6}), (2, {0: 2, 1: 4})):
        seconds = [second for first, second in places if first == mine]
        assert set(seconds) == set(others)
        for other, size in others.items():
            assert seconds.count(other) / len(seconds) == pytest.approx(size / sum(others.values()), abs=0.06)


@settings(max_examples=200, deadline=None)
@given(draw=draws)
def test_single_segments_never_cross_documents(corpus: Corpus, draw: Draw) -> None:
    for kind in (full, sentence):
        (span,) = kind(corpus, draw, draw.rng())
        assert inside_one_document(corpus, span)
        assert span.size <= draw.length - 2


def test_one_sentence_each_and_every_sentence_once(corpus: Corpus) -> None:
    count = examples_per_epoch(corpus, "sentence", 200)
    spans = [sentence(corpus, Draw(1, index, 200), Draw(1, index, 200).rng())[0] for index in range(count)]
    assert sorted(span.start for span in spans) == corpus.sentences[:-1].tolist()


def test_assembled_pair(corpus: Corpus) -> None:
    example, places, starts = assembled(corpus, [Span(3, 6), Span(10, 12)])
    special = corpus.special
    tokens = corpus.tokens
    want = [special["cls"], *tokens[3:6], special["sep"], *tokens[10:12], special["sep"]]
    assert example.input_ids.tolist() == want
    assert example.segment_ids.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert places.tolist() == [1, 2, 3, 5, 6]
    assert starts.tolist() == [*corpus.word_starts[3:6], *corpus.word_starts[10:12]]


def test_a_pair_needs_two_documents(tmp_path: Path, tokenizer_folder: Path) -> None:
    (tmp_path / "one.txt").write_text("The cat meows.\nThe cat sleeps.\n")
    alone = prepare([tmp_path / "one.txt"], tokenizer_folder, tmp_path / "c", workers=1)
    with pytest.raises(InputError, match="one document, at least two needed"):
        pair(alone, Draw(0, 0, 32), Draw(0, 0, 32).rng())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=6), min_size=2, max_size=6), st.integers(8, 40))
def test_pairs_of_any_shape_of_corpus(shape: list[list[int]], length: int) -> None:
    corpus = Shaped(shape)
    if max(map(len, shape)) < 2:
        return
    for index in range(20):
        draw = Draw(0, index, length)
        made = pair(corpus, draw, draw.rng())  # type: ignore[arg-type]
        assert made.first.size + made.second.size <= length - 3
        assert inside_one_document(corpus, made.first)  # type: ignore[arg-type]
        assert inside_one_document(corpus, made.second)  # type: ignore[arg-type]


class Shaped:
    """A corpus of given sentence lengths by document."""

    def __init__(self, shape: list[list[int]]):
        lengths = [length for document in shape for length in document]
        self.path = Path("shaped")
        self.tokens = np.zeros(sum(lengths), np.uint16)
        self.sentences = np.concatenate([[0], np.cumsum(lengths)])
        self.documents = np.concatenate([[0], np.cumsum([len(document) for document in shape])])
        self.spans = self.sentences[self.documents]
