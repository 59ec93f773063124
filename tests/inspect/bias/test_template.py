from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.bias import Template, measured
from bertloom.text.sources import ReadCounts, ReadOptions

TEMPLATES = ["The {} always [sleeps] here.", "In the [house] every {} sleeps.", "{} barks."]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    (tmp_path / "pairs.txt").write_text("the in\na h\n")
    return tmp_path / "pairs.txt"


def filled(model: Model, text: str, words: list[str]) -> list[float]:
    """The log-probabilities of words of one token at the text's first {}, other [MASK] as they are."""
    at = text.split("{}")[0].count("[MASK]")
    said = model.fill(text.replace("{}", "[MASK]"), top=model.config.vocab_size)[at]
    of = {one.token: one.probability for one in said}
    return [float(np.log(of[word])) for word in words]


def test_differences_are_those_of_filled_masks(model: Model, pairs: Path) -> None:
    suite = Template(TEMPLATES)
    items = suite.read([str(pairs)], ReadOptions(), ReadCounts())
    assert len(items) == 6
    found = suite.outcomes(model, items)
    for one, (likelier, beyond, _) in zip(items, found):
        bare = one.template.replace("[", "").replace("]", "")
        first, second = filled(model, bare, list(one.words))
        assert likelier == pytest.approx(first - second, abs=1e-3)
        hidden = one.template.replace("[sleeps]", "[MASK]" * len(model.tokenizer.ids(["sleeps"])[0])).replace(
            "[house]", "[MASK]" * len(model.tokenizer.ids(["house"])[0]))  # fmt: skip
        if hidden == one.template:
            assert np.isnan(beyond)
        else:
            prior = filled(model, hidden, list(one.words))
            assert beyond == pytest.approx(likelier - (prior[0] - prior[1]), abs=1e-3)


def test_rows_and_changes(model: Model, pairs: Path) -> None:
    suite = Template(TEMPLATES[:2])
    items = suite.read([str(pairs)], ReadOptions(), ReadCounts())
    rows = {(one.group, one.measure): one for one in measured(suite, [model, model], items, seed=1)}
    assert {group for group, _ in rows} == {"all", *TEMPLATES[:2], "the – in", "a – h"}
    for one in rows.values():
        assert one.figures[0] == one.figures[1]
        assert (one.changes[0].value, one.changes[0].low, one.changes[0].high) == (0, 0, 0)
    both = rows["the – in", "first likelier"].figures[0]
    assert both.value == pytest.approx(np.mean([suite.outcomes(model, items)[n, 0] for n in (0, 2)]))
    again = measured(suite, [model], items, seed=1)
    assert [one.figures[0] for one in again] == [one.figures[0] for one in rows.values()]


def test_changes_are_of_the_same_draws(model: Model, pairs: Path) -> None:
    """A model whose words are moved alike is as far from the first in every draw."""
    suite = Template(TEMPLATES)
    items = suite.read([str(pairs)], ReadOptions(), ReadCounts())
    first = suite.outcomes(model, items)[:, 0]
    (one,), (other,) = model.tokenizer.ids(["the", "a"])
    with torch.no_grad():
        bias = model.head("mlm").bias
        before = bias.clone()
        bias[[one, other]] += 1.0
    moved = suite.outcomes(model, items)[:, 0]
    with torch.no_grad():
        bias.copy_(before)
    assert moved - first == pytest.approx(np.ones(6), abs=1e-3)


@pytest.mark.parametrize(
    "template",
    [
        "no place",
        "{} and {}",
        "{}",
        "a [b] [c] {}",
        "a [b {}",
        "a [{}] b",
        "]a[ {}",
        "{} []",
        "{} [ ]",
        "{} is a [MASK].",
    ],
)
def test_other_templates_are_refused(template: str) -> None:
    with pytest.raises(InputError, match="template: "):
        Template([template])


def test_words_that_are_the_same_to_a_model_are_refused(model: Model, pairs: Path) -> None:
    pairs.write_text("The Thé\n卍 卐\n")
    suite = Template(TEMPLATES)
    items = suite.read([str(pairs)], ReadOptions(), ReadCounts())
    with pytest.raises(InputError, match="pair '卍 卐' given, words that the model can tell apart needed"):
        measured(suite, [model], items)


def test_of_one_item_there_is_no_interval(model: Model, pairs: Path) -> None:
    pairs.write_text("the in\n")
    suite = Template(TEMPLATES[:1])
    rows = measured(suite, [model, model], suite.read([str(pairs)], ReadOptions(), ReadCounts()))
    assert all(np.isnan([one.low, one.high]).all() for row in rows for one in (*row.figures, *row.changes))
