"""Bias before and after: BERT-mini and MiniLM go on as before, and on text with changed copies beside it.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/bias.py [--output runs/bias] [--weat WEAT.json] [--table]

The models are what `bench/family.py` (mlm) and `bench/distil.py` (teacher) left in runs; the changed copies are of
WinoBias' word lists. Both go on for the same number of steps at the same rate, so that what differs is the text alone.
The same command goes on where it stopped; `--table` prints what `bertloom bias` says of all three beside each other.
`--weat` is the file of word lists of the package `wefe`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from distil import minilm
from side_by_side import data

from bertloom.corpus.arrays import default_workers
from bertloom.corpus.prepare import prepare
from bertloom.pretraining import pretrain
from bertloom.text.conll import sentences
from bertloom.text.counterfactual import PRONOUNS, Swapper, read_pairs
from bertloom.text.sources import ReadCounts, ReadOptions
from bertloom.train.recipe import Recipe

# Each model, how it goes on: steps, tokens of a sequence, rate.
MODELS = {
    "mini": (Path("runs/family/runs/mlm"), 1500, 128, 3e-4),
    "minilm": (Path("runs/distil/runs/teacher"), 600, 64, 1e-4),
}
TEXTS = ("plain", "changed")
LISTS = ("generalized_swaps.txt", "extra_gendered_words.txt")
SUITES = {"crows-pairs": "crows_pairs.csv", "winobias": "winobias"}
# What May et al. (2019, §3) put around a name or a noun.
TEMPLATES = ("This is {}.", "That is {}.", "There is {}.", "Here is {}.", "{} is here.", "{} is there.")
GENDER = {
    "weat6": ("male_names", "female_names", "career", "family"),
    "weat7": ("math", "arts", "male_terms", "female_terms"),
    "weat8": ("science", "arts_2", "male_terms_2", "female_terms_2"),
}


def learned(name: str, text: str, output: Path) -> bool:
    start, steps, length, rate = MODELS[name]
    corpus = output / f"corpus-{name}-{text}"
    if not corpus.is_dir():
        texts, options = [data("pretrain", "books"), data("pretrain", "wiki_en.txt")], ReadOptions(fallback="latin-1")
        pairs = [pair for one in LISTS for pair in read_pairs(data("bias", "winobias", one))]
        swaps = Swapper(pairs) if text == "changed" else None
        prepare(
            texts, start / "model", corpus, options=options, held_out=0.05, counterfactual=swaps,
            workers=default_workers(),
        )  # fmt: skip
    recipe = Recipe(
        corpus=str(corpus), output=str(output / f"{name}-{text}"), start=str(start), objective="mlm", steps=steps,
        length=length, batch_size=32, dropout=0.0, learning_rate=rate, save_every=200, evaluate_examples=200,
    )  # fmt: skip
    return bool(pretrain(recipe, warn=lambda text: print(text, file=sys.stderr)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path("runs/bias"))
    parser.add_argument("--weat", type=Path, help="the word lists of the package wefe, wefe/datasets/data/WEAT.json")
    parser.add_argument("--table", action="store_true", help="print what is there")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        for text in () if given.table else TEXTS:
            if not learned(name, text, given.output):
                sys.exit(130)
    pronouns()
    suites = {name: data("bias", file) for name, file in SUITES.items()}
    if given.weat:
        suites |= association(given.weat, given.output)
    for name in MODELS:
        corpus = given.output / f"corpus-{name}-plain"
        for suite, file in suites.items():
            after = [word for text in TEXTS for word in ("--after", str(given.output / f"{name}-{text}"))]
            command = ["bias", str(MODELS[name][0]), *after, "--suite", suite, "--data", str(file)]
            subprocess.run([sys.executable, "-m", "bertloom", *command, "--corpus", str(corpus)], check=True)
    for suite in ("weat", "seat") if given.weat else ():
        # As it was published MiniLM has no language head.
        command = ["bias", minilm(), "--suite", suite, "--data", str(suites[suite])]
        subprocess.run([sys.executable, "-m", "bertloom", *command], check=True)


def pronouns() -> None:
    """How many uses of `her` and `his` in a treebank become what they should."""
    swaps = Swapper([("he", "she"), ("him", "her"), ("his", "her")])
    right: dict[str, list[bool]] = {"her": [], "his": []}
    for tokens in sentences(str(data("probe", "en_ewt-train.conllu")), ReadOptions(), ReadCounts()):
        text = ""
        for token in tokens:
            apart = "" if "SpaceAfter=No" in token.cells[9] else " "
            text += token.cells[1] + apart
        end = 0
        for token in tokens:
            end += len(token.cells[1])
            low, tag = token.cells[1].lower(), token.cells[4]
            if low in right and tag in ("PRP", "PRP$"):
                said, _ = swaps(text[end - len(low) :])
                right[low].append(said.split()[0].strip(".,!?;:/()\"'").lower() == PRONOUNS[low][tag == "PRP"])
            end += "SpaceAfter=No" not in token.cells[9]
    for word, found in right.items():
        print(f"{word}: {sum(found)} of {len(found)} uses become what they should")


def association(lists: Path, output: Path) -> dict[str, Path]:
    """The tests of gender for words and for sentences, as files of the authors' form."""
    words, made = json.loads(lists.read_text(encoding="utf-8")), {}
    for suite in ("weat", "seat"):
        folder = made[suite] = output / suite
        folder.mkdir(exist_ok=True)
        for test, names in GENDER.items():
            sets = {
                role: {
                    "category": name,
                    "examples": words[name]
                    if suite == "weat"
                    else [template.format(word) for word in words[name] for template in TEMPLATES],
                }
                for role, name in zip(("targ1", "targ2", "attr1", "attr2"), names)
            }
            (folder / f"{test}.jsonl").write_text(json.dumps(sets), encoding="utf-8")
    return made


if __name__ == "__main__":
    main()
