"""The model card of a saved folder: the Hub's metadata, data, recipe, measures, how to load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from bertloom.config import EncoderConfig
from bertloom.train.recipe import Recipe


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
    task = "fill-mask" if fills else "feature-extraction"
    layers, width = config.num_hidden_layers, config.hidden_size
    parts = [
        f"---\nlibrary_name: transformers\npipeline_tag: {task}\ntags: [bert, bertloom, {task}]\n---\n",
        f"# A BERT of {layers} layers and width {width}\n",
        *(_of_training(config, training) if training else []),
        "## How to load\n",
        '```python\nimport bertloom\n\nmodel = bertloom.load("this-folder")\nmodel.encode(["a text"])',
        *(['model.fill("The [MASK] of the United States.")'] if fills else []),
        "```\n\n`transformers.AutoModel` opens the folder too.\n",
    ]
    return "\n".join(parts)


def _of_training(config: EncoderConfig, training: Training) -> list[str]:
    recipe, manifest, measures = training.recipe, training.manifest, training.measures
    names = [f"`{name}`" for name in manifest["sources"][:10]]
    more = f" and {len(manifest['sources']) - 10} more files" if len(manifest["sources"]) > 10 else ""
    before = f"further, from `{recipe.start}`," if recipe.start else "from scratch"
    table = "".join(
        f"| {name.upper()} | {one.loss:.3f} | {100 * one.accuracy:.1f} % |\n" for name, one in measures.items()
    )
    idle = "nsp" not in recipe.objective.split("+") and not recipe.start
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
        *(
            ["The next-sentence head and the pooler were not trained; they hold their initial values.\n"]
            if idle
            else []
        ),
        "## Recipe\n",
        "```toml",
        *(f"{one.name} = {getattr(recipe, one.name)!r}" for one in fields(recipe) if one.metadata["shapes"]),
        "```\n",
    ]
