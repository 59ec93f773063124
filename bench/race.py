"""Held-out MLM loss after the same wall-clock minutes: ours against a `transformers` Trainer loop.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/race.py [--minutes 10] [--picture docs/race.png]

Both start from the same weights (written by us, opened by `transformers`), on the same prepared tokens (BERT-mini,
8,000 words, wiki_en.txt), with masked language modelling, batches of 32 × 128, AdamW at 1e-3 with 10 % warm-up, dropout
0.1. Theirs reads blocks of 128 tokens, as `run_mlm` makes them; ours reads its own single segments. They take turns of
a minute, each in a process of its own; the same held-out examples measure both, outside the clock.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from side_by_side import Apart, data, finish, row

from bertloom.api import Model, load
from bertloom.config import preset
from bertloom.corpus import Corpus
from bertloom.corpus.prepare import prepare
from bertloom.evaluation import held_out
from bertloom.files import whole_file
from bertloom.model.encoder import Encoder
from bertloom.model.init import initialise
from bertloom.objectives import Combined
from bertloom.text.readers import passages
from bertloom.text.tokenizer import Tokenizer
from bertloom.text.vocabulary import train_vocabulary
from bertloom.train.data import batches
from bertloom.train.loop import steps
from bertloom.train.optimizer import adamw, rate_at
from bertloom.train.recipe import Recipe

RATE, WARMUP, BATCH, LENGTH = 1e-3, 0.1, 32, 128


class Side:
    """A side that trains for a while and is measured; `share` of the minutes is what its schedule goes by."""

    def __init__(self, folder: Path, minutes: float):
        self.corpus, self.model = Corpus(folder / "corpus"), load(folder / "start")
        self.aside = Corpus(folder / "corpus" / "held-out")
        self.seconds, self.total, self.tokens = 0.0, minutes * 60, 0

    def rate(self) -> float:
        """The schedule by the share of the time that is used."""
        used = min(1.0, self.seconds / self.total)
        return rate_at(int(1000 * used), RATE, 1001, WARMUP, "linear")

    def train(self, seconds: float) -> tuple[float, int]:
        """Train for so long; the time used so far, and tokens seen."""
        until = self.seconds + seconds
        while self.seconds < until:
            began = time.perf_counter()
            self.tokens += self.step()
            self.seconds += time.perf_counter() - began
        return self.seconds, self.tokens

    def measured(self, model: Model) -> tuple[float, float]:
        objective = Combined(model.config, "mlm")
        objective.heads["mlm"].load_state_dict(model.heads["mlm"].state_dict())
        made = held_out(model.encoder, objective.eval(), self.aside, examples=600, length=LENGTH)["mlm"]
        return made.loss, made.accuracy

    def step(self) -> int:
        raise NotImplementedError


class Ours(Side):
    def __init__(self, folder: Path, minutes: float):
        super().__init__(folder, minutes)
        self.objective = Combined(self.model.config, "mlm")
        self.objective.heads["mlm"].load_state_dict(self.model.heads["mlm"].state_dict())
        named = [*self.model.encoder.named_parameters(), *self.objective.named_parameters()]
        made = batches(self.corpus, self.objective, Recipe(steps=10**6, batch_size=BATCH, length=LENGTH), 0)
        self.loop = steps(
            self.model.encoder, self.objective, adamw(named, 0.01), made, first=0, rate=lambda _: self.rate(), seed=0
        )

    def step(self) -> int:
        return next(self.loop).tokens

    def measure(self) -> tuple[float, float]:
        self.model.heads["mlm"].load_state_dict(self.objective.heads["mlm"].state_dict())
        return self.measured(self.model)


class Theirs(Side):
    def __init__(self, folder: Path, minutes: float):
        super().__init__(folder, minutes)
        self.folder = folder
        self.theirs = transformers.BertForMaskedLM.from_pretrained(folder / "start").train()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "start")
        special = self.corpus.special
        inside = len(self.corpus.tokens) // (LENGTH - 2) * (LENGTH - 2)
        blocks = np.asarray(self.corpus.tokens[:inside], np.int64).reshape(-1, LENGTH - 2)
        ends = [np.full((len(blocks), 1), special[role]) for role in ("cls", "sep")]
        self.records = [{"input_ids": ids} for ids in np.concatenate([ends[0], blocks, ends[1]], 1).tolist()]
        arguments = transformers.TrainingArguments(
            output_dir=str(folder / "trainer"), per_device_train_batch_size=BATCH, learning_rate=RATE,
            weight_decay=0.01, adam_epsilon=1e-6, optim="adamw_torch_fused", report_to=[], disable_tqdm=True,
            use_cpu=True,
        )  # fmt: skip
        collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        self.trainer = transformers.Trainer(
            self.theirs, arguments, train_dataset=self.records, data_collator=collator, processing_class=tokenizer
        )
        self.trainer.create_optimizer()
        # What `train()` would have set; we call its steps one by one, to stop by the clock.
        self.trainer.current_gradient_accumulation_steps = 1
        self.data = self.forever()

    def forever(self) -> Any:
        while True:
            yield from self.trainer.get_train_dataloader()

    def step(self) -> int:
        batch = next(self.data)
        for group in self.trainer.optimizer.param_groups:
            group["lr"] = self.rate()
        self.theirs.zero_grad(set_to_none=True)
        self.trainer.training_step(self.theirs, batch)
        torch.nn.utils.clip_grad_norm_(self.theirs.parameters(), 1.0)
        self.trainer.optimizer.step()
        return int(batch["attention_mask"].sum())

    def measure(self) -> tuple[float, float]:
        self.theirs.save_pretrained(self.folder / "theirs")
        return self.measured(load(self.folder / "theirs"))


def start(folder: Path) -> None:
    """A corpus with a held-out part, and the weights both begin with."""
    text = data("pretrain", "wiki_en.txt")
    lines = (line for passage in passages([text]) for line in passage.paragraphs)
    train_vocabulary(lines, 8000).save(folder / "vocabulary")
    prepare([text], folder / "vocabulary", folder / "corpus", held_out=0.05)
    torch.manual_seed(0)
    config = preset("mini", vocab_size=8000)
    encoder, objective = Encoder(config), Combined(config, "mlm+nsp")
    initialise(encoder, config.initializer_range, config.pad_token_id), initialise(objective, config.initializer_range)
    heads = torch.nn.ModuleDict(objective.heads)
    Model(encoder, heads, Tokenizer.load(folder / "vocabulary"), {}, folder).save(folder / "start")


def draw(curves: dict[str, list[list[float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    for (name, points), color in zip(curves.items(), ("#d94801", "#636363")):
        axis.plot([one[0] / 60 for one in points], [one[2] for one in points], "o-", label=name, color=color)
    axis.set(
        xlabel="minutes of training",
        ylabel="held-out MLM loss (nats)",
        title="BERT-mini from the same weights, same text",
    )
    axis.legend()
    with whole_file(path) as beside:
        figure.savefig(beside, dpi=120, format="png")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        start(Path(name))
        sides = {
            "bertloom": Apart(Ours, Path(name), given.minutes),
            "transformers": Apart(Theirs, Path(name), given.minutes),
        }
        curves: dict[str, list[list[float]]] = {side: [] for side in sides}
        turns = max(1, round(given.minutes))
        for _ in range(turns):
            for side, apart in sides.items():
                seconds, tokens = apart.call("train", given.minutes * 60 / turns)
                loss, accuracy = apart.call("measure")
                curves[side].append([round(seconds, 1), tokens, round(loss, 4), round(accuracy, 4)])
        for apart in sides.values():
            apart.close()
    if given.picture:
        draw(curves, given.picture)
    (mine, other) = (curves[side][-1] for side in sides)
    more = {"ours_loss": mine[2], "theirs_loss": other[2], "ours_accuracy": mine[3], "theirs_accuracy": other[3]}
    rows = [row("tokens", mine[1] / mine[0], "transformers", other[1] / other[0], "tokens/s", **more)]
    finish("race", rows, "transformers", minutes=given.minutes, curves=curves)


if __name__ == "__main__":
    main()
