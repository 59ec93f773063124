from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bertloom.errors import InputError
from bertloom.train import metrics as home
from bertloom.train.metrics import Metrics, draw_curves, read_metrics

ROW = {"losses": {"mlm": 2.0, "nsp": 0.7}, "tokens": 100, "seconds": 0.1, "learning_rate": 1e-3}


def read(run: Path) -> list[tuple[dict[str, object], int]]:
    with (run / "metrics.jsonl").open("rb") as file:
        return list(read_metrics(file))


def test_metrics_drop_what_is_done_again_and_half_a_line(tmp_path: Path) -> None:
    with Metrics(tmp_path, 0) as metrics:
        for step in (1, 2, 3):
            metrics.add({"step": step, "losses": {"mlm": 1.0}})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "los')
    assert [row["step"] for row, _ in read(tmp_path)] == [1, 2, 3]
    with Metrics(tmp_path, 2) as metrics:
        metrics.add({"step": 3, "losses": {"mlm": 0.5}})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["losses"]["mlm"]) for row in rows] == [(1, 1.0), (2, 1.0), (3, 0.5)]


def test_a_line_that_is_no_metrics_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "tokens": 5}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl:2: is no line of metrics"):
        Metrics(tmp_path, 5)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(InputError, match=r"metrics.jsonl:2: is no line of metrics"):
        Metrics(tmp_path, 5)


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    code = "import sys, pathlib, bertloom.train.metrics as m; m.Metrics(pathlib.Path(sys.argv[1]), 0)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with Metrics(tmp_path, 0):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "another process is training in it" in done.stderr
    subprocess.run(command, check=True)


def test_tensorboard_events(tmp_path: Path) -> None:
    with Metrics(tmp_path, 0) as metrics:
        metrics.open_board()
        metrics.add({"step": 1, "losses": {"mlm": 1.5}, "norm": 2.0, "held_out": {"mlm": {"loss": 3.0}}})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Scalars("norm")[0].value == 2.0
    assert events.Scalars("losses/mlm")[0].value == 1.5
    assert events.Scalars("held_out/mlm/loss")[0].value == 3.0


def test_curves_are_a_picture(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"step": step, **ROW} for step in range(1, 9)]
    rows.append({"step": 8, "held_out": {"mlm": {"loss": 2.0}, "nsp": {"loss": 0.6}}})
    draw_curves(rows, tmp_path / "curves.png", "title", {"mlm": 6.0})
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_a_long_run_is_thinned_for_its_picture_and_whole_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "MOST_POINTS", 10)
    with Metrics(tmp_path, 0) as metrics:
        for step in range(1, 101):
            metrics.add({"step": step, **ROW})
            if step % 30 == 0:
                metrics.add({"step": step, "held_out": {}})
    assert metrics.tokens == 100 * 100
    kept = [row["step"] for row in metrics.rows if "tokens" in row]
    assert 10 <= len(kept) < 20
    assert len(set(np.diff(kept))) == 1, "the same distance everywhere"
    assert [row["step"] for row in metrics.rows if "held_out" in row] == [30, 60, 90]
    assert len(read(tmp_path)) == 103
    with Metrics(tmp_path, 100) as again:
        assert (again.tokens, again.rows) == (metrics.tokens, metrics.rows)
