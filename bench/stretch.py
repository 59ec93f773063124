"""Positions stretched from 512 to 2,048 and 8,192 tokens by continued training, in each way.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/stretch.py --model RUN [--output runs/stretch] [--table]

RUN is a masked-language run on the corpus of `bench/family.py` (its `mlm`, of 128 tokens, unless given). Its positions
are first stretched to 512, which are trained; then from there to 2,048 and 8,192, each way. Held-out loss, at the new
length on the same tokens, is measured before the first step and after the last; beside it stands the loss of the model
of 512 on the same documents, cut into 512. The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from family import cell, make, recipe
from side_by_side import finish

from bertloom.api import load
from bertloom.corpus import Corpus
from bertloom.evaluation import held_out
from bertloom.model.stretch import STRETCHES
from bertloom.pretraining import pretrain, trained_objective

# Tokens of a step are about as many at every length.
TOKENS = 4096
STEPS = {512: 300, 2048: 100, 8192: 50}


def run(name: str, start: str, length: int, how: str, where: Path, output: Path, **more: Any) -> dict[str, Any] | None:
    """A continued run, and what held-out text says of it before its first step and after its last."""
    found: dict[str, Any] = {"length": length, "how": how, "steps": STEPS[length]}
    for part, steps, rate in (("before", 1, 1e-12), ("after", STEPS[length], 3e-4)):
        folder = output / "runs" / f"{name}-{part}"
        keys = {"objective": "mlm", "model": "", "start": start, "positions": length, "stretch": how, "length": length}
        given = recipe(
            "mlm", where, output=str(folder), steps=steps, batch_size=max(1, TOKENS // length),
            save_every=25 if length > 2048 else 100, evaluate_examples=8, **{**keys, "learning_rate": rate, **more},
        )  # fmt: skip
        if not pretrain(given, warn=lambda text: None):
            return None
        found[part] = measured(folder, where, length)
    return found


def measured(folder: Path, where: Path, length: int) -> float:
    """Held-out loss over some 260,000 tokens."""
    model = load(folder)
    aside = Corpus(where / "corpus").held_out
    assert aside is not None
    objective = trained_objective(model)
    return held_out(model.encoder, objective, aside, examples=1 << 18, length=length, tokens=8192)["mlm"].loss


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=Path, default=Path("runs/family"), help="the output of bench/family.py")
    parser.add_argument("--model", type=Path, help="its run mlm unless given")
    parser.add_argument("--output", type=Path, default=Path("runs/stretch"))
    parser.add_argument("--table", action="store_true", help="print what is there")
    given = parser.parse_args()
    start = str(given.model or given.corpus / "runs" / "mlm")
    given.output.mkdir(parents=True, exist_ok=True)
    cases = [("512", 512, "sinusoids"), *((f"{n}-{how}", n, how) for n in (2048, 8192) for how in STRETCHES)]
    rows = []
    print("| length | positions | steps | before | after |\n|---|---|---|---|---|")
    for name, length, how in cases:
        first = start if length == 512 else str(given.output / "runs" / "512-after")
        if not given.table:
            make("stretch", name, given.output, lambda n=name, s=first, i=length, h=how: run(
                n, s, i, h, given.corpus, given.output
            ))  # fmt: skip
        if found := cell("stretch", name, given.output):
            print(f"| {length:,} | {how} | {found['steps']} | {found['before']:.3f} | {found['after']:.3f} |")
            rows.append({"case": name, **found})
    finish("stretch", rows)


if __name__ == "__main__":
    main()
