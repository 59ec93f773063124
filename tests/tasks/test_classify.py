from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from bertloom.errors import InputError
from bertloom.model.packed import pack
from bertloom.tasks.classify import Classify, Text
from bertloom.text.records import Place
from bertloom.text.sources import ReadCounts
from bertloom.text.tokenizer import Tokenizer
from tests.conftest import small
from tests.tasks.cases import learned

PLACE = Place("f.tsv", 3)


def read(file: Path, content: str, **options: Any) -> tuple[Classify, list[Any]]:
    file.write_text(content, encoding="utf-8")
    task = Classify(**options).told_by(str(file))
    return task, list(task.read(str(file), ReadCounts()))


@pytest.mark.parametrize(
    ("header", "text", "pair", "label"),
    [
        ("sentence\tlabel", "sentence", "none", "label"),
        ("id\tdocument\tlabel", "document", "none", "label"),
        ("index\tsentence1\tsentence2\tlabel", "sentence1", "sentence2", "label"),
        ("genre\tscore\tsentence1\tsentence2", "sentence1", "sentence2", "score"),
        ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "#1 String", "#2 String", "Quality"),
        ("premise\thypothesis\tlabel", "premise", "hypothesis", "label"),
        ("index\tquestion\tsentence\tlabel", "question", "sentence", "label"),
        ("text\ttext_pair\tlabel", "text", "text_pair", "label"),
    ],
)
def test_columns_are_told_by_their_names(tmp_path: Path, header: str, text: str, pair: str, label: str) -> None:
    row = "\t".join("1" if name.lower() in ("label", "score", "quality") else "x" for name in header.split("\t"))
    task, _ = read(tmp_path / "a.tsv", f"{header}\n{row}\n")
    assert (task.text, task.pair, task.label) == (text, pair, label)


def test_columns_that_cannot_be_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.tsv:2: which column holds the text cannot be told from 'gj04', '1'"):
        read(tmp_path / "a.tsv", "gj04\t1\t\tThe sailors.\ngj05\t1\t\tThe sea.\n")
    _, records = read(tmp_path / "a.tsv", "gj04\t1\t\tThe sailors.\n", columns="source,label,mark,sentence")
    assert (records[0].text, records[0].labels) == ("The sailors.", ("1",))
    with pytest.raises(InputError, match=r"--text: no column 'txt'"):
        read(tmp_path / "a.tsv", "text\tlabel\nx\t1\n", text="txt")
    task, records = read(tmp_path / "a.tsv", "text\tcolour\nx\tred\ny\tred\n")
    with pytest.raises(InputError, match=r"a.tsv:2: which column holds the label cannot be told; --label NAME"):
        learned(task, records)


def texts(*labels: str | list[str] | None) -> list[Text]:
    many = ((label,) if isinstance(label, str) else label if label is None else tuple(label) for label in labels)
    return [Text(place=Place("f.tsv", n), text=f"t{n}", labels=label) for n, label in enumerate(many, 2)]


def test_the_problem_is_told_by_the_labels() -> None:
    task = Classify(label="label")
    assert task.learn(texts("b", "a", "b")).problem == "single"
    assert task.learn(texts("10", "9", "10")).labels == ("9", "10"), "numbers by value"
    assert task.learn(texts("1.0", "2", "3.5")).problem == "regression"
    assert task.learn(texts("1.0", "2", "3.5")).middle == pytest.approx(6.5 / 3)
    assert task.learn(texts("a", ["a", "b"], [])).problem == "multi"
    assert Classify(problem="single").learn(texts("1.5", "2.5")).labels == ("1.5", "2.5")


def test_labels_that_cannot_be_learned() -> None:
    with pytest.raises(InputError, match=r"f.tsv:2: labels given: 'a'; two different"):
        Classify(label="label").learn(texts("a", "a"))
    with pytest.raises(InputError, match=r"f.tsv:3: 2 labels given, one allowed; --problem multi"):
        learned(Classify(label="label", problem="single"), texts("a", ["a", "b"]))
    with pytest.raises(InputError, match=r"f.tsv:3: score 'high' given, a number"):
        learned(Classify(label="label", problem="regression"), texts("1", "high"))
    task = Classify(label="label").learn(texts("a", "b"))
    with pytest.raises(InputError, match=r"f.tsv:2: label 'c' given, those of the training file allowed: 'a', 'b'"):
        task.require(texts("c")[0])
    with pytest.raises(InputError, match=r"f.tsv:3: no label in column 'label'"):
        task.require(Text(place=PLACE, text="x"))
    with pytest.raises(InputError, match=r"label {} given, a text or number"):
        task.record({"text": "x", "label": {}}, PLACE)


