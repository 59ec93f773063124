"""Every form of every family, opened by its own runtime, without torch and without us."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bertloom.api import Model
from bertloom.cli import main
from bertloom.errors import InputError
from bertloom.model.packed import pack
from bertloom.model.padded import PADDED, Padded
from bertloom.model.pooling import LAST_FOUR, POOLINGS, pooled
from bertloom.sentence import Sentence
from bertloom.ship.export import FORMATS, export
from bertloom.ship.export.form import Form, padded
from bertloom.ship.low_rank import low_rank
from bertloom.ship.prune import of_vectors, prune
from bertloom.ship.quantize import quantize
from bertloom.text.tokenizer import Tokenizer
from tests.inspect.conftest import loaded
from tests.ship.test_prune import ALL, made
from tests.ship.test_quantize import SENTENCES
from tests.tasks import cases

KINDS = ("vectors", "mlm", "classify", "classify-multi", "classify-score", "tag", "answer", "choose")
# What CTranslate2 has layers for.
TAKEN = ("bert", "roberta", "xlm-roberta", "distilbert", "electra of one width")


def asked(folder: Path, say: str, apart: bool = True) -> Any:
    """What a folder's page says, in a Python of its own that has neither bertloom nor torch, or in this one."""
    if not apart:
        return eval(say, {"page": runpy.run_path(str(folder / "usage.py"))})
    script = (
        "import json, runpy, sys\n"
        "sys.modules.update(dict.fromkeys(['bertloom', 'torch', 'transformers']))\n"
        f"page = runpy.run_path({str(folder / 'usage.py')!r})\n"
        f"found = {say}\n"
        "print(json.dumps(found, default=lambda one: one.tolist()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def tuned(name: str, model: Model) -> tuple[Model, list[dict[str, Any]]]:
    """A model with a random head of a task, and records of it."""
    torch.manual_seed(3)
    task, _ = cases.made(name, 30)
    encoder = model.encoder
    encoder.give_pooler(task.pools(model.config))
    if task.pools(model.config):
        nn.init.normal_(encoder.pooler.dense.bias, std=0.1)
    head = task.head(model.config)
    nn.init.normal_(head.weight)  # type: ignore[arg-type]
    return Model(encoder, nn.ModuleDict({task.part: head}), model.tokenizer, {}, Path("tuned"), task=task), cases.rows(
        name, 5, 9
    )


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_family_traced_is_the_model(name: str, tokenizer: Tokenizer) -> None:
    """Padded, in batches of other sizes than it was traced with, states are those of packed sequences."""
    model = made(ALL[name], tokenizer)
    form = Form.of(model, "states")
    program = form.program.module()
    for lengths in ((5,), (11, 3, 17, 2), (30, 30)):
        texts = form.texts(lengths)
        given = {key: torch.from_numpy(one) for key, one in padded(texts, form.inputs).items()}
        with torch.no_grad():
            (found,) = program(**given)
        for row, one in zip(found, form.ours(texts)[0]):
            assert row[: len(one)].numpy() == pytest.approx(one, abs=2e-5)


@pytest.mark.parametrize("name", [*POOLINGS, LAST_FOUR])
def test_padded_poolings(name: str, golden: Model) -> None:
    assert set(PADDED) == set(POOLINGS)
    texts = golden.examples(["a", "a longer text than that", "two words"])
    parts = padded(texts, ["input_ids", "attention_mask", "token_type_ids"])
    batch = Padded.of(*(torch.from_numpy(one) for one in parts.values()))
    with torch.no_grad():
        assert torch.allclose(
            pooled(golden.encoder, batch, [name]), pooled(golden.encoder, pack(texts), [name]), atol=1e-5
        )


@pytest.mark.parametrize("to", sorted(FORMATS))
@pytest.mark.parametrize("kind", KINDS)
def test_opened_by_its_own_runtime(to: str, kind: str, runs: dict[str, Path], golden: Model, tmp_path: Path) -> None:
    """What users run of the folder says what the model says."""
    apart = to != "torch.export"
    if kind == "vectors":
        report = export(golden, to, tmp_path / "out")
        assert np.array(asked(tmp_path / "out", f"page['ask']({SENTENCES[:3]!r})", apart)) == pytest.approx(
            golden.encode(SENTENCES[:3]), abs=1e-5
        )
    elif kind == "mlm":
        model = loaded(runs["mlm+nsp"])
        report = export(model, to, tmp_path / "out")
        text = "The cat [MASK] in the [MASK]."
        found = asked(tmp_path / "out", f"page['ask']([{text!r}], top=3)", apart)
        assert found == [[one.token for one in best] for best in model.fill(text, top=3)]
    else:
        model, rows = tuned(kind, loaded(runs["mlm+nsp"]))
        report = export(model, to, tmp_path / "out")
        ours = model.predict(rows)
        if kind == "choose":
            given = [(row["context"], row["choices"]) for row in rows]
            found = asked(tmp_path / "out", f"[page['ask'](*one) for one in {given!r}]", apart)
            for shares, one in zip(found, ours):
                assert list(shares.values()) == pytest.approx(one["probabilities"], abs=1e-4)
        elif kind == "answer":
            row = rows[0]
            found = asked(tmp_path / "out", f"page['ask']({row['question']!r}, {row['context']!r})", apart)
            assert found[0] in row["context"]
        elif kind == "tag":
            text = " ".join(rows[0]["tokens"])
            found = asked(tmp_path / "out", f"page['ask']([{text!r}])", apart)[0]
            (spans,) = (model.tokenizer.ids([text], special=False),)
            assert len(found) == len(spans[0])
            assert {label for _, label in found} <= set(model.require_task().labels)  # type: ignore[attr-defined]
        else:
            texts = [row["text"] for row in rows]
            found = asked(tmp_path / "out", f"page['ask']({texts!r})", apart)
            if kind == "classify-score":
                assert found == pytest.approx([one["score"] for one in ours], abs=1e-4)
            else:
                for theirs, one in zip(found, ours):
                    assert theirs == pytest.approx(one["probabilities"], abs=1e-4)
    assert report.difference < 1e-4
    assert report.batches == 4
    assert json.loads((tmp_path / "out" / "bertloom.json").read_text())["difference"] == report.difference


@pytest.mark.parametrize("name", sorted(ALL))
def test_ctranslate2_takes_what_it_computes(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(replace(ALL[name], hidden_act="gelu"), tokenizer)
    if name in TAKEN:
        assert export(model, "ctranslate2", tmp_path / "out", "states").difference < 1e-4
    else:
        with pytest.raises(InputError, match="CTranslate2 computes models that have"):
            export(model, "ctranslate2", tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["onnx", "openvino", "ctranslate2"])
def test_what_was_pruned(to: str, golden: Model, tmp_path: Path) -> None:
    """Fewer heads where a runtime knows such layers, and word embeddings of low rank."""
    fewer, _ = prune(golden, of_vectors(SENTENCES[:40]), heads=0.3)
    if to == "ctranslate2":
        with pytest.raises(InputError, match="all its heads"):
            export(fewer, to, tmp_path / "fewer")
        fewer = golden
    small, _ = low_rank(fewer, SENTENCES, 64)
    assert export(small, to, tmp_path / "small").difference < 1e-4


def test_int8_is_made_by_runtimes_of_fp32(golden: Model, tmp_path: Path) -> None:
    eighth, _ = quantize(golden, SENTENCES[:40], agreement=0.9)
    with pytest.raises(InputError, match="is int8, the model in fp32 that it was made from needed"):
        export(eighth, "onnx", tmp_path / "int8")


def test_a_form_that_differs_is_not_written(golden: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong graph is found by comparing, and nothing is left."""
    from bertloom.ship.export import ctranslate2

    real = ctranslate2._norm

    def spoilt(place: Any, norm: Any) -> None:
        real(place, norm)
        place.gamma = place.gamma * 1.01

    monkeypatch.setattr(ctranslate2, "_norm", spoilt)
    with pytest.raises(InputError, match="outputs of ctranslate2 differ from the model's by"):
        export(golden, "ctranslate2", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_prompts_and_cuts_are_the_folders(golden: Model, tmp_path: Path) -> None:
    sentence = Sentence(
        ("mean", "max"), normalize=True, longest=12, prompts={"query": "query: "}, default_prompt="query"
    )
    model = Model(golden.encoder, golden.heads, golden.tokenizer, {}, golden.path, sentence=sentence)
    export(model, "onnx", tmp_path / "out")
    long = ["a very long text " * 10, "a short one"]
    found = np.array(asked(tmp_path / "out", f"page['ask']({long!r})"))
    assert found == pytest.approx(model.encode(long), abs=1e-5)


@pytest.mark.parametrize(
    ("to", "what", "said"),
    [
        ("onyx", "", "to: unknown 'onyx', nearest 'onnx'|to: unknown 'onyx'"),
        ("onnx", "words", "what: unknown 'words'"),
        ("onnx", "task", "what: task given, a model with such a head needed"),
        ("onnx", "mlm", "what: mlm given, a model with such a head needed"),
    ],
)
def test_refusals(to: str, what: str, said: str, golden: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        export(golden, to, tmp_path / "out", what)
    assert not (tmp_path / "out").exists()


def test_what_is_not_installed(golden: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(InputError, match="to: ctranslate2 given, for which ctranslate2 is needed; pip install"):
        export(golden, "ctranslate2", tmp_path / "out")


def test_as_users_type_it(golden: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, words in enumerate((["--json"], [])):
        output = tmp_path / f"out{number}"
        with pytest.raises(SystemExit) as left:
            main(["export", str(golden.path), "--to", "ctranslate2", "--output", str(output), *words])
        assert left.value.code == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["outputs"] == ["sentence_embedding"] if words else "usage.py" in said.err
