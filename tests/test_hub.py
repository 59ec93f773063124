from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

import bertloom
from bertloom import hub
from bertloom.config import EncoderConfig
from bertloom.errors import InputError
from bertloom.families import FAMILIES
from bertloom.model.encoder import Encoder
from bertloom.objectives import Combined
from bertloom.text.vocabulary import train_vocabulary
from tests.conftest import package, small


def whole_state(config: EncoderConfig) -> dict[str, torch.Tensor]:
    return {**Encoder(config).state_dict(), **Combined(config).state_dict()}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder of ours with every field at another value than its default, and a foreign setting."""
    hub.write(tmp_path / "m", small(), whole_state(small()), others={"classifier_dropout": 0.25})
    return tmp_path / "m"


@pytest.mark.parametrize("kind", ["AutoModel", "BertForPreTraining", "BertModel", "AutoModelForMaskedLM"])
def test_transformers_opens_ours_with_no_key_missing(written: Path, kind: str) -> None:
    _, info = getattr(transformers, kind).from_pretrained(written, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    if kind == "BertForPreTraining":
        assert not info["unexpected_keys"]


def test_ours_to_theirs_to_ours_bit_for_bit(written: Path, tmp_path: Path) -> None:
    model = transformers.BertForPreTraining.from_pretrained(written)
    model.save_pretrained(tmp_path / "theirs")
    config, others = hub.read_config(tmp_path / "theirs")
    assert config == small(), "every field, none at its default, survives"
    assert others["classifier_dropout"] == 0.25
    first, unread = hub.read_state(written, small())
    again, _ = hub.read_state(tmp_path / "theirs", config)
    assert not unread
    assert first.keys() == again.keys() == whole_state(small()).keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "BertForPreTraining"])
def test_theirs_to_ours_to_theirs_bit_for_bit(kind: str, tmp_path: Path) -> None:
    theirs = getattr(transformers, kind)(transformers.BertConfig(**FAMILIES["bert"].settings(small())))
    theirs.save_pretrained(tmp_path / "theirs")
    model = bertloom.load(tmp_path / "theirs")
    assert (
        set(model.heads) == {"BertModel": set(), "BertForMaskedLM": {"mlm"}, "BertForPreTraining": {"mlm", "nsp"}}[kind]
    )
    model.save(tmp_path / "ours")
    saved = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert saved["architectures"] == [kind]
    again, info = getattr(transformers, kind).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_old_names_and_bin_files(written: Path, tmp_path: Path) -> None:
    tensors = load_file(written / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }
    old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    old["bert.embeddings.position_ids"] = torch.arange(50)[None]
    folder = tmp_path / "old"
    folder.mkdir()
    torch.save(old, folder / "pytorch_model.bin")
    state, unread = hub.read_state(folder, small())
    want, _ = hub.read_state(written, small())
    assert not unread
    assert all(torch.equal(state[name], want[name]) for name in want)


@pytest.mark.parametrize(("whole", "save"), [("model.safetensors", save_file), ("pytorch_model.bin", torch.save)])
def test_weights_in_several_files(written: Path, tmp_path: Path, whole: str, save: Callable[..., None]) -> None:
    tensors = sorted(load_file(written / "model.safetensors").items())
    folder = tmp_path / "parts"
    folder.mkdir()
    index = {}
    for number, part in enumerate((tensors[:20], tensors[20:])):
        name = whole.replace(".", f"-{number}.")
        save(dict(part), folder / name)
        index |= {key: name for key, _ in part}
    (folder / f"{whole}.index.json").write_text(json.dumps({"weight_map": index}))
    state, _ = hub.read_state(folder, small())
    want, _ = hub.read_state(written, small())
    assert state.keys() == want.keys()
    assert all(torch.equal(state[name], want[name]) for name in want)


class Bomb:
    """What would run if a checkpoint's code were."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"bert.x": Bomb()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="code is never run") as refused:
        hub.read_state(tmp_path, small())
    assert "weights_only" not in str(refused.value)
    assert not (tmp_path / "exploded").exists()


def test_a_real_bin_checkpoint_with_other_heads() -> None:
    folder = package("antiberty") / "trained_models" / "AntiBERTy_md_smooth"
    model = bertloom.load(folder)
    assert set(model.heads) == {"mlm"}
    assert {name.split(".")[1] for name in model.unread} == {"species", "chain", "graft"}
    with pytest.raises(InputError, match="no tokenizer in the model's folder"):
        model.encode(["x"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type: 'relative_key' given, 'absolute'"),
        ({"is_decoder": "yes"}, "is_decoder"),
        ({"model_type": "robberta"}, "model_type: unknown 'robberta', did you mean 'roberta'"),
        ({"model_type": "roberta"}, "do not fit a roberta of 3 layers"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"hidden_size": 23}, "config.json: hidden_size: 23"),
        ({"num_hidden_layers": 4}, "do not fit a bert of 4 layers: no bert.encoder.layer.3"),
        ({"num_hidden_layers": 2}, "unknown bert.encoder.layer.2"),
        ({"vocab_size": 98}, "embeddings.word.weight: shape"),
        ({"vocab_size": 10**11}, "embeddings.word.weight: shape"),
        ({"vocab_size": 10**18}, "config.json: describes no model"),
        ({"model_type": []}, r"config.json: model_type: unknown \[\]"),
        ({"hidden_size": [1]}, "config.json: "),
    ],
)
def test_configs_that_do_not_fit_are_refused(written: Path, change: dict[str, object], said: str) -> None:
    file = written / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match=said):
        bertloom.load(written)


