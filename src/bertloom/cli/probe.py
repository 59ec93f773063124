"""`bertloom probe`."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Literal

from bertloom.cli.options import AModel, AnEncoding, AsJson, OnBad, Whole


def probe(
    model: AModel,
    file: str,
    *,
    what: Literal["heads", "clusters", "states", "coreference", "importance"] | None = None,
    train: str | None = None,
    output: Path | None = None,
    least: Whole | None = None,
    control: bool = False,
    seed: Whole = 0,
    encoding: AnEncoding = "utf-8",
    on_bad: OnBad = "error",
    json: AsJson = False,
) -> None:
    """What a model knows of language: what its heads look at, which are alike or needed, what its states tell.

    Parameters
    ----------
    file
        Trees in CoNLL-U; for coreference a text a line with mentions in [brackets]; for importance any text, or records
        of a fine-tuned model's task.
    what
        Relations that heads find, clusters of heads, linear probes of hidden states, mentions that heads resolve, or
        how much a loss needs each head. [default: heads of trees, importance if fine-tuned, else coreference]
    train
        Trees that probes of states learn from, at most 20,000 words. [default: four in five sentences of the file]
    output
        Picture to make, in .png or .svg.
    least
        Words that a relation must have in the file for heads. [default: 20]
    control
        Ask the same of the model with random weights too.
    seed
        Of the bootstrap that intervals come from, of splits and masks, and of the random weights.
    """
    from bertloom.api import load
    from bertloom.cli.show import print_json, print_table, remarks, say, say_counts
    from bertloom.errors import InputError
    from bertloom.inspect.probe.reading import Question, require_picture, untrained
    from bertloom.text.conll import is_universal
    from bertloom.text.sources import ReadCounts, ReadOptions

    require_picture(output)
    if least is not None and least < 1:
        raise InputError(f"least: {least} given, at least 1 allowed")
    loaded = load(model)
    universal = is_universal(file)
    what = what or ("heads" if universal else "importance" if loaded.task else "coreference")
    if what == "coreference" and universal:
        raise InputError("trees given, texts with mentions in [brackets] allowed for coreference", file)
    if what in ("heads", "clusters", "states") and not universal:
        raise InputError(f"given, a file of CoNLL-U in .conllu allowed for {what}", file)
    if train is not None and what != "states":
        raise InputError(f"train: {train} given, which is for --what states alone")
    if least is not None and what != "heads":
        raise InputError(f"least: {least} given, which is for --what heads alone")
    if control and what in ("clusters", "importance"):
        raise InputError(f"control: given, which is for heads, states and coreference; {what} have none")
    asked = import_module(f"bertloom.inspect.probe.{what}")
    counts, options = ReadCounts(), ReadOptions(encoding=encoding, on_bad=on_bad)
    with remarks.status("Reading") as status:
        question = Question(file, options, counts, seed, least or 20, train, status.update)
        try:
            found = asked.of_file(loaded, question)
        except InputError as error:
            # What was left out tells why nothing is left.
            say_counts(counts)
            raise error if error.where else InputError(str(error), file) from None
        without = asked.of_file(untrained(loaded, seed), replace(question, counts=ReadCounts())) if control else None
    say_counts(counts)
    if output is not None:
        asked.draw(found, output, without)
    if json:
        beside = {"control": asked.told(without)} if without else {}
        print_json({"what": what, **asked.told(found), **beside, "output": str(output) if output else None})
        return
    for table in asked.tables(found, without):
        print_table(table.title, table.columns, table.rows)
        if table.remark:
            say(table.remark)
    if output is not None:
        say(f"A picture in {output}")
