"""Official figures: SQuAD 2.0's script (fuzzed cases it was run on), SQuAD 1.1's and KorQuAD's by hand, seqeval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertloom.tasks import metrics

OFFICIAL = json.loads((Path(__file__).parent / "squad2_official.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", OFFICIAL, ids=range(len(OFFICIAL)))
def test_squad2_is_the_official_script(case: dict[str, Any]) -> None:
    scores = metrics.squad2(case["golds"], case["given"], case["nulls"], case["threshold"])
    assert scores == pytest.approx(case["want"])


@pytest.mark.parametrize(
    ("gold", "answer", "exact", "f1"),
    [
        ("the Cat", "cat!", 1, 1),
        ("cat", "", 0, 0),
        ("the", "a", 1, 0),
        ("a big red cat", "red cat sat", 0, 2 * (2 / 3) * (2 / 3) / (4 / 3)),
        ("cat cat", "cat", 0, 2 * 1 * 0.5 / 1.5),
    ],
)
def test_squad1_by_hand(gold: str, answer: str, exact: float, f1: float) -> None:
    assert metrics.squad_exact(gold, answer) == exact
    assert metrics.squad_f1(gold, answer) == pytest.approx(f1)


def test_korquad_counts_characters() -> None:
    assert metrics.korquad_exact("《서울》", "서울") == 1
    assert metrics.korquad_f1("서울", "서울시") == pytest.approx(2 * (2 / 3) / (5 / 3))
    assert metrics.squad_f1("서울", "서울시") == 0, "English F1 on Korean is another number"
    assert metrics.korquad_f1("서울", "") == 0


@given(
    st.lists(st.sampled_from(["a", "b", "the", "한국"]), max_size=4),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=4),
)
def test_f1_is_symmetric_and_exact_implies_it(one: list[str], other: list[str]) -> None:
    left, right = " ".join(one), " ".join(other)
    assert metrics.squad2_f1(left, right) == pytest.approx(metrics.squad2_f1(right, left))
    if metrics.squad_exact(left, right):
        assert metrics.squad2_f1(left, right) == 1


def test_entities_strict_and_conlleval_like_are_told_apart() -> None:
    gold, given = [["B-PER", "I-PER", "O"]], [["I-PER", "I-PER", "O"]]
    scores = metrics.entities(gold, given)
    assert scores["f1"] == 0
    assert scores["f1_conlleval"] == 1
    assert metrics.entities(gold, gold)["f1/PER"] == 1
    assert metrics.entities([["O"]], [["B-PER"]])["f1"] == 0


def test_classification_by_hand() -> None:
    scores = metrics.classification(["a", "b", "b", "b"], ["a", "b", "a", "b"], ("a", "b"))
    assert scores["accuracy"] == 0.75
    assert scores["f1"] == pytest.approx(0.8), "of the second label"
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert metrics.confusion(["a", "b", "b"], ["a", "a", "b"], ("a", "b")).tolist() == [[1, 0], [1, 1]]


def test_correlations_of_a_constant_are_nothing() -> None:
    assert metrics.correlation([1, 2, 3], [2, 2, 2])["pearson"] == 0
    assert metrics.correlation([1, 2, 3], [1, 2, 4])["spearman"] == pytest.approx(1)


def test_a_temperature_mends_confidence() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, 4000)
    logits = rng.normal(size=(4000, 3))
    logits[np.arange(4000), gold] += 1.0
    # As sure as the data allows, then three times as sure as that.
    sharp = [3 * row for row in logits]
    temperature = metrics.best_temperature(sharp, gold.tolist())
    assert temperature == pytest.approx(3 * metrics.best_temperature(list(logits), gold.tolist()), rel=0.01)
    before, after = metrics.calibration(sharp, gold.tolist()), metrics.calibration(sharp, gold.tolist(), temperature)
    assert after < 0.03 < before
