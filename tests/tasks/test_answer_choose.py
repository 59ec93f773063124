from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertloom.errors import InputError
from bertloom.tasks.answer import Answer, Question
from bertloom.tasks.choose import Choose
from bertloom.text.records import Place
from bertloom.text.sources import ReadCounts
from bertloom.text.tokenizer import Tokenizer
from tests.conftest import small
from tests.tasks.cases import learned, perfect

PLACE = Place("x", 1)


def squad(*asked: dict[str, Any], context: str = "The cat lives in the house.") -> str:
    return json.dumps(
        {"version": "2", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(asked)}]}]}
    )


def read(task: Any, file: Path, content: str) -> list[Any]:
    file.write_text(content, encoding="utf-8")
    return list(task.read(str(file), ReadCounts()))


CAT = {
    "id": "1",
    "question": "who",
    "answers": [{"text": "cat", "answer_start": 4}, {"text": "The cat", "answer_start": 0}],
}
NONE = {"id": "2", "question": "why", "answers": [], "is_impossible": True}


def test_squad_json(tmp_path: Path) -> None:
    records = read(Answer(), tmp_path / "a.json", squad(CAT, NONE))
    assert [one.answers for one in records] == [(("cat", 4), ("The cat", 0)), ()]
    assert Answer().learn(records).nothing
    assert not Answer().learn(records[:1]).nothing
    assert Answer().learn(records[:1]).script == "squad"
    assert Answer().learn(records).remarks_on_dev(records) == []
    (said,) = Answer().learn(records[:1]).remarks_on_dev(records)
    assert said.startswith("1 of 2 dev questions have no answer, which no training question taught")


def test_rows_as_on_the_hub(tmp_path: Path) -> None:
    row = {"id": "1", "question": "어디", "context": "서울에 산다", "answers": {"text": ["서울"], "answer_start": [0]}}
    (one,) = read(Answer(), tmp_path / "a.jsonl", json.dumps(row, ensure_ascii=False))
    assert one.answers == (("서울", 0),)
    task = Answer().learn([one])
    assert task.script == "korquad"
    assert task.metrics[0] == "korquad_f1"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            squad({**CAT, "answers": [{"text": "dog", "answer_start": 4}]}),
            "question 1: answer 'dog' does not stand at 4, 'cat'",
        ),
        (squad(CAT, {**CAT}), "question 1: id '1' is that of two, once allowed"),
        (squad({**NONE}), "no question has an answer"),
        (squad({"id": "1", "question": "who"}), "no answers, rows like"),
        (squad({**CAT, "answers": "cat"}), "answers: 'cat' given, JSON like"),
        (squad({**CAT, "answers": [{"text": " ", "answer_start": 4}]}), "that is not blank and a whole number"),
        (squad({**CAT, "answers": {"text": ["cat"], "answer_start": []}}), "of one length"),
        (
            '{"data": [{"paragraphs": [{}]}]}',
            "paragraph after question 0: is no SQuAD JSON: an object with a list 'qas'",
        ),
        ('{"data": \n}', "a.json:2: is not JSON"),
    ],
)
def test_squad_that_cannot_be(tmp_path: Path, content: str, said: str) -> None:
    task = Answer()
    with pytest.raises(InputError, match=said):
        learned(task, read(task, tmp_path / "a.json", content))


