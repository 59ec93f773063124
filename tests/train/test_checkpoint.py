from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from bertloom.errors import InputError
from bertloom.train import checkpoint
from bertloom.train.optimizer import adamw


def stepped() -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    linear = nn.Linear(3, 2)
    optimizer = adamw(linear.named_parameters(), 0.01)
    linear(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return linear, optimizer


def write_model(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_text("weights")


def found(run: Path, warn: Callable[[str], None]) -> tuple[int, Path] | None:
    newest = checkpoint.newest(run, warn)
    return (newest[0]["step"], newest[1]) if newest else None


def no_warning(message: str) -> None:
    raise AssertionError(message)


def test_saved_kept_and_pointed_at(tmp_path: Path) -> None:
    _, optimizer = stepped()
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, step, write_model, optimizer, keep=2)
    assert [folder.name for folder in checkpoint.all_in(tmp_path)] == ["checkpoint-00000015", "checkpoint-00000010"]
    assert os.readlink(tmp_path / "model") == "checkpoint-00000015/model"
    assert (tmp_path / "model" / "model.safetensors").read_text() == "weights"
    assert found(tmp_path, no_warning) == (15, tmp_path / "checkpoint-00000015")
    assert checkpoint.newest(tmp_path / "none", no_warning) is None


def test_moments_return_bit_for_bit(tmp_path: Path) -> None:
    _, optimizer = stepped()
    folder = checkpoint.save(tmp_path, 1, write_model, optimizer, keep=1)
    linear = nn.Linear(3, 2)
    fresh = adamw(linear.named_parameters(), 0.01)
    checkpoint.load_moments(fresh, folder)
    old, new = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert old.keys() == new.keys()
    for index in old:
        assert old[index].keys() == new[index].keys()
        assert all(torch.equal(old[index][key], new[index][key]) for key in old[index])
    assert not any(file.suffix in (".bin", ".pt", ".pkl") for file in tmp_path.rglob("*"))


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove", "manifest"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(tmp_path: Path, harm: str) -> None:
    _, optimizer = stepped()
    for step in (5, 10):
        folder = checkpoint.save(tmp_path, step, write_model, optimizer, keep=2)
    file = folder / "state" / ("step.json" if harm == "manifest" else "optimizer.safetensors")
    content = file.read_bytes()
    if harm == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:-7] if harm != "flip" else content[:-1] + bytes([content[-1] ^ 1]))
    warnings: list[str] = []
    assert found(tmp_path, warnings.append) == (5, tmp_path / "checkpoint-00000005")
    assert len(warnings) == 1
    assert "checkpoint-00000010" in warnings[0]
    assert folder.is_dir(), "nothing is removed before something better is there"
    checkpoint.save(tmp_path, 10, write_model, optimizer, keep=2)
    assert found(tmp_path, no_warning) == (10, folder)


def test_damaged_ones_beyond_the_step_go_when_the_next_is_whole(tmp_path: Path) -> None:
    _, optimizer = stepped()
    for step in (5, 10):
        checkpoint.save(tmp_path, step, write_model, optimizer, keep=2)
    checkpoint.save(tmp_path, 7, write_model, optimizer, keep=2)
    assert [folder.name for folder in checkpoint.all_in(tmp_path)] == ["checkpoint-00000007", "checkpoint-00000005"]


def test_no_checkpoint_left_whole(tmp_path: Path) -> None:
    _, optimizer = stepped()
    folder = checkpoint.save(tmp_path, 5, write_model, optimizer, keep=2)
    (folder / "model" / "model.safetensors").write_text("other")
    for _ in range(2):
        with pytest.raises(InputError, match="every checkpoint is damaged"):
            checkpoint.newest(tmp_path, lambda message: None)
    assert folder.is_dir()


def test_a_failing_save_leaves_the_previous_one(tmp_path: Path) -> None:
    _, optimizer = stepped()
    checkpoint.save(tmp_path, 5, write_model, optimizer, keep=1)

    def full_disk(folder: Path) -> None:
        write_model(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 10, full_disk, optimizer, keep=1)
    assert found(tmp_path, no_warning) == (5, tmp_path / "checkpoint-00000005")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-00000005", "model"]
