"""Every family equals `transformers`: hidden states, attentions, heads, losses, gradients, and weights both ways."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers

import bertloom
from bertloom import hub
from bertloom.config import ALBERT, BERT, DISTILBERT, ELECTRA, MODERNBERT, ROBERTA, XLM_ROBERTA, EncoderConfig
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.families import FAMILIES
from bertloom.model.encoder import Insides
from bertloom.model.packed import pack
from tests.conftest import random_examples, small

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40,
    "hidden_act": "gelu_new", "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3,
    "max_position_embeddings": 50, "initializer_range": 0.3, "pad_token_id": 4,
}  # fmt: skip
# Every family with every field that its folder tells at another value than its default.
MORE: dict[str, Any] = {"type_vocab_size": 3, "layer_norm_eps": 1e-5}
CAUSAL: dict[str, Any] = {"direction": "left-to-right"}
CONFIGS: dict[str, EncoderConfig] = {
    "bert": replace(BERT, **SIZES, **MORE),
    "bert left-to-right": replace(BERT, **SIZES, **MORE, **CAUSAL),
    "roberta": replace(ROBERTA, **SIZES, type_vocab_size=1, layer_norm_eps=1e-6),
    "roberta left-to-right": replace(ROBERTA, **SIZES, type_vocab_size=1, layer_norm_eps=1e-6, **CAUSAL),
    "xlm-roberta": replace(XLM_ROBERTA, **SIZES, type_vocab_size=3, layer_norm_eps=1e-6),
    "albert": replace(
        ALBERT, **{**SIZES, "hidden_act": "relu"}, **MORE, embedding_size=10, num_hidden_groups=2,
    ),
    "albert unshared": replace(ALBERT, **SIZES, **MORE, embedding_size=24, num_hidden_groups=3),
    "distilbert": replace(DISTILBERT, **{**SIZES, "hidden_act": "relu"}),
    "electra": replace(ELECTRA, **SIZES, **MORE, embedding_size=10),
    "electra of one width": replace(ELECTRA, **SIZES, **MORE, embedding_size=None),
    "electra left-to-right": replace(ELECTRA, **SIZES, embedding_size=10, **CAUSAL),
    "modernbert": replace(
        MODERNBERT, **{**SIZES, "num_hidden_layers": 5}, layer_norm_eps=1e-6, global_rope_theta=900.0,
        local_rope_theta=70.0, local_attention=6, global_attn_every_n_layers=2, attention_bias=True, mlp_bias=True,
        norm_bias=True, head_act="silu", head_bias=True, decoder_bias=False, classifier_pooling="mean",
    ),
    "modernbert as it is": replace(MODERNBERT, **SIZES, local_attention=4),
}  # fmt: skip
LENGTHS = [12, 3, 29, 1, 17, 29]


def theirs_of(config: EncoderConfig, kind: str, **others: Any) -> Any:
    """A model of `transformers` with random weights; `kind` is what its class ends in."""
    family = FAMILIES[config.model_type]
    settings = {**family.settings(config), **others}
    theirs_config = getattr(transformers, f"{family.classes}Config")(**settings, attn_implementation="eager")
    model = getattr(transformers, f"{family.classes}{kind}")(theirs_config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def kinds(config: EncoderConfig) -> list[str]:
    family = FAMILIES[config.model_type]
    if config.direction == "left-to-right":
        return ["Model", family.causal]
    return ["Model", *family.pretrained]


def padded(examples: list[Example], config: EncoderConfig, length: int = 30) -> dict[str, torch.Tensor]:
    ids = torch.full((len(examples), length), config.pad_token_id or 0)
    segments, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, one in enumerate(examples):
        ids[row, : len(one)] = torch.from_numpy(one.input_ids)
        segments[row, : len(one)] = torch.from_numpy(one.segment_ids)
        mask[row, : len(one)] = 1
    made = {"input_ids": ids, "attention_mask": mask}
    return {**made, "token_type_ids": segments} if config.type_vocab_size else made


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_a_folder_tells_is_at_another_value_than_its_default(name: str) -> None:
    if " " in name:
        return
    config, family = CONFIGS[name], FAMILIES[CONFIGS[name].model_type]
    told = [one.name for one in fields(config) if one.name in family.keys]
    same = {one for one in told if getattr(config, one) == getattr(family.base, one)}
    assert same <= {"direction"}, "the direction has a config of its own"


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_and_configs_go_both_ways_bit_for_bit(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    for kind in kinds(config):
        theirs = theirs_of(config, kind)
        theirs.save_pretrained(tmp_path / kind / "theirs")
        model = bertloom.load(tmp_path / kind / "theirs")
        assert model.config == config
        assert not model.unread
        model.save(tmp_path / kind / "ours")
        told = [json.loads((tmp_path / kind / side / "config.json").read_text()) for side in ("theirs", "ours")]
        assert {key: told[1].get(key) for key in told[0]} == told[0], "every setting stays"
        again, info = type(theirs).from_pretrained(tmp_path / kind / "ours", output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        for key, value in theirs.state_dict().items():
            assert torch.equal(value, again.state_dict()[key]), key


@pytest.mark.parametrize("name", CONFIGS)
def test_hidden_states_and_attentions_equal_theirs(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    theirs = theirs_of(config, "Model")
    theirs.save_pretrained(tmp_path)
    examples = random_examples(config, LENGTHS)
    inputs = padded(examples, config)
    with torch.no_grad():
        want = theirs(**inputs, output_hidden_states=True, output_attentions=True)
    encoder = bertloom.load(tmp_path).encoder
    insides: list[Insides] = []
    with torch.no_grad():
        batch = pack([Example(one.input_ids, one.segment_ids) for one in examples])
        last = encoder(batch, insides)
        plain = encoder(batch)
        read = encoder(pack(examples))
    kept = inputs["attention_mask"].bool()
    assert torch.allclose(last, want.last_hidden_state[kept], atol=1e-5)
    assert torch.allclose(plain, last, atol=1e-6), "a trace changes nothing"
    assert torch.allclose(read, last[pack(examples).read], atol=1e-5), "reading some rows changes nothing"
    mine = [one.hidden_states for one in insides]
    assert torch.equal(mine[-1], last)
    for states, also, their in zip(mine, encoder.hidden_states(batch), want.hidden_states):
        assert torch.allclose(states, their[kept], atol=1e-5)
        assert torch.allclose(also, states, atol=1e-6)
    for one, their in zip(insides[1:], want.attentions):
        for weights, row, length in zip(one.attentions, their, LENGTHS):
            assert torch.allclose(weights, row[:, :length, :length], atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_gradients_of_the_language_head_equal_theirs(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    causal = config.direction == "left-to-right"
    kind = FAMILIES[config.model_type].causal if causal else "ForMaskedLM"
    theirs = theirs_of(config, kind)
    theirs.save_pretrained(tmp_path)
    model = bertloom.load(tmp_path)
    examples = random_examples(config, LENGTHS)
    batch, inputs = pack(examples), padded(examples, config)
    rows, labels = batch.targets["mlm"]
    logits = theirs(**inputs).logits[inputs["attention_mask"].bool()]
    places = batch.read[rows] if batch.read is not None else rows
    want = F.cross_entropy(logits[places], labels, reduction="sum")
    want.backward()
    head = model.heads["mlm"]
    loss = head.loss(model.encoder(batch)[rows], model.encoder.embeddings.word.weight, labels)  # type: ignore[operator]
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    gradients = {key: one.grad for key, one in theirs.named_parameters()}
    own = {**dict(model.encoder.named_parameters()), **{f"mlm.{key}": one for key, one in head.named_parameters()}}
    compared = 0
    for ours, names in hub.names(config, kind):
        if ours in own and all(gradients.get(one) is not None for one in names):
            their, mine = torch.cat([gradients[one] for one in names]), own[ours].grad
            assert mine is not None
            if ours == "embeddings.word.weight":
                mine[config.pad_token_id] = their[config.pad_token_id] = 0
            scale = max(1.0, float(their.abs().max()))
            assert torch.allclose(mine / scale, their / scale, atol=2e-5), ours
            compared += 1
    assert compared >= len(own) - 3, "all but a pooler and untrained places"


def test_what_a_family_has_not_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="norm_first: True given, False allowed where model_type is bert"):
        hub.write(tmp_path, small(norm_first=True), {})
    with pytest.raises(InputError, match="type_vocab_size: 3 given, 0 allowed where model_type is distilbert"):
        hub.write(tmp_path, replace(DISTILBERT, type_vocab_size=3), {})
