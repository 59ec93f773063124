"""Official figures: SQuAD 1.1's, 2.0's and KorQuAD's scripts (fuzzed cases they were run on), GLUE's, seqeval's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from bertloom.tasks import metrics

SQUAD, KORQUAD = metrics.SCRIPTS["squad"], metrics.SCRIPTS["korquad"]
# What SQuAD 1.1's script and KorQuAD's said of fuzzed answers.
OLDER = json.loads((Path(__file__).parent / "answers_official.json").read_text(encoding="utf-8"))
OFFICIAL = json.loads((Path(__file__).parent / "squad2_official.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", OFFICIAL, ids=range(len(OFFICIAL)))
def test_squad2_is_the_official_script(case: dict[str, Any]) -> None:
    scores = metrics.with_nothing(case["golds"], case["given"], case["nulls"], case["threshold"], SQUAD)
    assert scores == pytest.approx(case["want"])


@pytest.mark.parametrize("number", range(40))
@pytest.mark.parametrize("script", ["squad", "korquad"])
def test_squad1_and_korquad_are_the_official_scripts(script: str, number: int) -> None:
    case, ours = OLDER[script][number], metrics.SCRIPTS[script]
    scores = metrics.answer_scores(case["golds"], case["given"], ours.exact, ours.f1)
    assert metrics.means(scores, {"exact": "exact", "f1": "f1"}) == pytest.approx(case["want"])


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
    assert SQUAD.exact(gold, answer) == exact
    assert SQUAD.f1(gold, answer) == pytest.approx(f1)


def test_korquad_counts_characters() -> None:
    assert KORQUAD.exact("《서울》", "서울") == 1
    assert KORQUAD.f1("서울", "서울시") == pytest.approx(2 * (2 / 3) / (5 / 3))
    assert SQUAD.f1("서울", "서울시") == 0, "English F1 on Korean is another number"
    assert KORQUAD.f1("서울", "") == 0


@given(
    st.lists(st.sampled_from(["a", "b", "the", "한국"]), max_size=4),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=4),
)
def test_f1_is_symmetric_and_exact_implies_it(one: list[str], other: list[str]) -> None:
    left, right = " ".join(one), " ".join(other)
    assert SQUAD.f1_or_nothing(left, right) == pytest.approx(SQUAD.f1_or_nothing(right, left))
    if SQUAD.exact(left, right):
        assert SQUAD.f1_or_nothing(left, right) == 1


def test_entities_strict_and_conlleval_like_are_told_apart() -> None:
    gold, given = [["B-PER", "I-PER", "O"]], [["I-PER", "I-PER", "O"]]
    scores = metrics.entities(gold, given)
    assert scores["f1"] == 0
    assert scores["f1_conlleval"] == 1
    assert metrics.entities(gold, gold)["f1/PER"] == 1
    assert metrics.entities([["O"]], [["B-PER"]])["f1"] == 0


TAGS = st.lists(st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B"]), min_size=1, max_size=8)


def entity_f1(gold: list[list[str]], given: list[list[str]], lenient: bool) -> float:
    """From sets of entities: those that begin with B, and where it is `lenient` with an I as well."""
    sides = []
    for sentences in (gold, given):
        found = set()
        for number, tags in enumerate(sentences):
            for start, tag in enumerate(tags):
                kind = tag[2:]
                fresh = start == 0 or tags[start - 1][2:] != kind
                if tag[0] == "B" or (lenient and tag[0] == "I" and fresh):
                    stop = start + 1
                    while stop < len(tags) and tags[stop] == f"I-{kind}":
                        stop += 1
                    found.add((number, start, stop, kind))
        sides.append(found)
    both = len(sides[0] & sides[1])
    return 2 * both / (len(sides[0]) + len(sides[1])) if both else 0.0


@given(st.lists(st.tuples(TAGS, st.randoms(use_true_random=False)), min_size=1, max_size=5))
def test_entity_f1_is_that_of_the_sets(made: list[tuple[list[str], Any]]) -> None:
    gold = [tags for tags, _ in made]
    given = [
        [tag if rng.random() < 0.7 else rng.choice(["O", "B-A", "I-A", "B-B"]) for tag in tags] for tags, rng in made
    ]
    if any(tag[0] == "B" for tags in gold for tag in tags):
        scores = metrics.entities(gold, given)
        assert scores["f1"] == pytest.approx(entity_f1(gold, given, lenient=False))
        assert scores["f1_conlleval"] == pytest.approx(entity_f1(gold, given, lenient=True))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_glues_scores_of_two_labels_are_their_formulas(pairs: list[tuple[bool, bool]]) -> None:
    """CoLA's Matthews, SST-2's and RTE's accuracy, MRPC's F1 of the paraphrases, from the four counts."""
    names = ("0", "1")
    scores = metrics.classification([names[gold] for gold, _ in pairs], [names[made] for _, made in pairs], names)
    hit, missed = pairs.count((True, True)), pairs.count((True, False))
    false, clear = pairs.count((False, True)), pairs.count((False, False))
    assert scores["accuracy"] == pytest.approx((hit + clear) / len(pairs))
    assert scores["f1"] == pytest.approx(2 * hit / (2 * hit + missed + false) if hit else 0)
    below = (hit + missed) * (hit + false) * (clear + missed) * (clear + false)
    assert scores["matthews"] == pytest.approx((hit * clear - false * missed) / below**0.5 if below else 0)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=40))
def test_stsbs_scores_are_their_formulas(pairs: list[tuple[int, int]]) -> None:
    gold, made = (np.array(side) / 10 for side in zip(*pairs))
    scores = metrics.correlation(gold.tolist(), made.tolist())
    if len(set(gold)) == 1 or len(set(made)) == 1:
        assert scores["pearson"] == scores["spearman"] == 0
        return
    # Equal values share the mean of their places.
    ranks = [np.array([(side < one).sum() + ((side == one).sum() - 1) / 2 for one in side]) for side in (gold, made)]
    for name, (one, other) in (("pearson", (gold, made)), ("spearman", ranks)):
        left, right = one - one.mean(), other - other.mean()
        assert scores[name] == pytest.approx((left @ right) / ((left @ left) * (right @ right)) ** 0.5, abs=1e-6)


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


def test_a_temperature_counts_answers_of_which_none_is_right() -> None:
    """A third are wrong whatever is chosen, the others right: as sure as two in three is best."""
    gold = ([0, 0, -1] * 200)[:600]
    logits = [np.array([6.0, 0.0])] * 600
    temperature = metrics.best_temperature(logits, gold)
    assert 1 / (1 + np.exp(-6 / temperature)) == pytest.approx(2 / 3, abs=1e-3)
    assert metrics.calibration(logits, gold, temperature) < 0.01 < metrics.calibration(logits, gold)


def test_decisions_among_more_and_fewer_choices_are_each_their_own() -> None:
    rng = np.random.default_rng(0)
    logits = [rng.normal(0, 2, rng.integers(1, 5)) for _ in range(60)]
    gold = [int(one.argmax()) if rng.random() < 0.7 else int(rng.integers(-1, len(one))) for one in logits]
    shares = [np.exp(one) / np.exp(one).sum() for one in logits]
    sure = np.array([one.max() for one in shares])
    right = np.array([int(one.argmax()) == wanted for one, wanted in zip(shares, gold)])
    owner = np.minimum((15 * sure).astype(int), 14)
    wanted = sum(abs(right[owner == one].sum() - sure[owner == one].sum()) for one in range(15)) / 60
    assert metrics.calibration(logits, gold) == pytest.approx(wanted)

    def unlikely(temperature: float) -> float:
        total = 0.0
        for one, best in zip(logits, gold):
            share = np.exp(one / temperature) / np.exp(one / temperature).sum()
            total -= np.log(share[best]) if best >= 0 else np.log(max(1e-9, 1 - share.max()))
        return total

    assert metrics.best_temperature([], []) == 1
    assert metrics.calibration([], []) == 0
    found = metrics.best_temperature(logits, gold)
    assert all(unlikely(found) <= unlikely(found * by) + 1e-6 for by in (0.9, 0.99, 1.01, 1.1))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1))
def test_f1_over_labels_is_scikit_learns_own(pairs: list[tuple[str, str]]) -> None:
    gold, given_ = zip(*pairs)
    found = metrics.classification(gold, given_, ["a", "b", "c"])
    for average in ("macro", "micro"):
        assert found[f"f1_{average}"] == pytest.approx(f1_score(gold, given_, average=average, zero_division=0.0))
