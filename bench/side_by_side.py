"""Two sides measured in turn in one run, and the one JSON line a benchmark ends with."""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def data(*parts: str) -> Path:
    """A file of the folder named by BERTLOOM_DATA."""
    folder = os.environ.get("BERTLOOM_DATA")
    if not folder:
        sys.exit("bench: BERTLOOM_DATA names no folder; it holds pretrain/wiki_en.txt and pretrain/books")
    return Path(folder, *parts)


class Apart:
    """One side in a process of its own, so that neither meets the other's allocator, threads or caches.

    `make(*arguments)` runs there and gives an object; `call(name, …)` calls its methods.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_answer, args=(other, make, arguments), daemon=True)
        self.process.start()

    def call(self, name: str, *arguments: Any) -> Any:
        """What the method returned there."""
        self.pipe.send((name, arguments))
        return self.pipe.recv()

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join()


def _answer(pipe: Any, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    made = make(*arguments)
    while True:
        name, rest = pipe.recv()
        pipe.send(getattr(made, name)(*rest))


def in_turn(ours: Callable[[int], float], theirs: Callable[[int], float], rounds: int) -> tuple[float, float]:
    """Medians of both sides, called in turn with the round's number after one call each to warm up."""
    ours(0), theirs(0)
    pairs = [(ours(number), theirs(number)) for number in range(rounds)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def row(case: str, ours: float, peer: str, theirs: float, unit: str, **more: Any) -> dict[str, Any]:
    """One line of the table, said on stderr as it is measured."""
    ratio = round(ours / theirs, 2)
    made = {
        "case": case,
        "ours": round(ours, 2),
        "peer": peer,
        "theirs": round(theirs, 2),
        "unit": unit,
        "ratio": ratio,
        **more,
    }
    print(
        f"{case:>18}: {ours:,.1f} {unit}, {peer} {theirs:,.1f}: {ratio:.2f}x {more or ''}",
        file=sys.stderr,
        flush=True,
    )
    return made


def sgemm_peak(size: int = 2048, rounds: int = 7) -> float:
    """FLOP/s of this machine's best square matrix product in fp32."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - began)
    return float(2 * size**3 / min(times))


def finish(bench: str, rows: list[dict[str, Any]], *libraries: str, **more: Any) -> None:
    """Print the JSON line."""
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "isa": torch.backends.cpu.get_cpu_capability(),
    }
    versions = {name: importlib.metadata.version(name) for name in ("bertloom", "torch", *libraries)}
    print(json.dumps({"bench": bench, "machine": machine, "versions": versions, "rows": rows, **more}))
