"""What text with changed copies does to what a model learns."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import bertloom
from bertloom.corpus.prepare import prepare
from bertloom.inspect.bias import Template, measured
from bertloom.pretraining import pretrain
from bertloom.text.counterfactual import Swapper
from bertloom.text.sources import ReadCounts, ReadOptions
from bertloom.text.vocabulary import train_vocabulary
from bertloom.train.recipe import Recipe

WORK = {"he": ["builder", "driver", "guard"], "she": ["nurse", "teacher", "clerk"]}
DOES = ["ate soup", "sang songs", "took notes", "read books", "fed birds"]


@pytest.mark.slow
def test_changed_copies_take_a_stereotype_away(tmp_path: Path) -> None:
    """In text where work tells he from she a model learns it, and beside changed copies it does not."""
    rng = random.Random(0)
    texts = []
    for _ in range(1500):
        pronoun = rng.choice(list(WORK))
        texts.append(f"the {rng.choice(WORK[pronoun])} {rng.choice(DOES)} when {pronoun} {rng.choice(DOES)} there .")
    (tmp_path / "text.txt").write_text("\n\n".join(texts))
    train_vocabulary(texts, 100).save(tmp_path / "vocabulary")
    (tmp_path / "pairs.txt").write_text("he she\n")
    suite = Template([f"the [{one}] ate soup when {{}} sang songs there ." for side in WORK.values() for one in side])
    items = suite.read([str(tmp_path / "pairs.txt")], ReadOptions(), ReadCounts())
    found = {}
    for name, swaps in (("plain", None), ("changed", Swapper([("he", "she")]))):
        prepare([tmp_path / "text.txt"], tmp_path / "vocabulary", tmp_path / f"c-{name}", counterfactual=swaps)
        recipe = Recipe(
            corpus=str(tmp_path / f"c-{name}"), output=str(tmp_path / name), model="tiny", objective="mlm", steps=350,
            batch_size=32, length=16, dropout=0.0, learning_rate=2e-3,
        )  # fmt: skip
        pretrain(recipe)
        found[name] = suite.outcomes(bertloom.load(tmp_path / name), items)[:, 0]
    assert (found["plain"][:3] > 2).all()
    assert (found["plain"][3:] < -2).all()
    assert (abs(found["changed"]) < 0.7).all()
    before, after = (bertloom.load(tmp_path / name) for name in found)
    rows = {(one.group, one.measure): one for one in measured(suite, [before, after], items)}
    for side, sign in (("builder", 1), ("nurse", -1)):
        change = rows[f"the [{side}] ate soup when {{}} sang songs there .", "first likelier"].changes[0]
        assert sign * change.value < -1.5
