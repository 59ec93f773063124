"""What came of a fine-tuning: scores by seed, their spread, and pictures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertloom.files import whole_file
from bertloom.train.metrics import only_boxes, plain

FILE = "report.json"
# More labels than this are a picture without names and numbers.
READABLE = 40


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, deviation (of a sample) and range."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {
        "mean": statistics.fmean(values),
        "deviation": deviation,
        "low": min(values),
        "high": max(values),
    }


def over_seeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """By metric the spread over the runs' scores."""
    names = [name for name in runs[0]["scores"] if all(name in run["scores"] for run in runs)]
    return {name: spread([run["scores"][name] for run in runs]) for name in names}


def over_fitting(rows: Sequence[Mapping[str, Any]], task: str, epoch: int) -> str | None:
    """A word on a dev loss that rose again while training went on."""
    losses = [(row["step"], row["held_out"][task]["loss"]) for row in rows if "held_out" in row]
    if len(losses) < 2:
        return None
    (step, lowest), (_, last) = min(losses, key=lambda one: one[1]), losses[-1]
    if not math.isfinite(lowest) or last < 1.1 * lowest + 0.01:
        return None
    return (
        f"dev loss was lowest after {step / epoch:.1f} epochs ({lowest:.3f}) and {last:.3f} at the end: the model "
        "learns its training data by heart; the best checkpoint is kept, --patience 1 ends such a run sooner"
    )


def draw_confusion(matrix: Any, labels: Sequence[str], path: Path) -> None:
    """Counts of gold labels (rows) by given ones (columns), coloured by the share of the row."""
    from matplotlib.figure import Figure

    size = min(20.0, max(3.2, 0.55 * len(labels) + 1.6))
    small = len(labels) <= READABLE
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axis = figure.subplots()
    shares = matrix / matrix.sum(1, keepdims=True).clip(1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(labels) if small else 0):
        for column in range(len(labels)):
            if matrix[row, column] or len(labels) < 12:
                color = "white" if shares[row, column] > 0.6 else "black"
                axis.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=color, fontsize=8)
    places = range(len(labels))
    shown = [plain(label) if len(label) < 18 else f"{plain(label[:16])}…" for label in labels]
    if small:
        axis.set_xticks(places, shown, rotation=90 if len(labels) > 4 else 0)
        axis.set_yticks(places, shown)
    axis.set(xlabel="given", ylabel="gold", title="On dev")
    with whole_file(path) as beside, only_boxes():
        figure.savefig(beside, dpi=120, format="png")
