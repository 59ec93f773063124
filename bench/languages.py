"""One model of English, German and Korean: what smoothed shares do to the vocabulary and to each language's loss.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/languages.py [--output runs/languages] [--steps 600] [--table]

wiki_en.txt, wiki_de.txt and the two Korean texts, every 20th document held out; vocabularies of 12,000 word pieces with
the languages' own shares and with those to the power 0.7, and BERT-mini with MLM on the second, drawn by shares, by
their power 0.7 and all alike. The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from family import cell, make
from side_by_side import data, finish

from bertloom.api import load
from bertloom.corpus import Mixture, opened
from bertloom.corpus.arrays import default_workers
from bertloom.corpus.prepare import prepare
from bertloom.evaluation import held_out
from bertloom.pretraining import pretrain, trained_objective
from bertloom.text.readers import passages
from bertloom.text.shares import balanced
from bertloom.text.vocabulary import train_vocabulary
from bertloom.train.recipe import Recipe

WORDS = 12_000
TEXTS = {"de": "wiki_de.txt", "en": "wiki_en.txt", "ko": "ko"}
EXPONENTS = (1.0, 0.7, 0.0)


def lines_of(name: str) -> Any:
    return (line for passage in passages([data("pretrain", TEXTS[name])]) for line in passage.paragraphs)


def vocabulary(exponent: float, output: Path) -> dict[str, Any]:
    """Tokens a hundred characters of each language, spelt by a vocabulary that was trained on shares to a power."""
    tokenizer = train_vocabulary(balanced([lambda name=name: lines_of(name) for name in TEXTS], exponent), WORDS)
    tokenizer.save(output / f"vocabulary-{exponent}")
    found = {}
    for name in TEXTS:
        lines = list(lines_of(name))
        found[name] = 100 * sum(map(len, tokenizer.ids(lines, special=False))) / sum(map(len, lines))
    return found


def learned(exponent: float, steps: int, output: Path) -> dict[str, Any] | None:
    """What a model says of each language's held-out text, and how often it was drawn."""
    for name, text in TEXTS.items():
        folder = output / "corpora" / name
        if not folder.is_dir():
            prepare(
                [data("pretrain", text)], output / "vocabulary-0.7", folder, held_out=0.05, workers=default_workers()
            )
    given = Recipe(
        corpus=str(output / "corpora"), output=str(output / f"run-{exponent}"), model="mini", objective="mlm",
        exponent=exponent, steps=steps, length=64, learning_rate=1e-3, dropout=0.0, initializer_range=0.01,
    )  # fmt: skip
    if not pretrain(given, warn=lambda text: None):
        return None
    model, source = load(given.output), opened(given.corpus, exponent)
    objective = trained_objective(model)
    assert isinstance(source, Mixture)
    found: dict[str, Any] = {}
    for part, share in zip(source.parts, source.shares):
        assert part.held_out is not None
        one = held_out(model.encoder, objective, part.held_out, examples=1500, length=64)["mlm"]
        found[part.path.name] = {"share": float(share), "loss": one.loss, "accuracy": one.accuracy}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path("runs/languages"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--table", action="store_true", help="print what is there")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    rows = []
    if not given.table:
        for exponent in EXPONENTS[:2]:
            make("vocabulary", str(exponent), given.output, lambda one=exponent: vocabulary(one, given.output))
        for exponent in EXPONENTS:
            make("learned", str(exponent), given.output, lambda one=exponent: learned(one, given.steps, given.output))
    print("| exponent | " + " | ".join(TEXTS) + " |\n|---" * 1 + "|---" * len(TEXTS) + "|")
    for exponent in EXPONENTS:
        words, run = cell("vocabulary", str(exponent), given.output), cell("learned", str(exponent), given.output)
        if words:
            told = " | ".join(f"{words[name]:.1f} tokens" for name in TEXTS)
            print(f"| vocabulary {exponent} | {told} |")
        if run:
            told = " | ".join(
                f"{100 * run[name]['share']:.0f} %: {run[name]['loss']:.2f}, {100 * run[name]['accuracy']:.1f} %"
                for name in TEXTS
            )
            print(f"| drawn {exponent} | {told} |")
        rows.append({"case": exponent, "tokens": words, "learned": run})
    finish("languages", rows, steps=given.steps)


if __name__ == "__main__":
    main()
