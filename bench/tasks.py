"""Scores on dev of MiniLM fine-tuned for many tasks, beside `transformers`' Trainer and trivial baselines.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/tasks.py [CASE…] [--peers N] [--output runs/tasks] [--table]

Ours over three seeds and Trainer over `--peers` of them, one unless given, on the same files with the same epochs,
rate, warm-up and batch, both with the best epoch on dev kept; other cases once, ours alone. Every finished cell is a
file in the output folder with the recipe it is of, so that the command goes on where it stopped, and makes a cell anew
whose recipe is another by now; `--table` prints what is there. A cell also has the mean training loss of each epoch of
each seed, which moves less from seed to seed than scores on small dev sets do.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from finetune import BATCH, as_theirs, minilm, scored, sentences
from side_by_side import data

from bertloom.api import load
from bertloom.files import sha256, write_json
from bertloom.finetuning.data import read
from bertloom.finetuning.recipe import Tuning, tuning
from bertloom.finetuning.tune import finetune
from bertloom.tasks import Task

SEEDS = 3
# Letters of the right answers, which the stories come without (Richardson et al. 2013, mc500).
MCTEST = Path(__file__).parent / "mctest"


@dataclass(frozen=True)
class Case:
    """A data set: its task, folder, files, and options; `trainer` is whether `transformers` runs too."""

    task: str
    train: str
    dev: str
    epochs: float
    metric: str
    options: dict[str, Any] = field(default_factory=dict)
    trainer: bool = False


COLA = {"columns": "source,label,mark,sentence"}
WNUT = ("tag", "tag/wnut17/train.conll", "tag/wnut17/dev.conll", 5.0, "f1")
CASES: dict[str, Case] = {
    "sst2": Case("classify", "sst2-sentences.tsv", "classify/sst2/dev.tsv", 2.0, "accuracy", {}, True),
    "sst2-phrases": Case("classify", "classify/sst2/train.tsv", "classify/sst2/dev.tsv", 1.0, "accuracy", {}, True),
    "cola": Case("classify", "classify/cola/train.tsv", "classify/cola/dev.tsv", 3.0, "matthews", COLA, True),
    "mrpc": Case("classify", "pairs/mrpc/train.tsv", "pairs/mrpc/dev.tsv", 3.0, "f1", {}, True),
    "rte": Case("classify", "pairs/rte/train.tsv", "pairs/rte/dev.tsv", 5.0, "accuracy", {}, True),
    "stsb": Case("classify", "pairs/stsb/train.tsv", "pairs/stsb/dev.tsv", 3.0, "pearson", {}, True),
    "wnut17": Case(*WNUT, {}, True),
    "squad1": Case("answer", "answer/squad1/train.json", "answer/squad1/dev.json", 2.0, "f1"),
    "squad2": Case("answer", "answer/squad2/train.json", "answer/squad2/dev.json", 2.0, "f1"),
    "mctest": Case("choose", "mctest-train.tsv", "mctest-dev.tsv", 3.0, "accuracy"),
    "nsmc": Case("classify", "nsmc-train.tsv", "classify/nsmc_ko/dev.tsv", 3.0, "accuracy"),
    "klue-ner": Case("tag", "tag/klue_ner_ko/train.tsv", "tag/klue_ner_ko/dev.tsv", 5.0, "f1"),
    **{
        f"wnut17-{way}": Case(*WNUT, {"features_from": way, "body": "bilstm"})
        for way in ("embeddings", "second-to-last", "last", "weighted-sum", "concat")
    },
}


def made(output: Path) -> None:
    """Files that are made of the given ones."""
    output.mkdir(parents=True, exist_ok=True)
    where = data("classify", "sst2", "train.tsv")
    files = {"sst2-sentences.tsv": lambda: sentences(where)}
    reviews = data("classify", "nsmc_ko", "train.tsv")
    files["nsmc-train.tsv"] = lambda: lines_of(reviews)[:10_001]
    for side in ("train", "dev"):
        stories, answers = data("choose", "mctest", f"{side}.tsv"), MCTEST / f"{side}.ans"
        files[f"mctest-{side}.ans"] = lambda file=answers: lines_of(file)
        files[f"mctest-{side}.tsv"] = lambda file=stories: lines_of(file)
    for name, lines in files.items():
        if not (output / name).is_file():
            (output / name).write_text("\n".join(lines()) + "\n", encoding="utf-8")


def lines_of(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").rstrip("\n").split("\n")


def recipe(name: str, output: Path, **more: Any) -> Tuning:
    case = CASES[name]
    train, dev = (output / part if (output / part).is_file() else data(part) for part in (case.train, case.dev))
    keys = {"model": str(minilm()), "train": str(train), "dev": str(dev), "output": str(output / f"ours-{name}"),
            "epochs": case.epochs, "metric": case.metric, **case.options, **more}  # fmt: skip
    return tuning(case.task, keys)


def ours(name: str, output: Path) -> dict[str, Any]:
    given = recipe(name, output, seeds=SEEDS if CASES[name].trainer else 1)
    epoch = read(given, load(minilm()), lambda text: None).epoch(given)
    report = finetune(replace(given, evaluate_every=epoch), say=print)
    if report is None:
        raise KeyboardInterrupt
    metric = report["metric"]
    values = [run["scores"][metric] for run in report["runs"]]
    speed = statistics.median(run["samples_per_second"] for run in report["runs"])
    losses = [by_epoch(output / f"ours-{name}" / f"seed-{run['seed']}", report["task"]) for run in report["runs"]]
    return {"values": values, "losses": losses, "scores": report["scores"], "samples_per_second": speed}


def by_epoch(folder: Path, task: str) -> list[float]:
    """The mean loss in training of each epoch of a run, which is measured after every one."""
    means: list[float] = []
    found: list[float] = []
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "losses" in row:
            found.append(row["losses"][task])
        elif "held_out" in row:
            means.append(round(statistics.fmean(found), 4))
            found = []
    return means


def baseline(task: Task, train: list[Any], dev: list[Any], metric: str) -> str:
    """What someone scores who always gives the commonest answer."""
    if task.name == "answer":
        return "nothing always: " + f"{100 * np.mean([not one.answers for one in dev]):.1f}"
    if task.name == "tag":
        return "no entity: 0"
    if task.name == "choose":
        return f"by chance: {np.mean([1 / len(one.choices) for one in dev]):.3f}"
    if not task.labels:  # type: ignore[attr-defined]
        return "a constant: 0"
    most = Counter(one.labels[0] for one in train).most_common(1)[0][0]
    answers = [{"label": most, "probability": 1.0} for _ in dev]
    return f"{most} always: {task.score(answers, dev)[metric]:.3f}"


def theirs(name: str, output: Path, seed: int = 0) -> dict[str, Any]:
    """Trainer, which pads to the longest of a batch, our features being its input; measured after each epoch."""
    given = recipe(name, output)
    start = load(minilm())
    found = read(given, start, lambda text: None)
    task, metric = found.task, given.metric
    torch.manual_seed(seed)
    kind = getattr(transformers, f"Bert{task.architecture}")
    labels = task.labels_in_config()
    more = {"problem_type": labels["problem_type"]} if "problem_type" in labels else {}
    names = {int(number): label for number, label in labels["id2label"].items()}
    model = kind.from_pretrained(minilm(), num_labels=len(names), id2label=names, label2id=labels["label2id"], **more)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    records = [as_theirs(one, task) for one in found.features]
    arguments = transformers.TrainingArguments(
        output_dir=str(output / f"trainer-{name}"), per_device_train_batch_size=BATCH, learning_rate=given.rate(384),
        weight_decay=0.01, num_train_epochs=given.epochs, warmup_steps=round(0.1 * found.steps(given)), report_to=[],
        disable_tqdm=True, use_cpu=True, save_strategy="no", logging_strategy="epoch", seed=seed,
    )  # fmt: skip
    collate = (
        transformers.DataCollatorForTokenClassification(tokenizer)
        if task.name == "tag"
        else transformers.DataCollatorWithPadding(tokenizer)
    )
    values: list[float] = []
    spent = 0.0

    class Measure(transformers.TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            nonlocal spent
            began = time.perf_counter()
            values.append(scored(model, found, collate)[metric])
            model.train()
            spent += time.perf_counter() - began

    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=records,
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[Measure()],
    )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began - spent
    speed = len(records) * given.epochs / seconds
    losses = [round(row["loss"], 4) for row in trainer.state.log_history if "loss" in row]
    return {"values": [max(values)], "losses": [losses], "by_epoch": [values], "samples_per_second": round(speed, 2)}


def trivial(name: str, output: Path) -> dict[str, Any]:
    found = read(recipe(name, output), load(minilm()), lambda text: None)
    return {"answer": baseline(found.task, found.train, found.dev, CASES[name].metric)}


WHO: dict[str, Callable[[str, Path], dict[str, Any]]] = {"ours": ours, "theirs": theirs, "trivial": trivial}


def made_of(name: str, output: Path) -> dict[str, Any]:
    """What a cell goes by: the recipe with its automatic values, and the files."""
    given, width = recipe(name, output), load(minilm()).config.hidden_size
    files = {side: sha256(Path(getattr(given, side))) for side in ("train", "dev")}
    return {**given.shaping(), "dropout": given.dropped(width), "learning_rate": given.rate(width), **files}


def cell(who: str, name: str, output: Path) -> dict[str, Any] | None:
    """What a finished cell holds; None where there is none of the recipe and the data as they are now."""
    file = output / f"{who}-{name}.json"
    made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return made if made.get("recipe") == made_of(name, output) else None


def make(who: str, name: str, output: Path, peers: int) -> None:
    """A cell, unless it is there."""
    file = output / f"{who}-{name}.json"
    if cell(who, name, output) is None:
        if file.is_file():
            print(f"{file} is of another recipe or of other data and made anew", flush=True)
            shutil.rmtree(output / f"{who}-{name}", ignore_errors=True)
        write_json(file, {"recipe": made_of(name, output), **WHO[who](name, output)})
    while who == "theirs" and (found := cell(who, name, output)) and len(found["values"]) < peers:
        more = theirs(name, output, len(found["values"]))
        write_json(file, {**found, **{key: found.get(key, []) + more[key] for key in ("values", "losses", "by_epoch")}})


def table(output: Path) -> None:
    """Markdown of every cell that is there."""
    columns = "data", "score", "ours", "Trainer", "trivial"
    lines: list[Sequence[str]] = [columns, ["---"] * len(columns)]
    for name, case in CASES.items():
        cells = {who: cell(who, name, output) for who in WHO}
        if any(cells.values()):
            spreads = [over(found["values"]) if found else "" for found in (cells["ours"], cells["theirs"])]
            lines.append((name, case.metric, *spreads, (cells["trivial"] or {}).get("answer", "")))
    for line in lines:
        print(f"| {' | '.join(line)} |")


def over(values: list[float]) -> str:
    """Mean, deviation, and how many."""
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{spread} ({len(values)})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--output", type=Path, default=Path("runs/tasks"))
    parser.add_argument("--peers", type=int, default=1, help="Trainer's runs of a case, each with a seed of its own")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    made(given.output)
    if not given.table:
        transformers.logging.set_verbosity_error()
        for name in given.cases:
            for who in WHO:
                if who != "theirs" or CASES[name].trainer:
                    make(who, name, given.output, given.peers)
            print(name, "done", flush=True)
    table(given.output)


if __name__ == "__main__":
    main()
