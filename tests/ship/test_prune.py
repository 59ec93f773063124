"""Heads, neurons and layers that go: the right ones, really gone, in every family, saved, opened and learned on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bertloom
from bertloom.api import Model
from bertloom.cli import main
from bertloom.config import EncoderConfig
from bertloom.errors import InputError
from bertloom.inspect.probe.importance import Asked, importance, of_texts
from bertloom.inspect.view import view
from bertloom.model.encoder import Encoder, Layer
from bertloom.model.init import initialise
from bertloom.ship import prune as work
from bertloom.ship.low_rank import low_rank
from bertloom.ship.prune import asking, of_vectors, prune, slopes, with_layers
from bertloom.ship.quantize import quantize
from bertloom.text.sources import ReadCounts
from bertloom.text.tokenizer import Tokenizer
from tests.inspect.conftest import loaded, tuned
from tests.model.test_families import CONFIGS
from tests.ship.test_quantize import SENTENCES

TOY = [
    f"The {one} lives in the {two}." for one in ("cat", "dog", "cow") for two in ("house", "garden", "한국어", "river")
]
TWO_WAY = replace(
    CONFIGS["bert"], hidden_size=48, num_attention_heads=6, intermediate_size=80, model_type="two-way",
    direction="two-way",
)  # fmt: skip
ALL: dict[str, EncoderConfig] = {**CONFIGS, "bilm": TWO_WAY}


def made(config: EncoderConfig, tokenizer: Tokenizer, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    encoder = Encoder(replace(config, vocab_size=len(tokenizer), pad_token_id=0))
    initialise(encoder, 0.2)
    return Model(encoder, nn.ModuleDict(), tokenizer, {}, Path("made"))


def layers_of(model: Model) -> list[Layer]:
    return [one for one in model.encoder.modules() if isinstance(one, Layer)]


def test_slopes_are_those_of_gates(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Text by text, as `probe` computes them from masks over the heads."""
    model = loaded(runs["mlm+nsp"])
    model.encoder.double(), model.heads.double()
    asked = of_texts(model, TOY, ReadCounts())
    monkeypatch.setattr(work, "TOGETHER", 1)
    found = torch.stack([heads for heads, _ in slopes(layers_of(model), asked)]) / len(asked.examples)
    assert found.detach().numpy() == pytest.approx(importance(model, asked).scores, rel=1e-6)


