"""Heads on frozen features against transformers' hidden states, mixed and read by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import bertloom
from bertloom.errors import InputError
from bertloom.model.packed import pack
from bertloom.tasks.heads import FeatureHead, PooledHead, RowHead
from tests.conftest import small

TEXTS = ["The cat meows.", "The dog lives in the house.", "Loudly."]


@pytest.mark.parametrize("body", ["linear", "bilstm"])
@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize(
    "features", ["embeddings", "second-to-last", "last", "weighted-sum", "weighted-sum-all", "concat"]
)
def test_features_of_the_reference(features: str, pooled: bool, body: str, minilm: Path) -> None:
    model = bertloom.load(minilm)
    theirs = transformers.AutoModel.from_pretrained(minilm).eval()
    torch.manual_seed(0)
    head = FeatureHead(model.config, 3, features, body, pooled).eval()
    if head.mix is not None and head.scale is not None:
        head.mix.data, head.scale.data = torch.linspace(-1, 1, len(head.mix)), torch.tensor([1.5])
    examples = model.examples(TEXTS)
    for example in examples:
        # Of every text the first row alone, or each third one, as first pieces of words are.
        rows = np.arange(0, 1 if pooled else len(example), 3)
        example.targets["labels"] = (rows, np.zeros(len(rows), np.int64))
    with torch.no_grad():
        ours = head(model.encoder, pack(examples))
        wanted = []
        for example in examples:
            ids = torch.tensor(example.input_ids[None].astype(np.int64))
            states = theirs(ids, output_hidden_states=True).hidden_states  # embeddings and 6 layers, each (1, n, D)
            chosen = {
                "embeddings": states[:1],
                "second-to-last": states[-2:-1],
                "last": states[-1:],
                "weighted-sum-all": states,
            }.get(features, states[-4:])
            if features.startswith("weighted-sum"):
                share = torch.linspace(-1, 1, len(chosen)).exp()
                x = 1.5 * sum(w * one for w, one in zip(share / share.sum(), chosen))
            else:
                x = torch.cat(chosen, -1)
            x = x[0] if pooled else x[0, ::3]
            if head.lstm is not None:
                x = head.lstm(x[None])[0][0]
                assert x.shape[1] == 2 * model.config.hidden_size
            wanted.append(head.output(x.mean(0, keepdim=True) if pooled else x))
    assert torch.allclose(ours, torch.cat(wanted), atol=2e-5), (ours - torch.cat(wanted)).abs().max()


def test_the_embeddings_are_no_layer() -> None:
    for layers, features in ((3, "concat"), (3, "weighted-sum"), (1, "second-to-last")):
        with pytest.raises(InputError, match=f"{features} given, a model of more than {layers} layers needed"):
            FeatureHead(small(vocab_size=20, num_hidden_layers=layers), 2, features, "linear", False)
        FeatureHead(small(vocab_size=20, num_hidden_layers=layers + 1), 2, features, "linear", False)
    two_way = FeatureHead(small(vocab_size=20, num_hidden_layers=2), 2, "weighted-sum-all", "linear", False)
    assert two_way.mix is not None
    assert len(two_way.mix) == 3, "words and both layers of an ELMo"


@pytest.mark.parametrize("kind", [RowHead, PooledHead])
@pytest.mark.parametrize("width", [24, 96])
def test_logits_begin_at_unit_variance(kind: type[nn.Linear], width: int) -> None:
    torch.manual_seed(0)
    head = kind(small(vocab_size=50, hidden_size=width), 400)
    with torch.no_grad():
        spread = float((torch.randn(64, width) @ head.weight.t()).std())
    assert 0.75 < spread < 1.0, "cut at two deviations"
