from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from bertloom.errors import InputError
from bertloom.train import checkpoint
from bertloom.train.metrics import Metrics, draw_curves, read_metrics
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


def test_metrics_drop_what_is_done_again_and_half_a_line(tmp_path: Path) -> None:
    with Metrics(tmp_path, 0, tensorboard=False) as metrics:
        for step in (1, 2, 3):
            metrics.add({"step": step, "losses": {"mlm": 1.0}})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "los')
    assert [row["step"] for row in read_metrics((tmp_path / "metrics.jsonl").open("rb"))[0]] == [1, 2, 3]
    with Metrics(tmp_path, 2, tensorboard=False) as metrics:
        metrics.add({"step": 3, "losses": {"mlm": 0.5}})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["losses"]["mlm"]) for row in rows] == [(1, 1.0), (2, 1.0), (3, 0.5)]


def test_a_line_that_is_no_metrics_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(InputError, match=r"metrics.jsonl:2: is no line of metrics"):
        Metrics(tmp_path, 5, tensorboard=False)


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    code = "import sys, pathlib, bertloom.train.metrics as m; m.Metrics(pathlib.Path(sys.argv[1]), 0, False)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with Metrics(tmp_path, 0, tensorboard=False):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "another process is training in it" in done.stderr
    subprocess.run(command, check=True)


def test_tensorboard_events(tmp_path: Path) -> None:
    with Metrics(tmp_path, 0, tensorboard=True) as metrics:
        metrics.add({"step": 1, "losses": {"mlm": 1.5}, "norm": 2.0, "held_out": {"mlm": {"loss": 3.0}}})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Scalars("norm")[0].value == 2.0
    assert events.Scalars("losses/mlm")[0].value == 1.5
    assert events.Scalars("held_out/mlm/loss")[0].value == 3.0


def test_curves_are_a_picture(tmp_path: Path) -> None:
    row = {"losses": {"mlm": 2.0, "nsp": 0.7}, "tokens": 100, "seconds": 0.1, "learning_rate": 1e-3}
    rows = [{"step": step, **row} for step in range(1, 9)]
    rows.append({"step": 8, "held_out": {"mlm": {"loss": 2.0}, "nsp": {"loss": 0.6}}})
    draw_curves(rows, tmp_path / "curves.png", "title", {"mlm": 6.0})
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
