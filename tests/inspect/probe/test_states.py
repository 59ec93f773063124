from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

import bertloom
from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.probe import states as probing
from bertloom.inspect.probe.reading import untrained
from bertloom.inspect.probe.states import TASKS, draw, states, told
from bertloom.text.records import Place
from bertloom.text.sources import ReadCounts, ReadOptions
from bertloom.text.trees import Tree, trees


def language(count: int, seed: int = 0) -> list[Tree]:
    """Sentences in which a word's tag and relation are told by the word, its depth by its place."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        first, *others = (rng.choice(["cat", "dog", "cow"]) for _ in range(rng.randint(2, 4)))
        words, tags = ["every", first, rng.choice(["sees", "hears"])], ["DET", "NOUN", "VERB"]
        heads, relations = [1, 2, -1], ["det", "nsubj", "root"]
        for noun in others:
            heads += [len(words) + 1, 2]
            words += ["the", noun]
            tags += ["DET", "NOUN"]
            relations += ["det", "obj"]
        made.append(Tree(Place("t"), tuple(words), tuple(heads), tuple(relations), tuple(tags)))
    return made


def test_depths() -> None:
    one = language(1)[0]
    assert one.depths[:3] == [2, 1, 0]


def test_what_words_tell_is_read_out_and_more_than_by_heart(model: Model) -> None:
    found = states(model, language(200), ReadCounts())
    assert [(one.task, one.layer) for one in found.probes] == [
        (task, layer) for layer in range(model.config.num_hidden_layers + 1) for task in TASKS
    ]
    for one in found.probes:
        assert one.interval[0] <= one.score <= one.interval[1] or one.task == "depth"
        assert one.selectivity == one.score - one.control
        if one.task == "part of speech":
            assert one.score > 0.95
    asked = [one for _, one in _split(language(200))]
    assert found.asked == sum(len(one.words) - 1 for one in asked)
    assert found.guesses["part of speech"] == 1.0


def _split(given: list[Tree]) -> list[tuple[int, Tree]]:
    order = np.random.default_rng(0).permutation(len(given))
    aside = set(order[: round(probing.HELD_OUT * len(given))].tolist())
    return [(number, one) for number, one in enumerate(given) if number in aside]


def test_the_control_task_is_one_answer_a_word(model: Model) -> None:
    learned, asked = (probing._words(model, language(40, seed), ReadCounts()) for seed in (0, 1))
    for task in TASKS:
        one, two = probing._by_chance(task, learned, asked, seed=3)
        by_word: dict[str, set[object]] = {}
        for form, answer in zip(learned.forms + asked.forms, one + two):
            by_word.setdefault(form, set()).add(answer)
        assert all(len(answers) == 1 for answers in by_word.values())
        assert set(one) <= set(learned.answers[task])


def test_features_are_means_of_pieces_and_the_heads_beside(model: Model) -> None:
    given = language(1)
    words = probing._words(model, given, ReadCounts())
    _, insides = model.trace(given[0].text)
    (_, places), spans = model.tokenizer.pieces([given[0].text])[0], given[0].spans

    def of(word: int) -> np.ndarray:
        rows = [1 + n for n, (start, end) in enumerate(places) if spans[word][0] <= start and end <= spans[word][1]]
        return np.asarray(insides[1].hidden_states[rows].mean(0).numpy())

    found = probing._features("relation", words, 1)
    assert found[0] == pytest.approx(np.concatenate([of(0), of(1)]), abs=1e-4)
    assert found[1] == pytest.approx(np.concatenate([of(1), of(2)]), abs=1e-4)
    assert probing._features("depth", words, 1)[1] == pytest.approx(of(1), abs=1e-4)
    ids = model.tokenizer.ids([word for word, head in zip(given[0].words, given[0].heads) if head >= 0])
    assert words.forms == [" ".join(map(str, one)) for one in ids]


def test_the_depths_bounds_hold_its_correlation() -> None:
    rng = np.random.default_rng(0)
    depths = rng.integers(0, 6, 400)
    said = depths + rng.normal(size=400)
    words = probing._Words([], [], {"depth": depths.tolist()}, ["x"] * 400, np.repeat(np.arange(40), 10).tolist())
    low, high = probing._interval("depth", said, words, 0)
    assert low < spearmanr(said, depths).statistic < high
    assert high - low < 0.1


def test_other_trees_to_learn_from(model: Model, tmp_path: Path) -> None:
    learn, ask = language(60, 0), language(20, 1)
    found = states(model, ask, ReadCounts(), learn)
    assert found.learned == sum(len(one.words) - 1 for one in learn)
    assert found.asked == sum(len(one.words) - 1 for one in ask)
    assert told(found) == told(states(model, ask, ReadCounts(), learn))
    draw(found, tmp_path / "states.png", found)
    assert (tmp_path / "states.png").read_bytes().startswith(b"\x89PNG")


def test_most_words(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MOST_WORDS", 30)
    found = states(model, language(60), ReadCounts(), language(60, 1))
    assert 30 <= found.learned < 40


def test_what_cannot_be_learned_is_refused(model: Model) -> None:
    one = Tree(Place("t"), ("the", "cat"), (1, -1), ("det", "root"), ("DET", "NOUN"))
    with pytest.raises(InputError, match="0 words to learn from"):
        states(model, [one], ReadCounts(), [])
    with pytest.raises(InputError, match="words of one part of speech or one relation alone"):
        states(model, [one] * 5, ReadCounts(), [one] * 5)


@pytest.mark.slow
def test_minilms_layers_tell_more_than_its_words(minilm: Path, data: Path) -> None:
    source = str(data / "probe" / "en_ewt-dev.conllu")
    given = [one for _, one in zip(range(300), trees(source, ReadOptions(), ReadCounts()))]
    model = bertloom.load(minilm)
    found, without = (
        {(one.task, one.layer): one for one in states(m, given, ReadCounts()).probes} for m in (model, untrained(model))
    )
    assert found["part of speech", 2].interval[0] > found["part of speech", 0].interval[1]
    assert found["relation", 3].interval[0] > found["relation", 0].interval[1]
    for task in TASKS:
        best = max(found[task, layer].score for layer in range(1, 7))
        assert best > max(without[task, layer].score for layer in range(7)) + 0.05
