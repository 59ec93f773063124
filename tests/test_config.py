from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from bertloom import hub
from bertloom.config import ALIASES, PRESETS, EncoderConfig, preset
from bertloom.errors import InputError
from bertloom.families import FAMILIES
from bertloom.model.encoder import Encoder
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
    "spanbert-base-cased": (108_310_272, None),
    "all-MiniLM-L6-v2": (22_713_216, None),
    "roberta-base": (124_645_632, 124_697_433),
    "roberta-large": (355_359_744, 355_412_057),
    "xlm-roberta-base": (278_043_648, None),
    "xlm-roberta-large": (559_890_432, None),
    "albert-base-v2": (11_683_584, None),
    "albert-large-v2": (17_683_968, None),
    "albert-xlarge-v2": (58_724_864, None),
    "albert-xxlarge-v2": (222_595_584, None),
    "electra-small-discriminator": (13_483_008, 13_549_057),
    "electra-small-generator": (4_580_928, 4_620_026),
    "electra-base-discriminator": (108_891_648, None),
    "electra-base-generator": (33_511_168, None),
    "distilbert-base-uncased": (66_362_880, 66_985_530),
    "ModernBERT-base": (149_014_272, None),
    "ModernBERT-large": (394_781_696, None),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    backbone, total = COUNTS[name]
    counted = parameters(preset(name))
    assert counted["backbone"] == backbone
    assert total is None or counted["total"] == total


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_its_folder_tells_all_of_it(name: str) -> None:
    config = preset(name)
    with torch.device("meta"):
        encoder = Encoder(config)
    names = {ours for ours, _ in hub.names(config) if not ours.startswith(hub.TASK_PARTS)}
    assert names >= set(encoder.state_dict())
    family = FAMILIES[config.model_type]
    assert family.config(family.settings(config))[0] == config
    assert parameters(config)["backbone"] == sum(one.numel() for one in encoder.parameters())


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
        ("pad_token_id", -1, "whole number from 0"),
        ("gated", 1, "true or false"),
        ("model_type", 1, "a word"),
        ("direction", "left-to-rigth", "did you mean 'left-to-right'"),
        ("pooler", "row", "did you mean 'rows'"),
        ("position_embedding_type", "rotary?", "did you mean 'rotary'"),
        ("classifier_pooling", "max", "known: cls, mean"),
        ("num_hidden_groups", 13, "at most num_hidden_layers"),
        ("embedding_size", 0, "whole number from 1"),
    ],
)
def test_values_that_cannot_be_are_refused(field: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=f"{field}.*{said}"):
        EncoderConfig(**{field: value})  # type: ignore[arg-type]


def test_sizes_that_do_not_fit_together() -> None:
    for changes, said in (
        ({"num_attention_heads": 3, "direction": "two-way"}, "num_attention_heads: 3 given, an even number"),
        ({"hidden_size": 36, "position_embedding_type": "rotary"}, "heads of 3 given, an even size"),
        ({"positions_after_padding": True, "max_position_embeddings": 1}, "more than 1 allowed"),
    ):
        with pytest.raises(InputError, match=said):
            EncoderConfig(**changes)  # type: ignore[arg-type]


def test_every_field_is_in_the_dict() -> None:
    assert set(EncoderConfig().to_dict()) == {field.name for field in fields(EncoderConfig)}
