"""A model made smaller in steps, each measured beside the first: prune, distill, low rank, quantize, in any order."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from bertloom.api import Model, load
from bertloom.errors import InputError, blaming, nearest
from bertloom.files import held, read_json, write_json
from bertloom.finetuning.recipe import Tuning, tuning
from bertloom.finetuning.report import FILE
from bertloom.finetuning.tune import finetune
from bertloom.ship.low_rank import low_rank
from bertloom.ship.measure import dev_records, scores, seconds, size, some_texts
from bertloom.ship.prune import asking, prune
from bertloom.ship.quantize import TEXTS, quantize
from bertloom.tasks.task import Record
from bertloom.text.sources import ReadCounts, ReadOptions
from bertloom.train.keys import check_kind, read_keys
from bertloom.train.metrics import busy

Say = Callable[[str], None]


@dataclass
class Work:
    """What the steps of a recipe share: the model they began with, what they look at, and who is told."""

    model: str
    data: str
    dev: str = ""
    column: str = ""
    say: Say = print

    @cached_property
    def first(self) -> Model:
        """The model that all are measured beside."""
        return load(self.model)

    @cached_property
    def texts(self) -> list[str]:
        """Texts of the data, from its beginning."""
        name = self.column or (self.first.task.told_by(self.data).plain if self.first.task else "text")
        return some_texts(self.data, name, ReadOptions(), ReadCounts())


class Step(ABC):
    """One way to make a model smaller; its fields are its keys in a recipe."""

    name: ClassVar[str]

    def check(self, work: Work) -> None:
        """Raise now, and not after the steps before, where it cannot be taken."""
        return None

    @property
    def values(self) -> dict[str, Any]:
        """Its keys with their values."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}  # type: ignore[arg-type]

    @abstractmethod
    def run(self, model: Model, work: Work, folder: Path) -> dict[str, Any] | None:
        """Make a model in a folder of another; what there is to tell of it, None where a signal stopped it."""


class Change(Step):
    """A step that is a function from a model to a model with a report."""

    @abstractmethod
    def made(self, model: Model, work: Work) -> tuple[Model, Any]:
        """The model and the report."""

    def run(self, model: Model, work: Work, folder: Path) -> dict[str, Any]:
        """Make it and save it."""
        made, report = self.made(model, work)
        made.save(folder)
        told: dict[str, Any] = vars(report)
        return told


@dataclass(frozen=True, kw_only=True)
class Prune(Change):
    """Heads and inner neurons by their share, layers by their number."""

    name: ClassVar[str] = "prune"
    heads: float = 0.0
    inner: float = 0.0
    layers: int = 0

    def made(self, model: Model, work: Work) -> tuple[Model, Any]:
        """By the slopes of a loss on the data."""
        ask = asking(model, work.data, work.texts, ReadCounts())
        return prune(model, ask, heads=self.heads, inner=self.inner, layers=self.layers)


