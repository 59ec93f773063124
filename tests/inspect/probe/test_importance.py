from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.evaluation import hidden, log_probabilities
from bertloom.inspect.probe.importance import TAKEN, Asked, draw, importance, of_task, of_texts, told
from bertloom.model.packed import pack
from bertloom.text.sources import ReadCounts
from tests.inspect.conftest import DIRECTIONS, loaded, tuned

TEXTS = ["The cat sleeps in the house.", "Every dog barks loudly before it sleeps.", "한국어 문장도 안에 있습니다."]


@pytest.mark.parametrize("name", DIRECTIONS)
def test_scores_are_slopes_of_the_loss(name: str, runs: dict[str, Path]) -> None:
    """By finite differences, text by text, in double precision."""
    model = loaded(runs[name])
    model.encoder.double(), model.heads.double()
    asked = of_texts(model, TEXTS, ReadCounts())
    found = importance(model, asked)
    shape = found.scores.shape
    assert shape == (model.config.num_hidden_layers, model.config.num_attention_heads)
    seen: list[list[object]] = []

    def spied(part, gates):  # type: ignore[no-untyped-def]
        seen.append(list(part))
        return -log_probabilities(model, part, gates)

    again = importance(model, Asked(asked.examples, spied, 1))
    assert again.scores == pytest.approx(found.scores, rel=1e-6)
    for layer, head in ((0, 0), (1, 1)):
        total, step = 0.0, 1e-2
        for one in asked.examples:
            sides = []
            for sign in (1, -1):
                gates = torch.ones(1, *shape, dtype=torch.float64)
                gates[0, layer, head] += sign * step
                with torch.no_grad():
                    sides.append(float(-log_probabilities(model, [one], gates)))
            total += abs(sides[0] - sides[1]) / (2 * step)
        assert found.scores[layer, head] == pytest.approx(total / len(asked.examples), rel=1e-2)


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_closed_gate_is_a_head_that_is_not_there(name: str, whole: bool, runs: dict[str, Path]) -> None:
    """The same as with the head's columns of the output matrix set to zero, packed and where rows are read alone."""
    model = loaded(runs[name])
    examples = [hidden(np.array([2, 7, 9, 11, 30, 3]), [2], model), hidden(np.array([2, 12, 13, 3]), [1], model)]
    batch = pack(examples)
    batch = replace(batch, read=None) if whole else batch
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    gates = torch.ones(2, layers, heads)
    gates[:, 1, 0] = 0
    with torch.no_grad():
        plain = model.encoder(batch)
        opened = model.encoder(replace(batch, gates=torch.ones(2, layers, heads)))
        found = model.encoder(replace(batch, gates=gates))
        layer = model.encoder.layers[1]
        attention = layer.left.attention if name == "bilm" else layer.attention
        attention.output.weight[:, : attention.head_size] = 0
        want = model.encoder(batch)
    assert torch.equal(opened, plain)
    assert found == pytest.approx(want, abs=1e-5)
    assert not torch.allclose(found, plain, atol=1e-3)


def test_gates_are_each_texts_own(model: Model) -> None:
    examples = [hidden(np.array([2, 7, 9, 11, 30, 3]), [2], model), hidden(np.array([2, 12, 13, 3]), [1], model)]
    gates = torch.ones(2, model.config.num_hidden_layers, model.config.num_attention_heads)
    gates[1] = 0
    with torch.no_grad():
        both, alone = log_probabilities(model, examples, gates), log_probabilities(model, examples)
    assert float(both[0]) == pytest.approx(float(alone[0]), abs=1e-5)
    assert float(both[1]) != pytest.approx(float(alone[1]), abs=1e-3)


def test_what_taking_heads_away_costs(model: Model, tmp_path: Path) -> None:
    found = importance(model, of_texts(model, TEXTS * 4, ReadCounts()))
    assert [share for share, _ in found.curve] == list(TAKEN)
    assert np.linalg.norm(found.by_layer, axis=1) == pytest.approx(np.ones(len(found.scores)))
    assert sorted(found.order) == [(layer, head) for layer, head in np.ndindex(*found.scores.shape)]
    first, last = found.order[0], found.order[-1]
    assert found.by_layer[first] == found.by_layer.min()
    assert found.by_layer[last] == found.by_layer.max()
    assert told(found) == told(importance(model, of_texts(model, TEXTS * 4, ReadCounts())))
    draw(found, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["classify", "tag"])
def test_of_a_fine_tuned_models_loss(name: str, runs: dict[str, Path], tmp_path: Path) -> None:
    model = tuned(loaded(runs["mlm+nsp"]), name)
    rows = {
        "classify": [{"text": text, "label": label} for text, label in zip(TEXTS, ("no", "yes", "no"))],
        "tag": [{"tokens": text.split(), "tags": ["O"] * len(text.split())} for text in TEXTS],
    }[name]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = importance(model, of_task(model, str(tmp_path / "rows.jsonl"), ReadCounts()))
    assert found.texts == 3
    assert (found.scores > 0).all()
    task = model.require_task()
    records = list(task.read(str(tmp_path / "rows.jsonl"), ReadCounts()))
    batch = pack([one for group in task.features(records, model.tokenizer, model.config) for one in group])
    with torch.no_grad():
        loss = float(task.loss(model.heads[task.part](model.encoder, batch), batch)) / task.count(batch)
    assert found.curve[0][1] == pytest.approx(loss, rel=1e-4)


def test_what_cannot_be_asked(model: Model, minilm: Path) -> None:
    import bertloom

    counts = ReadCounts()
    with pytest.raises(InputError, match="no text is left"):
        importance(model, of_texts(model, ["", "cat " * 600], counts))
    assert counts.mended["text of none or more than 510 tokens, left out"] == 2
    with pytest.raises(InputError, match="no trained mlm head"):
        of_texts(bertloom.load(minilm), TEXTS, counts)
    with pytest.raises(InputError, match="is not fine-tuned"):
        of_task(model, "x", counts)