def test_several_labels_in_one_column(tmp_path: Path) -> None:
    _, records = read(tmp_path / "a.tsv", "text\tlabel\nx\ta; b\ny\t\n", separator=";")
    assert [one.labels for one in records] == [("a", "b"), ()]


def test_class_weights_have_mean_one() -> None:
    records = texts("a", "a", "a", "b")
    task = Classify(class_weights=True).learn(records)
    weights = dict(zip(task.labels, task.weights))
    assert weights["b"] == pytest.approx(3 * weights["a"])
    assert np.mean([weights[one.labels[0]] for one in records if one.labels]) == pytest.approx(1)


def test_long_texts(tokenizer: Tokenizer) -> None:
    words = [f"{word}" for word in ("cat dog cow duck sheep horse " * 8).split()]
    record = Text(place=PLACE, text=" ".join(words), labels=("a",))
    config = small(vocab_size=len(tokenizer))
    (whole,) = tokenizer.ids([record.text])

    def made(**options: Any) -> list[Any]:
        task = Classify(problem="single", labels=("a", "b"), length=18, **options)
        return task.features([record], tokenizer, config)[0]

    (cut,) = made(long="truncate")
    assert cut.cut
    assert cut.input_ids[1:-1].tolist() == whole[:16]
    (ends,) = made(long="head-tail")
    assert ends.input_ids[1:-1].tolist() == whole[:4] + whole[-12:]
    windows = made(long="windows", stride=4)
    assert not any(one.cut for one in windows)
    with pytest.raises(InputError, match="stride: 9 given, at most half of a window's 16 tokens"):
        made(long="windows", stride=9)
    covered = set()
    for number, one in enumerate(windows):
        ids = one.input_ids[1:-1].tolist()
        assert ids == whole[12 * number : 12 * number + 16]
        covered |= set(range(12 * number, 12 * number + len(ids)))
    assert covered == set(range(len(whole)))
    task = Classify(problem="single", labels=("a", "b"), length=18, long="windows")
    pooled = task.decode(record, windows, [np.array([[0.0, 3.0]]), np.array([[1.0, 0.0]])])
    assert pooled["label"] == "b"
    assert pooled["probability"] == pytest.approx(1 / (1 + np.exp(-1.0))), "of the mean of the logits"


def test_pairs_are_not_read_in_windows(tokenizer: Tokenizer) -> None:
    record = Text(place=PLACE, text="a", pair="b")
    with pytest.raises(InputError, match="long: windows given"):
        Classify(long="windows").features([record], tokenizer, small(vocab_size=len(tokenizer)))


def test_one_slip_among_scores_is_named_and_not_made_a_class() -> None:
    with pytest.raises(InputError, match=r"f.tsv:7: score 'high' given, a number"):
        learned(Classify(label="label"), texts("0.5", "1.5", "2.5", "3.5", "4.5", "high"))
    for several, said in ((["a", ["a"], []], "'a'"), ([[], []], "none")):
        with pytest.raises(InputError, match=f"labels given: {said}; two different ones needed"):
            Classify(label="label", problem="multi").learn(texts(*several))
    with pytest.raises(InputError, match=r"f.tsv:4: no label in column 'label'"):
        Classify(label="label").learn(texts("a", "a", None))


