"""The Hugging Face folder, read and written; per family one table of names, used in both directions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from bertloom.config import EncoderConfig
from bertloom.errors import InputError, blaming
from bertloom.files import read_json, write_json

# Ours: the names whose tensors, end to end along the first dimension, make it. `{}` is the layer's number.
BERT_NAMES: dict[str, list[str]] = {
    "embeddings.word.weight": ["bert.embeddings.word_embeddings.weight"],
    "embeddings.position.weight": ["bert.embeddings.position_embeddings.weight"],
    "embeddings.segment.weight": ["bert.embeddings.token_type_embeddings.weight"],
    "embeddings.norm.*": ["bert.embeddings.LayerNorm.*"],
    "layers.{}.attention.qkv.*": [
        f"bert.encoder.layer.{{}}.attention.self.{part}.*" for part in ("query", "key", "value")
    ],
    "layers.{}.attention.output.*": ["bert.encoder.layer.{}.attention.output.dense.*"],
    "layers.{}.attention.norm.*": ["bert.encoder.layer.{}.attention.output.LayerNorm.*"],
    "layers.{}.feed_forward.inner.*": ["bert.encoder.layer.{}.intermediate.dense.*"],
    "layers.{}.feed_forward.output.*": ["bert.encoder.layer.{}.output.dense.*"],
    "layers.{}.feed_forward.norm.*": ["bert.encoder.layer.{}.output.LayerNorm.*"],
    "pooler.dense.*": ["bert.pooler.dense.*"],
    "mlm.dense.*": ["cls.predictions.transform.dense.*"],
    "mlm.norm.*": ["cls.predictions.transform.LayerNorm.*"],
    "mlm.bias": ["cls.predictions.bias"],
    "nsp.*": ["cls.seq_relationship.*"],
}
# What stands on it when it is fine-tuned: the same for every family.
TASK_NAMES: dict[str, list[str]] = {"classifier.*": ["classifier.*"], "qa_outputs.*": ["qa_outputs.*"]}
NAMES = BERT_NAMES | TASK_NAMES
# Heads that `transformers` has no place for keep our names behind this one.
OWN = "bertloom."
OWN_HEAD = "features."
# Second names of what is there already: the tied output layer, a buffer of old versions.
BERT_TWICE = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
BUFFER = "bert.embeddings.position_ids"
# Where every name must be known; elsewhere stand heads of other tasks, which are told but not read.
OURS = re.compile(r"bert\.|cls\.(predictions|seq_relationship)\.")
# Settings of a config that would change the mathematics, and the only value we compute.
REQUIRED = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
TASK_PARTS = tuple(name.partition(".")[0] for name in TASK_NAMES)
PARTS = ("pooler", "mlm", "nsp", *TASK_PARTS)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def expanded(layers: int, names: Mapping[str, list[str]] = BERT_NAMES) -> Iterator[tuple[str, list[str]]]:
    """Every pair of a table for a number of layers, `*` as weight and bias."""
    for ours, theirs in names.items():
        for number in range(layers) if "{}" in ours else range(1):
            for kind in ("weight", "bias") if "*" in ours else ("",):
                yield (
                    ours.replace("{}", str(number)).replace("*", kind),
                    [name.replace("{}", str(number)).replace("*", kind) for name in theirs],
                )


def find(model: str | Path) -> Path:
    """The local folder of a model: a folder, a run's newest model, or a Hub id's files, fetched if need be."""
    path = Path(model)
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            return folder
    text = str(model)
    if path.exists() or not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", text):
        raise InputError("no model there (no config.json), a model's folder, a run or a Hub id allowed", model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [
        "config.json",
        "tokenizer*.json",
        "vocab.txt",
        "special_tokens_map.json",
        "README.md",
        *WEIGHTS[:2],
        "model-*.safetensors",
    ]
    try:
        folder = Path(snapshot_download(text, allow_patterns=patterns))
        if not any((folder / name).exists() for name in WEIGHTS[:2]):
            folder = Path(snapshot_download(text, allow_patterns=[*patterns, *WEIGHTS[2:], "pytorch_model-*.bin"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"no such folder, and the Hub gave nothing: {str(error).splitlines()[0]}", model) from None
    return find(folder)


def read_config(folder: Path) -> tuple[EncoderConfig, dict[str, Any]]:
    """The config of a folder, and the settings in it that are not ours, which `write` hands on."""
    file = folder / "config.json"
    given: dict[str, Any] = read_json(file)
    if not isinstance(given, dict):
        raise InputError("is not a JSON object", file)
    for key, only in REQUIRED.items():
        if given.get(key, only) != only:
            raise InputError(f"{key}: {given[key]!r} given, {only!r} allowed", file)
    names = {field.name for field in fields(EncoderConfig)}
    try:
        config = EncoderConfig(**{key: value for key, value in given.items() if key in names})
    except InputError as error:
        raise InputError(str(error), file) from None
    return config, {key: value for key, value in given.items() if key not in names}


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder's weights by Hugging Face's modern names; no code in a file is ever run."""
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise InputError(f"no weights there, one of {' '.join(WEIGHTS)} needed", folder)
    parts = [file]
    if file.suffix == ".json":
        with blaming(file):
            parts = [folder / name for name in sorted(set(read_json(file)["weight_map"].values()))]
    read = _pickled if WEIGHTS.index(file.name) > 1 else _safetensors
    return _modern({name: tensor for part in parts for name, tensor in read(part).items()})


