from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from bertloom import hub
from bertloom.config import ALIASES, PRESETS, EncoderConfig, preset
from bertloom.errors import InputError
from bertloom.model.encoder import Encoder
from bertloom.objectives import Combined
from bertloom.planning import parameters

# Backbone with pooler, and with the pretraining heads: published counts.
COUNTS = {
    "tiny": (4_385_920, 4_433_468),
    "mini": (11_170_560, 11_267_900),
    "small": (28_763_648, 29_058_876),
    "medium": (41_373_184, 41_668_412),
    "base": (109_482_240, 110_106_428),
    "large": (335_141_888, 336_226_108),
    "bert-base-cased": (108_310_272, None),
    "bert-base-multilingual-cased": (177_853_440, None),
    "bert-base-chinese": (102_267_648, None),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    backbone, total = COUNTS[name]
    counted = parameters(preset(name))
    assert counted["backbone"] == backbone
    assert total is None or counted["total"] == total


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_has_the_parameters_that_are_said(name: str) -> None:
    with torch.device("meta"):
        encoder, objective = Encoder(preset(name)), Combined(preset(name))
    said = parameters(preset(name))
    assert sum(one.numel() for one in encoder.parameters()) == said["backbone"]
    assert sum(one.numel() for one in objective.parameters()) == said["mlm_head"] + said["nsp_head"]
    names = {ours for ours, _ in hub.expanded(preset(name).num_hidden_layers)}
    assert names == set(encoder.state_dict()) | set(objective.state_dict())


def test_short_names() -> None:
    assert all(preset(short) == PRESETS[full] for short, full in ALIASES.items())
    assert preset("tiny", vocab_size=99).vocab_size == 99


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown 'tinny', did you mean 'tiny'"):
        preset("tinny")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("hidden_size", 10, "multiple of num_attention_heads"),
        ("vocab_size", 0, "whole number"),
        ("vocab_size", "30522", "whole number"),
        ("num_hidden_layers", -1, "whole number"),
        ("hidden_act", "geluu", "did you mean 'gelu'"),
        ("hidden_dropout_prob", 1.0, "under 1"),
        ("attention_probs_dropout_prob", -0.1, "from 0"),
        ("layer_norm_eps", 0.0, "above 0"),
        ("initializer_range", "a", "a number"),
        ("pad_token_id", 30522, "under vocab_size"),
    ],
)
def test_values_that_cannot_be_are_refused(field: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=f"{field}.*{said}"):
        EncoderConfig(**{field: value})  # type: ignore[arg-type]


def test_every_field_is_in_the_dict() -> None:
    assert set(EncoderConfig().to_dict()) == {field.name for field in fields(EncoderConfig)}
