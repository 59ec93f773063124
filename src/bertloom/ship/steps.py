"""A model made smaller in steps, each measured beside the first: prune, distill, low rank, quantize, in any order."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from bertloom.api import Model, load
from bertloom.errors import InputError, blaming, nearest
from bertloom.files import held, read_json, read_text, write_json
from bertloom.finetuning.recipe import Tuning, tuning
from bertloom.finetuning.report import FILE
from bertloom.finetuning.tune import finetune
from bertloom.ship.low_rank import low_rank
from bertloom.ship.measure import dev_records, scores, seconds, size
from bertloom.ship.prune import asking, prune
from bertloom.ship.quantize import TEXTS, quantize
from bertloom.tasks.task import Record
from bertloom.text.records import texts
from bertloom.text.sources import ReadCounts, ReadOptions
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
        return list(islice(texts(self.data, name, ReadOptions(), ReadCounts()), 20 * TEXTS))


class Step(ABC):
    """One way to make a model smaller; its fields are its keys in a recipe."""

    name: ClassVar[str]

    def check(self, work: Work) -> None:
        """Raise now, and not after the steps before, where it cannot be taken."""
        return None

    @abstractmethod
    def run(self, model: Model, work: Work, folder: Path) -> dict[str, Any] | None:
        """Make a model in a folder of another; what there is to tell of it, None where a signal stopped it."""


@dataclass(frozen=True, kw_only=True)
class Prune(Step):
    """Heads and inner neurons by their share, layers by their number."""

    name: ClassVar[str] = "prune"
    heads: float = 0.0
    inner: float = 0.0
    layers: int = 0

    def run(self, model: Model, work: Work, folder: Path) -> dict[str, Any]:
        """By the slopes of a loss on the data."""
        ask = asking(model, work.data, work.texts, ReadCounts())
        made, report = prune(model, ask, heads=self.heads, inner=self.inner, layers=self.layers)
        made.save(folder)
        return vars(report)


@dataclass(frozen=True, kw_only=True)
class Distill(Step):
    """The first model's answers learned by the one at hand; keys are those of fine-tuning."""

    name: ClassVar[str] = "distill"
    keys: Mapping[str, Any]

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
class LowRank(Step):
    """Word embeddings of a rank."""

    name: ClassVar[str] = "low-rank"
    rank: int = 128

    def run(self, model: Model, work: Work, folder: Path) -> dict[str, Any]:
        """By the words of the data's texts."""
        made, report = low_rank(model, work.texts, self.rank)
        made.save(folder)
        return vars(report)


@dataclass(frozen=True, kw_only=True)
class Quantize(Step):
    """Weights and activations in int8."""

    name: ClassVar[str] = "quantize"
    agreement: float = 0.995

    def run(self, model: Model, work: Work, folder: Path) -> dict[str, Any]:
        """Calibrated on the data's texts."""
        made, report = quantize(model, work.texts, self.agreement)
        made.save(folder)
        return vars(report)


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
        return {**own, "steps": [{"do": one.name, **_keys(one)} for one in self.steps]}


def _keys(step: Step) -> dict[str, Any]:
    given = dataclasses.asdict(step)  # type: ignore[call-overload]
    return {**given.pop("keys", {}), **given}


def read_recipe(path: Path, over: Mapping[str, Any]) -> Recipe:
    """The recipe of a TOML file, with keys over it; raises with the file where it cannot be."""
    try:
        given = tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not TOML: {error}", path) from None
    for name in given:
        if name not in KEYS:
            raise InputError(f"key {nearest(name, KEYS)}", path)
    given |= over
    for name in ("model", "data", "output", "steps"):
        if not given.get(name):
            raise InputError(f"{name}: none given, one needed", path)
    for name in KEYS[:-1]:
        if not isinstance(given.get(name, ""), str):
            raise InputError(f"{name}: {given[name]!r} given, a text allowed", path)
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
        if type(value) is not known[key] and not (known[key] is float and type(value) is int):
            raise InputError(f"step {number}: {key}: {value!r} given, a {known[key].__name__} allowed")
    return kind(**given)


def compress(recipe: Recipe, say: Say = print) -> dict[str, Any] | None:
    """Take a recipe's steps, or go on where they stopped; the report, None where a signal stopped them.

    Each step's model stands in a folder of its own in the output, the last one in `model`.
    """
    folder, values = Path(recipe.output), recipe.values()
    said = json.loads(json.dumps(values))
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