@given(st.integers(0, 60), st.integers(0, 1000))
def test_an_answer_is_found_wherever_it_stands(tokenizer: Tokenizer, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = " ".join(rng.choice(["the", "cat", "xyzzy", "한국어,", "  house."], count).tolist())
    context = f"{before} village horse {before}"
    start = len(before) + 1
    record = Question(place=Place("x"), question="who", context=context, answers=(("village horse", start),))
    task = Answer(length=30, stride=8, nothing=True)
    (features,) = task.features([record], tokenizer, small(vocab_size=len(tokenizer)))
    prediction = task.decode(record, features, [perfect(task, one) for one in features])
    assert (prediction["answer"], prediction["start"]) == ("village horse", start)


def test_nothing_is_the_answer_by_its_lowest_score_over_windows() -> None:
    record = Question(place=Place("x"), question="who", context="one two", answers=())
    task = Answer(nothing=True, threshold=1.0)
    feature = type("F", (), {"where": (2, np.array([[0, 3], [4, 7]]))})
    windows = [np.array([[9.0, 9.0], [0, 0], [1.0, 0], [0, 1.0]]), np.array([[0.5, 0.5], [0, 0], [0, 0], [0, 0]])]
    told = task.decode(record, [feature, feature], windows)  # type: ignore[list-item]
    assert told["null"] == pytest.approx(1.0 - 2.0), "1.0 is the second window's"
    assert told["answer"] == "one two"
    stricter = Answer(nothing=True, threshold=-2.0).decode(record, [feature, feature], windows)  # type: ignore[list-item]
    assert (stricter["answer"], stricter["start"], stricter["best"]) == ("", None, "one two")


def test_a_text_without_a_piece_is_answered_by_nothing(tokenizer: Tokenizer) -> None:
    record = Question(place=Place("x"), question="who", context="\u200d", answers=())
    task = Answer()
    (features,) = task.features([record], tokenizer, small(vocab_size=len(tokenizer)))
    told = task.decode(record, features, [np.zeros((len(one), 2)) for one in features])
    assert told["answer"] == ""
    assert told["probability"] == 1.0


def test_no_answer_is_longer_than_allowed() -> None:
    record = Question(place=Place("x"), question="who", context="abcdef", answers=None)
    feature = type("F", (), {"where": (1, np.array([[n, n + 1] for n in range(6)]))})
    window = np.zeros((7, 2))
    window[1, 0], window[6, 1] = 10.0, 10.0
    told = Answer(longest=3).decode(record, [feature], [window])  # type: ignore[list-item]
    assert len(told["answer"]) <= 3


MCTEST = "\t".join(
    ["mc500.dev.0", "x", "A story.\\newlineIt ends.", *(f"one: Q{n}\tA{n}\tB{n}\tC{n}\tD{n}" for n in range(4))]
)


def test_mctest_with_its_answers(tmp_path: Path) -> None:
    records = read(Choose(), tmp_path / "a.tsv", MCTEST + "\r\n")
    assert len(records) == 4
    assert records[1].choices == ("A1", "B1", "C1", "D1")
    assert "\n" in records[0].context
    with pytest.raises(InputError, match=r"a.tsv:1: no right choice.*NAME.ans"):
        learned(Choose(), records)
    (tmp_path / "a.ans").write_text("A\tB\tC\tD\n")
    assert [one.right for one in read(Choose(), tmp_path / "a.tsv", MCTEST)] == [0, 1, 2, 3]
    one = read(Choose(questions=True), tmp_path / "a.tsv", MCTEST)[0]
    assert (one.question, one.choices[0]) == ("Q0", "A0")
    (tmp_path / "a.ans").write_text("A\tB\n")
    with pytest.raises(InputError, match=r"a.ans:1: 'A B' given, four letters"):
        read(Choose(), tmp_path / "a.tsv", MCTEST)


def test_swag_and_json(tmp_path: Path) -> None:
    swag = "sent1,sent2,ending0,ending1,label\nIt rained.,We,sang,got wet,1\n"
    (one,) = read(Choose(), tmp_path / "a.csv", swag)
    assert (one.context, one.question, one.choices, one.right) == ("It rained.", "We", ("sang", "got wet"), 1)
    row = {"context": "c", "question": "q", "choices": ["x", "y"], "answer": "y"}
    (one,) = read(Choose(), tmp_path / "a.jsonl", json.dumps(row))
    assert (one.choices, one.right) == (("x", "y"), 1)
    (one,) = read(Choose(), tmp_path / "b.jsonl", json.dumps({**row, "answer": "A"}))
    assert one.right == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"choices": ["x"]}, "no two or more choices"),
        ({"choices": ["x", ""]}, "choice 2 of 2 is empty, a text needed"),
        ({"choices": [3, "x"]}, "choice 1 of 2 is a int, a text needed"),
        ({"choices": "xy"}, "no two or more choices"),
        ({"label": 2}, "label 2 given, 0 to 1, A to B or a choice's text"),
        ({"context": ""}, "'context' is empty"),
    ],
)
def test_choices_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    row = {"context": "c", "choices": ["x", "y"], "label": 0, **changes}
    with pytest.raises(InputError, match=said):
        Choose().record(row, Place("a.jsonl", 1))