@pytest.mark.parametrize(
    "change",
    [
        {"layer_types": 5}, {"rope_parameters": [1]}, {"rope_parameters": {"full_attention": [1]}},
        {"rope_parameters": {"full_attention": {"rope_theta": "x"}}}, {"layer_types": [[]]},
    ],
)  # fmt: skip
def test_settings_of_another_form_are_the_files_fault(change: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "modernbert", **change}))
    with pytest.raises(InputError, match=r"config.json: .+"):
        hub.read_config(tmp_path)


def test_architectures_of_another_form_are_none(written: Path) -> None:
    file = written / "config.json"
    for given in (True, {"a": 1}, [], [5]):
        file.write_text(json.dumps({**json.loads(file.read_text()), "architectures": given}))
        assert bertloom.load(written).task is None


def test_a_two_way_folder_of_more_layers_than_it_says_is_refused(tmp_path: Path) -> None:
    config = replace(small(hidden_size=24, num_attention_heads=2), model_type="two-way", direction="two-way")
    hub.write(tmp_path, config, Encoder(config).state_dict())
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_hidden_layers": 2}))
    with pytest.raises(InputError, match=r"do not fit a two-way of 2 layers: unknown bertloom.layers.2"):
        bertloom.load(tmp_path)


def test_a_foreign_classifier_on_a_token_that_sees_no_other_is_refused(tmp_path: Path) -> None:
    config = transformers.BertConfig(**{**FAMILIES["bert"].settings(small()), "is_decoder": True})
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="BertForSequenceClassification, of a model that reads one way"):
        bertloom.load(tmp_path)


def test_a_model_that_is_given_no_segments_is_given_none_by_us(tmp_path: Path) -> None:
    """RoBERTa's config has two segments by default, and its tokenizer gives it one."""
    trained = train_vocabulary(["the cat and the dog sit in the garden"] * 9, 280, kind="bpe")
    config = transformers.RobertaConfig(
        vocab_size=len(trained), hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        pad_token_id=trained.special.pad, max_position_embeddings=40,
    )  # fmt: skip
    assert config.type_vocab_size == 2
    torch.manual_seed(0)
    theirs = transformers.RobertaForSequenceClassification(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path / "a")
    trained.save(tmp_path / "a")
    bertloom.load(tmp_path / "a").save(tmp_path / "b")
    for folder in (tmp_path / "a", tmp_path / "b"):
        inputs = transformers.AutoTokenizer.from_pretrained(folder)("the cat", "a dog", return_tensors="pt")
        want = transformers.RobertaForSequenceClassification.from_pretrained(folder)(**inputs).logits.softmax(-1)[0]
        (found,) = bertloom.load(folder).predict([{"sentence1": "the cat", "sentence2": "a dog"}])
        assert found["probabilities"]["LABEL_0"] == pytest.approx(float(want[0].detach()), abs=1e-5)
    assert "token_type_ids" not in inputs


def test_broken_files_are_refused(written: Path) -> None:
    weights = written / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="is damaged"):
        bertloom.load(written)
    weights.unlink()
    with pytest.raises(InputError, match="no weights there"):
        bertloom.load(written)
    (written / "pytorch_model.bin").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InputError, match=r"is damaged|code is never run"):
        bertloom.load(written)
    (written / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not a JSON object"):
        bertloom.load(written)


def test_untied_weights_are_refused(written: Path) -> None:
    tensors = load_file(written / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = torch.zeros(97, 24)
    save_file(tensors, written / "model.safetensors")
    with pytest.raises(InputError, match="tied weights allowed"):
        bertloom.load(written)


def test_names_that_are_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no model there"):
        bertloom.load(tmp_path)
    with pytest.raises(InputError, match="no model there"):
        bertloom.load("./no/such/folder")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="the Hub gave nothing"):
        bertloom.load("nobody/nothing-of-this-name")


def test_the_folders_name_decides_nothing(written: Path, tmp_path: Path) -> None:
    other = tmp_path / "roberta-large"
    written.rename(other)
    assert bertloom.load(other).config == small()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cls.predictions.transform.dense.weight", None, "no cls.predictions.transform.dense.weight"),
        ("cls.seq_relationship.bias", None, "no cls.seq_relationship.bias"),
        ("bert.pooler.dense.bias", None, "no bert.pooler.dense.bias"),
        ("bert.pooler.dense.bias", torch.zeros(24, dtype=torch.int8), "pooler.dense.bias: int8 given"),
        ("cls.predictions.bias", torch.full((211,), torch.nan), "mlm.bias: not every weight is finite"),
    ],
)
def test_weights_that_are_none(written: Path, name: str, value: torch.Tensor | None, said: str) -> None:
    tensors = load_file(written / "model.safetensors")
    del tensors[name]
    save_file(tensors if value is None else {**tensors, name: value}, written / "model.safetensors")
    with pytest.raises(InputError, match=said):
        bertloom.load(written)


@pytest.mark.parametrize("odd", [{"bert.pooler.dense.bias": "text"}, {3: torch.zeros(2)}])
def test_a_bin_with_something_else_than_weights(written: Path, odd: dict[Any, Any]) -> None:
    tensors = load_file(written / "model.safetensors")
    (written / "model.safetensors").unlink()
    torch.save({**tensors, **odd}, written / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds more than weights"):
        bertloom.load(written)
