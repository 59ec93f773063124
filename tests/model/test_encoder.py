"""Parity with `transformers` and the contracts of the encoder."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers

from bertloom.config import ACTIVATIONS as ALLOWED_ACTIVATIONS
from bertloom.config import PRESETS, EncoderConfig
from bertloom.example import Example
from bertloom.families import FAMILIES
from bertloom.hub import TASK_PARTS
from bertloom.hub import names as names_of
from bertloom.model import attention
from bertloom.model.encoder import ACTIVATIONS, Encoder, Insides
from bertloom.model.init import initialise
from bertloom.model.noise import dropout_stream
from bertloom.model.packed import Batch, pack
from bertloom.objectives import Combined
from tests.conftest import random_examples, small


@pytest.mark.parametrize("name", ALLOWED_ACTIVATIONS)
def test_activations_are_those_of_transformers(name: str) -> None:
    x = torch.linspace(-4, 4, 101)
    assert torch.allclose(ACTIVATIONS[name](x), transformers.activations.ACT2FN[name](x), atol=1e-6)


LENGTHS = [12, 3, 29, 1, 17, 29]
DRAWS = 500


def shrunk(name: str) -> EncoderConfig:
    """A preset's config with few parameters, every ratio kept."""
    config = PRESETS[name]
    heads = min(4, config.num_attention_heads)
    changes: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": heads, "hidden_size": 8 * heads}
    return replace(config, vocab_size=211, intermediate_size=32 * heads, max_position_embeddings=40, **changes)


CONFIGS = {
    **{name: shrunk(name) for name in PRESETS if PRESETS[name].model_type == "bert"},
    "no default": small(type_vocab_size=3),
    "no layers": small(num_hidden_layers=0),
}


def pretraining_names(config: EncoderConfig) -> list[tuple[str, list[str]]]:
    """Ours and theirs of `BertForPreTraining`."""
    return [(ours, names) for ours, names in names_of(config) if not ours.startswith(TASK_PARTS)]


def twins(config: EncoderConfig, dropout: bool = False) -> tuple[Encoder, Combined, Any]:
    """Our encoder and objective, and `BertForPreTraining` with the same random weights."""
    encoder, objective = Encoder(config), Combined(config)
    settings = FAMILIES["bert"].settings(config)
    theirs = transformers.BertForPreTraining(transformers.BertConfig(**settings, attn_implementation="eager"))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.3)
    state = theirs.state_dict()
    mine = {ours: torch.cat([state[name] for name in names]) for ours, names in pretraining_names(config)}
    encoder.load_state_dict({name: mine[name] for name in encoder.state_dict()})
    objective.load_state_dict({name: mine[name] for name in objective.state_dict()})
    for module in (encoder, objective, theirs):
        module.train(dropout)
    return encoder, objective, theirs


def padded(examples: list[Example], length: int = 30) -> dict[str, torch.Tensor]:
    """The examples as `transformers` takes them."""
    made = {
        "input_ids": torch.zeros(len(examples), length, dtype=torch.long),
        "token_type_ids": torch.zeros(len(examples), length, dtype=torch.long),
        "attention_mask": torch.zeros(len(examples), length, dtype=torch.long),
        "labels": torch.full((len(examples), length), -100),
    }
    for row, one in enumerate(examples):
        made["input_ids"][row, : len(one)] = torch.from_numpy(one.input_ids)
        made["token_type_ids"][row, : len(one)] = torch.from_numpy(one.segment_ids)
        made["attention_mask"][row, : len(one)] = 1
        places, labels = one.targets["mlm"]
        made["labels"][row, places] = torch.from_numpy(labels)
    made["next_sentence_label"] = torch.tensor([int(one.targets["nsp"][1][0]) for one in examples])
    return made


def everything(batch: Batch) -> Batch:
    """The batch, read at every row."""
    return replace(batch, read=None, targets={})


