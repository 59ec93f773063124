"""The model card of a saved folder: the Hub's metadata, data, recipe, measures, how to load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bertloom.config import EncoderConfig
from bertloom.families import FAMILIES
from bertloom.tasks import Task
from bertloom.train.recipe import Recipe

CARD = "README.md"


class Measured(Protocol):
    """A loss and an accuracy."""

    @property
    def loss(self) -> float: ...  # noqa: D102
    @property
    def accuracy(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Training:
    """What a card tells of a run: its recipe, the corpus's manifest, measures, steps and tokens so far."""

    recipe: Recipe
    manifest: Mapping[str, Any]
    measures: Mapping[str, Measured]
    step: int
    tokens: int


def model_card(config: EncoderConfig, fills: bool, training: Training | None = None) -> str:
    """Markdown with YAML front matter; `fills` is whether the model has a masked-language head."""
    from huggingface_hub import EvalResult, ModelCardData

    task = "fill-mask" if fills else "feature-extraction"
    name = _named(config)
    measured = [
        EvalResult(
            task_type=task, dataset_type="text", dataset_name="held-out documents", metric_type=kind,
            metric_name=f"{part.upper()} {kind}", metric_value=round(getattr(one, kind), 4),
        )
        for part, one in (training.measures.items() if training else ())
        for kind in ("loss", "accuracy")
    ]  # fmt: skip
    data = ModelCardData(library_name=_library(config), pipeline_tag=task, tags=[config.model_type, "bertloom"])
    if measured:
        data.model_name, data.eval_results = name, measured
    parts = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {name}\n",
        *(_of_training(config, training) if training else []),
        "## How to load\n",
        '```python\nimport bertloom\n\nmodel = bertloom.load("this-folder")\nmodel.encode(["a text"])',
        *(['model.fill("The [MASK] of the United States.")'] if fills else []),
        "```\n",
        "`transformers.AutoModel` opens the folder too.\n"
        if _library(config) == "transformers"
        else "`transformers.AutoModel` opens each half, in `left-to-right` and `right-to-left`.\n",
    ]
    return "\n".join(parts)


def _library(config: EncoderConfig) -> str:
    """The one whose classes open the folder: `transformers` has none for some families."""
    return "transformers" if FAMILIES[config.model_type].classes else "bertloom"


def _named(config: EncoderConfig) -> str:
    way = "" if config.direction == "both" else f"{config.direction} "
    name = f"{way}{FAMILIES[config.model_type].title}"
    article = "An" if name[0] in "AE" else "A"
    return f"{article} {name} of {config.num_hidden_layers} layers and width {config.hidden_size}"


def _of_training(config: EncoderConfig, training: Training) -> list[str]:
    recipe, manifest, measures = training.recipe, training.manifest, training.measures
    names = [f"`{name}`" for name in manifest["sources"][:10]]
    more = f" and {len(manifest['sources']) - 10} more files" if len(manifest["sources"]) > 10 else ""
    before = f"further, from `{recipe.start}`," if recipe.start else "from scratch"
    if recipe.teacher:
        before = f"as a student of `{recipe.teacher}`{'' if recipe.model else ', whose layers it began with,'}"
    table = "".join(
        f"| {name.upper()} | {one.loss:.3f} | {100 * one.accuracy:.1f} % |\n" for name, one in measures.items()
    )
    return [
        f"Pretrained {before} with bertloom on {recipe.objective.upper()}.\n",
        "## Data\n",
        f"{manifest['documents']:,} documents, {manifest['sentences']:,} sentences, {manifest['tokens']:,} tokens from "
        f"{', '.join(names)}{more}; vocabulary of {config.vocab_size:,} tokens "
        f"(fingerprint `{manifest['vocabulary']['fingerprint'][:12]}`).\n",
        "## Measures\n",
        f"After {training.step:,} of {recipe.steps:,} steps, {training.tokens:,} tokens.\n",
        "| held out | loss (nats) | accuracy |\n|---|---|---|\n" + table
        if measures
        else "No held-out text was set aside (`bertloom prepare --held-out`).\n",
        "## Recipe\n",
        "```toml",
        *(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in recipe.shaping().items()),
        "```\n",
    ]


def finetuned_card(config: EncoderConfig, task: Task, report: Mapping[str, Any]) -> str:
    """Markdown of a fine-tuned model: its data, scores by seed, settings, how to load."""
    from huggingface_hub import EvalResult, ModelCardData

    name = f"{_named(config)} fine-tuned to {task.name}"
    pipeline = task.pipeline
    data = ModelCardData(library_name=_library(config), pipeline_tag=pipeline, tags=[config.model_type, "bertloom"])
    data.model_name = name
    data.eval_results = [
        EvalResult(
            task_type=pipeline, dataset_type="text", dataset_name="dev", metric_type=metric,
            metric_value=round(value, 4),
        )
        for metric, value in report["scores"].items()
    ]  # fmt: skip
    spread = report["over_seeds"]
    rows = "".join(
        f"| {metric} | {value:.4g} | {spread[metric]['mean']:.4g} ± {spread[metric]['deviation']:.2g} |\n"
        for metric, value in report["scores"].items()
        if metric in spread
    )
    seeds = ", ".join(str(run["seed"]) for run in report["runs"])
    train, dev = report["train"], report["dev"]
    remarks = "".join(f"- {remark}\n" for remark in report["remarks"])
    keys = {key: value for key, value in report["settings"].items() if key != "steps"}  # which is no key
    parts = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {name}\n",
        f"Fine-tuned from `{report['model']}` with bertloom.\n",
        "## Data\n",
        f"{train['records']:,} training records of `{train['source']}`, {dev['records']:,} of `{dev['source']}` to "
        "choose the checkpoint by; scores are on the latter.\n",
        remarks,
        "## Scores\n",
        f"| on dev | this model | over seeds {seeds} |\n|---|---|---|\n{rows}",
        "## How to load\n",
        '```python\nimport bertloom\n\nmodel = bertloom.load("this-folder")',
        f"model.predict([{json.dumps(task.example)}])\n```\n",
        "## Recipe\n",
        "```toml",
        *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()),
        "```\n",
    ]
    return "\n".join(parts)
