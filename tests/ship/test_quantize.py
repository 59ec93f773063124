"""A model in int8: as near as was asked for, smaller, saved, opened, and refused where it makes no sense."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import bertloom
from bertloom.api import Model
from bertloom.cli import main
from bertloom.errors import InputError
from bertloom.finetuning.recipe import tuning
from bertloom.model.encoder import Encoder
from bertloom.model.init import initialise
from bertloom.model.quantized import QuantizedLinear
from bertloom.ship import quantize as work
from bertloom.ship.quantize import quantize
from bertloom.text.tokenizer import Tokenizer
from tests.inspect.conftest import tuned
from tests.model.test_families import CONFIGS

SENTENCES = [
    f"{who} {what} {where}."
    for who in ("The cat", "A dog", "Nobody", "My old friend", "The bank")
    for what in ("sleeps", "was seen", "has lost money", "sings loudly")
    for where in ("in the garden", "on Monday", "without a word of explanation to anyone", "again")
]


@pytest.fixture(scope="module")
def small(golden: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, work.Report, Path]:
    made, report = quantize(golden, SENTENCES, agreement=0.98)
    folder = tmp_path_factory.mktemp("int8") / "model"
    made.save(folder)
    return made, report, folder


def test_as_near_and_as_small_as_it_says(golden: Model, small: tuple[Model, work.Report, Path]) -> None:
    made, report, folder = small
    cosines = (golden.encode(SENTENCES) * made.encode(SENTENCES)).sum(1)
    assert report.agreement >= 0.98
    assert cosines.mean() >= 0.98
    assert cosines.mean() < 0.999999
    assert report.size[0] > 3.5 * report.size[1] or report.kept
    assert abs((folder / "bertloom.safetensors").stat().st_size - report.size[1]) < 30_000
    assert len(report.int8) + len(report.kept) == 24
    assert min(report.speed) > 0
    names = [name for name, one in made.encoder.named_modules() if isinstance(one, QuantizedLinear)]
    assert sorted(names) == sorted(report.int8)


def test_opened_again_it_is_the_same(small: tuple[Model, work.Report, Path], tmp_path: Path) -> None:
    made, _, folder = small
    again = bertloom.load(folder)
    assert np.array_equal(again.encode(SENTENCES), made.encode(SENTENCES))
    assert again.sentence == made.sentence
    again.save(tmp_path / "twice")
    assert (tmp_path / "twice" / "bertloom.safetensors").read_bytes() == (folder / "bertloom.safetensors").read_bytes()
    transformers = pytest.importorskip("transformers")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        transformers.AutoModel.from_pretrained(folder)


def test_what_does_not_bear_it_stays(golden: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer whose int8 twin is spoilt is found by measuring, and stays."""
    real, name = work._nearest, "layers.3.feed_forward.output"

    def spoilt(linear: nn.Linear, rows: torch.Tensor, most: torch.Tensor) -> QuantizedLinear:
        one = real(linear, rows, most)
        if torch.equal(linear.weight, golden.encoder.get_parameter(f"{name}.weight")):
            one.scale.mul_(3)
        return one

    monkeypatch.setattr(work, "_nearest", spoilt)
    _, report = quantize(golden, SENTENCES[:30], agreement=0.98)
    assert list(report.kept) == [name]


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_family(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = replace(CONFIGS[name], vocab_size=len(tokenizer), pad_token_id=0)
    torch.manual_seed(0)
    encoder = Encoder(config)
    initialise(encoder, 0.1)
    made, report = quantize(Model(encoder, nn.ModuleDict(), tokenizer, {}, tmp_path), SENTENCES, agreement=0.9)
    assert report.int8
    made.save(tmp_path / "saved")
    again = bertloom.load(tmp_path / "saved")
    for pooling in ("mean", "cls"):
        assert np.array_equal(again.encode(SENTENCES[:9], pooling), made.encode(SENTENCES[:9], pooling))


def test_a_fine_tuned_model_predicts(golden: Model, tmp_path: Path) -> None:
    model = tuned(bertloom.load(golden.path), "classify")
    made, _ = quantize(model, SENTENCES)
    made.save(tmp_path / "saved")
    again = bertloom.load(tmp_path / "saved")
    for one, other in zip(made.predict(SENTENCES), again.predict(SENTENCES)):
        assert one == other
    shares = [[p["probabilities"] for p in each.predict(SENTENCES)] for each in (model, made)]
    assert all(max(abs(a[k] - b[k]) for k in a) < 0.1 for a, b in zip(*shares))


def test_refusals(golden: Model, small: tuple[Model, work.Report, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 texts to calibrate on, at least 10 needed"):
        quantize(golden, SENTENCES[:3])
    with pytest.raises(InputError, match="agreement: 1"):
        quantize(golden, SENTENCES, agreement=1.0)
    with pytest.raises(InputError, match="is int8, the model in fp32"):
        quantize(bertloom.load(small[2]), SENTENCES)


def test_it_learns_no_more(small: tuple[Model, work.Report, Path], tmp_path: Path) -> None:
    (tmp_path / "data.tsv").write_text("text\tlabel\na\t1\nb\t0\n")
    data = {"train": str(tmp_path / "data.tsv"), "dev": str(tmp_path / "data.tsv"), "output": str(tmp_path / "out")}
    for learn in (
        lambda: bertloom.load(small[2]).extended(SENTENCES, 5, 1),
        lambda: bertloom.finetune(tuning("classify", {**data, "model": str(small[2])})),
    ):
        with pytest.raises(InputError, match="is int8, the model in fp32 that it was made from needed"):
            learn()


def test_a_damaged_folder_is_refused(small: tuple[Model, work.Report, Path], tmp_path: Path) -> None:
    tensors = load_file(small[2] / "bertloom.safetensors")
    for file in small[2].iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    name = "bertloom.layers.0.attention.qkv"
    for change, said in (
        ({f"{name}.smooth": torch.ones(3)}, "shape"),
        ({f"{name}.scale": torch.full_like(tensors[f"{name}.scale"], torch.nan)}, "not every weight is finite"),
    ):
        save_file({**tensors, **change}, tmp_path / "bertloom.safetensors")
        with pytest.raises(InputError, match=said):
            bertloom.load(tmp_path)


def test_as_users_type_it(golden: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a fine-tuned model's score of before and after, which is `evaluate`'s own."""
    model = tuned(bertloom.load(golden.path), "classify")
    model.save(tmp_path / "tuned")
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES))
    rows = [{"text": text, "label": ("no", "yes", "maybe")[n % 3]} for n, text in enumerate(SENTENCES)]
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = [tmp_path / "tuned", "--data", tmp_path / "texts.txt", "--dev", tmp_path / "dev.jsonl"]
    with pytest.raises(SystemExit) as left:
        main(["compress", "quantize", *map(str, words), "--output", str(tmp_path / "small"), "--json"])
    assert left.value.code == 0
    told = json.loads(capsys.readouterr().out)
    for number, one in enumerate((model, bertloom.load(tmp_path / "small"))):
        assert {name: both[number] for name, both in told["scores"].items()} == pytest.approx(one.evaluate(rows))
    assert told["size"][0] > told["size"][1]
