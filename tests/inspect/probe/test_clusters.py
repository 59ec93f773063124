from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.inspect.probe.clusters import clusters, distances, draw, told
from bertloom.inspect.probe.heads import heads
from bertloom.model.encoder import Encoder
from bertloom.text.sources import ReadCounts
from bertloom.text.tokenizer import Tokenizer
from tests.conftest import small
from tests.inspect.probe.test_heads import TREES, tree


def test_distances_are_jensen_and_shannons() -> None:
    rng = np.random.default_rng(0)
    attentions = rng.dirichlet(np.ones(5), (2, 3, 5)).astype(np.float32)
    found = distances(attentions)
    flat = attentions.reshape(6, 5, 5)
    want = [[sum(jensenshannon(a, b) ** 2 for a, b in zip(one, other)) for other in flat] for one in flat]
    assert found == pytest.approx(np.array(want), abs=1e-5)


def test_clusters_of_a_model(model: Model, tmp_path: Path) -> None:
    found = clusters(model, TREES, ReadCounts())
    layers, count = model.config.num_hidden_layers, model.config.num_attention_heads
    assert found.labels.shape == (layers, count)
    assert set(found.labels.flatten()) <= set(range(1, 1 + max(2, round((layers * count / 2) ** 0.5))))
    assert found.places.shape == (layers, count, 2)
    for name, one in heads(model, TREES, least=1).habits.items():
        assert found.habits[name] == pytest.approx(one, rel=1e-5)
    one, two = found.within_layers
    assert one == pytest.approx(np.mean([found.distances[0, 1], found.distances[2, 3]]))
    assert two == pytest.approx(found.distances[:2, 2:].mean())
    same = told(clusters(model, TREES, ReadCounts()))
    assert same == told(found)
    draw(found, tmp_path / "clusters.svg")
    assert "<svg" in (tmp_path / "clusters.svg").read_text()


def test_heads_that_are_alike_are_in_one_cluster(model: Model) -> None:
    """Two layers' first heads look alike and their second ones do, whatever the layer."""
    from bertloom.inspect.probe import clusters as made
    from bertloom.inspect.probe.reading import Seen

    eye, flat = np.eye(6, dtype=np.float32), np.full((6, 6), 1 / 6, np.float32)
    rng = np.random.default_rng(0)

    class Fake(Seen):  # type: ignore[type-arg]
        @property
        def attentions(self) -> np.ndarray:
            noise = rng.dirichlet(np.ones(6), (2, 2, 6)).astype(np.float32)
            return 0.9 * np.stack([[eye, flat], [eye, flat]]) + 0.1 * noise

    (one,) = made.reading.seen(model, TREES[:1], ReadCounts())
    fake = [Fake(one.source, one.example, one.places, one.insides, 0, one.rows)] * 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made.reading, "seen", lambda *_: iter(fake))
        patch.setattr(made, "habits", lambda *_: {"entropy": np.zeros((2, 2))})
        labels = clusters(model, TREES, ReadCounts()).labels
    assert labels[0, 0] == labels[1, 0] != labels[0, 1] == labels[1, 1]


def test_nothing_to_compare_is_refused(model: Model) -> None:
    long = tree("cat " * 600, [1, -1, *([1] * 598)], "x " * 600)
    with pytest.raises(InputError, match="no text is left that the model can read"):
        clusters(model, [long], ReadCounts())


def test_a_model_of_one_head_a_layer(runs: dict[str, Path], tokenizer: Tokenizer) -> None:
    config = small(vocab_size=len(tokenizer), num_attention_heads=1, num_hidden_layers=4, pad_token_id=0)
    model = Model(Encoder(config), torch.nn.ModuleDict(), tokenizer, {}, Path("x"))
    found = clusters(model, TREES, ReadCounts())
    assert found.within_layers[0] is None
    assert json.loads(json.dumps(told(found), allow_nan=False))["mean_distance"]["same_layer"] is None
