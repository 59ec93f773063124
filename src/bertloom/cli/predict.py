"""`bertloom predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bertloom.cli.flags import data_flags, given
from bertloom.cli.options import Whole

DataFlags = data_flags("DataFlags", __name__)


def predict(
    model: str,
    *,
    data: Annotated[
        str,
        Parameter(help="Records as in training, labels not needed; - for standard input.", allow_leading_hyphen=True),
    ],
    output: Annotated[
        Path | None, Parameter(help="File to make, .jsonl, .csv or .tsv; standard output unless given.")
    ] = None,
    fields: Annotated[DataFlags, Parameter(name="*")] = DataFlags(),  # type: ignore[valid-type]  # noqa: B008
    tokens: Annotated[Whole, Parameter(help="Tokens that go through the model at once.")] = 1024,
    json: bool = False,
) -> None:
    """Ask a fine-tuned model of every record of a file, however long, and write its answers with probabilities.

    Parameters
    ----------
    model
        A fine-tuned model's folder, or a Hub id.
    json
        Print one JSON object about what was written.
    """
    from dataclasses import replace

    from bertloom.api import load
    from bertloom.cli.show import print_json, remarks, say, say_counts
    from bertloom.errors import InputError
    from bertloom.tasks.task import with_options
    from bertloom.tasks.writing import writer
    from bertloom.text.sources import ReadCounts

    if tokens < 1:
        raise InputError(f"tokens: {tokens} given, at least 1 allowed")
    if output is None and json:
        raise InputError("output: none given beside --json, a file needed")
    loaded = load(model)
    task = loaded.task = replace(with_options(loaded.require_task(), given(fields)), asks=True)
    counts, done = ReadCounts(), 0
    with writer(output, task) as write, remarks.status("Predicting") as status:
        for record, prediction in loaded.predictions(task.read(data, counts), tokens, counts):
            write(record, prediction)
            done += 1
            if done % 100 == 0:
                status.update(f"Predicting: {done:,} records")
        if not done:
            raise InputError("no records in it, at least one needed", data)
    say_counts(counts)
    if json:
        print_json({"output": str(output), "records": done, "mended": dict(+counts.mended)})
    elif output:
        say(f"{done:,} predictions in {output}")
