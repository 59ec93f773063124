"""Attention as a picture for a paper: one head's lines and map, or every head small."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertloom.errors import InputError
from bertloom.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bertloom.inspect.view import View

# Lines weaker than this are not drawn.
WEAKEST = 0.02
# Looked for in turn.
FONTS = ("Noto Sans CJK KR", "Noto Sans CJK JP", "NanumGothic", "Noto Sans Hebrew", "Noto Sans Arabic", "Noto Emoji")
INK = "#1f62b4"
# Texts of more tokens would be a picture of lines that nobody can tell apart.
MOST_LINES = 80


def draw(view: View, path: Path, head: tuple[int, int] | None) -> None:
    """An `.svg` or `.png` of one head (layer, head, both from 1), or of all."""
    from matplotlib import font_manager, rc_context

    # Scripts that the first font lacks are looked for in the others; in an SVG text stays text.
    there = {one.name for one in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in FONTS if name in there)]
    with rc_context({"svg.fonttype": "none", "font.family": fonts}), warnings.catch_warnings():
        # Letters that no font has are seen in the picture.
        warnings.filterwarnings("ignore", "Glyph ")
        _draw(view, path, head)


def _draw(view: View, path: Path, head: tuple[int, int] | None) -> None:
    from matplotlib.figure import Figure

    weights = [one.attentions[0].float().cpu().numpy() for one in view.insides[1:]]
    if head is not None:
        for name, value, most in (("layer", head[0], len(weights)), ("head", head[1], len(weights[0]))):
            if not 1 <= value <= most:
                raise InputError(f"{name}: {value} given, 1 to {most} allowed")
        shown = weights[head[0] - 1][head[1] - 1]
        lined = len(shown) <= MOST_LINES
        tall = max(3.0, 0.22 * len(shown)) if lined else 7.0
        figure = Figure((4.5 + tall if lined else tall, tall), layout="constrained")
        axes = figure.subplots(1, 1 + lined, squeeze=False)[0]
        if lined:
            _lines(axes[0], view.tokens, shown)
        _map(axes[-1], view.tokens if lined else [], shown)
        figure.suptitle(f"Layer {head[0]}, head {head[1]}", fontsize=10)
    else:
        rows, columns = len(weights), len(weights[0])
        figure = Figure((0.7 * columns + 0.6, 0.7 * rows + 0.6), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for row, column in np.ndindex(rows, columns):
            one: Any = axes[row, column]
            _map(one, [], weights[row][column])
            if not row:
                one.set_title(str(column + 1), fontsize=7)
            if not column:
                one.set_ylabel(str(row + 1), fontsize=7, rotation=0, labelpad=8, va="center")
    with whole_file(path) as beside:
        figure.savefig(beside, format=path.suffix[1:], dpi=200)


def _lines(axes: Axes, tokens: list[str], weights: npt.NDArray[np.float32]) -> None:
    """From tokens on the left to those they attend to on the right."""
    for row, column in zip(*np.nonzero(weights >= WEAKEST)):
        share = float(weights[row, column])
        axes.plot([0, 1], [row, column], color=INK, alpha=share**0.5, linewidth=0.4 + 2 * share, solid_capstyle="butt")
    for place, token in enumerate(tokens):
        # What looks like a formula is a user's text.
        axes.text(-0.03, place, token, ha="right", va="center", fontsize=8, parse_math=False)
        axes.text(1.03, place, token, ha="left", va="center", fontsize=8, parse_math=False)
    axes.set(xlim=(-0.5, 1.5), ylim=(len(tokens) - 0.4, -0.6))
    axes.axis("off")


def _map(axes: Axes, tokens: list[str], weights: npt.NDArray[np.float32]) -> None:
    """Rows attend to columns; square roots, so that small weights are seen."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("weights", ["#ffffff", INK])
    axes.imshow(weights**0.5, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=7)
    axes.set_yticks(range(len(tokens)), tokens, fontsize=7)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
