"""The Hugging Face folder, read and written by its family's tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bertloom.config import EncoderConfig
from bertloom.errors import InputError, blaming, nearest
from bertloom.families import FAMILIES, Family
from bertloom.files import read_json, write_json
from bertloom.model.encoder import Encoder, Pooler
from bertloom.model.forms import WORD, quantized
from bertloom.model.heads import HEADS
from bertloom.text.tokenizer import FILES, Tokenizer

# Heads that `transformers` has no place for keep our names behind this one.
OWN = "bertloom."
# The one on a frozen encoder's features, and those of tasks.
FEATURES = "features"
TASK_PARTS = ("classifier", "qa_outputs")
# Parts that a folder may have or not.
PARTS = ("pooler", *HEADS, *TASK_PARTS)
# In the config of a model that reads texts from their ends.
BACKWARDS = ("reading_direction", "right-to-left")
# What no weight is: places as buffers of old versions.
BUFFERS = re.compile(r"embeddings\.(position_ids|token_type_ids)$")
# Weights that no class of `transformers` computes with, as int8 ones and fewer heads: it shall not find them and make
# new ones.
OWN_WEIGHTS = "bertloom.safetensors"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@lru_cache(maxsize=64)
def part_names(config: EncoderConfig) -> dict[str, tuple[str, ...]]:
    """The names of a config's weights by part: `encoder`, and each of `PARTS`."""
    with torch.device("meta"):
        heads = {name: make(config) for name, make in HEADS.items()}
        pooler = Pooler(config)
    names = tuple(name for name in _shapes(config) if not name.startswith("pooler."))
    made: dict[str, nn.Module] = {"pooler": pooler, **heads, **{name: nn.Linear(1, 1) for name in TASK_PARTS}}
    return {
        "encoder": names,
        **{part: tuple(f"{part}.{name}" for name in module.state_dict()) for part, module in made.items()},
    }


@lru_cache(maxsize=64)
def _shapes(config: EncoderConfig) -> dict[str, torch.Size]:
    """The shapes of an encoder's weights as its config has them."""
    with torch.device("meta"):
        return {name: one.shape for name, one in Encoder(config).state_dict().items()}


def is_plain(config: EncoderConfig, state: Mapping[str, Tensor]) -> bool:
    """Whether an encoder's weights are what its config says, as `transformers` has them: not int8, none taken away."""
    return not quantized(state) and all(
        state[name].shape == shape for name, shape in _shapes(config).items() if name in state
    )


