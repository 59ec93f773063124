"""The whole life of a BERT encoder: raw text, vocabulary, corpus, pretraining, and on.

`bertloom.load`, `bertloom.Model`, `bertloom.EncoderConfig` and `bertloom.preset` are here; importing costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertloom.api import Filling, Model, load
    from bertloom.config import EncoderConfig, preset
    from bertloom.corpus import Corpus
    from bertloom.corpus.prepare import prepare
    from bertloom.errors import InputError
    from bertloom.finetuning.recipe import Tuning, tuning
    from bertloom.finetuning.tune import finetune
    from bertloom.pretraining import pretrain
    from bertloom.text.tokenizer import Tokenizer
    from bertloom.text.vocabulary import train_vocabulary
    from bertloom.train.recipe import Recipe

if "OMP_WAIT_POLICY" not in os.environ:
    # PyTorch's threads wait for one another awake, and beside another busy process for one that is not running. They go
    # to sleep sooner than by default, at next to no cost alone (docs/performance.md); read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
__all__ = [
    "Corpus",
    "EncoderConfig",
    "Filling",
    "InputError",
    "Model",
    "Recipe",
    "Tokenizer",
    "Tuning",
    "finetune",
    "load",
    "prepare",
    "preset",
    "pretrain",
    "train_vocabulary",
    "tuning",
]

# Where each name lives; its module, and torch with it, is imported when the name is first used.
_HOME = {
    "Corpus": "corpus",
    "EncoderConfig": "config",
    "Filling": "api",
    "InputError": "errors",
    "Model": "api",
    "Recipe": "train.recipe",
    "Tokenizer": "text.tokenizer",
    "Tuning": "finetuning.recipe",
    "finetune": "finetuning.tune",
    "load": "api",
    "prepare": "corpus.prepare",
    "preset": "config",
    "pretrain": "pretraining",
    "train_vocabulary": "text.vocabulary",
    "tuning": "finetuning.recipe",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bertloom' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bertloom.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