def test_odd_words_on_choices() -> None:
    place = Place("a.jsonl", 1)
    row = {"context": "c", "choices": ["1", "2", "3"]}
    with pytest.raises(InputError, match="may be choice 0 or 1"):
        Choose().record({**row, "label": "1"}, place)
    assert Choose().record({**row, "label": "B"}, place).right == 1
    assert Choose().record({**row, "label": 2.0}, place).right == 2
    assert Choose().record({**row, "label": -1}, place).right is None
    many = {"ctx": "c", "options": [f"choice {number}" for number in range(30)], "label": 29}
    assert Choose().record(many, place).right == 29


def test_a_malformed_story_moves_no_answers(tmp_path: Path) -> None:
    (tmp_path / "a.ans").write_text("A\tA\tA\tA\nB\tB\tB\tB\n")
    records = read(Choose(on_bad="skip"), tmp_path / "a.tsv", f"mc500.dev.9\tx\n{MCTEST}\n")
    assert [one.right for one in records] == [1] * 4


def test_a_span_in_two_windows_is_one_candidate() -> None:
    record = Question(place=Place("x"), question="who", context="one two", answers=None)
    feature = type("F", (), {"where": (1, np.array([[0, 3]]))})
    windows = [np.array([[0.0, 0.0], [2.0, 2.0]]), np.array([[0.0, 0.0], [1.0, 1.0]])]
    told = Answer().decode(record, [feature, feature], windows)  # type: ignore[list-item]
    assert told["probability"] == pytest.approx(1.0)


def test_questions_without_ids_and_with_odd_ones(tmp_path: Path) -> None:
    asked = {"question": "who", "answers": CAT["answers"]}
    records = read(Answer(), tmp_path / "a.json", squad(asked, {**asked, "id": None}))
    assert [one.id for one in records] == ["", ""]
    learned(Answer(), records)
    with pytest.raises(InputError, match="is_impossible: 'no' given, true or false"):
        read(Answer(), tmp_path / "a.json", squad({**CAT, "is_impossible": "no"}))


def test_korean_questions_without_an_answer(tmp_path: Path) -> None:
    rows_ = [
        {"id": "1", "question": "어디", "context": "서울에 산다", "answers": {"text": ["서울"], "answer_start": [0]}},
        {"id": "2", "question": "누구", "context": "서울에 산다", "answers": {"text": [], "answer_start": []}},
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows_)
    records = read(Answer(), tmp_path / "a.jsonl", content)
    task = learned(Answer(), records)
    assert task.metrics[:2] == ("korquad_f1", "korquad_exact")
    told = [{"answer": best, "best": best, "null": null} for best, null in (("서울시", -1.0), ("산다", 3.0))]
    scores = task.score(told, records)
    f1 = 2 * (2 / 3) / (5 / 3)
    assert scores["korquad_f1"] == pytest.approx(100 * (f1 + 1) / 2), "nothing for nothing is right"
    assert scores["HasAns_f1"] == pytest.approx(100 * f1), "by characters"
    assert (scores["NoAns_f1"], scores["korquad_exact"]) == (100, 50)
    tuned = task.tuned([{**told[0], "null": 2.0}, told[1]], records)
    assert tuned.threshold == 2.5, "halfway between the first, which is answered, and the second, which is not"
    silent = task.tuned([{**told[0], "null": 5.0}, {**told[1], "null": -1.0}], records)
    assert silent.threshold < -1, "nothing at all, where the first answer to be given is wrong"
    assert "NoAns_f1" not in task.metrics_on(records[:1])


