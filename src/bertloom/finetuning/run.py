"""One fine-tuning run: a seed's folder, from its beginning or from where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bertloom import hub
from bertloom.api import OBJECTIVE, Model
from bertloom.corpus.draw import mix, permuted
from bertloom.finetuning.data import Data
from bertloom.finetuning.recipe import Tuning
from bertloom.model.encoder import Encoder
from bertloom.model.forms import reshape
from bertloom.model.init import initialise
from bertloom.model.packed import Batch, computing_device, pack
from bertloom.tasks import SETTINGS, Task
from bertloom.tasks.objective import TaskObjective, Taught
from bertloom.tasks.predict import grouped, outputs
from bertloom.tasks.task import Array, Prediction
from bertloom.train import checkpoint
from bertloom.train.data import micro_batches
from bertloom.train.metrics import draw_scores
from bertloom.train.optimizer import adamw, rate_at
from bertloom.train.run import Run, claim_folder, precision_on

# Examples by which a wider teacher's states are narrowed.
SAMPLE = 256
# Settings of the start model that say what it was made for.
MADE_FOR = (SETTINGS, OBJECTIVE, "id2label", "label2id", "problem_type", "architectures")


@dataclass(frozen=True)
class Scores:
    """The mean loss and the metrics on dev."""

    loss: float
    metrics: dict[str, float]


class Finetuning(Run[Scores]):
    """A recipe with one seed made into an encoder with a new head, an objective and an optimiser."""

    def __init__(self, recipe: Tuning, seed: int, folder: Path, data: Data, warn: Callable[[str], None]):
        self.recipe, self.folder, self.start, self.data = replace(recipe, seed=seed, seeds=1), folder, data.start, data
        self.task, self.metric = data.task, recipe.metric or data.task.metrics[0]
        self.seed, self.clip, self.keep = seed, recipe.clip, 1
        self.save_every, self.tensorboard, self.identity = recipe.save_every, recipe.tensorboard, data.identity
        self.epoch, self.last = data.epoch(recipe), data.steps(recipe)
        self.evaluate_every, self.parts = recipe.evaluate_every, data.parts(recipe)
        claim_folder(folder, lambda file: {})
        self._build()
        found = checkpoint.newest(folder, warn)
        self.first = self._resume(*found) if found else 0

    @property
    def name(self) -> str:
        """The task and the seed."""
        return f"{self.task.name}, seed {self.seed}"

    def _build(self) -> None:
        recipe, start = self.recipe, self.start
        config = start.config
        if (share := recipe.dropped(config.hidden_size)) is not None:
            config = replace(config, hidden_dropout_prob=share, attention_probs_dropout_prob=share)
        torch.manual_seed(self.seed)
        device = computing_device()
        self.precision = precision_on(device, recipe.precision)
        state = start.encoder.state_dict()
        self.encoder = reshape(Encoder(config), state)
        pools = self.task.pools(config)
        self.encoder.give_pooler(pools)
        if self.data.new_pooler:
            initialise(self.encoder.pooler, config.hidden_size**-0.5)
            state |= {
                f"pooler.{name}": one for name, one in {**self.encoder.pooler.state_dict(), **self._transform()}.items()
            }
        elif not pools:
            # `transformers` knows no pooler in such a model.
            state = {name: one for name, one in state.items() if not name.startswith("pooler.")}
        self.encoder.load_state_dict(state)
        # The dropout is this run's; who trains the model on finds its own.
        self.encoder.config = start.config
        self.objective = self._objective(self.task.head(config))
        self.encoder.to(device), self.objective.to(device)
        self._freeze(config.num_hidden_layers)
        named = [*self.encoder.named_parameters(), *self.objective.named_parameters()]
        learning = [(name, one) for name, one in named if one.requires_grad]
        self.optimizer = adamw(learning, recipe.weight_decay, partial(self._scale, config.num_hidden_layers))
        peak = recipe.rate(config.hidden_size)
        self.rate = partial(rate_at, peak=peak, steps=self.last, warmup=recipe.warmup, schedule=recipe.schedule)

    def _objective(self, head: nn.Module) -> TaskObjective:
        """Of gold answers, or of a teacher's, whose task a student may have a head for already."""
        teacher, start = self.data.teacher, self.start
        if teacher is None:
            return TaskObjective(self.task, head)
        if start.task and start.task.labels_in_config() == self.task.labels_in_config():
            hub.load_into(head, start.heads[self.task.part].state_dict(), start.path)
        matches = self.recipe.matches
        return Taught(self.task, head, teacher.encoder, matches, pack(self.data.features[:SAMPLE]))

    def _transform(self) -> dict[str, Tensor]:
        """Of a family whose pooler is the language head's first half, that half as it was pretrained."""
        head = dict(self.start.heads.items()).get("mlm")
        if head is None or self.encoder.config.pooler != "rows":
            return {}
        return {name: one for name, one in head.state_dict().items() if name.startswith(("dense.", "norm."))}

    def _freeze(self, layers: int) -> None:
        if self.task.frozen:
            self.encoder.requires_grad_(False)
        elif self.recipe.freeze:
            self.encoder.embeddings.requires_grad_(False)
            if hasattr(self.encoder, "projection"):
                self.encoder.projection.requires_grad_(False)
            for number, layer in enumerate(self.encoder.layers):
                # Weights that a layer above shares learn.
                layer.requires_grad_(self.encoder.last_use(number) >= self.recipe.freeze)

    def _scale(self, layers: int, name: str) -> float:
        """A parameter's rate as a share of the head's (Howard & Ruder 2018, §3.2)."""
        parts = name.split(".")
        below = 0
        if parts[0] in ("embeddings", "projection"):
            below = layers + 1
        elif parts[0] == "layers":
            below = layers - self.encoder.last_use(int(parts[1]))
        return float(self.recipe.layer_decay**below)

    def _resume(self, manifest: dict[str, Any], folder: Path) -> int:
        state, _ = hub.read_state(folder / "model", self.start.config)
        head = f"{self.task.part}."
        hub.load_into(self.encoder, {name: one for name, one in state.items() if not name.startswith(head)}, folder)
        own = {name.removeprefix(head): one for name, one in state.items() if name.startswith(head)}
        hub.load_into(self.objective.head, own, folder)
        checkpoint.load_moments(self.optimizer, folder)
        return int(manifest["step"])

    def recipe_of_run(self) -> Tuning:
        """The recipe with this run's seed."""
        return self.recipe

    def batches(self) -> Iterator[list[Batch]]:
        """Every example once an epoch, in an order that is computed from seed and epoch."""
        count, size = len(self.data.features), self.recipe.batch_size
        for step in range(self.first, self.last):
            epoch, position = divmod(step, self.epoch)
            key = mix(self.seed, epoch)
            numbers = [permuted(n, count, key) for n in range(position * size, min(count, (position + 1) * size))]
            examples = [self.data.features[number] for number in numbers]
            yield micro_batches(sorted(examples, key=len), self.recipe.micro_tokens)

    def due(self, done: int, saving: bool) -> bool:
        """On schedule and at the end, so that what is measured does not depend on what is saved."""
        if done == self.last:
            return True
        if self.evaluate_every:
            return done % self.evaluate_every == 0
        return done * self.parts // self.epoch > (done - 1) * self.parts // self.epoch

    def answers(self) -> tuple[list[Prediction], list[Array], float, Task]:
        """What the model as it is says of dev, its logits, the loss, and the task with dev's threshold."""
        made = self.data.dev_features
        flat = [one for features in made for one in features]
        logits, loss = outputs(self.task, self.encoder, self.objective.head, flat)
        self.objective.train()
        groups = zip(self.data.dev, made, grouped(map(len, made), logits))
        predictions = [self.task.decode(record, features, own) for record, features, own in groups]
        return predictions, logits, loss, self.task.tuned(predictions, self.data.dev)

    def measure(self, done: int) -> dict[str, Scores]:
        """Loss and metrics on dev."""
        predictions, _, loss, task = self.answers()
        return {task.name: Scores(loss, task.score(predictions, self.data.dev))}

    def told(self, measure: Scores) -> dict[str, Any]:
        """Loss and metrics side by side."""
        return {"loss": measure.loss, **measure.metrics}

    def values(self, measured: list[dict[str, Any]]) -> list[float]:
        """The deciding metric of every measure."""
        return [row["held_out"][self.task.name][self.metric] for row in measured]

    def best(self, measured: list[dict[str, Any]]) -> int | None:
        """The step of the first best measure."""
        values = self.values(measured)
        return int(measured[values.index(max(values))]["step"]) if values else None

    def worth_saving(self, done: int, measured: list[dict[str, Any]]) -> bool:
        """Whether no measure before was as good."""
        return self.best(measured) == done

    def ends(self, measured: list[dict[str, Any]]) -> bool:
        """Whether patience is at its end."""
        best, patience = self.best(measured), self.recipe.patience * self.epoch
        return bool(patience and best is not None and measured[-1]["step"] - best >= patience)

    def model(self) -> Model:
        """The model as it is."""
        others = {name: value for name, value in self.start.others.items() if name not in MADE_FOR}
        heads = nn.ModuleDict({self.task.part: self.objective.head})
        made = Model(self.encoder, heads, self.start.tokenizer, others, self.folder, task=self.task)
        self.objective.train()
        return made

    def write_model(self, folder: Path, done: int, measures: dict[str, Scores], tokens: int) -> None:
        """A folder that `transformers` opens."""
        self.model().save(folder)

    def draw(self, rows: list[dict[str, Any]]) -> None:
        """Loss in training and on dev, and the deciding metric."""
        draw_scores(rows, self.folder / "curves.png", self.name, self.metric)
