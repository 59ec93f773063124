"""Vectors of texts beside sentence-transformers' own, and its folders read and written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bertloom
from bertloom.api import Model
from bertloom.embedding import WINDOW
from bertloom.errors import InputError
from bertloom.model.pooling import LAST_FOUR, POOLINGS
from bertloom.sentence import FLAGS, MODULES, POOLING, SETTINGS, TRANSFORMER, Sentence

TEXTS = ["One.", "The cat sat on the mat, and the dog did not.", "", "Ünïcödé 한국어 🙂", "word " * 300, "One."]


@pytest.fixture(scope="module")
def theirs(minilm: Path) -> Any:
    return pytest.importorskip("sentence_transformers").SentenceTransformer(str(minilm), device="cpu")


def copy_of(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    return folder


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_a_folders_own_way(golden: Model, theirs: Any) -> None:
    assert golden.sentence == Sentence(("mean",), normalize=True, longest=256)
    found = golden.encode(TEXTS)
    assert np.abs(found - theirs.encode(TEXTS)).max() < 1e-5
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert np.linalg.norm(golden.encode(TEXTS[:1], normalize=False)) > 1.5


@pytest.mark.parametrize("names", [*((name,) for name in POOLINGS), ("max", "mean"), ("cls", "cls")], ids="+".join)
def test_every_pooling_beside_theirs_and_its_folder(
    minilm: Path, golden: Model, names: tuple[str, ...], tmp_path: Path
) -> None:
    SentenceTransformer = pytest.importorskip("sentence_transformers").SentenceTransformer
    model = bertloom.load(minilm)
    model.sentence = Sentence(names, longest=32)
    model.save(tmp_path / "saved")
    wanted = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS)
    assert np.abs(golden.encode(TEXTS, "+".join(names), normalize=False) - wanted)[:4].max() < 2e-5
    again = bertloom.load(tmp_path / "saved")
    assert again.sentence == model.sentence
    # The long text too, cut where the folder says.
    assert np.abs(again.encode(TEXTS) - wanted).max() < 2e-5
    assert wanted.shape[1] == 384 * len(names)


def test_the_last_four_layers(minilm: Path, golden: Model, tmp_path: Path) -> None:
    _, insides = golden.trace(TEXTS[1])
    wanted = np.mean([one.hidden_states.numpy() for one in insides[-4:]], axis=(0, 1))
    found = golden.encode([TEXTS[1]], LAST_FOUR, normalize=False)
    assert np.abs(found[0] - wanted).max() < 1e-5
    model = bertloom.load(minilm)
    model.sentence = Sentence((LAST_FOUR,))
    with pytest.raises(InputError, match="sentence-transformers has no place for;"):
        model.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_prompts(minilm: Path, tmp_path: Path) -> None:
    folder = copy_of(minilm, tmp_path / "model")
    change(folder / SETTINGS, prompts={"query": "query: ", "none": ""}, default_prompt_name="query")
    model = bertloom.load(folder)
    plain = bertloom.load(minilm).encode(["query: a cat"])
    assert np.array_equal(model.encode(["a cat"]), plain)
    assert np.array_equal(model.encode(["a cat"], prompt="query"), plain)
    model.save(tmp_path / "again")
    assert bertloom.load(tmp_path / "again").sentence == model.sentence
    with pytest.raises(InputError, match="prompt: unknown 'qery', did you mean 'query'"):
        model.encode(["a"], prompt="qery")
    with pytest.raises(InputError, match="prompt: 'query' given, the model has none"):
        bertloom.load(minilm).encode(["a"], prompt="query")


@pytest.mark.parametrize("flags", [["cls"], ["mean", "lasttoken"]])
def test_old_and_new_names_of_poolings(minilm: Path, flags: list[str], tmp_path: Path) -> None:
    for number, said in enumerate(
        (
            {flag: name in flags for flag, name in FLAGS.items()},
            {"pooling_mode": flags[0] if len(flags) == 1 else flags},
        )
    ):
        folder = copy_of(minilm, tmp_path / str(number))
        (folder / POOLING / "config.json").write_text(json.dumps({"word_embedding_dimension": 384, **said}))
        found = bertloom.load(folder).sentence
        assert found is not None
        assert found.pooling == tuple(flags)


def test_newer_folders_say_their_length_beside_the_tokenizer(minilm: Path, tmp_path: Path) -> None:
    folder = copy_of(minilm, tmp_path / "model")
    (folder / TRANSFORMER).write_text("{}")
    change(folder / "tokenizer_config.json", model_max_length=77)
    found = bertloom.load(folder).sentence
    assert found is not None
    assert found.longest == 77
    change(folder / "tokenizer_config.json", model_max_length=10**30)
    found = bertloom.load(folder).sentence
    assert found is not None
    assert found.cut(512) == 512


@pytest.mark.parametrize(
    ("file", "value", "said"),
    [
        (MODULES, [{"type": "sentence_transformers.models.CNN", "path": ""}], "module CNN given, Transformer, Pooling"),
        (MODULES, [], "no Pooling in it"),
        (MODULES, {}, "is not a list of modules"),
        (f"{POOLING}/config.json", {"pooling_mode": "sum"}, "pooling: unknown 'sum'"),
        (f"{POOLING}/config.json", {"include_prompt": False}, "include_prompt: false given"),
        (TRANSFORMER, {"do_lower_case": True}, "do_lower_case: true given"),
        (TRANSFORMER, {"max_seq_length": 2}, "max_seq_length: 2 given"),
    ],
)  # fmt: skip
def test_what_we_cannot_do_is_said(minilm: Path, file: str, value: Any, said: str, tmp_path: Path) -> None:
    folder = copy_of(minilm, tmp_path / "model")
    (folder / file).write_text(json.dumps(value))
    with pytest.raises(InputError, match=said) as raised:
        bertloom.load(folder)
    assert file in str(raised.value)


def test_windows_come_in_order(golden: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"number {number} " * (1 + number % 7) for number in range(23)]
    whole = golden.encode(texts)
    monkeypatch.setattr("bertloom.embedding.WINDOW", 4)
    assert np.abs(golden.encode(texts) - whole).max() < 1e-5
    assert WINDOW > 4
    with pytest.raises(InputError, match="a string of whole characters"):
        golden.encode([*texts, 5])  # type: ignore[list-item]


def test_tokens_with_their_places(golden: Model) -> None:
    _, insides = golden.trace(TEXTS[3])
    one, empty = golden.token_vectors([TEXTS[3], ""])
    assert one.tokens == golden.trace(TEXTS[3])[0][1:-1]
    assert np.abs(one.vectors - insides[-1].hidden_states[1:-1].numpy()).max() < 1e-5
    assert one.spans.tolist() == [list(span) for span in golden.tokenizer.spans(TEXTS[3])]
    assert "".join(TEXTS[3][start:end] for start, end in one.spans if end - start > 1).startswith("Ünïcödé")
    assert empty.vectors.shape == (0, 384)
    assert empty.spans.shape == (0, 2)
    (cut,) = golden.token_vectors(["word " * 300])
    assert len(cut.tokens) == len(cut.spans) == len(cut.vectors) == 254
