"""`bertloom evaluate`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from bertloom.cli.flags import data_flags, given
from bertloom.cli.options import AModel, AsJson, Whole

DataFlags = data_flags("DataFlags", __name__)


def evaluate(
    model: AModel,
    *,
    corpus: Annotated[Path | None, Parameter(help="Prepared corpus; its held-out part if it has one.")] = None,
    suite: Annotated[Literal["blimp"] | None, Parameter(help="Minimal pairs scored without fine-tuning.")] = None,
    data: Annotated[
        str | None,
        Parameter(
            help="Labelled records of a fine-tuned model's task (- for standard input), or the suite's JSONL file.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    fields: Annotated[DataFlags, Parameter(name="*")] = DataFlags(),  # type: ignore[valid-type]  # noqa: B008
    examples: Annotated[Whole | None, Parameter(help="Most examples of the corpus. [default: 2000]")] = None,
    length: Annotated[Whole | None, Parameter(help="Most tokens of an example. [default: the run's, or 128]")] = None,
    seed: Annotated[Whole | None, Parameter(help="Seed of the examples and masks. [default: 0]")] = None,
    json: AsJson = False,
) -> None:
    """Measure a model: held-out losses beside guessing, grammar by minimal pairs, or a fine-tuned model's scores."""
    from bertloom.api import LENGTH, load
    from bertloom.errors import InputError

    if (corpus is None) == (data is None) or (suite is not None and data is None):
        raise InputError("evaluate: give either --corpus DIR, --suite blimp --data FILE, or a task's --data FILE")
    if data is not None and (examples, length, seed) != (None, None, None):
        raise InputError("evaluate: --examples, --length and --seed are for --corpus; other data is scored whole")
    if (corpus is not None or suite is not None) and given(fields):
        raise InputError(f"evaluate: --{next(iter(given(fields))).replace('_', '-')} is for a task's data")
    examples, seed = (2000 if examples is None else examples), seed or 0
    if examples < 1 or (length is not None and length < 8) or seed < 0:
        raise InputError(f"examples: {examples}, length: {length}, seed: {seed} given, at least 1, 8 and 0 allowed")
    loaded = load(model)
    if corpus is not None:
        if length is None:
            length = int(loaded.others.get(LENGTH, min(128, loaded.config.longest)))
        _on_corpus(loaded, corpus, examples, length, seed, json)
    elif suite is not None:
        _on_pairs(loaded, Path(str(data)), json)
    else:
        _on_task(loaded, str(data), given(fields), json)


def _on_task(model: Any, data: str, columns: dict[str, Any], json: bool) -> None:
    from bertloom.cli.show import print_json, print_table, remarks, say_counts, score, show_confusion
    from bertloom.errors import InputError
    from bertloom.tasks.metrics import require_libraries
    from bertloom.tasks.task import with_options
    from bertloom.text.sources import ReadCounts

    require_libraries()
    task = model.task = with_options(model.require_task(), columns)
    counts = ReadCounts()
    records = task.usable(list(task.read(data, counts)), counts)
    if not records:
        raise InputError("no records in it, at least one needed", data)
    with remarks.status("Predicting"):
        predictions = [prediction for _, prediction in model.predictions(records, counts=counts)]
    scores = task.score(predictions, records)
    labels, matrix = task.confusion(predictions, records) or ([], None)
    say_counts(counts)
    if json:
        found = {} if matrix is None else {"confusion": {"labels": labels, "matrix": matrix.tolist()}}
        print_json({"task": task.name, "data": data, "records": len(records), "scores": scores, **found})
        return
    rows = [(name, score(value)) for name, value in scores.items()]
    print_table(f"{task.name}: {len(records):,} records of {data}", ("", "score"), rows)
    if matrix is not None:
        show_confusion(labels, matrix.tolist())


def _on_corpus(model: Any, folder: Path, examples: int, length: int, seed: int, json: bool) -> None:
    from dataclasses import asdict

    from bertloom.cli.show import print_json, say
    from bertloom.corpus import opened
    from bertloom.corpus.arrays import HELD_OUT
    from bertloom.errors import InputError
    from bertloom.evaluation import guessing, held_out
    from bertloom.pretraining import trained_objective

    if length > model.config.longest:
        raise InputError(f"length: {length} given, at most {model.config.longest} positions allowed")
    whole, found = opened(folder), []
    whole.require(model.tokenizer.fingerprint, model.path)
    objective = trained_objective(model)
    for part in whole.parts:
        corpus, unseen = part.held_out or part, part.held_out is not None or part.path.name == HELD_OUT
        corpus.verify()
        remark = "" if unseen else ", which has no held-out part: texts the model may have seen"
        say(f"Measuring on {corpus.path}{remark}")
        measures = held_out(model.encoder, objective, corpus, examples=examples, length=length, seed=seed)
        guesses = guessing(corpus, objective, measures)
        said = {name: asdict(one) for name, one in measures.items()}
        words = {name for name, how in objective.guessed.items() if how == "words"}
        for name in words:
            said[name]["perplexity"] = measures[name].perplexity
        found.append(
            {
                "corpus": str(corpus.path),
                "held_out": unseen,
                "length": length,
                "measures": said,
                "guessing": {name: asdict(one) for name, one in guesses.items()},
            }
        )
        if not json:
            _show_measures("Held out" if unseen else "Not held out", length, measures, guesses, words)
    if json:
        print_json(found[0] if len(found) == 1 else {"corpora": found})


def _show_measures(
    whose: str, length: int, measures: dict[str, Any], guesses: dict[str, Any], words: Collection[str]
) -> None:
    from bertloom.cli.show import percent, print_table

    rows = []
    for name, one in measures.items():
        # Of some tasks nobody can say what guessing is.
        guess = guesses.get(name)
        rows.append((f"{name.upper()} loss", f"{one.loss:.3f}", f"{guess.loss:.3f}" if guess else ""))
        if name in words and guess:
            rows.append((f"{name.upper()} perplexity", f"{one.perplexity:,.1f}", f"{guess.perplexity:,.1f}"))
        rows.append((f"{name.upper()} accuracy", percent(one.accuracy), percent(guess.accuracy) if guess else ""))
    counts = ", ".join(f"{one.count:,} {name.upper()} labels" for name, one in measures.items())
    print_table(f"{whose}, {length} tokens long: {counts}", ("", "model", "guessing"), rows)


def _on_pairs(model: Any, data: Path, json: bool) -> None:
    from dataclasses import asdict

    from bertloom.cli.show import percent, print_json, print_table, remarks
    from bertloom.evaluation import blimp, read_pairs

    if not {"mlm", "rtd"} & set(model.trained):
        model.head("mlm")
    pairs = read_pairs(data)
    with remarks.status("Scoring") as status:
        shares = blimp(
            model, pairs, lambda done: status.update(f"Scoring: {done:,} of {2 * len(pairs):,} sentences"),
        )  # fmt: skip
    if json:
        print_json(
            {
                "suite": "blimp",
                "data": str(data),
                "pairs": len(pairs),
                "shares": {k: asdict(v) for k, v in shares.items()},
            }
        )
        return
    rows = [
        (name, f"{one.count:,}", percent(one.share), f"{percent(one.low)} – {percent(one.high)}")
        for name, one in shares.items()
    ]
    print_table(
        f"BLiMP: {len(pairs):,} minimal pairs, good sentence scored higher (a tie is wrong)",
        ("phenomenon", "pairs", "right", "95 % interval"),
        rows,
    )
