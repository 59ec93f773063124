"""What a run wrote down: `metrics.jsonl`, one line a step, and the picture of it."""

from __future__ import annotations

import fcntl
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from bertloom.errors import InputError
from bertloom.files import whole_file

FILE = "metrics.jsonl"
# Steps that a picture shows; of a longer run every second one is left out, again and again.
MOST_POINTS = 4096


def read_metrics(file: BinaryIO, until: int | None = None) -> Iterator[tuple[dict[str, Any], int]]:
    """Each line of an open metrics file up to and with step `until`, and the byte where it ends.

    Half a line at a killed run's end is left out.
    """
    size = 0
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
            return
        try:
            row = json.loads(line)
            if not isinstance(row["step"], int) or ("tokens" in row and not _is_step(row)):
                raise TypeError
            if until is not None and row["step"] > until:
                return
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError("is no line of metrics", file.name, number) from None
        size += len(line)
        yield row, size


def _is_step(row: dict[str, Any]) -> bool:
    numbers = [row["tokens"], row["seconds"], row["learning_rate"], *row["losses"].values()]
    return all(isinstance(number, int | float) for number in numbers)


class Metrics:
    """`metrics.jsonl` being written, and TensorBoard's events beside it where asked; resuming drops what is redone.

    `tokens` counts those of all steps; `rows` are the held-out measures and the steps that a picture shows.
    """

    def __init__(self, run: Path, resumed: int):
        self.run, self.resumed = run, resumed
        # Opened before it is read, so that of two runs in one folder the second is told.
        self.file = (run / FILE).open("a+b")
        _lock(self.file, run)
        self.file.seek(0)
        self.tokens, self.stride, size = 0, 1, 0
        self.steps: list[dict[str, Any]] = []
        self.measures: list[dict[str, Any]] = []
        for row, end in read_metrics(self.file, resumed):
            self._keep(row)
            size = end
        self.file.truncate(size)
        self.board: Any = None

    def open_board(self) -> None:
        """Write TensorBoard's events from now on."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("tensorboard: is not installed: pip install 'bertloom[tensorboard]'") from None
        self.board = SummaryWriter(str(self.run / "tensorboard"), purge_step=self.resumed + 1)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What a picture shows."""
        return [*self.steps, *self.measures]

    def _keep(self, row: dict[str, Any]) -> None:
        if "tokens" not in row:
            self.measures.append(row)
            return
        self.tokens += row["tokens"]
        if row["step"] % self.stride == 0:
            self.steps.append(row)
        if len(self.steps) == 2 * MOST_POINTS:
            self.stride *= 2
            self.steps = [one for one in self.steps if one["step"] % self.stride == 0]

    def add(self, row: dict[str, Any]) -> None:
        """One line, on disk at once for whoever watches; every number goes to TensorBoard by its name."""
        self._keep(row)
        self.file.write(json.dumps(row).encode() + b"\n")
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


def _lock(file: BinaryIO, run: Path) -> None:
    """Have the run's folder to ourselves until this process closes that path, here or elsewhere, or ends."""
    try:
        # Not `flock`, whose lock a killed run's workers would hold for some seconds more.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise busy(run) from None


def busy(run: Path) -> InputError:
    """The error of a folder that another process has."""
    return InputError("another process is training in it; wait for it or give another --output", run)


def _numbers(row: dict[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Every number of nested dicts, named by its path."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{above}{name}/")
        elif above + name != "step":
            yield above + name, value


def _smoothed(values: list[float], share: float = 0.98) -> list[float]:
    """An exponential mean, corrected for its beginning."""
    result, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = share * total + (1 - share) * value, share * weight + (1 - share)
        result.append(total / weight)
    return result


def draw_curves(rows: list[dict[str, Any]], path: Path, title: str, guessing: dict[str, float]) -> None:
    """Losses over steps, held-out ones as dots, guessing as a dashed line; rate and speed beside them."""
    steps = [row for row in rows if "tokens" in row]
    names = sorted({name for row in steps for name in row["losses"]})
    figure, axes = _figure(max(2, len(names) + 1), title)
    for name, axis in zip(names, axes):
        _draw_loss(axis, rows, name, "held out")
        if name in guessing:
            axis.axhline(guessing[name], color="#636363", linestyle="--", linewidth=1, label="guessing")
        axis.legend(fontsize=8)
    _draw_rate(axes[-1], steps)
    _save(figure, path)


def draw_scores(rows: list[dict[str, Any]], path: Path, title: str, metric: str) -> None:
    """A task's loss in training and on dev, its deciding metric on dev; rate and speed beside them."""
    steps, measured = ([row for row in rows if kind in row] for kind in ("tokens", "held_out"))
    figure, axes = _figure(3, title)
    # Of a teacher's answers and insides, the answers.
    _draw_loss(axes[0], rows, next(iter(steps[0]["losses"])), "dev")
    axes[0].legend(fontsize=8)
    scores = [next(iter(row["held_out"].values()))[metric] for row in measured]
    axes[1].plot([row["step"] for row in measured], scores, "o-", color="#d94801", markersize=4)
    if scores:
        best = scores.index(max(scores))
        axes[1].plot(measured[best]["step"], scores[best], "o", color="#31a354", markersize=8, label="best, kept")
        axes[1].legend(fontsize=8)
    axes[1].set(title=f"{plain(metric)} on dev", xlabel="step")
    _draw_rate(axes[2], steps)
    _save(figure, path)


def _figure(panels: int, title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * panels, 4.2), layout="constrained")
    figure.suptitle(title, fontsize=10)
    return figure, figure.subplots(1, panels)


def _draw_loss(axis: Any, rows: list[dict[str, Any]], name: str, aside: str) -> None:
    steps, measured = ([row for row in rows if kind in row] for kind in ("tokens", "held_out"))
    x, y = [row["step"] for row in steps], [row["losses"][name] for row in steps]
    axis.plot(x, y, color="#9ecae1", linewidth=0.7, label="training")
    axis.plot(
        x,
        _smoothed(y, min(0.98, max(0.5, 1 - 20 / len(y)))),
        color="#08519c",
        linewidth=1.6,
        label="training, smoothed",
    )
    # What is learned of a teacher is not asked of held-out text.
    if dots := {row["step"]: row["held_out"][name]["loss"] for row in measured if name in row["held_out"]}:
        axis.plot(list(dots), list(dots.values()), "o-", color="#d94801", markersize=4, label=aside)
    axis.set(title=f"{name.upper() if len(name) < 5 else name} loss", xlabel="step", ylabel="nats")


def _draw_rate(rate: Any, steps: list[dict[str, Any]]) -> None:
    speed = rate.twinx()
    x = [row["step"] for row in steps]
    rate.plot(x, [row["learning_rate"] for row in steps], color="#31a354", label="learning rate")
    speed.plot(x, _smoothed([row["tokens"] / row["seconds"] for row in steps], 0.9), color="#756bb1", linewidth=1)
    rate.set(title="Rate (green) and tokens/s (violet)", xlabel="step")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    speed.set_ylim(bottom=0)


def plain(text: str) -> str:
    """A text as matplotlib shows it and not as a formula."""
    return text.replace("$", r"\$")


@contextmanager
def only_boxes() -> Iterator[None]:
    """Letters that the font lacks are boxes in a picture, and not lines on the terminal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _save(figure: Any, path: Path) -> None:
    with whole_file(path) as beside, only_boxes():
        figure.savefig(beside, dpi=120, format="png")
