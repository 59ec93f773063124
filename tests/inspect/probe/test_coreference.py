from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.probe.coreference import BASELINES, CROSSED, WAYS, _crossed, coreference, draw, told
from bertloom.text.bracketed import Mentioned, mentioned
from bertloom.text.sources import ReadCounts, ReadOptions

TEXT = """1 [The cat] sees the dog before [it] sleeps.
2 The cat hears [the dog] when [it] barks.
3 [The dog] and the cow hear how [the dog] sleeps.
4 [The cow] moos [itself] in the garden.
5 The dog, the cat and [the cow] hear that [she] moos."""


@pytest.fixture
def texts(tmp_path: Path) -> list[Mentioned]:
    (tmp_path / "texts.txt").write_text(TEXT)
    return list(mentioned(str(tmp_path / "texts.txt"), ReadOptions(), ReadCounts()))


def by_hand(model: Model, layer: int, head: int, way: int) -> list[bool]:
    """What a head finds of the five texts' questions, worked out word by word."""
    asked = [
        ("The cat sees the dog before it sleeps.", 28, [(4, 7), (17, 20)], 0),
        ("The cat hears the dog when it barks.", 27, [(4, 7), (18, 21)], 1),
        ("The dog and the cow hear how the dog sleeps.", 33, [(4, 7), (16, 19)], 0),
        ("The dog, the cat and the cow hear that she moos.", 39, [(4, 7), (13, 16), (25, 28)], 2),
    ]
    found = []
    for text, start, candidates, right in asked:
        _, insides = model.trace(text)
        attention = insides[layer].attentions[0][head].numpy()
        places = model.tokenizer.pieces([text])[0][1]
        end = text.index(" ", start)

        def rows(low: int, high: int, places: list[tuple[int, int]] = places) -> list[int]:
            return [1 + n for n, (a, b) in enumerate(places) if low <= a and b <= high]

        own = rows(start, end)
        if way == 0:
            shares = [attention[np.ix_(own, rows(*one))].sum(1).mean() for one in candidates]
        else:
            shares = [attention[np.ix_(rows(*one), own)].sum(1).mean() for one in candidates]
        found.append(int(np.argmax(shares)) == right)
    return found


def test_accuracies_are_those_of_the_procedure(model: Model, texts: list[Mentioned]) -> None:
    found = coreference(model, texts)
    assert (found.mentions, found.texts) == (4, 4), "of the fourth there is nothing to choose"
    for way in (0, 1):
        for layer, head in np.ndindex(*found.accuracies.shape[1:]):
            want = np.mean(by_hand(model, layer + 1, head, way))
            assert found.accuracies[way, layer, head] == pytest.approx(want), (way, layer, head)
    place = (WAYS.index(found.way), found.head[0] - 1, found.head[1] - 1)
    assert found.best.accuracy == found.accuracies.max() == found.accuracies[place]
    assert found.best.interval[0] <= found.best.accuracy <= found.best.interval[1]


def test_baselines(model: Model, texts: list[Mentioned], tmp_path: Path) -> None:
    found = coreference(model, texts)
    rules = {one.name: one.accuracy for one in found.others}
    assert tuple(rules) == (CROSSED, *BASELINES)
    assert rules[CROSSED] <= found.best.accuracy
    assert rules["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 2 + 1 / 3) / 4)
    assert rules["nearest"] == 2 / 4
    assert rules["same head word, else nearest"] == 3 / 4
    assert told(found) == told(coreference(model, texts))
    draw(found, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_head_is_chosen_on_the_other_half() -> None:
    hits = np.array([[1, 0], [1, 0], [0, 1], [1, 0]])
    assert _crossed(hits, np.ones(4)).tolist() == [1, 1, 0, 1], "halves agree, the first of equals is taken"
    assert _crossed(np.array([[1, 0], [0, 1]]), np.ones(2)).tolist() == [0, 0]


def test_of_one_text_no_other_half(model: Model, texts: list[Mentioned]) -> None:
    text = "The cat and the cat hear that it sleeps."
    found = coreference(model, [Mentioned(texts[0].place, text, ((0, 7), (text.index("it "), text.index(" sleeps"))))])
    assert [one.name for one in found.others] == list(BASELINES)
    assert np.isnan(found.best.interval).all()
    assert told(found)["rules"][0]["interval"] is None


def test_bad_lines_and_too_little_are_refused(model: Model, texts: list[Mentioned], tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("[a] b [c]\n[a b\n\n[a] b\n")
    with pytest.raises(InputError, match=r"bad.txt:2: a '\[' without its other"):
        list(mentioned(str(tmp_path / "bad.txt"), ReadOptions(), ReadCounts()))
    counts = ReadCounts()
    assert len(list(mentioned(str(tmp_path / "bad.txt"), ReadOptions(on_bad="skip"), counts))) == 1
    assert counts.mended["malformed line, left out"] == 2
    with pytest.raises(InputError, match="no mention has two to choose from"):
        coreference(model, texts[3:4])


@pytest.mark.slow
def test_of_winobias_a_head_of_minilm_finds_more_than_the_nearest(minilm: Path, data: Path) -> None:
    import bertloom

    source = str(data / "bias" / "winobias" / "pro_stereotyped_type1.txt.dev")
    found = coreference(bertloom.load(minilm), mentioned(source, ReadOptions(), ReadCounts()))
    nearest = next(one for one in found.others if one.name == "nearest")
    assert found.mentions > 390
    assert found.best.interval[0] > nearest.interval[1]