def test_columns_are_told_by_the_first_rows_and_each_is_one_thing(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [{"sentence1": "a", "sentence2": "b", "label": "x"}, {"sentence1": "c", "sentence2": "d", "label": "y"}]
    for missing in ("sentence2", "label"):
        first = {name: value for name, value in rows[0].items() if name != missing}
        file.write_text("".join(json.dumps(row) + "\n" for row in [first, *rows]))
        task = Classify(on_bad="skip").told_by(str(file))
        assert (task.text, task.pair, task.label) == ("sentence1", "sentence2", "label")
        counts = ReadCounts()
        records = list(task.read(str(file), counts))
        assert len(task.learn(records).usable(records, counts)) == 2
        assert sum(counts.mended.values()) == 1
    for given, said in (
        ({"text": "label"}, "text: column 'label' given, which is label too"),
        ({"pair": "sentence1", "text": "sentence1"}, "text: column 'sentence1' given, which is pair too"),
    ):
        with pytest.raises(InputError, match=said):
            Classify(**given).told_by(str(file))


def test_dev_records_that_say_little() -> None:
    records = texts("a", "b", "a", "a")
    task = Classify(label="label").learn(records)
    assert task.remarks_on_dev(records) == []
    assert task.remarks_on_dev(records[2:]) == ["every dev record has 'a': scores on them say little"]


def test_labels_of_records_that_are_only_asked_about_do_not_matter(tokenizer: Tokenizer) -> None:
    config = small(vocab_size=len(tokenizer))
    for task in (Classify(problem="single", labels=("a", "b")), Classify(problem="regression")):
        assert len(task.features([Text(place=PLACE, text="cat", labels=("zebra",))], tokenizer, config)) == 1


def test_rare_labels_of_several_weigh_more_where_they_are() -> None:
    task = Classify(label="label", class_weights=True).learn(texts(["a"], ["a"], ["a", "b"], ["a"], []))
    assert dict(zip(task.labels, task.weights)) == {"a": pytest.approx(0.25), "b": pytest.approx(4.0)}


def test_labels_that_are_none() -> None:
    task = Classify(text="text", label="label")
    for label in (float("nan"), float("inf"), [""], [None], {}):
        with pytest.raises(InputError, match=r"f.tsv:1: label .* given, a text or number allowed"):
            task.record({"text": "x", "label": label}, Place("f.tsv", 1))
    for label in ("", " ", None):
        assert task.record({"text": "x", "label": label}, Place("f.tsv", 1)).labels is None


def test_a_label_that_is_always_there_is_learned_too() -> None:
    task = Classify(class_weights=True).learn(texts(["a"], ["a", "b"]))
    assert dict(zip(task.labels, task.weights)) == {"a": 0.5, "b": 1.0}


def test_bad_records_are_left_out_where_asked() -> None:
    counts = ReadCounts()
    for records, problem in ((texts("0.5", "1.5", "2.5", "3.5", "4.5", "high"), "regression"),
                             (texts("a", "b", ["a", "b"]), "single")):  # fmt: skip
        task = Classify(problem=problem, on_bad="skip").learn(records)
        assert len(task.usable(records, counts)) == len(records) - 1
    assert counts.mended == {"record without a usable answer, left out": 2}


def test_a_body_needs_features() -> None:
    with pytest.raises(InputError, match="body: bilstm given, --features-from embeddings or"):
        Classify(body="bilstm")


def test_a_text_in_windows_weighs_as_one_text(tokenizer: Tokenizer) -> None:
    """Mean loss and gradient are those of its windows' mean and the short text's loss, half each."""
    long = " ".join(["cat", "dog", "cow", "duck", "sheep", "horse"] * 8)
    records = [Text(place=PLACE, text=text, labels=("a",)) for text in (long, "the cat")]
    for kind in ({"problem": "single", "labels": ("a", "b")}, {"problem": "multi", "labels": ("a", "b")}):
        task = Classify(length=18, long="windows", **kind)  # type: ignore[arg-type]
        windows, short = task.features(records, tokenizer, small(vocab_size=len(tokenizer)))
        assert len(windows) > 2
        assert len(short) == 1
        batch = pack([*windows, *short])
        logits = torch.randn(len(batch.lengths), 2, requires_grad=True)
        labels = batch.targets["labels"][1]
        if task.problem == "single":
            each = functional.cross_entropy(logits, labels, reduction="none")
        else:
            each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
        loss = task.loss(logits, batch) / task.count(batch)
        shares = batch.targets["share"][1]
        assert shares.mean().item() == pytest.approx(1)
        assert shares[:-1].sum().item() == pytest.approx(shares[-1].item())
        wanted = (each[:-1].mean() + each[-1]) / 2
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
        (mine,), (theirs,) = torch.autograd.grad(loss, logits), torch.autograd.grad(wanted, logits)
        assert torch.allclose(mine, theirs, atol=1e-7)


def test_a_label_given_twice_is_one_and_their_order_says_nothing(tmp_path: Path) -> None:
    task, records = read(tmp_path / "a.tsv", "text\tlabel\nx\ta;a\ny\tb;a\nz\ta;b\n", separator=";")
    assert [one.labels for one in records] == [("a",), ("b", "a"), ("a", "b")]
    task = task.learn(records)
    given = [{"labels": ["a", "b"]}] * 2
    assert task.dead(given, records[1:]) is None, "all of them right"
    assert task.dead(given, records[:2]) == "('a', 'b')"


def test_scores_that_say_little_but_are_right_are_alive() -> None:
    task = Classify(problem="regression", label="score")
    records = texts(*(str(one) for one in range(20)))
    rng = np.random.default_rng(0)
    constant = [{"score": float(9.5 + 1e-3 * one)} for one in rng.normal(size=20)]
    assert abs(np.corrcoef([one["score"] for one in constant], range(20))[0, 1]) < 0.4
    assert task.dead(constant, records) == "9.50"
    assert task.dead([{"score": 9.5 + 1e-3 * one} for one in range(20)], records) is None