@dataclass(frozen=True, kw_only=True)
class Distill(Step):
    """The first model's answers learned by the one at hand; keys are those of fine-tuning."""

    name: ClassVar[str] = "distill"
    keys: Mapping[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        """Those that it was given."""
        return dict(self.keys)

    def check(self, work: Work) -> None:
        """Its keys are those of fine-tuning."""
        self._recipe(work.model, work, "output")

    def _recipe(self, model: str, work: Work, output: str) -> Tuning:
        own = {"model": model, "teacher": work.model, "train": work.data, "dev": work.dev, "output": output}
        return tuning(work.first.require_task().name, {**self.keys, **own})

    def run(self, model: Model, work: Work, folder: Path) -> dict[str, Any] | None:
        """A fine-tuning whose gold answers are the first model's."""
        report = finetune(self._recipe(str(model.path), work, str(folder)), say=work.say)
        return report and {name: report[name] for name in ("scores", "settings")}


@dataclass(frozen=True, kw_only=True)
class LowRank(Change):
    """Word embeddings of a rank."""

    name: ClassVar[str] = "low-rank"
    rank: int = 128

    def made(self, model: Model, work: Work) -> tuple[Model, Any]:
        """By the words of the data's texts."""
        return low_rank(model, work.texts, self.rank)


@dataclass(frozen=True, kw_only=True)
class Quantize(Change):
    """Weights and activations in int8."""

    name: ClassVar[str] = "quantize"
    agreement: float = 0.995

    def made(self, model: Model, work: Work) -> tuple[Model, Any]:
        """Calibrated on the data's texts."""
        return quantize(model, work.texts, self.agreement)


STEPS: dict[str, type[Step]] = {kind.name: kind for kind in (Prune, Distill, LowRank, Quantize)}
KEYS = ("model", "data", "dev", "column", "output", "steps")


@dataclass(frozen=True)
class Recipe:
    """A model, what steps look at, where to, and the steps."""

    model: str
    data: str
    output: str
    steps: Sequence[Step]
    dev: str = ""
    column: str = ""

    def values(self) -> dict[str, Any]:
        """As it stands in a file."""
        own = {name: getattr(self, name) for name in KEYS if name != "steps"}
        return {**own, "steps": [{"do": one.name, **one.values} for one in self.steps]}


def read_recipe(path: Path, over: Mapping[str, Any]) -> Recipe:
    """The recipe of a TOML file, with keys over it; raises with the file where it cannot be."""
    given = {**read_keys(path, KEYS), **over}
    for name in ("model", "data", "output", "steps"):
        if not given.get(name):
            raise InputError(f"{name}: none given, one needed", path)
    for name in KEYS[:-1]:
        check_kind(name, str, given.get(name, ""))
    steps = given["steps"]
    if not (isinstance(steps, list) and all(isinstance(one, dict) for one in steps)):
        raise InputError("steps: [[steps]] tables needed", path)
    with blaming(path, "a step cannot be made", again=True):
        made = [_step(dict(one), number) for number, one in enumerate(steps, 1)]
    return Recipe(**{**given, "steps": made})


def _step(given: dict[str, Any], number: int) -> Step:
    name = given.pop("do", None)
    if name not in STEPS:
        raise InputError(f"step {number}: do: {nearest(str(name), STEPS)}")
    kind = STEPS[name]
    if kind is Distill:
        return Distill(keys=given)
    known = {one.name: type(one.default) for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key, value in given.items():
        if key not in known:
            raise InputError(f"step {number}: key {nearest(key, known)}")
        check_kind(f"step {number}: {key}", known[key], value)
    return kind(**given)


def compress(recipe: Recipe, say: Say = print) -> dict[str, Any] | None:
    """Take a recipe's steps, or go on where they stopped; the report, None where a signal stopped them.

    Each step's model stands in a folder of its own in the output, the last one in `model`.
    """
    folder, said = Path(recipe.output), recipe.values()
    told = folder / "steps.json"
    if told.is_file():
        with blaming(told):
            had = read_json(told)
        if had != said:
            raise InputError("is that of another recipe; give another --output", folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError("is there and holds something else; give another --output", folder)
    work = Work(recipe.model, recipe.data, recipe.dev, recipe.column, say)
    if work.first.task and not recipe.dev:
        raise InputError("dev: none given, records with answers needed to score a fine-tuned model")
    for step in recipe.steps:
        step.check(work)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder) as free:
        if free is False:
            raise busy(folder)
        write_json(told, said)
        models, reports = [work.first], list[dict[str, Any]]()
        for number, step in enumerate(recipe.steps, 1):
            own = folder / f"{number}-{step.name}"
            report = folder / f"{own.name}.json"
            if not report.is_file():
                say(f"Step {number} of {len(recipe.steps)}: {step.name}")
                found = step.run(models[-1], work, own)
                if found is None:
                    return None
                write_json(report, found)
            with blaming(report):
                reports.append(read_json(report))
            models.append(load(own))
        whole = _measured(recipe, work, models, reports)
        if not (folder / "model").is_dir():
            models[-1].save(folder / "model")
        write_json(folder / FILE, whole)
    return whole


def _predicted(model: Model, records: Sequence[Record]) -> None:
    for _ in model.predictions(records):
        pass


def _measured(recipe: Recipe, work: Work, models: Sequence[Model], reports: Sequence[Any]) -> dict[str, Any]:
    """A row for the first model and each step's: size, speed, and score or agreement with the first."""
    names = [recipe.model, *(step.name for step in recipe.steps)]
    rows: list[dict[str, Any]] = [
        {"step": name, "size": size(one), "parameters": sum(each.numel() for each in one.state().values())}
        for name, one in zip(names, models)
    ]
    if work.first.task:
        records = dev_records(work.first, recipe.dev)
        calls: list[Callable[[], object]] = [partial(_predicted, one, records) for one in models]
        count = len(records)
        for row, one in zip(rows, models):
            row["scores"] = scores(one, records)
    else:
        some = work.texts[::5][:TEXTS]
        calls, count = [partial(one.encode, some) for one in models], len(some)
        before = torch.from_numpy(work.first.encode(some))
        for row, one in zip(rows, models):
            row["agreement"] = float(F.cosine_similarity(torch.from_numpy(one.encode(some)), before).mean())
    times = seconds(calls)
    for row, time in zip(rows, times):
        row |= {"texts_per_second": count / time, "speed": times[0] / time}
    metric = work.first.require_task().metrics[0] if work.first.task else "agreement"
    return {"metric": metric, "texts": count, "rows": rows, "steps": list(reports)}