def names(config: EncoderConfig, task: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every weight that a config can have, and its names in a folder whose class ends in `task`.

    Those without any in `transformers` are left out.
    """
    family = FAMILIES[config.model_type]
    table = {ours: [family.backbone + name for name in theirs] for ours, theirs in family.names.items()}
    table |= family.head_names(task)
    known = {name for part in part_names(config).values() for name in part}
    for ours, theirs in table.items():
        for number in range(config.num_hidden_layers) if "{}" in ours else range(1):
            for kind in ("weight", "bias") if "*" in ours else ("",):
                filled = [one.replace("{}", str(number)).replace("*", kind) for one in (ours, *theirs)]
                if filled[0] in known:
                    yield filled[0], filled[1:]


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
        "tokenizer_config.json",
        "special_tokens_map.json",
        *FILES,
        "merges.txt",
        "README.md",
        # What sentence-transformers says of a model.
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "*_Pooling/config.json",
        OWN_WEIGHTS,
        *WEIGHTS[:2],
        "model-*.safetensors",
    ]
    try:
        folder = Path(snapshot_download(text, allow_patterns=patterns))
        if not any((folder / name).exists() for name in (OWN_WEIGHTS, *WEIGHTS[:2])):
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
    kind = given.pop("model_type", "bert")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"model_type: {nearest(kind, FAMILIES)}", file)
    with blaming(file, "describes no model that can be made"):
        try:
            return FAMILIES[kind].config(given)
        except InputError as error:
            raise InputError(str(error), file) from None


def _task_of(folder: Path, family: Family) -> str:
    """What stands behind the family's name in the class that a folder names, as `ForMaskedLM`."""
    file = folder / "config.json"
    given = read_json(file).get("architectures") if file.is_file() else None
    first = given[0] if isinstance(given, list) and given else ""
    return str(first).removeprefix(family.classes)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder's weights; no code in a file is ever run."""
    file = next((folder / name for name in (OWN_WEIGHTS, *WEIGHTS) if (folder / name).is_file()), None)
    if file is None:
        raise InputError(f"no weights there, one of {' '.join(WEIGHTS)} needed", folder)
    parts = [file]
    if file.suffix == ".json":
        with blaming(file):
            parts = [folder / name for name in sorted(set(read_json(file)["weight_map"].values()))]
    read = _pickled if file.name in WEIGHTS[2:] else _safetensors
    return {name: tensor for part in parts for name, tensor in read(part).items()}


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


def _modern(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Names as a class with a head has them: gamma and beta renamed, the backbone's prefix put before bare names."""
    renamed = {re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", name)): tensor for name, tensor in tensors.items()}
    if not family.backbone or any(name.startswith(family.backbone) for name in renamed):
        return renamed
    stems = tuple({f"{theirs.partition('.')[0]}." for one in family.names.values() for theirs in one})
    return {family.backbone + name if name.startswith(stems) else name: tensor for name, tensor in renamed.items()}


def read_state(folder: Path, config: EncoderConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Our state dict of a folder, with whichever of `PARTS` it holds, and the names of other tasks' heads.

    A name that is missing or unknown in the encoder or in our heads raises.
    """
    family = FAMILIES[config.model_type]
    tensors = {name: one for name, one in _modern(read_tensors(folder), family).items() if not BUFFERS.search(name)}
    for second, first in family.twice.items():
        twin = tensors.pop(second, None)
        if twin is not None and not torch.equal(twin, tensors.setdefault(first, twin)):
            raise InputError(f"{second} differs from {first}, tied weights allowed", folder)
    own = [name for name in tensors if name.startswith(OWN)]
    small = {OWN + stem for stem in quantized(name.removeprefix(OWN) for name in own)}
    state = {
        name.removeprefix(OWN): _sound(name, tensors.pop(name), folder, whole=name.removesuffix(".weight") in small)
        for name in own
    }
    with blaming(folder / "config.json", "describes no model that can be made"):
        table, parts = dict(names(config, _task_of(folder, family))), part_names(config)
    missing: list[str] = []
    for part, wanted in parts.items():
        known = {ours: table.get(ours, [OWN + ours]) for ours in wanted if ours not in state}
        there = {ours: all(name in tensors for name in theirs) for ours, theirs in known.items()}
        if not all(there.values()) and part in TASK_PARTS and not any(ours in state for ours in wanted):
            continue  # another library's head of that name
        for ours, whole in there.items():
            if whole:
                found = [tensors.pop(name) for name in known[ours]]
                state[ours] = _sound(ours, torch.cat(found) if len(found) > 1 else found[0], folder)
        # Half a head is none that anyone saved.
        if (
            part == "encoder"
            or any(name in tensors for theirs in known.values() for name in theirs)
            or (any(ours in state for ours in wanted))
        ):
            missing += [name for ours, whole in there.items() if not whole for name in known[ours]]
    claims = (*family.claims, *((family.backbone,) if family.backbone else ()))
    left = [name for name in tensors if name.startswith(claims)]
    places = {name for wanted in parts.values() for name in wanted}
    tops = {name.split(".")[0] for name in parts["encoder"]}
    left += [
        OWN + name
        for name in state
        if name not in places | {f"{WORD}.up"}
        and name.split(".")[0] in tops
        and OWN + name.rpartition(".")[0] not in small
    ]
    if missing or left:
        what = [
            f"{kind} {', '.join(sorted(found)[:3])}" for kind, found in (("no", missing), ("unknown", left)) if found
        ]
        kind = f"{config.model_type} of {config.num_hidden_layers} layers"
        raise InputError(f"weights do not fit a {kind}: {'; '.join(what)}", folder)
    return state, sorted(tensors)


def _sound(name: str, tensor: Tensor, where: object, whole: bool = False) -> Tensor:
    """A tensor in fp32, or one of int8 (`whole`); raises where it holds no numbers that can be computed with."""
    if whole and tensor.dtype == torch.int8:
        return tensor
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
    tokenizer: Tokenizer | None = None,
    others: Mapping[str, Any] | None = None,
    task: str = "",
) -> None:
    """Write `config.json` and `model.safetensors` as `transformers` names and ties them, and the tokenizer's files.

    `task` is what the class there ends in that opens a fine-tuned model.
    """
    family = FAMILIES[config.model_type]
    task = task or _pretrained(config, state)
    tensors: dict[str, Tensor] = {}
    left, small = dict(state), quantized(state)
    for ours, theirs in names(config, task):
        if ours.rpartition(".")[0] in small:
            continue
        if ours in left and not (task == "Model" and ours.startswith(TASK_PARTS)):
            for name, part in zip(theirs, left.pop(ours).detach().cpu().chunk(len(theirs))):
                tensors[name] = part.contiguous()
    if task == "Model" and family.backbone:
        tensors = {name.removeprefix(family.backbone): tensor for name, tensor in tensors.items()}
    tensors |= {OWN + name: tensor.detach().cpu().contiguous() for name, tensor in left.items()}
    folder.mkdir(parents=True, exist_ok=True)
    file = WEIGHTS[0] if is_plain(config, state) else OWN_WEIGHTS
    save_file(dict(sorted(tensors.items())), folder / file, metadata={"format": "pt"})
    told = {"model_type": config.model_type, **(others or {}), "architectures": [family.classes + task]}
    if tokenizer is not None:
        ids = tokenizer.special.ids
        told = {**{key: ids[role] for key, role in family.special.items()}, **told}
        tokenizer.save(folder, config.longest, config.type_vocab_size > 1 and tokenizer.special.segments)
    write_json(folder / "config.json", json.loads(json.dumps({**told, **family.settings(config)})))
    if config.direction == "two-way":
        _write_sides(folder, config, state, tokenizer)


def _write_sides(folder: Path, config: EncoderConfig, state: Mapping[str, Tensor], tokenizer: Tokenizer | None) -> None:
    """Of a two-way model each stack as a left-to-right BERT for `transformers`; the right one reads texts backwards."""
    side = replace(config.side, model_type="bert")
    for name, other in (("left", "right"), ("right", "left")):
        own = {
            key.replace(f".{name}.", "."): tensor
            for key, tensor in state.items()
            if f".{other}." not in key and key.startswith(("embeddings.", "layers.", "mlm."))
        }
        write(folder / f"{name}-to-{other}", side, own, tokenizer, dict([BACKWARDS]) if name == "right" else None)


def _pretrained(config: EncoderConfig, state: Mapping[str, Tensor]) -> str:
    """What the class of a pretrained model ends in."""
    family, parts = FAMILIES[config.model_type], {name.partition(".")[0] for name in state}
    if config.direction == "left-to-right" and "mlm" in parts:
        return family.causal
    return next((kind for kind, wanted in family.pretrained.items() if parts.issuperset(wanted)), "Model")
