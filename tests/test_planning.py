from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bertloom.config import in_family, preset
from bertloom.corpus import Corpus
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.families import FAMILIES
from bertloom.model.encoder import Encoder
from bertloom.model.packed import pack
from bertloom.objectives import Combined
from bertloom.planning import available_memory, flops_per_token, measured_rate, parse_bytes, plan
from bertloom.train.optimizer import adamw


def test_bytes() -> None:
    assert parse_bytes("16GB") == 16 * 10**9
    assert parse_bytes("1.5 GiB") == 1.5 * 2**30
    assert parse_bytes("900mb") == 9 * 10**8
    assert parse_bytes("123B") == 123
    for wrong in ("lots", "16"):
        with pytest.raises(InputError, match=f"memory: '{wrong}' given"):
            parse_bytes(wrong)


def test_free_memory_is_some_and_no_more_than_there_is() -> None:
    assert 10**8 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_attention_alone_grows_with_the_length() -> None:
    short, long = (flops_per_token(preset("base"), length) for length in (128, 512))
    assert short["linear"] == long["linear"]
    assert long["attention"] == 4 * short["attention"]
    # Six FLOPs a parameter and token, embeddings apart: the field's rule of thumb.
    assert short["linear"] == pytest.approx(6 * 85_054_464, rel=0.01)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [128, 300])
def test_flops_are_those_that_are_computed(family: str, length: int) -> None:
    """Forward as in training, of every family, counted by PyTorch as it computes."""
    base = FAMILIES[family].base
    config = replace(
        base, vocab_size=200, num_hidden_layers=4, hidden_size=64, num_attention_heads=4, intermediate_size=96,
        pad_token_id=0, max_position_embeddings=400, local_attention=min(base.local_attention, 64),
        embedding_size=base.embedding_size and 32,
    )  # fmt: skip
    batch = pack([Example(np.ones(length, np.int64), np.zeros(length, np.int64))] * 2)
    encoder = Encoder(config).eval()
    with FlopCounterMode(display=False) as counter:
        encoder(batch)
    said = flops_per_token(config, length)
    told = (said["linear"] + said["attention"]) / 3 * 2 * length
    # What stands at an end of a long sequence sees less, the last piece is short.
    assert counter.get_total_flops() == pytest.approx(told, rel=1e-6 if length == 128 else 0.08)


def test_the_cost_of_a_token_is_flat_in_local_layers() -> None:
    config = preset("ModernBERT-base")
    lengths = (512, 2048, 8192)
    local = replace(config, num_hidden_layers=1 + 21)
    one = [flops_per_token(replace(local, global_attn_every_n_layers=99), n)["attention"] for n in lengths]
    assert one[2] - one[1] == pytest.approx(3 * 4 * (8192 - 2048) * config.hidden_size), "the one layer that is global"
    whole = [flops_per_token(config, n)["attention"] for n in lengths]
    assert whole[2] - whole[1] == pytest.approx(3 * 4 * (8192 - 2048) * config.hidden_size * 8), "of eight"


def test_what_learns_beside_or_is_learned_from_is_counted() -> None:
    mini = preset("mini", vocab_size=1000)
    alone, pairs, wide = (plan(mini, 128, 32, 10**12, 1.0, objective=one) for one in ("mlm", "mlm+nsp", "span+sbo"))
    assert pairs.bytes["weights"] > alone.bytes["weights"], "a pooler and a head"
    assert wide.flops(128)["head"] > 2 * alone.flops(128)["head"]
    every = plan(mini, 128, 32, 10**12, 1.0, objective="causal")
    assert every.flops(128)["head"] == pytest.approx(alone.flops(128)["head"] / 0.15)
    rtd, student = (plan(mini, 128, 32, 10**12, 1.0, objective=one) for one in ("rtd", "distill"))
    assert rtd.config.model_type == "electra"
    assert "beside" in rtd.flops(128)
    encoder, objective = Encoder(rtd.config), Combined(rtd.config, "rtd")
    encoder.give_pooler(False)
    assert rtd.bytes["weights"] == 4 * sum(one.numel() for part in (encoder, objective) for one in part.parameters())
    assert student.bytes["optimizer"] < rtd.bytes["optimizer"], "a teacher does not learn"
    with pytest.raises(InputError, match="objective: unknown 'mml', did you mean 'mlm'"):
        plan(mini, 128, 32, 10**12, 1.0, objective="mml")