def _pickled(file: Path) -> dict[str, Tensor]:
    try:
        tensors = dict(torch.load(file, map_location="cpu", weights_only=True))
        if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()):
            raise TypeError("something else than weights")
        return tensors
    # Torch's own words would tell the user to run the code.
    except Exception as error:
        raise InputError("is damaged or holds more than weights, and code is never run", file) from error


def _safetensors(file: Path) -> dict[str, Tensor]:
    with blaming(file), safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def _modern(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as `BertForPreTraining` has them: gamma and beta renamed, the backbone's prefix put before bare names."""
    renamed = {re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", name)): tensor for name, tensor in tensors.items()}
    bare = not any(name.startswith("bert.") for name in renamed)
    return {
        f"bert.{name}" if bare and re.match(r"(embeddings|encoder|pooler)\.", name) else name: tensor
        for name, tensor in renamed.items()
    }


def read_state(folder: Path, config: EncoderConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Our state dict of a folder, with whichever of `PARTS` it holds, and the names of other tasks' heads.

    A name that is missing or unknown in the encoder or in our heads raises.
    """
    tensors = read_tensors(folder)
    tensors.pop(BUFFER, None)
    for second, first in BERT_TWICE.items():
        twin = tensors.pop(second, None)
        if twin is not None and not torch.equal(twin, tensors.setdefault(first, twin)):
            raise InputError(f"{second} differs from {first}, tied weights allowed", folder)
    own = [name for name in tensors if name.startswith(OWN + OWN_HEAD)]
    state = {name.removeprefix(OWN): _sound(name, tensors.pop(name), folder) for name in own}
    whole = {part for part in TASK_PARTS if {f"{part}.weight", f"{part}.bias"} <= tensors.keys()}
    missing: list[str] = []
    for ours, theirs in expanded(config.num_hidden_layers, NAMES):
        if ours.startswith(TASK_PARTS) and ours.split(".")[0] not in whole:
            continue  # another library's head of that name
        found = [tensors.pop(name) for name in theirs if name in tensors]
        if len(found) == len(theirs):
            state[ours] = _sound(ours, torch.cat(found) if len(found) > 1 else found[0], folder)
        elif found or ours.split(".")[0] not in PARTS:
            missing += theirs
    for part in PARTS:
        pairs = expanded(config.num_hidden_layers, NAMES)
        names = {ours: theirs for ours, theirs in pairs if ours.split(".")[0] == part}
        if state.keys() & names.keys():
            # Half a head is none that anyone saved.
            missing += [name for ours, theirs in names.items() if ours not in state for name in theirs]
    left = [name for name in tensors if OURS.match(name)]
    if missing or left:
        what = [
            f"{kind} {', '.join(sorted(names)[:3])}" for kind, names in (("no", missing), ("unknown", left)) if names
        ]
        raise InputError(f"weights do not fit a BERT of {config.num_hidden_layers} layers: {'; '.join(what)}", folder)
    return state, sorted(tensors)


def _sound(name: str, tensor: Tensor, where: object) -> Tensor:
    """A tensor in fp32; raises where it holds no numbers that can be computed with."""
    if not tensor.is_floating_point():
        raise InputError(f"{name}: {str(tensor.dtype).removeprefix('torch.')} given, floating point allowed", where)
    tensor = tensor.float()
    if not bool(tensor.isfinite().all()):
        raise InputError(f"{name}: not every weight is finite", where)
    return tensor


def load_into(module: torch.nn.Module, state: Mapping[str, Tensor], where: object) -> None:
    """Copy a state dict into a module of the same names, or make it the module's own where that is without memory.

    A shape that differs raises with both.
    """
    own = module.state_dict()
    for name, tensor in own.items():
        if name in state and state[name].shape != tensor.shape:
            raise InputError(f"{name}: shape {tuple(state[name].shape)}, config.json says {tuple(tensor.shape)}", where)
    module.load_state_dict(dict(state), assign=any(tensor.is_meta for tensor in own.values()))


def write(
    folder: Path,
    config: EncoderConfig,
    state: Mapping[str, Tensor],
    others: Mapping[str, Any] | None = None,
    architecture: str | None = None,
) -> None:
    """Write `config.json` and `model.safetensors` as `transformers` names and ties them.

    `architecture` is the class there that opens a fine-tuned model.
    """
    tensors: dict[str, Tensor] = {}
    left = set(state)
    for ours, theirs in expanded(config.num_hidden_layers, NAMES):
        if ours in state:
            left.remove(ours)
            for name, part in zip(theirs, state[ours].detach().cpu().chunk(len(theirs))):
                tensors[name] = part.contiguous()
    for name in sorted(left):
        if name.startswith(OWN_HEAD):
            left.remove(name)
            tensors[OWN + name] = state[name].detach().cpu().contiguous()
    assert not left, f"no names for {sorted(left)}"
    has = {part: any(name.startswith(f"{part}.") for name in state) for part in PARTS}
    architecture = architecture or (
        "BertForPreTraining" if has["nsp"] and has["mlm"] else "BertForMaskedLM" if has["mlm"] else "BertModel"
    )
    if architecture == "BertModel":
        tensors = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(sorted(tensors.items())), folder / WEIGHTS[0], metadata={"format": "pt"})
    settings = {"model_type": "bert", **(others or {}), "architectures": [architecture], **config.to_dict()}
    write_json(folder / "config.json", json.loads(json.dumps(settings)))