def test_columns_that_are_named(tmp_path: Path) -> None:
    row = {"frage": "who", "text": "The cat lives.", "gold": CAT["answers"]}
    names = {"question": "frage", "context": "text", "answers": "gold"}
    (one,) = read(Answer(**names), tmp_path / "a.jsonl", json.dumps(row))
    assert (one.question, one.answers) == ("who", (("cat", 4), ("The cat", 0)))
    assert len(read(Answer(**names), tmp_path / "a.json", squad(CAT))) == 1, "SQuAD's JSON has its own names"
    with pytest.raises(InputError, match="no column 'frag'"):
        read(Answer(**{**names, "question": "frag"}), tmp_path / "a.jsonl", json.dumps(row))
    answer = Answer(**{**names, "answers": "glod"})
    records = read(answer, tmp_path / "a.jsonl", json.dumps(row))
    with pytest.raises(InputError, match="no answers in column 'glod', rows like"):
        learned(answer, records)
    row = {"tale": "It rained.", "one": "wet", "two": "dry", "key": "wet"}
    (one,) = read(Choose(context="tale", choices="one, two", label="key"), tmp_path / "c.jsonl", json.dumps(row))
    assert (one.context, one.choices, one.right) == ("It rained.", ("wet", "dry"), 0)
    with pytest.raises(InputError, match="no two or more choices in one,three"):
        read(Choose(context="tale", choices="one,three"), tmp_path / "c.jsonl", json.dumps(row))
    with pytest.raises(InputError, match="no column 'ask'"):
        read(Choose(context="tale", choices="one,two", question="ask"), tmp_path / "c.jsonl", json.dumps(row))
    choose = Choose(context="tale", choices="one,two", label="kye")
    records = read(choose, tmp_path / "c.jsonl", json.dumps(row))
    with pytest.raises(InputError, match="no right choice in column 'kye'"):
        learned(choose, records)


def test_the_question_is_read_with_each_choice_and_not_given_back(tokenizer: Tokenizer) -> None:
    record = Choose().record({"context": "c", "question": "the cat", "choices": ["meows", "sings"]}, PLACE)
    (features,) = Choose().features([record], tokenizer, small(vocab_size=len(tokenizer)))
    plain = Choose().record({"context": "c", "choices": ["the cat meows", "the cat sings"]}, PLACE)
    assert (
        features[0].input_ids.tolist()
        == Choose().features([plain], tokenizer, small(vocab_size=len(tokenizer)))[0][0].input_ids.tolist()
    )
    assert Choose().decode(record, features, [np.array([[1.0], [0.0]])])["text"] == "meows"


@pytest.mark.parametrize("label", ["1" * 400, 10**400, True, 1.5, "Z", ["x"]])
def test_labels_that_mean_no_choice(label: Any) -> None:
    with pytest.raises(InputError, match=r"x:1: label .* given, 0 to 1, A to B or a choice's text"):
        Choose().record({"context": "c", "choices": ["x", "y"], "label": label}, PLACE)


def test_a_letter_that_is_another_choices_text() -> None:
    row = {"context": "c", "choices": ["B", "A"]}
    with pytest.raises(InputError, match="label 'A' may be choice 0 or 1; a number, letter or text that means one"):
        Choose().record({**row, "label": "A"}, PLACE)
    assert Choose().record({**row, "label": 1}, PLACE).right == 1


