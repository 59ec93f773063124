from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertloom.errors import InputError
from bertloom.tasks.tag import Tag, _likeliest, _windows
from bertloom.tasks.tagged import Tagged
from bertloom.text.records import Place
from bertloom.text.sources import ReadCounts
from bertloom.text.tokenizer import Tokenizer
from tests.conftest import small
from tests.tasks.cases import learned, perfect

CONLL = "-DOCSTART- -X- O\n\nAnna B-PER\nlives O\nin O\nNew B-LOC\nYork I-LOC\n\nHi O\n"
CONLLU = """# sent_id = 1
# text = dogs can't
1\tdogs\tdog\tNOUN\tNNS\t_\t2\tnsubj\t_\t_
2-3\tcan't\t_\t_\t_\t_\t_\t_\t_\t_
2\tca\tcan\tAUX\tMD\t_\t0\troot\t_\t_
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_

"""
KLUE = (
    "## id-1\t안나는 서울에\n안\tB-PS\n나\tI-PS\n는\tO\n \tO\n서\tB-LC\n울\tI-LC\n에\tO\n\n"
    "## id-2\tABC\nA\tO\nB\tO\nC\tO\n"
)


def read(file: Path, content: str | None = None, **options: Any) -> tuple[Tag, list[Tagged]]:
    if content is not None:
        file.write_text(content, encoding="utf-8")
    task = Tag(**options)
    records = list(task.read(str(file), ReadCounts()))
    return task, records  # type: ignore[return-value]


def test_conll_by_lines(tmp_path: Path) -> None:
    task, records = read(tmp_path / "a.conll", CONLL)
    assert [one.text for one in records] == ["Anna lives in New York", "Hi"]
    assert records[0].tags == ("B-PER", "O", "O", "B-LOC", "I-LOC")
    assert records[0].lines == (3, 4, 5, 6, 7)
    assert task.learn(records).labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_blank_lines_may_hold_blanks_and_words_may_be_hashes(tmp_path: Path) -> None:
    _, records = read(tmp_path / "a.conll", "#\tO\nAnna\tB-PER\n\t\n##\tO\n \t \nx\tO\n")
    assert [one.text for one in records] == ["# Anna", "##", "x"]


def test_klues_first_lines_hold_no_tab(tmp_path: Path) -> None:
    _, records = read(tmp_path / "a.tsv", "## two columns : \\t\n\n## id-0\tsource\na\tB-X\nb\tI-X\n \tO\n")
    assert [one.text for one in records] == ["ab "]
    _, records = read(tmp_path / "b.conll", "## B-X\nab O\n")
    assert [one.text for one in records] == ["## ab"], "a word where columns are divided by spaces"


def test_json_is_told_by_its_first_sign(tmp_path: Path) -> None:
    _, records = read(tmp_path / "lines", '{"text": "Anna sings", "entities": [[0, 4, "PER"]]}\n')
    assert records[0].text == "Anna sings"


def test_as_many_begun_as_not_are_iob2(tmp_path: Path) -> None:
    task, records = read(tmp_path / "a.conll", "a O\nb B-X\nc I-Y\n")
    with pytest.raises(InputError, match=r"a.conll:3: tag 'I-Y' after B-X is not legal in IOB2"):
        learned(task, records)


def test_conllu_by_columns(tmp_path: Path) -> None:
    _, records = read(tmp_path / "a.conllu", CONLLU)
    assert records[0].text == "dogs ca n't"
    assert records[0].tags == ("NOUN", "AUX", "PART")
    _, records = read(tmp_path / "a.conllu", label="deprel", text="lemma")
    assert (records[0].text, records[0].tags) == ("dog can not", ("nsubj", "root", "advmod"))


def test_klue_by_characters(tmp_path: Path) -> None:
    task, records = read(tmp_path / "a.tsv", KLUE)
    assert [one.text for one in records] == ["안나는 서울에", "ABC"]
    assert not records[0].words
    assert [span[:2] for span in task.learn(records).spans(records[0])] == [(0, 2), (4, 6)]


