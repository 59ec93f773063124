from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bertloom
from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.probe import heads as probing
from bertloom.inspect.probe.heads import DIRECTIONS, draw, heads, told
from bertloom.inspect.probe.reading import untrained
from bertloom.text.records import Place
from bertloom.text.sources import ReadCounts, ReadOptions
from bertloom.text.trees import Tree, trees
from tests.inspect.conftest import DIRECTIONS as OBJECTIVES
from tests.inspect.conftest import loaded


def tree(words: str, heads: list[int], relations: str) -> Tree:
    split = tuple(words.split())
    return Tree(Place("t"), split, tuple(heads), tuple(relations.split()), ("X",) * len(split))


TREES = [
    tree("Nobody hears the garden .", [1, -1, 3, 1, 1], "nsubj root det obj punct"),
    tree("In the house every cat meows", [2, 2, 5, 4, 5, -1], "case det obl det nsubj root"),
] * 10


def by_hand(model: Model, given: list[Tree], layer: int, head: int, transposed: bool) -> dict[str, tuple[int, int]]:
    """Clark et al.'s procedure, word by word: hits and count of each relation."""
    found: dict[str, tuple[int, int]] = {}
    for one in given:
        _, insides = model.trace(one.text)
        attention = insides[layer].attentions[0][head].numpy()
        (_, places), spans = model.tokenizer.pieces([one.text])[0], one.spans
        of = [[1 + n for n, (start, end) in enumerate(places) if low <= start and end <= high] for low, high in spans]
        words = np.array([[attention[np.ix_(a, b)].sum(1).mean() for b in of] for a in of])
        words = words.T if transposed else words
        np.fill_diagonal(words, -1)
        for place, (wanted, relation) in enumerate(zip(one.heads, one.relations)):
            if relation not in ("root", "punct"):
                hits, count = found.get(relation, (0, 0))
                found[relation] = hits + int(words[place].argmax() == wanted and words[place].max() > 0), count + 1
    return found


@pytest.mark.parametrize("name", OBJECTIVES)
def test_accuracies_are_those_of_the_procedure(name: str, runs: dict[str, Path]) -> None:
    model = loaded(runs[name])
    found = heads(model, TREES, least=1)
    layers, count = found.habits["entropy"].shape
    for layer in range(layers):
        for head in range(count):
            for way in (0, 1):
                want = by_hand(model, TREES[:2], layer + 1, head, transposed=bool(way))
                for one in found.relations[1:]:
                    hits, size = want[one.name]
                    assert one.accuracies[way, layer, head] == pytest.approx(hits / size)
                total = [sum(side) for side in zip(*want.values())]
                assert found.relations[0].accuracies[way, layer, head] == pytest.approx(total[0] / total[1])
    assert (found.sentences, found.relations[0].name, found.relations[0].count) == (20, "all", 80)
    for one in found.relations:
        place = (DIRECTIONS.index(one.direction), one.head[0] - 1, one.head[1] - 1)
        assert one.accuracy == one.accuracies.max() == one.accuracies[place]
        assert one.interval[0] <= one.accuracy <= one.interval[1]


def test_offsets_are_the_best_of_all(model: Model) -> None:
    found = {one.name: one for one in heads(model, TREES, least=1).relations}
    assert (found["det"].offset, found["det"].offset_accuracy) == (1, 1.0)
    assert (found["obj"].offset, found["obj"].offset_accuracy) == (-2, 1.0)
    assert found["det"].offset_interval == (1.0, 1.0)
    assert found["nsubj"].offset_accuracy == 1.0, "one word on, for both of its words"


def test_habits_are_means_over_tokens(model: Model) -> None:
    found = heads(model, TREES[:1], least=1)
    _, insides = model.trace(TREES[0].text)
    first = insides[1].attentions[0].numpy()
    size = first.shape[-1]
    places = np.arange(size)
    assert found.habits["entropy"][0] == pytest.approx(-(first * np.log(first)).sum(-1).mean(-1), rel=1e-4)
    assert found.habits["distance"][0] == pytest.approx(
        (first * abs(places[:, None] - places)).sum(-1).mean(-1), rel=1e-4
    )
    assert found.habits["on [SEP]"][0] == pytest.approx(first[..., -1].mean(-1), rel=1e-4)


def test_what_cannot_be_asked_is_counted_or_refused(model: Model) -> None:
    long = tree("cat " * 600, [*([1] * 1), -1, *([1] * 598)], "x " * 600)
    found = heads(model, [*TREES, long], least=1)
    assert found.counts.mended["text of more than 510 tokens, left out"] == 1
    with pytest.raises(InputError, match="no sentence is left that the model can read"):
        heads(model, [long])
    with pytest.raises(InputError, match="no relation of 100 words or more"):
        heads(model, TREES, least=100)
    odd = tree("a \u200b cat", [2, 2, -1], "det x root")
    assert heads(model, [odd, *TREES], least=1).counts.mended["word that the vocabulary makes nothing of"] == 1


def test_the_same_seed_the_same_intervals(model: Model) -> None:
    one, same, other = (told(heads(model, TREES, least=1, seed=seed)) for seed in (0, 0, 1))
    assert one == same
    assert one.keys() == other.keys()


def test_new_weights_are_new(model: Model) -> None:
    one, same = (untrained(model, 3).state() for _ in range(2))
    assert all((one[name] == same[name]).all() for name in one)
    assert not (one["embeddings.word.weight"] == model.state()["embeddings.word.weight"]).any()


def test_a_picture_of_every_relation(model: Model, tmp_path: Path) -> None:
    draw(heads(model, TREES, least=1), tmp_path / "heads.png")
    assert (tmp_path / "heads.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_minilms_heads_know_english(minilm: Path, data: Path) -> None:
    """Objects and articles are found by a head, and not by where they stand."""
    source = str(data / "probe" / "en_ewt-dev.conllu")
    given = [one for _, one in zip(range(600), trees(source, ReadOptions(), ReadCounts()))]
    model = bertloom.load(minilm)
    found, without = ({one.name: one for one in heads(m, given).relations} for m in (model, untrained(model)))
    for name in ("det", "obj", "case"):
        assert found[name].interval[0] > found[name].offset_interval[1]
        assert found[name].interval[0] > without[name].interval[1]
    assert probing.LEFT_OUT == ("root", "punct")
