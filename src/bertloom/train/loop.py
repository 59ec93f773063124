"""The loop: a generator that makes one optimiser step per item. It knows objectives and tasks by their protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bertloom.errors import InputError
from bertloom.model.noise import dropout_stream
from bertloom.model.packed import Batch
from bertloom.train.memory import keep_freed_memory, one_dnn
from bertloom.train.optimizer import clip_gradients


class Objective(Protocol):
    """What the loop asks of an objective or of a task made one."""

    weights: dict[str, float]

    def counts(self, batch: Batch) -> dict[str, int]:
        """Labels by loss."""

    def __call__(self, encoder: Any, batch: Batch) -> dict[str, Tensor]:
        """Summed losses by name."""


@dataclass(frozen=True)
class Step:
    """What one optimiser step was: mean losses by name, real tokens, seconds, rate, and the gradient's norm."""

    number: int
    losses: dict[str, float]
    tokens: int
    seconds: float
    learning_rate: float
    norm: float


def accumulate(
    encoder: nn.Module, objective: Objective, micro: list[Batch], autocast: AbstractContextManager[Any]
) -> dict[str, float]:
    """Add the step's gradients, losses being sums divided once by the counts over all of its micro-batches."""
    counts: dict[str, int] = {}
    for batch in micro:
        for name, count in objective.counts(batch).items():
            counts[name] = counts.get(name, 0) + count
    totals = dict.fromkeys(counts, 0.0)
    for batch in micro:
        with autocast:
            losses = objective(encoder, batch)
        shares = {name: loss / max(1, counts[name]) for name, loss in losses.items()}
        torch.stack([objective.weights[name] * share for name, share in shares.items()]).sum().backward()  # type: ignore[no-untyped-call]
        for name, share in shares.items():
            totals[name] += float(share.detach())
    return totals


def steps(
    encoder: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[list[Batch]],
    *,
    first: int,
    rate: Callable[[int], float],
    seed: int,
    clip: float = 1.0,
    precision: str = "fp32",
) -> Iterator[Step]:
    """One optimiser step for each item of `batches`, numbered from `first`; dropout is seeded by (seed, step).

    Raises `InputError` with a diagnosis where a loss or the gradient is not finite, before weights change.
    """
    keep_freed_memory()
    device = next(encoder.parameters()).device
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, micro in enumerate(batches, first):
        began = time.perf_counter()
        encoder.train()
        if isinstance(objective, nn.Module):
            objective.train()
        micro = [batch.to(device) for batch in micro]
        optimizer.zero_grad(set_to_none=True)
        autocast = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
        with dropout_stream(seed, number), one_dnn(precision == "bf16"):
            losses = accumulate(encoder, objective, micro, autocast)
        norm = float(clip_gradients(parameters, clip))
        for group in optimizer.param_groups:
            group["lr"] = rate(number) * group.get("scale", 1.0)
        _require_finite(number, losses, norm, rate(number), encoder)
        optimizer.step()
        tokens = sum(len(batch.input_ids) for batch in micro)
        yield Step(number, losses, tokens, time.perf_counter() - began, rate(number), norm)


def _require_finite(number: int, losses: dict[str, float], norm: float, rate: float, encoder: nn.Module) -> None:
    values = torch.tensor([*losses.values(), norm])
    if bool(values.isfinite().all()):
        return
    bad = [name for name, weight in encoder.named_parameters() if not bool(weight.isfinite().all())]
    where = f"weights not finite: {', '.join(bad[:3])}" if bad else "all weights are finite"
    said = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    raise InputError(
        f"step {number}: loss or gradient not finite ({said}, gradient {norm:.4g}, rate {rate:.3g}; {where}); what "
        "was saved stands; a new --output with a lower --learning-rate, a longer --warmup or --precision fp32 helps"
    )
