"""The family race: every objective on BERT-mini's size for the same CPU-minutes, then grammar and fine-tuning.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/family.py [CASE…] [--minutes 20] [--table]

BERT-mini with 8,000 words learns from pretrain/books and wiki_en.txt (every 20th document held out) until the process
has used so many minutes of CPU time. First, on a machine that should be idle, the CPU time of a step of each case is
measured; steps are the minutes divided by it. Sequences are 64 tokens for 70 % of the steps, then 128; batch 32, 15 %
hidden where tokens are hidden, rate 1e-3 (3e-4 for `rtd`), no dropout. Then BLiMP, and SST-2's sentences, MRPC and
SQuAD 1.1 over three seeds. `distill` learns half of `mlm+nsp`'s layers from it; `none` is fine-tuned from new
weights.

Every finished cell is a file in the output folder, and runs go on from their checkpoints, so that the same command goes
on where it stopped; `--table` prints what is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from finetune import sentences
from side_by_side import data, finish

from bertloom.api import Model, load
from bertloom.config import preset
from bertloom.corpus import Corpus
from bertloom.corpus.arrays import default_workers
from bertloom.corpus.prepare import prepare
from bertloom.evaluation import blimp, held_out, read_pairs
from bertloom.files import write_json
from bertloom.finetuning.recipe import tuning
from bertloom.finetuning.tune import finetune
from bertloom.model.encoder import Encoder
from bertloom.model.init import initialise
from bertloom.pretraining import pretrain, trained_objective
from bertloom.text.readers import passages
from bertloom.text.sources import ReadOptions
from bertloom.text.tokenizer import Tokenizer
from bertloom.text.vocabulary import train_vocabulary
from bertloom.train.recipe import Recipe

WORDS, SEEDS, SHORT, LONG, SHORT_SHARE = 8000, 3, 64, 128, 0.7
TEACHER = "mlm+nsp"
# Objectives, and models of other families with theirs.
CASES: dict[str, dict[str, Any]] = {
    "none": {},
    "mlm+nsp": {"objective": "mlm+nsp"},
    "mlm": {"objective": "mlm"},
    "mlm+sop": {"objective": "mlm+sop"},
    "wwm": {"objective": "wwm"},
    "span": {"objective": "span"},
    "span+sbo": {"objective": "span+sbo"},
    # At the others' rate its discriminator calls every token the text's own, and comes to give all the same vector.
    "rtd": {"objective": "rtd", "learning_rate": 3e-4, "initializer_range": 0.02},
    "causal": {"objective": "causal"},
    "bilm": {"objective": "bilm"},
    "distill": {"objective": "distill"},
}
# Task, training and dev files, epochs, main metric.
TASKS: dict[str, tuple[str, str, str, float, str]] = {
    "sst2": ("classify", "sst2-sentences.tsv", "classify/sst2/dev.tsv", 2.0, "accuracy"),
    "mrpc": ("classify", "pairs/mrpc/train.tsv", "pairs/mrpc/dev.tsv", 3.0, "f1"),
    "squad": ("answer", "answer/squad1/train.json", "answer/squad1/dev.json", 1.0, "f1"),
}


def made(output: Path) -> None:
    """The corpus and the files that are made of the given ones."""
    made_sentences(output)
    if not (output / "corpus").is_dir():
        texts, options = [data("pretrain", "books"), data("pretrain", "wiki_en.txt")], ReadOptions(fallback="latin-1")
        if not (output / "vocabulary").is_dir():
            lines = (line for one in passages(texts, options) for line in one.paragraphs)
            train_vocabulary(lines, WORDS).save(output / "vocabulary")
        prepare(
            texts, output / "vocabulary", output / "corpus", options=options, held_out=0.05, workers=default_workers()
        )


def made_sentences(output: Path) -> None:
    """SST-2's whole sentences, of its phrases."""
    output.mkdir(parents=True, exist_ok=True)
    if not (output / "sst2-sentences.tsv").is_file():
        lines = sentences(data("classify", "sst2", "train.tsv"))
        (output / "sst2-sentences.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def recipe(case: str, where: Path, **more: Any) -> Recipe:
    own = dict(CASES[case])
    if case == "distill":
        own["teacher"] = str(where / "runs" / TEACHER)
    else:
        own["model"] = "mini"
    shape = {"batch_size": 32, "length": LONG, "learning_rate": 1e-3, "dropout": 0.0, "initializer_range": 0.01}
    return Recipe(corpus=str(where / "corpus"), **{**shape, **own, **more})


def clock(given: Recipe) -> list[float]:
    """CPU seconds of each step but the first few."""
    marks: list[float] = []
    pretrain(given, watch=lambda *_: marks.append(time.process_time()), warn=lambda text: None)
    return [after - before for before, after in pairwise(marks[5:])]


def cost(case: str, output: Path) -> dict[str, Any]:
    """CPU seconds of a step at both lengths."""
    found = {}
    for length in (SHORT, LONG):
        with tempfile.TemporaryDirectory() as folder:
            more = {"length": length, "save_every": 1000}
            if case == "distill":
                # What is learned from costs the same before it has learned.
                more["teacher"] = f"{folder}/teacher"
                new = recipe(TEACHER, output, output=more["teacher"], **{**more, "teacher": "", "steps": 1})
                pretrain(new, warn=lambda text: None)
            given = recipe(case, output, output=f"{folder}/run", steps=40, **more)
            found[str(length)] = statistics.median(clock(given))
    return found


def steps_of(case: str, output: Path, minutes: float) -> int:
    costs = cell("cost", case, output)
    assert costs is not None
    return int(60 * minutes / (SHORT_SHARE * costs[str(SHORT)] + (1 - SHORT_SHARE) * costs[str(LONG)]))


def trained(case: str, output: Path, minutes: float) -> dict[str, Any] | None:
    """The run, and what held-out text says of it; None where a signal stopped it."""
    folder = output / "runs" / case
    if case == "none":
        torch.manual_seed(0)
        tokenizer = Tokenizer.load(output / "vocabulary")
        encoder = Encoder(preset("mini", vocab_size=WORDS))
        initialise(encoder, 0.01, 0)
        if not folder.is_dir():
            Model(encoder, torch.nn.ModuleDict(), tokenizer, {}, folder).save(folder)
        return {"steps": 0, "tokens": 0, "parameters": count(load(folder)), "cpu_minutes": 0.0, "held_out": {}}
    total = steps_of(case, output, minutes)
    given = recipe(
        case, output, output=str(folder), steps=total, short_length=SHORT, short_share=SHORT_SHARE, save_every=500,
        evaluate_examples=1000,
    )  # fmt: skip
    spent = clock(given)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    done = [row for row in rows if "tokens" in row]
    if len(done) < total:
        return None
    model = load(folder)
    aside = Corpus(output / "corpus").held_out
    assert aside is not None
    measures = held_out(model.encoder, trained_objective(model), aside, examples=2000, length=LONG)
    return {
        "steps": total,
        "tokens": sum(row["tokens"] for row in done),
        "parameters": count(model),
        "cpu_minutes": total * statistics.mean(spent) / 60 if spent else None,
        "held_out": {name: {"loss": one.loss, "accuracy": one.accuracy} for name, one in measures.items()},
    }


def count(model: Model) -> int:
    return sum(one.numel() for one in model.encoder.parameters())


def grammar(case: str, output: Path) -> dict[str, Any]:
    """BLiMP's mean over paradigms, and by phenomenon."""
    if case == "none":
        return {}
    shares = blimp(load(output / "runs" / case), read_pairs(data("evaluate", "blimp.jsonl")))
    return {name: one.share for name, one in shares.items()}


def tuned(case: str, task: str, output: Path) -> dict[str, Any] | None:
    """The task's metric on dev over seeds; None where a signal stopped it."""
    return tuned_model(str(output / "runs" / case), task, output, output / "tuned" / f"{case}-{task}")


def tuned_model(model: str, task: str, output: Path, folder: Path) -> dict[str, Any] | None:
    """The same of any model; `output` holds what is made of the given files."""
    kind, train, dev, epochs, metric = TASKS[task]
    first = output / train
    keys = {
        "model": model, "train": str(first if first.is_file() else data(train)),
        "dev": str(data(dev)), "output": str(folder), "epochs": epochs, "metric": metric,
        "seeds": SEEDS,
    }  # fmt: skip
    report = finetune(tuning(kind, keys), say=lambda text: None)
    if report is None:
        return None
    scores = [run["scores"] for run in report["runs"]]
    return {"values": [one[metric] for one in scores], "scores": scores}


def cell(what: str, case: str, output: Path) -> dict[str, Any] | None:
    file = output / f"{what}-{case}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def make(what: str, case: str, output: Path, how: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    """A cell, unless it is there."""
    found = cell(what, case, output)
    if found is None:
        began = time.perf_counter()
        found = how()
        if found is None:
            raise KeyboardInterrupt
        write_json(output / f"{what}-{case}.json", found)
        print(f"{what} {case}: {time.perf_counter() - began:.0f} s", flush=True)
    return found


def table(output: Path, cases: list[str]) -> list[dict[str, Any]]:
    """A row of each case as far as it is made, printed as Markdown."""
    titles = ["objective", "parameters", "steps", "tokens", "CPU min", "held out", "BLiMP"]
    titles += [f"{task}, {metric}" for task, (*_, metric) in TASKS.items()] + ["mrpc, accuracy"]
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    rows = []
    for case in cases:
        run, pairs = cell("run", case, output), cell("blimp", case, output) or {}
        if run is None:
            continue
        scores = {task: (cell(task, case, output) or {}).get("values", []) for task in TASKS}
        scores["mrpc accuracy"] = [one["accuracy"] for one in (cell("mrpc", case, output) or {}).get("scores", [])]
        told = "; ".join(f"{name} {100 * one['accuracy']:.1f} %" for name, one in run.get("held_out", {}).items())
        parts = [
            case, f"{run.get('parameters', 0) / 1e6:.2f} M", f"{run.get('steps', 0):,}",
            f"{run.get('tokens', 0) / 1e6:.1f} M", f"{run.get('cpu_minutes') or 0:.1f}", told,
            f"{100 * pairs['mean over paradigms']:.1f}" if pairs else "",
            *(spread(values, 1 if task == "squad" else 100) for task, values in scores.items()),
        ]  # fmt: skip
        print("| " + " | ".join(parts) + " |")
        rows.append({"case": case, **run, "blimp": pairs.get("mean over paradigms"), **scores})
    return rows


def spread(values: list[float], scale: float) -> str:
    """Mean and deviation over seeds, in hundredths."""
    if not values:
        return ""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{scale * statistics.mean(values):.1f} ± {scale * deviation:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--output", type=Path, default=Path("runs/family"))
    parser.add_argument("--costs", action="store_true", help="measure the cost of a step alone")
    parser.add_argument("--table", action="store_true", help="print what is there")
    given = parser.parse_args()
    cases = given.cases or list(CASES)
    if unknown := set(cases) - set(CASES):
        parser.error(f"unknown {', '.join(sorted(unknown))}")
    output = given.output
    if not given.table:
        made(output)
        for case in cases:
            if case != "none":
                make("cost", case, output, lambda case=case: cost(case, output))
        if given.costs:
            return
        for case in cases:
            make("run", case, output, lambda case=case: trained(case, output, given.minutes))
            make("blimp", case, output, lambda case=case: grammar(case, output))
            for task in TASKS:
                make(task, case, output, lambda case=case, task=task: tuned(case, task, output))
    finish("family", table(output, cases), minutes=given.minutes)


if __name__ == "__main__":
    main()
