"""Checkpoints: `RUN/checkpoint-00000060/{model,state}`, whole or not there, and `RUN/model` pointing at the newest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from bertloom.errors import InputError, blaming
from bertloom.files import flush, read_json, sha256, whole_folder, write_json

PREFIX = "checkpoint-"
MANIFEST = "state/step.json"


def save(
    run: Path,
    step: int,
    write_model: Callable[[Path], None],
    optimizer: torch.optim.Optimizer,
    keep: int,
    corpus: str = "",
    best: int | None = None,
) -> Path:
    """Save the state after `step` steps; earlier checkpoints beyond the newest `keep` go, and damaged later ones.

    `corpus` is what the data order goes by; a resume compares it. `best` is a step whose checkpoint stays, and is
    pointed at.
    """
    target = run / f"{PREFIX}{step:08d}"
    if damaged := at(run, step):
        shutil.rmtree(damaged)
    with whole_folder(target) as folder:
        (folder / "state").mkdir()
        write_model(folder / "model")
        save_file(_moments(optimizer), folder / "state" / "optimizer.safetensors")
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        hashes = {str(file.relative_to(folder)): sha256(file) for file in files}
        write_json(folder / MANIFEST, {"step": step, "torch": torch.__version__, "corpus": corpus, "files": hashes})
    chosen = (at(run, best) if best is not None else None) or target
    point(run, chosen)
    found = all_in(run)
    for old in [*found[: found.index(target)], *found[found.index(target) + keep :]]:
        if old != chosen:
            shutil.rmtree(old)
    return target


def point(run: Path, checkpoint: Path) -> None:
    """Make `RUN/model` a symbolic link to the model of a checkpoint, in one step."""
    link, target = run / "model", Path(checkpoint.name) / "model"
    beside = link.with_name(f".{link.name}.{os.getpid()}.part")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target, target_is_directory=True)
    os.replace(beside, link)
    flush(link.parent)


def at(run: Path, step: int) -> Path | None:
    """The checkpoint after that many steps, if it is there."""
    folder = run / f"{PREFIX}{step:08d}"
    return folder if folder.is_dir() else None


def all_in(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted(run.glob(f"{PREFIX}[0-9]*"), reverse=True)


def newest(run: Path, warn: Callable[[str], None]) -> tuple[dict[str, Any], Path] | None:
    """The newest checkpoint whose every file is as written, and its manifest; damaged ones are named and passed over.

    Nothing is removed: what cannot be read today may be read tomorrow, on another machine.
    """
    found = all_in(run)
    for folder in found:
        fault = damage(folder)
        if fault is None:
            return read_json(folder / MANIFEST), folder
        warn(f"{fault}; going back to the checkpoint before it")
    if found:
        raise InputError("every checkpoint is damaged; remove the run to begin again", run)
    return None


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, if anything."""
    try:
        with blaming(folder / MANIFEST):
            manifest: dict[str, Any] = read_json(folder / MANIFEST)
            files, _ = dict(manifest["files"]), int(manifest["step"])
        for name, hexadecimal in files.items():
            with blaming(folder / name):
                if sha256(folder / name) != hexadecimal:
                    raise InputError("is damaged or truncated", folder / name)
    except InputError as error:
        return str(error)
    return None


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's tensors as `NAME/KEY`."""
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    return {
        f"{names[index]}/{key}": value.detach().cpu().contiguous()
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def load_moments(optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Give an optimiser its tensors back."""
    tensors = load_file(checkpoint / "state" / "optimizer.safetensors")
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition("/")
        states.setdefault(names.index(owner), {})[key] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
