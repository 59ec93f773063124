"""Several corpora as one: shares, order, one vocabulary."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import bertloom
from bertloom.corpus import Corpus, Draw, Mixture, opened
from bertloom.corpus.mixture import DEALT, _dealt
from bertloom.corpus.prepare import prepare
from bertloom.errors import InputError
from bertloom.objectives import Combined
from bertloom.pretraining import pretrain
from bertloom.text.shares import balanced, smoothed
from bertloom.train.recipe import Recipe
from tests.conftest import ANIMALS, small

LINES = {"long": 3000, "middle": 300, "short": 60}


@pytest.fixture(scope="module")
def corpora(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three corpora of unlike sizes, each of one animal."""
    folder = tmp_path_factory.mktemp("corpora")
    for (name, lines), animal in zip(LINES.items(), ANIMALS):
        text = folder / f"{name}.txt"
        text.write_text("\n\n".join([f"The {animal} sleeps.\nThe {animal} {ANIMALS[animal]}."] * (lines // 2)))
        prepare([text], tokenizer_folder, folder / "all" / name, held_out=0.1 if name != "short" else 0.0)
    return folder / "all"


def drawn_from(source: Mixture, count: int, seed: int = 0) -> Counter[str]:
    return Counter(source.drawn(Draw(seed, index, 32))[0].path.name for index in range(count))


@pytest.mark.parametrize("exponent", [1.0, 0.7, 0.0])
def test_each_is_drawn_by_its_share_to_the_power(corpora: Path, exponent: float) -> None:
    source = opened(corpora, exponent)
    assert isinstance(source, Mixture)
    sizes = np.array([len(part.tokens) for part in source.parts], float)
    want = (sizes / sizes.sum()) ** exponent
    counts = drawn_from(source, 3 * DEALT)
    for part, share in zip(source.parts, want / want.sum()):
        assert counts[part.path.name] / (3 * DEALT) == pytest.approx(share, abs=1.5 / DEALT)


def test_weights_by_name(corpora: Path) -> None:
    source = opened(corpora, weights="long=1, middle=1 short=2")
    assert isinstance(source, Mixture)
    assert opened(corpora, weights="long=8e307, middle=8e307 short=1.6e308").identity == source.identity
    assert drawn_from(source, DEALT) == {"long": 250, "middle": 250, "short": 500}
    assert source.said() == "long 25.0 %, middle 25.0 %, short 50.0 %"


@given(sizes=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=DEALT))
@example(sizes=[1900.0] * 5 + [1.0] * 500)
@example(sizes=[1.0] * DEALT)
def test_each_has_one_draw_of_a_thousand_and_no_more_than_its_share_above(sizes: list[float]) -> None:
    shares = np.array(sizes) / sum(sizes)
    counts = _dealt(shares)
    assert counts.sum() == DEALT
    assert counts.min() >= 1
    assert (counts <= np.maximum(shares * DEALT, 1) + 1).all()
    assert (np.diff(counts[np.argsort(shares, kind="stable")]) >= -1).all(), "who has more is drawn as often or more"


@given(seed=st.integers(0, 2**63 - 1), deals=st.integers(1, 3))
def test_every_draw_of_each_comes_once(corpora: Path, seed: int, deals: int) -> None:
    source = opened(corpora, weights="long=3,middle=2,short=1")
    assert isinstance(source, Mixture)
    found: dict[str, list[int]] = {}
    for index in range(deals * DEALT):
        part, draw = source.drawn(Draw(seed, index, 32))
        found.setdefault(part.path.name, []).append(draw.index)
    for indices in found.values():
        assert sorted(indices) == list(range(len(indices)))


def test_what_is_drawn_is_of_the_corpus_it_says(corpora: Path) -> None:
    source = opened(corpora)
    objective = Combined(small(type_vocab_size=2), "mlm+nsp")
    for index in range(50):
        draw = Draw(3, index, 40)
        part, own = source.drawn(draw)
        made, again = objective.example(source, draw), objective.example(part, own)
        assert np.array_equal(made.input_ids, again.input_ids)
    assert objective.epoch(source, 40) == sum(objective.epoch(part, 40) for part in source.parts)


def test_held_out_parts_keep_their_proportions(corpora: Path) -> None:
    source = opened(corpora, weights="long=3,middle=1,short=4")
    aside = source.held_out
    assert isinstance(aside, Mixture)
    assert [part.path.parent.name for part in aside.parts] == ["long", "middle"]
    assert aside.shares.tolist() == [0.75, 0.25]
    assert source.frequencies.sum() == pytest.approx(1)


def test_one_corpus_in_a_folder_is_itself(corpora: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "long").symlink_to(corpora / "long")
    for path in (tmp_path / "one", corpora / "long"):
        assert isinstance(opened(path), Corpus)


def test_mixtures_that_cannot_be(corpora: Path, tmp_path: Path) -> None:
    from bertloom.text.vocabulary import train_vocabulary

    for weights, said in (
        ("lnog=1", "weights: unknown 'lnog', did you mean 'long'"),
        ("long=1", "weights: 'long=1' given, middle needed too"),
        ("long=x", "weights: 'long=x' given, a name, = and a number allowed"),
        ("long=1 long=2", "weights: long given twice, each once allowed"),
        ("long=0", "weights: 'long=0' given, a number above 0 allowed"),
        ("long=nan", "weights: 'long=nan' given, a number above 0 allowed"),
    ):
        with pytest.raises(InputError, match=said):
            opened(corpora, weights=weights)
    with pytest.raises(InputError, match="allowed with a folder of several corpora"):
        opened(corpora / "long", weights="long=1")
    with pytest.raises(InputError, match=r"exponent: .* given, allowed with a folder of several corpora"):
        opened(corpora / "long", exponent=0.5)
    with pytest.raises(InputError, match="no prepared corpus there"):
        opened(tmp_path)
    for name, words in (("a", 80), ("b", 90)):
        text = tmp_path / "text.txt"
        text.write_text(" ".join(f"{one}{other}" for one in "abcdefgh" for other in "ijklmnop") * 3)
        train_vocabulary([text.read_text()], words, min_frequency=0).save(tmp_path / f"v{name}")
        prepare([text], tmp_path / f"v{name}", tmp_path / "mixed" / name)
    with pytest.raises(InputError, match=r"corpus was prepared with vocabulary .* prepare the text again"):
        opened(tmp_path / "mixed")


def test_a_run_on_several_goes_on_exactly(corpora: Path, tmp_path: Path) -> None:
    given = Recipe(
        corpus=str(corpora), output=str(tmp_path / "whole"), model="tiny", objective="mlm", steps=4, batch_size=8,
        length=32, save_every=2, evaluate_examples=8,
    )  # fmt: skip
    said: list[str] = []
    assert pretrain(given, warn=said.append)
    assert said == [f"Drawn from {opened(corpora, 0.7).said()}"]  # type: ignore[union-attr]
    from bertloom.pretraining import Pretraining

    other = Recipe(**{**given.__dict__, "output": str(tmp_path / "parts")})
    for step, _ in Pretraining(other, said.append).train(lambda: False):
        if step.number == 2:
            break
    assert pretrain(other, warn=said.append)
    one, two = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "parts"))
    assert one.read_bytes() == two.read_bytes()
    card = (tmp_path / "whole" / "model" / "README.md").read_text()
    assert all(f"`{name}.txt`" in card for name in LINES)
    with pytest.raises(InputError, match="exponent"):
        pretrain(Recipe(**{**given.__dict__, "exponent": 0.5}), warn=said.append)
    assert bertloom.load(tmp_path / "whole").fill("The [MASK] sleeps.")


def test_small_texts_are_repeated_until_their_share_is_smoothed() -> None:
    texts = [["a" * 10] * 1000, ["b" * 10] * 100, [], ["c" * 10] * 10]
    lines = Counter(line[0] for line in balanced([lambda text=text: text for text in texts], 0.5))  # type: ignore[misc]
    want = smoothed(np.array([1000.0, 100.0, 10.0]), 0.5)
    assert lines["a"] == 1000
    for name, share in zip("abc", want):
        assert lines[name] / lines.total() == pytest.approx(share, rel=0.02)
    assert list(balanced([lambda: ["x", "y"]], 0.7)) == ["x", "y"]