def test_slopes_of_neurons_are_those_of_the_loss(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """By finite differences."""
    model = loaded(runs["mlm+nsp"])
    model.encoder.double(), model.heads.double()
    asked = of_texts(model, TOY[:1], ReadCounts())
    _, neurons = slopes(layers_of(model), asked)[1]
    column, step, sides = 7, 1e-2, []
    weight = layers_of(model)[1].feed_forward.output.weight
    for sign in (1, -1):
        before = weight.detach().clone()
        with torch.no_grad():
            weight[:, column] *= 1 + sign * step
            sides.append(float(asked.losses(asked.examples, None).sum()))
            weight.copy_(before)
    assert float(neurons[column]) == pytest.approx(abs(sides[0] - sides[1]) / (2 * step), rel=1e-2)


@pytest.mark.parametrize("name", sorted(ALL))
def test_what_brings_nothing_goes_and_nothing_changes(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """One head and eight neurons of each layer have columns of zeros: these go, and vectors are the same."""
    model = made(ALL[name], tokenizer)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in layers_of(model):
            size, heads = layer.attention.head_size, layer.attention.heads
            head = int(torch.randint(heads, (), generator=generator))
            layer.attention.output.weight[:, head * size : (head + 1) * size] = 0
            layer.feed_forward.output.weight[:, torch.randperm(40, generator=generator)[:8]] = 0
    before = model.encode(TOY)
    smaller, report = prune(model, of_vectors(TOY), heads=1 / 3, inner=0.2)
    assert report.heads == [2] * len(layers_of(model))
    sides = 2 if name == "bilm" else 1
    assert (report.inner, smaller.config.intermediate_size) == ((40 * sides, 32 * sides), 32 * sides)
    assert [one.attention.qkv.out_features for one in layers_of(smaller)] == [3 * 2 * 8] * len(layers_of(smaller))
    assert smaller.encode(TOY) == pytest.approx(before, abs=2e-4)
    assert model.encode(TOY) == pytest.approx(before), "the model that was given is as it was"
    smaller.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "model.safetensors").exists()
    again = bertloom.load(tmp_path / "saved")
    assert np.array_equal(again.encode(TOY), smaller.encode(TOY))
    quantize(again, TOY, agreement=0.5)[0].save(tmp_path / "int8")
    bertloom.load(tmp_path / "int8").encode(TOY)


def test_what_stays_takes_over(golden: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """On texts that were not looked at, vectors are nearer to those of before than by taking away alone."""
    asks, others = SENTENCES[::2], SENTENCES[1::2]
    before, found = golden.encode(others), {}
    for name in ("taken over", "taken away"):
        if name == "taken away":
            plain = lambda output, keep, spread: (output.weight[:, keep], output.bias)  # noqa: E731
            monkeypatch.setattr(work, "_taken_over", plain)
        smaller, _ = prune(golden, of_vectors(asks), heads=0.25, inner=0.25)
        found[name] = float((smaller.encode(others) * before).sum(1).mean())
    assert found["taken over"] > found["taken away"] + 0.01
    assert found["taken over"] > 0.93


def test_the_layer_goes_that_is_missed_least(golden: Model, tmp_path: Path) -> None:
    """Of every layer's absence the least dear; and a folder that `transformers` opens."""
    transformers = pytest.importorskip("transformers")
    before = golden.encode(SENTENCES)
    smaller, report = prune(golden, of_vectors(SENTENCES), layers=1, inner=0.25)
    near = {}
    for gone in range(6):
        one = golden.with_encoder(with_layers(golden.encoder, [n for n in range(6) if n != gone]))
        near[gone + 1] = float((one.encode(SENTENCES) * before).sum(1).mean())
    assert report.gone == [max(near, key=near.__getitem__)]
    smaller.save(tmp_path / "saved")
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "saved")
    given = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")(SENTENCES[0], return_tensors="pt")
    with torch.no_grad():
        states = theirs(**given).last_hidden_state[0, 1:-1]
    (mine,) = smaller.token_vectors(SENTENCES[:1])
    assert mine.vectors == pytest.approx(states.numpy(), abs=1e-4)


@pytest.mark.parametrize(("name", "layers", "gone"), [("albert unshared", 1, 1), ("modernbert", 2, 2), ("bilm", 1, 1)])
def test_layers_of_other_families(name: str, layers: int, gone: int, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(ALL[name], tokenizer)
    smaller, report = prune(model, of_vectors(TOY), layers=layers)
    assert len(report.gone) == gone
    assert smaller.config.num_hidden_layers == model.config.num_hidden_layers - layers
    if name == "modernbert":
        assert 1 not in report.gone
        kept = [n for n in range(5) if n + 1 not in report.gone]
        assert [smaller.config.window(n) for n in range(3)] == [model.config.window(n) for n in kept]
    smaller.save(tmp_path / "saved")
    assert np.array_equal(bertloom.load(tmp_path / "saved").encode(TOY), smaller.encode(TOY))


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("bert", {"heads": 1.0}, "heads: 1.0 given, a share from 0 to under 1"),
        ("bert", {}, "none given, one needed"),
        ("bert", {"layers": 3}, "layers: 3 given, from 0 to 2 allowed"),
        ("modernbert", {"layers": 1}, "layers: 1 given, from 0 to 4 in steps of 2 allowed"),
        ("albert", {"layers": 1}, "none allowed of a model in 2 groups"),
    ],
)
def test_refusals(name: str, given: dict[str, float], said: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=said):
        prune(made(ALL[name], tokenizer), of_vectors(TOY), **given)  # type: ignore[arg-type]


def test_few_texts(golden: Model) -> None:
    with pytest.raises(InputError, match="4 texts to prune by, at least 10 needed"):
        prune(golden, of_vectors(TOY[:4]), heads=0.5)


