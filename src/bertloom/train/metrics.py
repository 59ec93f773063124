"""What a run wrote down: `metrics.jsonl`, one line a step, and the picture of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from bertloom.errors import InputError
from bertloom.files import whole_file


def read_metrics(path: Path, until: int | None = None) -> list[dict[str, Any]]:
    """The lines of a metrics file, up to and with step `until`; half a line at a killed run's end is left out."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [row for row in rows if until is None or row["step"] <= until]


class Metrics:
    """`metrics.jsonl` being written, and TensorBoard's events beside it where asked; resuming drops what is redone."""

    def __init__(self, run: Path, resumed: int, tensorboard: bool):
        self.path = run / "metrics.jsonl"
        self.rows = read_metrics(self.path, resumed)
        with whole_file(self.path) as beside:
            beside.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        self.file: TextIO = self.path.open("a", encoding="utf-8")
        self.board = _board(run, resumed) if tensorboard else None

    def add(self, row: dict[str, Any]) -> None:
        """One line, on disk at once for whoever watches; every number goes to TensorBoard by its name."""
        self.rows.append(row)
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        if self.board:
            for name, value in _numbers(row):
                self.board.add_scalar(name, value, row["step"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.file.close()
        if self.board:
            self.board.close()


def _numbers(row: dict[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Every number of nested dicts, named by its path."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{above}{name}/")
        elif above + name != "step":
            yield above + name, value


def _board(run: Path, resumed: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("tensorboard: is not installed: pip install 'bertloom[tensorboard]'") from None
    return SummaryWriter(str(run / "tensorboard"), purge_step=resumed + 1)


def _smoothed(values: list[float], share: float = 0.98) -> list[float]:
    """An exponential mean, corrected for its beginning."""
    result, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = share * total + (1 - share) * value, share * weight + (1 - share)
        result.append(total / weight)
    return result


def draw_curves(rows: list[dict[str, Any]], path: Path, title: str, guessing: dict[str, float]) -> None:
    """Losses over steps, held-out ones as dots, guessing as a dashed line; rate and speed below."""
    from matplotlib.figure import Figure

    steps = [row for row in rows if "tokens" in row]
    measured = [row for row in rows if "held_out" in row]
    names = sorted({name for row in steps for name in row["losses"]})
    figure = Figure(figsize=(4.2 * max(2, len(names) + 1), 4.2), layout="constrained")
    axes = figure.subplots(1, max(2, len(names) + 1))
    for name, axis in zip(names, axes):
        x, y = [row["step"] for row in steps], [row["losses"][name] for row in steps]
        axis.plot(x, y, color="#9ecae1", linewidth=0.7, label="training")
        axis.plot(x, _smoothed(y), color="#08519c", linewidth=1.6, label="training, smoothed")
        if measured:
            dots = [row["held_out"][name]["loss"] for row in measured]
            axis.plot([row["step"] for row in measured], dots, "o-", color="#d94801", markersize=4, label="held out")
        if name in guessing:
            axis.axhline(guessing[name], color="#636363", linestyle="--", linewidth=1, label="guessing")
        axis.set(title=f"{name.upper()} loss", xlabel="step", ylabel="nats")
        axis.legend(fontsize=8)
    rate, speed = axes[-1], axes[-1].twinx()
    x = [row["step"] for row in steps]
    rate.plot(x, [row["learning_rate"] for row in steps], color="#31a354", label="learning rate")
    speed.plot(x, _smoothed([row["tokens"] / row["seconds"] for row in steps], 0.9), color="#756bb1", linewidth=1)
    rate.set(title="Rate (green) and tokens/s (violet)", xlabel="step")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    speed.set_ylim(bottom=0)
    figure.suptitle(title, fontsize=10)
    with whole_file(path) as beside:
        figure.savefig(beside, dpi=120, format="png")
