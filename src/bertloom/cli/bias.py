"""`bertloom bias`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from bertloom.cli.options import AModel, AnEncoding, AsJson, OnBad, Whole

if TYPE_CHECKING:
    from bertloom.api import Model
    from bertloom.corpus import Corpus
    from bertloom.inspect.bias import Figure, Row, Suite

# Tokens of a sequence of held-out text at most.
LOSS_LENGTH = 128


def bias(
    model: AModel,
    *,
    suite: Literal["crows-pairs", "stereoset", "winobias", "seat", "weat"] | None = None,
    template: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    data: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    after: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    corpus: Path | None = None,
    seed: Whole = 0,
    encoding: AnEncoding = "utf-8",
    on_bad: OnBad = "error",
    json: AsJson = False,
) -> None:
    """What a model prefers where people differ: published measures or your own, by group, with intervals.

    Parameters
    ----------
    suite
        The procedure whose data --data is.
    template
        A sentence of your own with {} for a word, perhaps with an [attribute]: "{} is a [nurse]."
    data
        The suite's files or folder, or for --template pairs of words, one a line.
    after
        Models to stand beside: of each figure how far it is from the first model's, with an interval.
    corpus
        Prepared corpus, of whose held-out part the table has each model's loss.
    seed
        Of the bootstrap and of drawn permutations.
    """
    from bertloom.api import load
    from bertloom.cli.show import print_json, print_table, remarks, say, say_counts
    from bertloom.errors import InputError
    from bertloom.inspect.bias import SUITES, Template, measured
    from bertloom.text.sources import ReadCounts, ReadOptions

    if (suite is None) == (not template):
        raise InputError("bias: give either --suite NAME --data FILE, or --template SENTENCE --data PAIRS")
    if not data:
        raise InputError("bias: no --data given, the suite's file or pairs of words needed")
    counts, options = ReadCounts(), ReadOptions(encoding=encoding, on_bad=on_bad)
    asked: Suite[Any] = SUITES[suite]() if suite else Template(template)
    items = asked.read(data, options, counts)
    models = [load(one) for one in (model, *after)]
    aside = _held_out(models, corpus) if corpus else None
    with remarks.status("Scoring") as status:
        rows = measured(asked, models, items, seed, lambda what: status.update(f"Scoring {what}"))
        losses = [_loss(one, aside) for one in models] if aside else None
    say_counts(counts)
    if json:
        print_json(
            {
                "suite": suite or "template", "data": list(data), "items": len(items), "models": [model, *after],
                "rows": [_told(asked, one) for one in rows], "held_out_loss": losses, "does_not_show": asked.caution,
            }
        )  # fmt: skip
        return
    names = _names([model, *after])
    columns = ["group", "n", "measure", names[0]] + [cell for one in names[1:] for cell in (one, "change")]
    shown = [_shown(one) for one in rows]
    if losses:
        cells = [f"{losses[0]:.3f}"] + [
            cell for one in losses[1:] for cell in (f"{one:.3f}", f"{one - losses[0]:+.3f}")
        ]
        shown.append(["held-out text", "", "MLM loss", *cells])
    print_table(f"{suite or 'template'}: {len(items):,} items; ± is half of the 95 % interval", columns, shown)
    there = {row.measure for row in rows}
    neutral = ", ".join(f"{name} {value:g}" for name, value in asked.neutral.items() if name in there)
    say(f"Without preference: {neutral}.")
    say(asked.caution)


def _names(models: Sequence[str]) -> list[str]:
    """Models by the last parts of their folders' names, as many as tell them apart."""
    parts = [one.rstrip("/").split("/") for one in models]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(set(models)):
            break
    return names


def _digits(measure: str) -> int:
    """Decimals that a measure is shown with: counts none, what is in percent one, chances five."""
    if measure.startswith("p"):
        return 5
    return 0 if measure == "ties" else 1 if "%" in measure or measure in ("LMS", "SS", "ICAT") else 2


def _shown(row: Row) -> list[str]:
    digits = _digits(row.measure)

    def cell(one: Figure, sign: str = "") -> str:
        text = f"{one.value:{sign}.{digits}f}"
        return text if math.isnan(one.low) else f"{text} ± {(one.high - one.low) / 2:.{digits}f}"

    changes = [cell(one, "+") for one in row.changes] or [""] * (len(row.figures) - 1)
    beside = [text for one, change in zip(row.figures[1:], changes) for text in (cell(one), change)]
    return [row.group, f"{row.count:,}", row.measure, cell(row.figures[0]), *beside]


def _told(suite: Suite[Any], row: Row) -> dict[str, Any]:
    def figure(one: Figure) -> dict[str, Any]:
        return {"value": one.value, "interval": None if math.isnan(one.low) else [one.low, one.high]}

    return {
        "group": row.group, "measure": row.measure, "n": row.count, "neutral": suite.neutral.get(row.measure),
        "figures": [figure(one) for one in row.figures], "changes": [figure(one) for one in row.changes],
    }  # fmt: skip


def _held_out(models: Sequence[Model], folder: Path) -> Corpus:
    """The held-out part of a corpus that all models can be measured on."""
    from bertloom.corpus import Corpus, opened
    from bertloom.corpus.arrays import HELD_OUT
    from bertloom.errors import InputError

    whole = opened(folder)
    if not isinstance(whole, Corpus):
        raise InputError("a folder of several corpora given, one allowed", folder)
    aside = whole if whole.path.name == HELD_OUT else whole.held_out
    if aside is None:
        raise InputError("corpus without a held-out part given, one made with prepare --held-out needed", folder)
    for model in models:
        aside.require(model.tokenizer.fingerprint, model.path)
        model.head("mlm")
    return aside


def _loss(model: Model, aside: Corpus) -> float:
    """The held-out loss of masked tokens."""
    from bertloom.api import LENGTH
    from bertloom.evaluation import held_out
    from bertloom.pretraining import trained_objective

    # A model that can read more is measured at what others can, too.
    length = min(LOSS_LENGTH, int(model.others.get(LENGTH, model.config.longest)))
    return held_out(model.encoder, trained_objective(model), aside, examples=2000, length=length)["mlm"].loss
