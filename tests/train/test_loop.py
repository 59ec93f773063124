from __future__ import annotations

import platform
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.model.encoder import Encoder
from bertloom.model.packed import Batch
from bertloom.objectives import Combined
from bertloom.train.data import micro_batches
from bertloom.train.loop import accumulate, steps
from bertloom.train.memory import give_back_memory, keep_freed_memory
from bertloom.train.optimizer import adamw
from tests.conftest import random_examples, small

LENGTHS = [12, 3, 29, 1, 17, 29, 30, 2]


def built(**changes: object) -> tuple[Encoder, Combined, torch.optim.Optimizer]:
    torch.manual_seed(0)
    config = small(**changes)
    encoder, objective = Encoder(config), Combined(config)
    return encoder, objective, adamw([*encoder.named_parameters(), *objective.named_parameters()], 0.01)


def gradients(micro: list[Batch]) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    encoder, objective, _ = built(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    losses = accumulate(encoder, objective, micro, nullcontext())
    return losses, {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}


def test_one_micro_batch_equals_four_with_ragged_counts() -> None:
    examples = random_examples(small(), LENGTHS)
    none = (np.empty(0, np.int64), np.empty(0, np.int64))
    examples[1] = Example(examples[1].input_ids, examples[1].segment_ids, {"mlm": none, "nsp": none})
    whole, parts = micro_batches(examples, 1 << 20), micro_batches(examples, 45)
    assert (len(whole), len(parts)) == (1, 4)
    losses, one = gradients(whole)
    other_losses, four = gradients(parts)
    for name in losses:
        assert losses[name] == pytest.approx(other_losses[name], rel=1e-6)
    for name in one:
        assert torch.allclose(one[name], four[name], atol=1e-6), name


def test_a_step_is_what_it_says_and_learns() -> None:
    encoder, objective, optimizer = built()
    batches = [micro_batches(random_examples(small(), LENGTHS), 60)] * 60
    made = list(steps(encoder, objective, optimizer, batches, first=5, rate=lambda step: 1e-2, seed=1))
    assert [step.number for step in made] == list(range(5, 65))
    assert made[0].tokens == sum(LENGTHS)
    assert made[0].learning_rate == 1e-2
    assert made[-1].losses["mlm"] < 0.5 * made[0].losses["mlm"]


def test_gradients_are_clipped_and_their_norm_is_told_as_it_was() -> None:
    def run(clip: float) -> tuple[float, float]:
        encoder, objective, _ = built()
        optimizer = torch.optim.SGD([*encoder.parameters(), *objective.parameters()])
        before = torch.nn.utils.parameters_to_vector(encoder.parameters()).detach().clone()
        batches = [micro_batches(random_examples(small(), LENGTHS), 60)]
        (step,) = steps(encoder, objective, optimizer, batches, first=0, rate=lambda step: 1.0, seed=1, clip=clip)
        after = torch.nn.utils.parameters_to_vector(encoder.parameters()).detach()
        return float(torch.linalg.vector_norm(after - before)), step.norm

    moved, norm = run(0.0)
    assert norm > 0.1
    clipped, told = run(0.1)
    assert told == norm
    assert clipped == pytest.approx(moved * 0.1 / norm, rel=1e-3)


def test_dropout_belongs_to_seed_and_step() -> None:
    def run(seed: int, first: int) -> torch.Tensor:
        encoder, objective, optimizer = built()
        torch.manual_seed(99)
        batches = [micro_batches(random_examples(small(), LENGTHS), 60)]
        list(steps(encoder, objective, optimizer, batches, first=first, rate=lambda step: 1e-2, seed=seed))
        return encoder.layers[0].attention.qkv.weight.detach().clone()

    assert torch.equal(run(1, 0), run(1, 0))
    assert not torch.equal(run(1, 0), run(1, 1))
    assert not torch.equal(run(1, 0), run(2, 0))


def test_a_loss_that_is_not_finite_is_diagnosed_before_weights_change() -> None:
    encoder, objective, optimizer = built()
    with torch.no_grad():
        encoder.layers[1].feed_forward.inner.weight[0, 0] = torch.nan
    before = encoder.embeddings.word.weight.detach().clone()
    batches = [micro_batches(random_examples(small(), LENGTHS), 60)]
    said = r"step 7: loss or gradient not finite \(mlm nan.*weights not finite: layers.1.feed_forward.inner.weight.*--l"
    with pytest.raises(InputError, match=said):
        list(steps(encoder, objective, optimizer, batches, first=7, rate=lambda step: 1e-2, seed=1))
    assert torch.equal(before, encoder.embeddings.word.weight)


def test_bf16_runs_and_learns() -> None:
    encoder, objective, optimizer = built()
    batches = [micro_batches(random_examples(small(), LENGTHS), 60)] * 40
    made = list(
        steps(encoder, objective, optimizer, batches, first=0, rate=lambda step: 1e-2, seed=1, precision="bf16")
    )
    assert made[-1].losses["mlm"] < 0.7 * made[0].losses["mlm"]
    assert all(p.dtype == torch.float32 for p in encoder.parameters())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_the_allocator_listens() -> None:
    assert keep_freed_memory()
    give_back_memory()