@pytest.mark.parametrize("name", CONFIGS)
def test_hidden_states_and_attentions_equal_theirs(name: str) -> None:
    config = CONFIGS[name]
    encoder, _, theirs = twins(config)
    examples = random_examples(config, LENGTHS)
    inputs = {key: value for key, value in padded(examples).items() if key not in ("labels", "next_sentence_label")}
    with torch.no_grad():
        want = theirs.bert(**inputs, output_hidden_states=True, output_attentions=True)
        insides: list[Insides] = []
        last = encoder(everything(pack(examples)), insides)
    kept = inputs["attention_mask"].bool()
    assert torch.allclose(last, want.last_hidden_state[kept], atol=1e-5)
    assert len(insides) == config.num_hidden_layers + 1
    for mine, their in zip(insides, want.hidden_states):
        assert torch.allclose(mine.hidden_states, their[kept], atol=1e-5)
    for mine, their in zip(insides[1:], want.attentions):
        for weights, row, length in zip(mine.attentions, their, LENGTHS):
            assert torch.allclose(weights, row[:, :length, :length], atol=1e-5)
    pooled = encoder.pooler(last[pack(examples).starts])
    assert torch.allclose(pooled, want.pooler_output, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_gradients_equal_theirs(name: str) -> None:
    config = CONFIGS[name]
    encoder, objective, theirs = twins(config)
    examples = random_examples(config, LENGTHS)
    batch = pack(examples)
    counts = objective.counts(batch)
    losses = objective(encoder, batch)
    total = losses["mlm"] / counts["mlm"] + losses["nsp"] / counts["nsp"]
    total.backward()
    want = theirs(**padded(examples))
    want.loss.backward()
    assert float(total.detach()) == pytest.approx(float(want.loss.detach()), abs=1e-5)
    gradients = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    own = dict(encoder.named_parameters()) | dict(objective.named_parameters())
    for ours, names in pretraining_names(config):
        their = torch.cat([gradients[key] for key in names])
        mine = own[ours].grad
        assert mine is not None
        scale = max(1.0, float(their.abs().max()))
        # Their embedding of the padding token gets no gradient by their padding index; no batch of ours holds one.
        if ours == "embeddings.word.weight" and config.pad_token_id is not None:
            mine[config.pad_token_id] = their[config.pad_token_id] = 0
        assert torch.allclose(mine / scale, their / scale, atol=1e-5), ours


def test_logits_equal_theirs() -> None:
    encoder, objective, theirs = twins(small())
    examples = random_examples(small(), LENGTHS)
    inputs = padded(examples)
    want = theirs(**{key: inputs[key] for key in ("input_ids", "token_type_ids", "attention_mask")})
    states = encoder(everything(pack(examples)))
    mlm = objective.heads["mlm"](states, encoder.embeddings.word.weight)
    assert torch.allclose(mlm, want.prediction_logits[inputs["attention_mask"].bool()], atol=1e-4)
    nsp = objective.heads["nsp"](encoder.pooler(states[pack(examples).starts]))
    assert torch.allclose(nsp, want.seq_relationship_logits, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_contracts(name: str) -> None:
    config = replace(CONFIGS[name], hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    encoder = Encoder(config)
    initialise(encoder, 0.2, config.pad_token_id)
    examples = random_examples(config, LENGTHS)
    batch = everything(pack(examples))
    encoder.eval()
    with torch.no_grad():
        whole = encoder(batch)
        assert torch.equal(whole, encoder(batch)), "two passes in evaluation are bit-equal"
        assert torch.allclose(whole, encoder(batch, [])), "tracing changes nothing"
        start = 0
        for one in examples:
            alone = encoder(everything(pack([one])))
            assert torch.allclose(alone, whole[start : start + len(one)], atol=1e-5), "a place in any batch is alike"
            start += len(one)
        read = pack(examples)
        assert read.read is not None
        assert torch.allclose(encoder(read), whole[read.read], atol=1e-5), "rows read alone are the same rows"
        encoder.train()
        assert not torch.equal(encoder(batch), encoder(batch)), "dropout is at work in training"


def test_dropout_stands_where_the_paper_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the embeddings, on attention's weights, and after each sublayer (Devlin et al. 2019, §A.2)."""
    from bertloom.model import attention, encoder

    asked: list[tuple[str, float]] = []

    def noting(home: Any, name: str, rate: int) -> None:
        known = getattr(home, name)

        def noted(*arguments: Any) -> Any:
            asked.append((name, float(arguments[rate])))
            return known(*arguments)

        monkeypatch.setattr(home, name, noted)

    noting(encoder, "dropout", 1)
    noting(encoder, "linear_dropout_add", 3)
    noting(attention, "attention", 3)
    config = small(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3)
    batch = pack(random_examples(config, LENGTHS))
    model = Encoder(config)
    model(batch)
    layer = [("attention", 0.3), ("linear_dropout_add", 0.2), ("linear_dropout_add", 0.2)]
    assert asked == [("dropout", 0.2), *layer * config.num_hidden_layers]
    asked.clear()
    model.eval()(batch)
    assert {rate for _, rate in asked} == {0.0}


@pytest.mark.parametrize("rates", [(0.2, 0.0), (0.0, 0.3)], ids=["hidden", "attention"])
def test_gradients_under_dropout_are_spread_as_theirs(rates: tuple[float, float]) -> None:
    """No two masks are alike, so what must be equal is each parameter's mean gradient, and its variance, over draws."""
    config = small(hidden_act="gelu", hidden_dropout_prob=rates[0], attention_probs_dropout_prob=rates[1])
    encoder, objective, theirs = twins(config, dropout=True)
    with torch.no_grad():
        # Gentler weights than parity's, whose gradients have tails that hardly average out.
        for parameter in (*encoder.parameters(), *objective.parameters(), *theirs.parameters()):
            parameter.mul_(0.5)
    examples = random_examples(config, LENGTHS)
    batch, inputs = pack(examples), padded(examples)
    counts, names = objective.counts(batch), pretraining_names(config)
    own, their = dict(encoder.named_parameters()) | dict(objective.named_parameters()), dict(theirs.named_parameters())
    mine, wanted = [], []
    for number in range(DRAWS):
        for module in (encoder, objective, theirs):
            module.zero_grad()
        with dropout_stream(5, number):
            losses = objective(encoder, batch)
            (losses["mlm"] / counts["mlm"] + losses["nsp"] / counts["nsp"]).backward()
            theirs(**inputs).loss.backward()
        mine.append(torch.cat([own[ours].grad.flatten() for ours, _ in names]))
        wanted.append(torch.cat([their[key].grad.flatten() for _, keys in names for key in keys]))
    sizes = [own[ours].numel() for ours, _ in names]
    (mean, spread), (their_mean, their_spread) = ((one.mean(0), one.var(0)) for one in map(torch.stack, (mine, wanted)))
    ratios = total(spread, sizes) / total(their_spread, sizes)
    assert ratios.log().mean().abs() < 0.05
    assert (ratios - 1).abs().max() < 0.13
    by_chance = (total(spread, sizes) + total(their_spread, sizes)) / DRAWS
    assert (total((mean - their_mean) ** 2, sizes) / by_chance).mean() < 2.5


def total(values: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """The sum over each parameter's part."""
    return torch.stack([part.sum() for part in values.split(sizes)])


def test_no_tensor_outside_attention_is_larger_than_the_tokens() -> None:
    config = small(hidden_dropout_prob=0.1)
    encoder = Encoder(config)
    batch = everything(pack(random_examples(config, [29, 2, 2, 2])))
    seen: list[torch.Size] = []
    for part in encoder.modules():
        part.register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    encoder(batch)
    assert {shape[0] for shape in seen} == {35}


def test_bf16_is_near_fp32_and_its_gradients_are_fp32() -> None:
    config = small(hidden_act="gelu", initializer_range=0.1)
    encoder, objective = Encoder(config), Combined(config)
    initialise(encoder, 0.1), initialise(objective, 0.1)
    batch = pack(random_examples(config, LENGTHS))
    results = []
    for precision in (False, True):
        encoder.zero_grad()
        torch.manual_seed(1)
        context = torch.autocast("cpu", torch.bfloat16) if precision else contextlib.nullcontext()
        with context:
            loss = sum(objective(encoder, batch).values())
        assert isinstance(loss, torch.Tensor)
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = encoder.layers[0].attention.qkv.weight.grad
        assert gradient is not None
        assert gradient.dtype == torch.float32
        results.append((float(loss.detach()), gradient.clone()))
    assert results[0][0] == pytest.approx(results[1][0], rel=0.02)
    assert float(F.cosine_similarity(results[0][1].flatten(), results[1][1].flatten(), dim=0)) > 0.98


def test_cuda_takes_the_varlen_kernel_where_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """No accelerator is here: shapes and the choice are what can be tested."""
    from torch.nn.attention import varlen

    from bertloom.model import attention as attend

    seen: dict[str, Any] = {}

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *edges: Any, **window: Any) -> torch.Tensor:
        seen.update(shapes={q.shape, k.shape, v.shape}, edges=edges, **window)
        return q

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    batch = pack(random_examples(small(), [4, 2]))
    mixed = attend.varlen_attention(torch.randn(6, 3, 2, 5), batch)
    assert mixed.shape == (6, 2, 5)
    assert seen["shapes"] == {torch.Size([6, 2, 5])}
    assert seen["edges"][0].tolist() == seen["edges"][1].tolist() == [0, 4, 6]
    assert seen["edges"][2:] == (4, 4)
    assert seen["window_size"] == (-1, -1)
    attend.varlen_attention(torch.randn(6, 3, 2, 5), batch, (None, 0))
    assert seen["window_size"] == (-1, 0), "left to right"


@pytest.mark.parametrize("reads", [False, True])
def test_flash_attention_of_long_sequences_is_ours_and_keeps_no_probabilities(
    reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=600, num_hidden_layers=2
    )
    examples = random_examples(config, [500, 30, 420, 385])
    batch = pack(examples if reads else [replace(one, targets={}) for one in examples])
    encoder, found = Encoder(config).train(), []
    initialise(encoder, 0.3)
    for most in (attention.FLASH, 10**9):
        monkeypatch.setattr(attention, "FLASH", most)
        kept: list[torch.Size] = []

        def keep(tensor: torch.Tensor, kept: list[torch.Size] = kept) -> torch.Tensor:
            kept.append(tensor.shape)
            return tensor

        encoder.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            states = encoder(batch)
        (states * torch.arange(states.numel()).view_as(states).cos()).sum().backward()
        found.append([states.detach(), *(one.grad.clone() for one in encoder.parameters() if one.grad is not None)])
        assert any(shape[-2:] == (500, 500) for shape in kept) == (most > 10**6)
    for mine, other in zip(*found):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
