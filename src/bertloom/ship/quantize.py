"""A model in int8, calibrated on its user's texts, with what does not bear it left as it is, by measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.model.quantized import QuantizedEmbedding, QuantizedLinear, instruction_set
from bertloom.ship.measure import changed, size, speeds

# How much of the range of large inputs goes into the weights, and which part of a range is kept: the pair is chosen
# that leaves a layer's outputs nearest to what they were.
SHARES, KEPT = (0.0, 0.5, 0.65, 0.75, 0.85), (1.0, 0.85, 0.7)
# Rows of each layer's inputs to choose by, and texts to calibrate and to measure on.
ROWS, TEXTS = 1024, 512


@dataclass
class Report:
    """What quantising did: sizes in bytes, texts per second, and cosines with the vectors of before."""

    instruction_set: str
    size: tuple[int, int]
    speed: tuple[float, float] = (0.0, 0.0)
    agreement: float = 0.0
    least: float = 0.0
    # Layers in int8, and those that stay, with the agreement that each alone would bring back.
    int8: list[str] = field(default_factory=list)
    kept: dict[str, float] = field(default_factory=dict)


class _Watched(nn.Module):
    """A linear layer that keeps some of its inputs, and the largest of each."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear, self.rows, self.count = linear, list[Tensor](), 0
        self.most = torch.zeros(linear.in_features)

    def forward(self, x: Tensor) -> Tensor:
        self.most = torch.maximum(self.most, x.abs().amax(0))
        if self.count < ROWS:
            # Of every batch a few, from all over it.
            some = x[:: max(1, 4 * len(x) // ROWS)][: ROWS - self.count]
            self.rows.append(some.clone())
            self.count += len(some)
        return self.linear(x)  # type: ignore[no-any-return]


def quantize(model: Model, texts: Sequence[str], agreement: float = 0.995) -> tuple[Model, Report]:
    """A model whose linear layers and word embeddings are int8, and what that did.

    Calibrated on four of five of the texts; on the others the mean cosine of vectors with those of before is at least
    `agreement`, for which layers stay in fp32 as need be. Word embeddings that a language head shares stay.
    """
    texts = _texts(texts)
    if not 0 < agreement < 1:
        raise InputError(f"agreement: {agreement} given, above 0 and under 1 allowed")
    if model.encoder.embeddings.word.weight.device.type != "cpu":
        raise InputError("int8 is for CPUs, a model on one needed")
    model.require_learning()
    checked, used = texts[::5], [text for number, text in enumerate(texts) if number % 5]
    made = changed(model, "linear layers and word embeddings in int8")
    encoder = made.encoder
    if not any(name == "mlm" for name in model.heads):
        encoder.set_submodule("embeddings.word", QuantizedEmbedding.of(encoder.embeddings.word))
    before = _unit(model.encode(checked))
    linears = {name: one for name, one in encoder.layers.named_modules(prefix="layers") if isinstance(one, nn.Linear)}
    smaller = _calibrated(made, linears, used)
    for name, one in smaller.items():
        encoder.set_submodule(name, one)
    report = Report(instruction_set(), (size(model), 0))
    found = _agreement(made, checked, before)
    if found.mean() < agreement:
        gains: dict[str, float] = {}
        for name, one in smaller.items():
            encoder.set_submodule(name, linears[name])
            gains[name] = float(_agreement(made, checked, before).mean())
            encoder.set_submodule(name, one)
        for name in sorted(gains, key=lambda name: -gains[name]):
            encoder.set_submodule(name, linears[name])
            report.kept[name] = gains[name]
            found = _agreement(made, checked, before)
            if found.mean() >= agreement:
                break
    report.int8 = [name for name in smaller if name not in report.kept]
    report.agreement, report.least = float(found.mean()), float(found.min())
    before_after = speeds((model, made), texts)
    report.size, report.speed = (size(model), size(made)), (before_after[0], before_after[1])
    return made, report


def _texts(texts: Sequence[str]) -> list[str]:
    if len(texts) < 10:
        raise InputError(f"{len(texts)} texts to calibrate on, at least 10 needed")
    # From all over them.
    return list(texts[:: max(1, len(texts) // TEXTS)][:TEXTS])


@torch.no_grad()
def _calibrated(made: Model, linears: dict[str, nn.Linear], texts: Sequence[str]) -> dict[str, QuantizedLinear]:
    """Each linear layer in int8, as near to itself as can be."""
    watched = {name: _Watched(linear) for name, linear in linears.items()}
    for name, one in watched.items():
        made.encoder.set_submodule(name, one)
    made.encode(texts)
    return {name: _nearest(linears[name], torch.cat(one.rows), one.most) for name, one in watched.items()}


def _nearest(linear: nn.Linear, rows: Tensor, most: Tensor) -> QuantizedLinear:
    """The int8 layer whose outputs of some inputs (R, I) are nearest, as this CPU computes them."""
    wanted, widest = linear(rows), linear.weight.abs().amax(0).clamp(min=1e-5)
    best: tuple[float, QuantizedLinear] | None = None
    for share in SHARES:
        smooth = widest ** (1 - share) / most.clamp(min=1e-5) ** share if share else torch.ones_like(most)
        inputs = rows * smooth
        low, high = float(inputs.min()), float(inputs.max())
        for kept in KEPT:
            one = QuantizedLinear.of(linear, smooth, kept * low, kept * high)
            error = float((one(rows) - wanted).square().mean())
            if best is None or error < best[0]:
                best = error, one
    assert best is not None
    return best[1]


def _agreement(model: Model, texts: Sequence[str], before: np.ndarray) -> np.ndarray:
    """(n,) cosines."""
    return (_unit(model.encode(texts)) * before).sum(1)  # type: ignore[no-any-return]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return F.normalize(torch.from_numpy(vectors)).numpy()
