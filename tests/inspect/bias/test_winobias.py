from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.bias.masked import hidden_word
from bertloom.inspect.bias.suite import measured
from bertloom.inspect.bias.winobias import WinoBias
from bertloom.text.records import Place
from bertloom.text.sources import ReadCounts, ReadOptions

PRO = """1 [The cat] sees the dog before [he] sleeps.
2 The cat hears [the dog] in [her] house, and her garden.
3 [The cow] moos [he] loudly.

4 [The duck] quacks for [ his ] alone."""
ANTI = PRO.replace("[he]", "[she]").replace("[her]", "[HIS]").replace("[ his ]", "[ her ]").replace("HIS", "his")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for kind in ("type1", "type2"):
        (tmp_path / f"pro_stereotyped_{kind}.txt.dev").write_text(PRO)
        (tmp_path / f"anti_stereotyped_{kind}.txt.dev").write_text(ANTI)
    return tmp_path


def read(*files: Path) -> list[Any]:
    return WinoBias().read([str(one) for one in files], ReadOptions(), ReadCounts())


def test_sentences_and_what_is_hidden(files: Path, model: Model) -> None:
    items = read(files)
    assert [(one.pro, one.anti, one.male, one.kind) for one in items[:4]] == [
        ("he", "she", True, "type 1"), ("her", "his", False, "type 1"),
        ("he", "she", True, "type 1"), ("his", "her", True, "type 1"),
    ]  # fmt: skip
    assert [one.kind for one in items] == ["type 1"] * 4 + ["type 2"] * 4
    assert read(files / "anti_stereotyped_type1.txt.dev") == read(files / "pro_stereotyped_type1.txt.dev") == items[:4]
    both = [files / f"{side}_stereotyped_type1.txt.dev" for side in ("pro", "anti")]
    assert read(*both, files / "pro_stereotyped_type1.txt.dev") == items[:4], "each file once"
    one = items[1]
    text = one.text[: one.span[0]] + "his" + one.text[one.span[1] :]
    made = hidden_word(model, text, one.span, one.place, one.others)
    tokens = model.tokenizer.tokens(made.input_ids.tolist())
    pieces = [len(ids) for ids in model.tokenizer.ids(["his", "her"], special=False)]
    assert tokens.count("[MASK]") == sum(pieces), "the other `her` would give it away"
    assert len(made.targets["here"][0]) == pieces[0]


def test_figures_are_those_of_the_paper(files: Path, model: Model, theirs: tuple[Any, Any]) -> None:
    """F1 of both genders in both kinds of sentences, by scikit-learn, of what `transformers` puts for [MASK]."""
    suite, items = WinoBias(), read(files)[:4]
    peer, tokenizer = theirs
    said = []
    for one in items:
        scores = []
        for word in (one.pro, one.anti):
            ids = tokenizer(word, add_special_tokens=False)["input_ids"]
            text = one.text[: one.span[0]] + "[MASK]" * len(ids) + one.text[one.span[1] :]
            text = text.replace("her garden", "[MASK]" * len(tokenizer.tokenize("her")) + " garden")
            batch = tokenizer(text, return_tensors="pt")
            with torch.no_grad():
                logs = peer(**batch).prediction_logits[0].log_softmax(-1)
            places = (batch["input_ids"][0] == tokenizer.mask_token_id).nonzero()[: len(ids), 0]
            scores.append(float(logs[places, ids].sum()))
        said.append((scores[0] > scores[1]) == one.male)
    assert suite.outcomes(model, items).tolist() == [[one.male, way] for one, way in zip(items, said)]
    rng = np.random.default_rng(0)
    for _ in range(20):
        male, guess = rng.random((2, 30)) < [[0.5], [0.7]]
        f1 = {
            (pro, of): f1_score((male == pro) == of, guess == of) for pro in (True, False) for of in (True, False)
        }  # fmt: skip
        found = suite.figures(np.stack([male, guess], 1))
        assert found["stereotype, %"] == pytest.approx(100 * np.mean(male == guess))
        assert found["male, %"] == pytest.approx(100 * guess.mean())
        stereotype = (abs(f1[True, True] - f1[False, True]) + abs(f1[True, False] - f1[False, False])) / 2
        skew = (abs(f1[True, True] - f1[True, False]) + abs(f1[False, True] - f1[False, False])) / 2
        assert (found["stereotype"], found["skew"]) == pytest.approx((100 * stereotype, 100 * skew))