def test_spans_and_lists_of_words_in_json(tmp_path: Path) -> None:
    rows = [
        {"text": "Anna in Rome", "entities": [{"start": 8, "end": 12, "label": "LOC"}, [0, 4, "PER"]]},
        {"tokens": ["Anna", "in", "Rome"], "ner_tags": ["B-PER", "O", "B-LOC"]},
    ]
    _, records = read(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    task = Tag().learn(records)
    assert task.spans(records[0]) == [(0, 4, "PER"), (8, 12, "LOC")]
    assert task.spans(records[1]) == [(0, 1, "PER"), (2, 3, "LOC")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.conll",
            "Anna B-PER\nlives O x\n",
            "a.conll:2: 3 columns given, 2 as in the line before allowed: a word a line; texts go into JSON rows",
        ),
        ("a.conllu", "1\tdogs\tNOUN\n", "a.conllu:1: 3 columns given, 10 of CoNLL-U allowed"),
        ("a.conll", "\tO\nx\tO\n", "a.conll:1: an empty first or last column"),
        ("a.jsonl", '{"tokens": ["a"], "tags": ["O", "O"]}', "a.jsonl:1: field 'tags' holds no list of 1 tags"),
        ("a.jsonl", '{"tokens": ["a"], "tags": [null]}', "field 'tags' holds the tag None, texts allowed"),
        ("a.jsonl", '{"tokens": []}', r"holds \[\], a list of words"),
        ("a.jsonl", '{"text": "ab", "spans": [[0, 3, "X"]]}', "span 0 to 3 given, inside the text's 2 characters"),
        ("a.jsonl", '{"text": "ab", "spans": [[0, 2, "X"], [1, 2, "Y"]]}', "overlap"),
        ("a.jsonl", '{"text": "ab", "spans": [[0, 2]]}', "start, end and label allowed"),
        ("a.jsonl", '{"text": "ab", "spans": 3}', "holds a int, a list of spans"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(tmp_path / name, content)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.conll:1: column '3' given, 1 to 2 allowed"):
        read(tmp_path / "a.conll", "Anna O\n", label="3")
    with pytest.raises(InputError, match=r"column 'colour' given, 1 to 10 or id, form"):
        read(tmp_path / "a.conllu", CONLLU, label="colour")


def test_illegal_tags_are_refused_with_their_line_or_mended(tmp_path: Path) -> None:
    content = "a B-PER\nb O\nc I-PER\n\nd B-PER\n"
    task, records = read(tmp_path / "a.conll", content)
    with pytest.raises(InputError, match=r"a.conll:3: tag 'I-PER' after O is not legal in IOB2.*--illegal repair"):
        learned(task, records)
    task, records = read(tmp_path / "a.conll", content, illegal="repair")
    assert task.learn(records).spans(records[0]) == [(0, 1, "PER"), (2, 3, "PER")]
    with pytest.raises(InputError, match=r"no entity in any sentence"):
        Tag().learn(read(tmp_path / "b.conll", "a O\n")[1])
    with pytest.raises(InputError, match=r"no tags, one for each word"):
        learned(Tag(), read(tmp_path / "b.conll", "a\n")[1])


def test_unknown_tags_in_dev_name_their_line(tmp_path: Path) -> None:
    task = Tag().learn(read(tmp_path / "a.conll", "a B-PER\n")[1])
    (dev,) = read(tmp_path / "d.conll", "x O\ny B-ORG\n")[1]
    with pytest.raises(
        InputError,
        match=r"d.conll:2: tag 'B-ORG' given, those of the training file allowed: O, B-PER, I-PER; --on-bad skip",
    ):
        task.require(dev)


def test_a_bad_sentence_is_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("a O\nb O x\n\nc O\n")
    counts = ReadCounts()
    records = list(Tag(on_bad="skip").read(str(tmp_path / "a.conll"), counts))
    assert len(records) == 1
    assert counts.mended == {"malformed sentence, left out": 1}


@given(st.integers(0, 300), st.integers(2, 40), st.data())
def test_windows_label_every_piece_once_where_most_is_around_it(count: int, most: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(0, most - 1))
    owners = []
    for start, stop, low, high in _windows(count, most, stride):
        assert stop - start <= most
        assert start <= low <= high <= stop
        owners += range(low, high)
    assert owners == list(range(count))


@given(st.integers(1, 120), st.integers(0, 1000))
def test_no_word_of_a_long_sentence_loses_its_label(tokenizer: Tokenizer, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = rng.choice(["the", "cat", "lives", "xyzzy", "한국어"], count).tolist()
    tags = tuple(rng.choice(["B-X", "O"], count).tolist())
    ends = np.cumsum([len(word) + 1 for word in words])
    units = tuple((int(end) - len(word) - 1, int(end) - 1) for word, end in zip(words, ends))
    record = Tagged(place=Place("x"), text=" ".join(words), units=units, words=True, tags=tags)
    task = Tag(length=12, labels=("O", "B-X", "I-X"), scheme="iob2")
    (features,) = task.features([record], tokenizer, small(vocab_size=len(tokenizer)))
    seen = [int(unit) for feature in features for unit, _ in feature.where]
    assert seen == list(range(count))
    prediction = task.decode(record, features, [perfect(task, feature) for feature in features])
    assert prediction["tags"] == list(tags)
    for one in prediction["entities"]:
        assert record.text[one["start"] : one["end"]] == one["text"]


@given(st.integers(0, 2**32))
def test_the_likeliest_legal_sequence(seed: int) -> None:
    labels = ("O", "B-X", "I-X", "B-Y", "I-Y")
    scores = np.random.default_rng(seed).normal(size=(4, 5)) * 3

    def legal(path: tuple[int, ...]) -> bool:
        names = ["O", *(labels[number] for number in path)]
        return all(not b.startswith("I-") or a in (b, f"B-{b[2:]}") for a, b in pairwise(names))

    every = [path for path in np.ndindex(5, 5, 5, 5) if legal(path)]
    best = max(every, key=lambda path: sum(scores[n, one] for n, one in enumerate(path)))
    assert _likeliest(scores, labels) == list(best)


def test_words_the_vocabulary_makes_nothing_of(tokenizer: Tokenizer) -> None:
    text = "cat \u200d dog"
    record = Tagged(place=Place("x"), text=text, units=((0, 3), (4, 5), (6, 9)), words=True, tags=("B-X", "I-X", "I-X"))
    task = Tag(labels=("O", "B-X", "I-X"), scheme="iob2")
    (features,) = task.features([record], tokenizer, small(vocab_size=len(tokenizer)))
    made = task.decode(record, features, [perfect(task, one) for one in features])
    assert made["tags"] == ["B-X", "I-X", "I-X"]
    empty = Tagged(place=Place("x"), text="\u200d", units=((0, 1),), words=True, tags=("O",))
    (features,) = task.features([empty], tokenizer, small(vocab_size=len(tokenizer)))
    assert task.decode(empty, features, [])["tags"] == ["O"]


def test_a_tagger_of_words_cuts_plain_texts_into_words(tmp_path: Path, tokenizer: Tokenizer) -> None:
    task = Tag().learn(read(tmp_path / "a.conll", CONLL)[1])
    record = task.record({"text": "Anna lives in New-York."}, Place("x"))
    assert [record.text[start:end] for start, end in record.units] == ["Anna", "lives", "in", "New", "-", "York", "."]
    (features,) = task.features([record], tokenizer, small(vocab_size=len(tokenizer)))
    prediction = task.decode(record, features, [np.tile([0.0, 0, 0, 9, 0], (len(one.where), 1)) for one in features])
    assert [one["text"] for one in prediction["entities"]][:2] == ["Anna", "lives"], "whole words"
    assert "tags" not in prediction, "the words were not the user's"


def test_one_odd_tag_among_many_is_named(tmp_path: Path) -> None:
    task, records = read(tmp_path / "a.conll", "a B-PER\nb O\n\nc B_PER\nd B-LOC\n")
    with pytest.raises(InputError, match=r"a.conll:4: tag 'B_PER' given, O or one of B- I- E- S-.*--scheme plain"):
        learned(task, records)
    with pytest.raises(InputError, match=r"b.conll:1: an empty first or last column"):
        read(tmp_path / "b.conll", "a\tB-PER\t\n")
    with pytest.raises(InputError, match=r"every tag is 'X', two different"):
        learned(Tag(), read(tmp_path / "c.conll", "a X\n")[1])


def test_words_that_look_like_comments(tmp_path: Path) -> None:
    _, records = read(tmp_path / "a.conll", "##tag\tO\nJohn\tB-PER\n")
    assert records[0].text == "##tag John"


def test_spaces_at_the_ends_of_spans_are_left_out(tmp_path: Path) -> None:
    row = {"text": "a John b", "spans": [[1, 7, "PER"]]}
    _, records = read(tmp_path / "a.jsonl", json.dumps(row))
    assert Tag().learn(records).spans(records[0]) == [(2, 6, "PER")]
    with pytest.raises(InputError, match=r'a.jsonl:1: span \[1, 2, "PER"\] given, which holds space alone'):
        read(tmp_path / "a.jsonl", json.dumps({"text": "a John b", "spans": [[1, 2, "PER"]]}))


def test_tags_of_records_that_are_only_asked_about_do_not_matter(tokenizer: Tokenizer, tmp_path: Path) -> None:
    task = Tag().learn(read(tmp_path / "a.conll", CONLL)[1])
    _, records = read(tmp_path / "b.conll", "Anna NNP\nlives I-VB\n")
    assert task.features(records, tokenizer, small(vocab_size=len(tokenizer)))


def test_dead_is_who_says_nothing_where_something_is() -> None:
    task = Tag(labels=("O", "B-X", "I-X"), scheme="iob2")
    some, none = (
        Tagged(place=Place("x"), text="a", units=((0, 1),), words=True, tags=tags) for tags in (("B-X",), ("O",))
    )
    silent = [{"entities": []}]
    assert task.dead(silent, [some]) == "no entity"
    assert task.dead(silent, [none]) is None


def test_columns_of_rows_are_those_that_were_named(tmp_path: Path) -> None:
    row = {"tokens": ["a", "b"], "tags": ["O", "B-X"], "mine": ["B-Y", "O"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    assert read(tmp_path / "a.jsonl", label="mine")[1][0].tags == ("B-Y", "O")
    task, records = read(tmp_path / "a.jsonl", label="mnie")
    with pytest.raises(InputError, match=r"a.jsonl:1: no tags in field 'mnie', one for each word needed"):
        learned(task, records)
    # What was learned from columns of lines asks nothing of rows.
    assert read(tmp_path / "a.jsonl", text="1", label="4")[1][0].tags == ("O", "B-X")


def test_illegal_sentences_are_left_out_where_asked(tmp_path: Path) -> None:
    task, records = read(tmp_path / "a.conll", "a B-X\nb O\nc B-Z\n\nd O\ne I-Y\n\nf B-Z\n", on_bad="skip")
    task, counts = task.learn(records), ReadCounts()
    assert [one.text for one in task.usable(records, counts)] == ["a b c", "f"]
    assert task.labels == ("O", "B-X", "I-X", "B-Z", "I-Z")
    assert counts.mended == {"record without a usable answer, left out": 1}


def test_characters_are_told_by_spaces_or_by_what_was_learned(tmp_path: Path) -> None:
    task = Tag().learn(read(tmp_path / "a.tsv", KLUE)[1])
    for content, words in (("A\tO\nB\tO\n", False), ("Anna\tO\nlives\tO\n", True)):
        (tmp_path / "b.tsv").write_text(content)
        (one,) = task.read(str(tmp_path / "b.tsv"), ReadCounts())
        assert one.words == words  # type: ignore[attr-defined]


def test_characters_of_two_code_points_and_klues_f1_without_spaces(tmp_path: Path) -> None:
    task, records = read(tmp_path / "a.tsv", "e\u0301\tB-X\nn\tI-X\n \tO\nb\tO\n \tO\n")
    task = task.learn(records)
    prediction = {"entities": [{"start": 0, "end": 3, "label": "X"}]}
    assert task._unit_tags(records[0], prediction) == list(records[0].tags or ())
    scores = task.score([{"entities": []}], records)
    # B-X 0, I-X 0, and O thrice of five: no spaces among them, but the sentence's two ends.
    assert scores["character_f1"] == pytest.approx((0 + 0 + 2 * 3 / (2 * 3 + 2)) / 3)
    more = replace(task, labels=(*task.labels, "B-Y", "I-Y"))
    assert more.score([{"entities": []}], records)["character_f1"] == pytest.approx((0 + 0 + 0.75 + 1 + 1) / 5)
    assert "character_f1" in task.metrics_on(records)


def test_tags_each_by_itself(tokenizer: Tokenizer) -> None:
    record = Tagged(place=Place("x"), text="a cat", units=((0, 1), (2, 5)), words=True, tags=("B-X", "I-X"))
    logits = np.array([[0.0, 0, 9], [0, 0, 9]])
    for decoding, tags, strict, lenient in (("argmax", ["I-X", "I-X"], 0, 1), ("legal", ["B-X", "I-X"], 1, 1)):
        task = Tag(labels=("O", "B-X", "I-X"), scheme="iob2", decoding=decoding)
        (features,) = task.features([record], tokenizer, small(vocab_size=len(tokenizer)))
        told = task.decode(record, features, [logits[: len(features[0].where)]])
        assert told["tags"] == tags
        scores = task.score([told], [record])
        assert (scores["f1"], scores["f1_conlleval"]) == (strict, lenient)


def test_models_whose_entities_begin_with_inside(tokenizer: Tokenizer) -> None:
    task = Tag.foreign(["O", "I-PER"], None)
    record = task.record({"tokens": ["a", "cat"], "tags": ["O", "B-PER"]}, Place("x"))
    task.require(record)
    (features,) = task.features([record], tokenizer, small(vocab_size=len(tokenizer)))
    told = task.decode(record, features, [np.array([[9.0, 0], [0, 9]])])
    assert [one["text"] for one in told["entities"]] == ["cat"]
    assert task.score([told], [record])["f1"] == 1


def test_only_types_that_dev_has_choose(tmp_path: Path) -> None:
    task = Tag().learn(read(tmp_path / "a.conll", CONLL)[1])
    _, records = read(tmp_path / "b.conll", "Anna B-PER\n")
    found = task.metrics_on(records)
    assert "f1/PER" in found
    assert not {"f1/LOC", "character_f1"} & set(found)
    assert {"f1/LOC", "f1/PER"} <= set(task.metrics)


def test_bare_types_are_entities_in_io(tmp_path: Path) -> None:
    task, records = read(tmp_path / "a.conll", "Anna person-actor\nMaria person-actor\nin O\nRome LOC\n", scheme="io")
    task = learned(task, records)
    assert task.spans(records[0]) == [(0, 2, "person-actor"), (3, 4, "LOC")]
    plain = Tag().learn(records)
    assert plain.scheme == "plain"
    assert "--scheme io reads the others as entities" in plain.remarks(records)[0]
    _, records = read(tmp_path / "b.conll", "a B-X\n")
    with pytest.raises(InputError, match="tag 'B-X' is not legal in IO"):
        Tag(scheme="io", labels=("O", "B-X", "I-X")).require(records[0])


def test_names_of_conllu_are_fields_of_rows_too(tmp_path: Path) -> None:
    row = {"tokens": ["a", "b"], "ner_tags": ["O", "B-X"], "upos": ["DET", "NOUN"]}
    _, records = read(tmp_path / "a.jsonl", json.dumps(row), label="upos")
    assert records[0].tags == ("DET", "NOUN")
    # Columns of lines from the end are none of rows.
    _, records = read(tmp_path / "a.jsonl", json.dumps(row), text="-2", label="-1")
    assert records[0].tags == ("O", "B-X")


def test_empty_tags_of_conllu_are_left_out_where_asked(tmp_path: Path) -> None:
    (tmp_path / "a.conllu").write_text("1\tdogs\t_\t\t_\t_\t_\t_\t_\t_\n\n" + CONLLU)
    with pytest.raises(InputError, match=r"a.conllu:1: column upos is empty"):
        list(Tag().read(str(tmp_path / "a.conllu"), ReadCounts()))
    counts = ReadCounts()
    assert len(list(Tag(on_bad="skip").read(str(tmp_path / "a.conllu"), counts))) == 1
    assert counts.mended == {"malformed sentence, left out": 1}


def test_parts_of_speech_of_raw_text_have_their_words(tokenizer: Tokenizer) -> None:
    task = Tag(labels=("NOUN", "VERB"), scheme="plain", by_words=True)
    record = task.record({"text": "the cat meows"}, Place("x"))
    (features,) = task.features([record], tokenizer, small(vocab_size=len(tokenizer)))
    told = task.decode(record, features, [np.array([[1.0, 0], [0, 1], [1, 0]])])
    assert [(one["text"], one["start"], one["label"]) for one in told["tokens"]] == [
        ("the", 0, "NOUN"), ("cat", 4, "VERB"), ("meows", 8, "NOUN"),
    ]  # fmt: skip
    assert told["tags"] == ["NOUN", "VERB", "NOUN"]


def test_a_taggers_columns_are_text_and_label() -> None:
    with pytest.raises(InputError, match="columns: given, --text and --label name"):
        Tag(columns="a,b")


def decoded(task: Tag, records: list[Tagged], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """What right logits make of records."""
    features = task.features(records, tokenizer, small(vocab_size=len(tokenizer)))
    return [task.decode(one, own, [perfect(task, part) for part in own]) for one, own in zip(records, features)]


def test_entities_that_end_in_a_combining_mark(tmp_path: Path, minilm: Path) -> None:
    tokenizer = Tokenizer.load(minilm)
    row = {"text": "he is in Cafe\u0301 now", "entities": [[9, 14, "LOC"]]}
    task, records = read(tmp_path / "a.jsonl", json.dumps(row))
    task = task.learn(records)
    (told,) = decoded(task, records, tokenizer)
    assert [(one["start"], one["end"], one["text"]) for one in told["entities"]] == [(9, 14, "Cafe\u0301")]
    assert task.score([told], records)["f1"] == 1


def test_entities_inside_a_piece_are_known_as_such(tmp_path: Path, minilm: Path) -> None:
    tokenizer = Tokenizer.load(minilm)
    rows = [{"text": text, "entities": [[start, end, "X"]]} for text, start, end in (
        ("unhappy people", 2, 7), ("unhappy people", 0, 7), ("see \N{GRINNING FACE}Bob now", 5, 8), ("un happy", 3, 8),
    )]  # fmt: skip
    task, records = read(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    task = task.learn(records)
    made = task.features(records, tokenizer, small(vocab_size=len(tokenizer)))
    assert [task.reachable(*one) for one in zip(records, made)] == [False, True, False, True]
    right = [task.score([told], [one])["f1"] for told, one in zip(decoded(task, records, tokenizer), records)]
    assert right == [0, 1, 0, 1], "reachable is what right logits reach"
    words = Tag(scheme="iob2", labels=("O", "B-X", "I-X"), by_words=True)
    odd = words.record({"tokens": ["x", "Anna", "\u200b"], "tags": ["O", "B-X", "I-X"]}, Place("x"))
    assert not words.reachable(odd, words.features([odd], tokenizer, small(vocab_size=len(tokenizer)))[0])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "Anna lives in Paris.\n\nBen lives in Seoul.\n"),
        ("a.txt", "Anna lives in Paris.\nBen lives in Seoul.\n"),
        ("a.tsv", "text\tlabel\nAnna lives in Paris\tO\nBen lives in Seoul\tO\n"),
    ],
)
def test_running_text_is_refused_and_not_read_as_words(tmp_path: Path, name: str, content: str) -> None:
    asked = {"labels": ("O", "B-X", "I-X"), "scheme": "iob2", "by_words": True, "asks": True}
    with pytest.raises(InputError, match=rf"{name}:1: .* given, a word a line and its tag last allowed"):
        read(tmp_path / name, content, **asked)
    assert read(tmp_path / "b.txt", "Anna NNP B-Y\nsings VBZ O\n", **asked)[1][0].text == "Anna sings"
    assert read(tmp_path / "c.txt", "Anna\nsings\n", **asked)[1][0].text == "Anna sings"
    assert read(tmp_path / "d.txt", "Anna NNP\nsings VBZ\n", text="1", **asked)[1][0].text == "Anna sings"


@pytest.mark.parametrize("each", [False, True])
def test_a_comma_separated_table_has_a_word_a_row(tmp_path: Path, each: bool) -> None:
    """The sentence's name stands in its first row or in every one."""
    first, second = ("Sentence: 1", "Sentence: 2")
    rest = (first, second) if each else ("", "")
    table = (
        f'Sentence #,Word,POS,Tag\n{first},Anna,NNP,B-PER\n{rest[0]},lives,VBZ,O\n{rest[0]},",",",",O\n'
        f"{rest[0]},Paris,NNP,B-LOC\n{second},Hi,UH,O\n"
    )
    task, records = read(tmp_path / "a.csv", table)
    assert [one.text for one in records] == ["Anna lives , Paris", "Hi"]
    assert [one.tags for one in records] == [("B-PER", "O", "O", "B-LOC"), ("O",)]
    assert records[0].lines == (2, 3, 4, 5)
    assert task.learn(records).labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    _, speech = read(tmp_path / "a.csv", label="POS", scheme="plain")
    assert speech[1].tags == ("UH",)
    asked = {"labels": ("O", "B-X", "I-X"), "scheme": "iob2", "by_words": True, "asks": True}
    assert read(tmp_path / "a.csv", **asked)[1][0].tags is None
    assert [one.text for one in read(tmp_path / "a.csv", text="Word", **asked)[1]] == ["Anna lives , Paris", "Hi"]
    for name in ("text", "sentence"):
        _, texts = read(tmp_path / "b.csv", f"{name},x\nAnna sings,1\nHi,2\n", text=name, **asked)
        assert [one.text for one in texts] == ["Anna sings", "Hi"]
    with pytest.raises(InputError, match=r"a.csv:3: column 'Word' is empty"):
        read(tmp_path / "a.csv", table.replace("lives", ""))
    assert len(read(tmp_path / "a.csv", table.replace("lives", ""), on_bad="skip")[1]) == 1
    with pytest.raises(InputError, match=r"c.csv:2: which column holds the sentence of a word cannot be told from 'w'"):
        read(tmp_path / "c.csv", "w,t\nAnna,B-PER\n")


def test_a_word_of_white_space_makes_no_characters(tmp_path: Path) -> None:
    _, records = read(tmp_path / "a.conll", "Anna\tB-PER \nlives\tO\n \tO\nin\tO\nParis\tB-LOC\n")
    assert records[0].words
    assert records[0].text == "Anna lives   in Paris"
    assert records[0].tags == ("B-PER", "O", "O", "O", "B-LOC"), "tags without the space after them"


def test_characters_without_tags_keep_their_spaces(tmp_path: Path) -> None:
    task, records = read(tmp_path / "a.tsv", KLUE)
    asks = {"labels": task.learn(records).labels, "scheme": "iob2", "asks": True}
    bare = "".join(line.partition("\t")[0] + "\n" for line in KLUE.splitlines() if not line.startswith("##"))
    _, asked = read(tmp_path / "b.tsv", bare, **asks)
    assert [one.text for one in asked] == [one.text for one in records]


def test_a_type_with_one_example_has_its_place(tmp_path: Path) -> None:
    task, records = read(tmp_path / "a.conll", CONLL)
    said = task.learn(records).remarks(records)
    where = f"{tmp_path / 'a.conll'}:3"
    assert f"2 labels have one example: 'PER' ({where}), 'LOC' ({where}); add more of it" in said


@pytest.mark.parametrize("between", [" ", "\t"])
@pytest.mark.parametrize("above", ["# id 7 domain=en", "# a"])
def test_comments_above_a_sentence_are_no_words(tmp_path: Path, between: str, above: str) -> None:
    if between == " " and above == "# a":
        above = "# a b"  # two cells may be a word and its tag
    lines = [above, "Anna B-PER", "sings O", "", above, "# O", "7 O"]
    content = "\n".join(line if line == above else line.replace(" ", between) for line in lines)
    _, records = read(tmp_path / "a.conll", content + "\n")
    assert [one.text for one in records] == ["Anna sings", "# 7"]


def test_a_dev_set_without_entities_says_little(tmp_path: Path) -> None:
    task, records = read(tmp_path / "a.conll", CONLL)
    task = task.learn(records)
    assert task.remarks_on_dev(records) == []
    _, bare = read(tmp_path / "b.conll", "a O\nb O\n")
    assert task.remarks_on_dev(bare) == ["dev has no entity: F1 is 0 whatever is answered"]