def test_the_micro_batch_is_the_largest_that_fits() -> None:
    made = plan(preset("base"), 128, 256, 8 * 10**9, rate=1e11)
    assert made.bytes["total"] <= 8 * 10**9
    assert 1 < made.micro_batch < 256
    larger = plan(preset("base"), 128, 256, 10**12, rate=1e11)
    assert larger.micro_batch == 256
    assert made.tokens_per_second == pytest.approx(1e11 / sum(flops_per_token(preset("base"), 128).values()))


def test_published_batch_fits_in_24_gigabytes() -> None:
    made = plan(preset("base"), 512, 256, 24 * 10**9, rate=1e11)
    assert made.micro_batch >= 8, "and so 4,096 tokens, the default of a run"


def test_what_cannot_be_planned() -> None:
    for arguments, said in (
        ((preset("base"), 128, 0), "batch: 0"),
        ((preset("base"), 1000, 1), "length: 1000 given, 8 to 512"),
        ((preset("base"), 128, 1, 10**9), "memory: 1.0 GB given, at least"),
    ):
        with pytest.raises(InputError, match=said):
            plan(*arguments)  # type: ignore[arg-type]


def test_the_rate_is_measured() -> None:
    assert measured_rate(preset("tiny"), 128) > 1e8


def test_weights_and_moments_are_counted_to_the_byte() -> None:
    config = preset("tiny", vocab_size=500)
    encoder, objective = Encoder(config), Combined(config)
    owners = [*encoder.named_parameters(), *objective.named_parameters()]
    optimizer = adamw(owners, 0.01)
    for _, parameter in owners:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    said = plan(config, 64, 8, 10**12, rate=1.0).bytes
    assert said["weights"] == sum(parameter.nbytes for _, parameter in owners)
    moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    assert said["optimizer"] == sum(value.nbytes for value in moments)
    assert said["gradients"] == said["weights"] + encoder.embeddings.word.weight.nbytes


def test_what_no_run_can_learn_is_not_planned() -> None:
    with pytest.raises(InputError, match="nsp given, a model of two segments needed"):
        plan(preset("roberta-base"), 128, 8, 10**12, rate=1.0, objective="mlm+nsp")


PEAK = """
import resource, sys
from bertloom.pretraining import pretrain
from bertloom.train.recipe import Recipe
pretrain(Recipe(corpus=sys.argv[1], output=sys.argv[2], model=sys.argv[3], steps=3, batch_size=int(sys.argv[4]),
                length=48, micro_tokens=1 << 20, save_every=1, family=sys.argv[5], objective=sys.argv[6]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "batch", "family", "objective"),
    [
        ("mini", 256, "", "mlm+nsp"),
        ("small", 128, "", "mlm+nsp"),
        ("mini", 256, "modernbert", "mlm"),
        ("mini", 256, "", "causal"),
        ("mini", 256, "electra", "rtd"),
    ],
)
def test_memory_is_what_a_run_then_uses(
    model: str, batch: int, family: str, objective: str, corpus: Corpus, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-c",
        PEAK,
        str(corpus.path),
        str(tmp_path / "run"),
        model,
        str(batch),
        family,
        objective,
    ]
    used = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    config = in_family(preset(model), family) if family else preset(model)
    config = replace(
        config, vocab_size=corpus.vocab_size, pad_token_id=0, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1
    )
    said = plan(config, 48, batch, 10**12, rate=1.0, objective=objective).bytes["total"]
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    tokens = max(json.loads(row).get("tokens", 0) for row in rows)
    assert tokens > 0.75 * batch * 48, "the toy corpus fills the sequences well enough to compare"
    assert used == pytest.approx(said, rel=0.15)