def test_groups_are_both_types(files: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WinoBias, "least", 1)
    counts = {one.group: one.count for one in measured(WinoBias(), [model], read(files))}
    assert counts == {"all": 8, "type 1": 4, "type 2": 4}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 [The cat] sees [the dog].", "type1.txt.dev:1: a pronoun of he or she in brackets needed"),
        ("1 [The cat] sees [she].", "'she' given, 'she' in its other, pronouns of two genders needed"),
        ("1 [The cat] sees [[she]].", ":1: a '\\[' without its other"),
        ("1 [The cat] sees [she.", ":1: a '\\[' without its other"),
        ("1 The cat] sees [she].", ":1: a '\\]' without its other"),
        ("1 The cat sees [she].", ":1: 1 mentions in brackets given, at least 2"),
        ("1 [] sees [she].", ":1: 2 mentions in brackets given, at least 2 of a word"),
        ("", "0 sentences, 1 in anti_stereotyped"),
    ],
)
def test_other_lines_are_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "pro_stereotyped_type1.txt.dev").write_text(text)
    (tmp_path / "anti_stereotyped_type1.txt.dev").write_text("1 [The cat] sees [she].")
    with pytest.raises(InputError, match=said):
        read(tmp_path)


def test_a_line_that_is_left_out_moves_no_other(tmp_path: Path) -> None:
    """Each file has one bad line, in other places: what is left is paired by its line."""
    lines = [f"[The cat] sees the {word} when [PRONOUN] sleeps." for word in ("dog", "cow", "duck", "horse")]
    for name, pronoun, bad in (("pro", "he", 0), ("anti", "she", 2)):
        text = [line.replace("PRONOUN", pronoun) for line in lines]
        text[bad] = "[The cat sees"
        (tmp_path / f"{name}_stereotyped.txt").write_text("\n".join(text))
    made = WinoBias().read([str(tmp_path)], ReadOptions(on_bad="skip"), ReadCounts())
    assert [one.place.line for one in made] == [2, 4]
    (tmp_path / "anti_stereotyped.txt").write_text("\n" + "\n".join(lines).replace("PRONOUN", "she"))
    (tmp_path / "pro_stereotyped.txt").write_text("\n".join(lines).replace("PRONOUN", "he"))
    with pytest.raises(InputError, match=r"pro_stereotyped.txt:1: no sentence in this line of anti_stereotyped.txt"):
        read(tmp_path)


def test_files_without_their_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "pro_stereotyped.txt")
    with pytest.raises(InputError, match="files pro_stereotyped… with anti_stereotyped… beside them"):
        read(tmp_path)
    (tmp_path / "pro_stereotyped.txt").write_text(PRO)
    with pytest.raises(InputError, match="a file pro_stereotyped… with anti_stereotyped… beside it"):
        read(tmp_path / "pro_stereotyped.txt")
    (tmp_path / "other.txt").write_text(PRO)
    with pytest.raises(InputError, match="a file pro_stereotyped…"):
        read(tmp_path / "other.txt")


def test_a_word_without_a_token_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match=r"x:3: word '\\u200b' given"):
        hidden_word(model, "a \u200b b", (2, 3), Place("x", 3))
    with pytest.raises(InputError, match="x:3: word '卍' given"):
        hidden_word(model, "a 卍 b", (2, 3), Place("x", 3))
    with pytest.raises(InputError, match="x:3: text of 1,202 tokens"):
        hidden_word(model, "cat " * 600 + "cat", (2400, 2403), Place("x", 3))


def test_the_published_files_are_read_whole(data: Path) -> None:
    items = read(data / "bias" / "winobias")
    assert len(items) == 792
    assert {one.pro.lower() for one in items} == {"he", "she", "his", "her", "him"}
