"""What makes a vector of a text, as sentence-transformers' folders say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bertloom.errors import InputError, nearest
from bertloom.files import read_json, write_json
from bertloom.model.pooling import LAST_FOUR, POOLINGS, pooling_of

MODULES, TRANSFORMER, SETTINGS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
POOLING = "1_Pooling"
# The flags that a pooling had before it had a name, in the order in which several are put side by side.
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
CLASSES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Sentence:
    """How texts become vectors: pooling, unit length or not, where texts are cut, and what is put before them."""

    pooling: tuple[str, ...] = ("mean",)
    normalize: bool = False
    # Most tokens of a text, special ones too; None for as many as the model has positions.
    longest: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None

    @property
    def prompt(self) -> str:
        """What is put before every text."""
        return self.prompts[self.default_prompt] if self.default_prompt else ""

    def cut(self, positions: int) -> int:
        """Most tokens of a text in a model of so many positions."""
        return min(self.longest or positions, positions)

    def width(self, hidden_size: int) -> int:
        """Values of a vector."""
        return len(self.pooling) * hidden_size

    def asked(
        self, pooling: str | Sequence[str] | None = None, normalize: bool | None = None, prompt: str | None = None
    ) -> Sentence:
        """The same but for what is given; raises on what is unknown."""
        if prompt is not None and prompt not in self.prompts:
            known = nearest(prompt, self.prompts) if self.prompts else f"{prompt!r} given, the model has none"
            raise InputError(f"prompt: {known}")
        return replace(
            self,
            pooling=self.pooling if pooling is None else pooling_of(pooling),
            normalize=self.normalize if normalize is None else normalize,
            default_prompt=prompt or self.default_prompt,
        )


def read(folder: Path) -> Sentence | None:
    """What a folder says, None where it is none of sentence-transformers'; raises on what we cannot do."""
    file = folder / MODULES
    if not file.is_file():
        return None
    pooling, normalize = None, False
    for module in _list(file):
        kind, where = str(module.get("type", "")).rpartition(".")[2], folder / str(module.get("path", ""))
        if kind not in CLASSES:
            raise InputError(f"module {kind} given, {', '.join(CLASSES)} allowed", file)
        if kind == "Pooling":
            pooling = _pooling(where / "config.json")
        normalize = normalize or kind == "Normalize"
    if pooling is None:
        raise InputError("no Pooling in it, one needed", file)
    settings = _dict(folder / SETTINGS)
    if _dict(folder / TRANSFORMER).get("do_lower_case"):
        raise InputError("do_lower_case: true given, false allowed; the tokenizer lowers letters", folder / TRANSFORMER)
    prompts = settings.get("prompts") or {}
    # An empty one stands for none.
    return Sentence(
        pooling,
        normalize,
        _longest(folder),
        {str(name): str(text) for name, text in prompts.items() if text},
        settings.get("default_prompt_name") if prompts.get(settings.get("default_prompt_name")) else None,
    )


def _pooling(file: Path) -> tuple[str, ...]:
    given = _dict(file)
    if given.get("include_prompt") is False:
        raise InputError("include_prompt: false given, true allowed", file)
    names = given.get("pooling_mode") or [name for flag, name in FLAGS.items() if given.get(flag)] or "mean"
    try:
        return pooling_of(names)
    except InputError as error:
        raise InputError(str(error), file) from None


def _longest(folder: Path) -> int | None:
    """Older folders say it beside the model, newer ones beside the tokenizer."""
    for name, key in ((TRANSFORMER, "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        value = _dict(folder / name).get(key)
        # What stands for endless is a float in some, and a number no text reaches in others.
        if isinstance(value, int) and value < 1 << 30:
            if value < 3:
                raise InputError(f"{key}: {value} given, at least 3 allowed", folder / name)
            return value
    return None


def write(folder: Path, sentence: Sentence, width: int, positions: int) -> None:
    """Add to a model's folder what `SentenceTransformer(folder)` reads."""
    if LAST_FOUR in sentence.pooling:
        raise InputError(
            f"pooling: {LAST_FOUR} given, which sentence-transformers has no place for; {', '.join(POOLINGS)} allowed"
        )
    modules = {"": "Transformer", POOLING: "Pooling"} | ({"2_Normalize": "Normalize"} if sentence.normalize else {})
    write_json(
        folder / MODULES,
        [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate(modules.items())
        ],
    )
    for path in modules:
        (folder / path).mkdir(exist_ok=True)
    # Flags where they can say it, which versions old and new read.
    named = [name for name in FLAGS.values() if name in sentence.pooling]
    flags: dict[str, Any] = {flag: name in sentence.pooling for flag, name in FLAGS.items()}
    if list(sentence.pooling) != named:
        flags = {"pooling_mode": list(sentence.pooling)}
    write_json(folder / POOLING / "config.json", {"word_embedding_dimension": width, **flags})
    write_json(folder / TRANSFORMER, {"max_seq_length": sentence.longest or positions, "do_lower_case": False})
    told = {
        "prompts": dict(sentence.prompts),
        "default_prompt_name": sentence.default_prompt,
        "similarity_fn_name": "cosine",
    }
    write_json(folder / SETTINGS, told)


def _dict(file: Path) -> dict[str, Any]:
    given = read_json(file) if file.is_file() else {}
    if not isinstance(given, dict):
        raise InputError("is not a JSON object", file)
    return given


def _list(file: Path) -> list[dict[str, Any]]:
    given = read_json(file)
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise InputError("is not a list of modules", file)
    return given