def test_damaged_squad_files(tmp_path: Path) -> None:
    (tmp_path / "a.json.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"a.json.gz: cannot be read: BadGzipFile"):
        list(Answer().read(str(tmp_path / "a.json.gz"), ReadCounts()))
    with pytest.raises(InputError, match=r"a.json: question 1: field 'question' holds half a surrogate"):
        read(Answer(), tmp_path / "a.json", squad({**CAT, "question": "\ud800"}))
    with pytest.raises(InputError, match=r"none.json: no such file"):
        list(Answer().read(str(tmp_path / "none.json"), ReadCounts()))


def test_ids_that_stand_twice_are_left_out_where_asked(tmp_path: Path) -> None:
    task, counts = Answer(on_bad="skip"), ReadCounts()
    records = read(task, tmp_path / "a.json", squad(CAT, {**CAT}))
    assert len(task.learn(records).usable(records, counts)) == 1
    assert counts.mended == {"record without a usable answer, left out": 1}


def test_answers_that_end_in_a_combining_mark_and_those_inside_a_piece(minilm: Path) -> None:
    tokenizer = Tokenizer.load(minilm)

    def asked(context: str, answer: str, longest: int = 30) -> tuple[str, bool]:
        given = {"text": [answer], "answer_start": [context.index(answer)]}
        task = Answer(longest=longest)
        record = task.record({"question": "where", "context": context, "answers": given}, PLACE)
        task = task.learn([record])
        ((feature,),) = task.features([record], tokenizer, small(vocab_size=len(tokenizer)))
        told = task.decode(record, [feature], [perfect(task, feature)])
        return told["answer"], task.reachable(record, [feature])

    assert asked("he is in Cafe\u0301 now", "Cafe\u0301") == ("Cafe\u0301", True)
    assert asked("unhappy people", "happy")[1] is False
    assert asked("it cost $5 in all", "5")[1], "punctuation does not matter to the script"
    assert asked("a b c d e", "b c d", longest=2)[1] is False


def test_one_answer_to_all_is_dead_unless_it_is_right(minilm: Path) -> None:
    records = [
        Question(place=PLACE, question="q", context=f"{'x ' * n}Paris", answers=(("Paris", 2 * n),)) for n in range(3)
    ]
    none = Question(place=PLACE, question="q", context="y", answers=())
    said = [{"answer": "Paris"}] * 3
    assert Answer().dead(said, records) is None
    assert Answer().dead([*said, {"answer": "Paris"}], [*records, none]) == "'Paris'"
    assert Answer().dead([{"answer": ""}] * 4, [*records, none]) == "'nothing'"
    assert Answer().dead([*said, {"answer": ""}], [*records, none]) is None


def test_a_cell_of_a_table_holds_answers_as_json(tmp_path: Path) -> None:
    cell = json.dumps(CAT["answers"])
    content = (
        f"id\tquestion\tcontext\tanswers\tis_impossible\n7\twho\tThe cat\t{cell}\tFalse\n8\twho\tThe cat\t\tTrue\n"
    )
    records = read(Answer(), tmp_path / "a.tsv", content)
    assert [one.answers for one in records] == [(("cat", 4), ("The cat", 0)), ()]


def test_ids_stay_what_they_are() -> None:
    row = {"question": "who", "context": "The cat", "answers": []}
    assert [Answer().record({**row, "id": one}, PLACE).id for one in (0, 5, "5", None, 2.5)] == [0, 5, "5", "", "2.5"]
    for odd in ([1], {}, True):
        with pytest.raises(InputError, match=r"id .* given, a text or a number allowed"):
            Answer().record({**row, "id": odd}, PLACE)


def test_mctests_answers_are_one_line_a_story(tmp_path: Path) -> None:
    (tmp_path / "a.ans").write_text("A\tB\tC\tD\nA\tB\tC\tD\n")
    with pytest.raises(InputError, match=r"a.ans: 2 lines of answers given, 1 as .*a.tsv has stories"):
        read(Choose(), tmp_path / "a.tsv", MCTEST)
    with pytest.raises(InputError, match=r"a.tsv:3: no answers for it in .*a.ans, which has 2 lines"):
        read(Choose(), tmp_path / "a.tsv", "\n".join([MCTEST] * 3))
    assert len(read(Choose(), tmp_path / "a.tsv", "\n".join([MCTEST] * 2))) == 8
    (tmp_path / "a.ans").write_text("A\tB\tC\tE\n")
    with pytest.raises(InputError, match=r"a.ans:1: 'A B C E' given, four letters of A to D"):
        read(Choose(), tmp_path / "a.tsv", MCTEST)
    assert read(Choose(asks=True), tmp_path / "a.tsv", MCTEST)[0].right is None, "answers are not looked at"
    (tmp_path / "a.ans").write_text("D\tC\tB\tA\n")
    with gzip.open(tmp_path / "a.tsv.gz", "wt") as file:
        file.write(MCTEST)
    assert [one.right for one in Choose().read(str(tmp_path / "a.tsv.gz"), ReadCounts())] == [3, 2, 1, 0]  # type: ignore[attr-defined]


def test_an_answer_and_the_word_that_there_is_none_contradict_each_other() -> None:
    row = {"question": "who", "context": "The cat"}
    cat = {"text": ["cat"], "answer_start": [4]}
    none: dict[str, Any] = {"text": [], "answer_start": []}
    for answers, impossible in ((cat, True), (none, False), ([], False)):
        with pytest.raises(InputError, match=r"is_impossible (true|false) and .* given, one of both allowed"):
            Answer().record({**row, "answers": answers, "is_impossible": impossible}, PLACE)
    assert Answer().record({**row, "answers": cat, "is_impossible": False}, PLACE).answers == (("cat", 4),)
    for answers in (none, [], None):
        assert Answer().record({**row, "answers": answers, "is_impossible": True}, PLACE).answers == ()
    assert Answer().record({**row, "answers": none}, PLACE).answers == ()
    for blank in ("", None):
        assert Answer().record({**row, "answers": none, "is_impossible": blank}, PLACE).answers == ()
    filler = {"text": [""], "answer_start": [-1]}
    assert Answer().record({**row, "answers": filler, "is_impossible": True}, PLACE).answers == ()