@pytest.mark.parametrize("kind", ["task", "words", "vectors"])
def test_what_a_model_is_asked(kind: str, runs: dict[str, Path], golden: Model, tmp_path: Path) -> None:
    """Its records, words it hid, or its vectors; each has slopes."""
    model = {"task": lambda: tuned(loaded(runs["mlm+nsp"]), "classify"), "words": lambda: loaded(runs["mlm+nsp"]),
             "vectors": lambda: golden}[kind]()  # fmt: skip
    rows = [{"text": text, "label": ("no", "yes", "maybe")[n % 3]} for n, text in enumerate(TOY)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    smaller, report = prune(model, asking(model, str(tmp_path / "rows.jsonl"), TOY, ReadCounts()), heads=0.5)
    assert sum(report.heads) == model.config.num_attention_heads * model.config.num_hidden_layers // 2
    assert report.loss[1] != report.loss[0]
    smaller.save(tmp_path / "saved")
    again = bertloom.load(tmp_path / "saved")
    assert (again.task is None) == (model.task is None)
    if kind == "words":
        assert again.fill("The [MASK] sleeps.") == smaller.fill("The [MASK] sleeps.")


def test_uneven_heads(golden: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model whose layers have other numbers of heads can be traced; what compares layers refuses it in a line."""
    smaller, report = prune(golden, of_vectors(SENTENCES), heads=0.4)
    assert len(set(report.heads)) > 1
    _, insides = smaller.trace("The cat sleeps.")
    assert [len(one.attentions[0]) for one in insides[1:]] == report.heads
    with pytest.raises(InputError, match="has had heads taken away"):
        view(smaller, "The cat sleeps.")
    (tmp_path / "mentions.txt").write_text("[The cat] saw [the dog] and [it] slept.\n")
    smaller.save(tmp_path / "saved")
    with pytest.raises(SystemExit) as left:
        main(["probe", str(tmp_path / "saved"), str(tmp_path / "mentions.txt")])
    assert left.value.code == 2
    assert "heads were taken away" in capsys.readouterr().err


def test_low_rank(golden: Model, tmp_path: Path) -> None:
    """Exact where the table is of that rank; else nearer with words that texts have, saved, opened, in int8 too."""
    flat = golden.with_encoder(golden.encoder)
    with torch.no_grad():
        weight = flat.encoder.embeddings.word.weight
        weight.copy_(weight[:, :40] @ torch.randn(40, 384) * 0.1)
    smaller, report = low_rank(flat, SENTENCES, 40)
    assert report.kept == pytest.approx(1, abs=1e-6)
    assert smaller.encode(SENTENCES) == pytest.approx(flat.encode(SENTENCES), abs=1e-4)
    smaller, report = low_rank(golden, SENTENCES, 128)
    assert report.size[1] == report.size[0] - 4 * (30522 * (384 - 128) - 384 * 128)
    blind, _ = low_rank(golden, ["zebra"], 128)
    cosines = [float((one.encode(SENTENCES) * golden.encode(SENTENCES)).sum(1).mean()) for one in (smaller, blind)]
    assert cosines[0] > 0.9 > cosines[1]
    smaller.save(tmp_path / "saved")
    again = bertloom.load(tmp_path / "saved")
    assert np.array_equal(again.encode(SENTENCES), smaller.encode(SENTENCES))
    eighth, _ = quantize(again, SENTENCES, agreement=0.9)
    eighth.save(tmp_path / "int8")
    assert np.array_equal(bertloom.load(tmp_path / "int8").encode(SENTENCES), eighth.encode(SENTENCES))
    with pytest.raises(InputError, match="of rank 128 already"):
        low_rank(smaller, SENTENCES, 64)
    with pytest.raises(InputError, match="rank: 384 given, from 1 to 383"):
        low_rank(golden, SENTENCES, 384)


def test_a_language_head_shares_its_words(runs: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="has a language head"):
        low_rank(loaded(runs["mlm+nsp"]), TOY, 16)


def test_asked_of_nothing(golden: Model) -> None:
    with pytest.raises(InputError, match="0 texts to prune by"):
        prune(golden, lambda model: Asked([], lambda part, gates: torch.zeros(0), 1), heads=0.5)
