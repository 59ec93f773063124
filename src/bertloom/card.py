"""The model card of a saved folder: the Hub's metadata, data, recipe, measures, how to load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Protocol

from bertloom.config import EncoderConfig
from bertloom.corpus import Corpus
from bertloom.train.recipe import Recipe


class Measured(Protocol):
    """A loss and an accuracy."""

    @property
    def loss(self) -> float: ...  # noqa: D102
    @property
    def accuracy(self) -> float: ...  # noqa: D102


def model_card(
    config: EncoderConfig,
    recipe: Recipe,
    corpus: Corpus,
    measures: Mapping[str, Measured],
    step: int,
    tokens: int,
) -> str:
    """Markdown with YAML front matter, after `step` steps on `tokens` tokens."""
    manifest = corpus.manifest
    trained = recipe.objective.split("+")
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: fill-mask",
        "tags: [bert, bertloom, fill-mask, pretraining]",
        "---",
        "",
        f"# A BERT of {config.num_hidden_layers} layers and width {config.hidden_size}",
        "",
        f"Pretrained from scratch with bertloom on {recipe.objective.upper()}."
        if not recipe.start
        else f"Pretrained further with bertloom on {recipe.objective.upper()}, from `{recipe.start}`.",
        "",
        "## Data",
        "",
        f"{manifest['documents']:,} documents, {manifest['sentences']:,} sentences, {manifest['tokens']:,} tokens from "
        + ", ".join(f"`{name}`" for name in manifest["sources"][:10])
        + (f" and {len(manifest['sources']) - 10} more files" if len(manifest["sources"]) > 10 else "")
        + f"; vocabulary of {config.vocab_size:,} tokens (fingerprint `{manifest['vocabulary']['fingerprint'][:12]}`).",
        "",
        "## Measures",
        "",
        f"After {step:,} of {recipe.steps:,} steps, {tokens:,} tokens.",
        "",
    ]
    if measures:
        lines += ["| held out | loss (nats) | accuracy |", "|---|---|---|"]
        lines += [f"| {name.upper()} | {one.loss:.3f} | {100 * one.accuracy:.1f} % |" for name, one in measures.items()]
    else:
        lines += ["No held-out text was set aside (`bertloom prepare --held-out`)."]
    if "nsp" not in trained and not recipe.start:
        lines += [
            "",
            "The next-sentence head and the pooler were not trained; they hold their initial values.",
        ]
    lines += [
        "",
        "## How to load",
        "",
        "```python",
        "import bertloom",
        "",
        'model = bertloom.load("this-folder")',
        'model.fill("The [MASK] of the United States.")',
        "```",
        "",
        "`transformers.AutoModel` and `BertForPreTraining` open the folder too.",
        "",
        "## Recipe",
        "",
        "```toml",
        *(f"{one.name} = {getattr(recipe, one.name)!r}" for one in fields(recipe) if one.metadata["shapes"]),
        "```",
        "",
    ]
    return "\n".join(lines)
