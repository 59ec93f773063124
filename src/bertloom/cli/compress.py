"""`bertloom compress quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from bertloom.cli import Words, commands
from bertloom.cli.options import AModel, AnEncoding, AsJson, OnBad

_app = commands("compress", "Make a model smaller and faster, and say what it costs.")


def compress(*words: Words) -> int | None:
    """Make a model smaller and faster, and say what it costs."""
    return _app(words or ("--help",), exit_on_error=False, print_error=False)  # type: ignore[no-any-return]


@_app.command
def quantize(
    model: AModel,
    *,
    data: Annotated[
        str,
        Parameter(help="Texts like those it will read: lines of a .txt, a column of .jsonl, .csv, .tsv or .parquet."),
    ],
    output: Annotated[Path, Parameter(help="Folder to make.")],
    agreement: Annotated[
        float, Parameter(help="Least mean cosine with the vectors of before; layers stay in fp32 until it is reached.")
    ] = 0.995,
    dev: Annotated[
        Path | None, Parameter(help="Records with answers: a fine-tuned model's score before and after.")
    ] = None,
    column: Annotated[str, Parameter(help="Column that holds the text.")] = "text",
    encoding: AnEncoding = "utf-8",
    on_bad: OnBad = "error",
    json: AsJson = False,
) -> None:
    """Weights and activations in int8, calibrated on texts; what does not bear it stays, by measurement."""
    from itertools import islice

    from bertloom.api import load
    from bertloom.cli.show import command, print_json, print_table, remarks, say, say_counts
    from bertloom.files import refuse_existing
    from bertloom.ship import quantize as work
    from bertloom.text.records import texts
    from bertloom.text.sources import ReadCounts, ReadOptions

    refuse_existing(output)
    counts = ReadCounts()
    # More than these would not be looked at.
    some = list(islice(texts(data, column, ReadOptions(encoding=encoding, on_bad=on_bad), counts), 20 * work.TEXTS))
    loaded = load(model)
    if dev:
        loaded.require_task()
    with remarks.status("Calibrating"):
        made, report = work.quantize(loaded, some, agreement)
        scores: dict[str, tuple[float, float]] = {}
        if dev:
            before, after = (_score(one, str(dev)) for one in (loaded, made))
            scores = {name: (before[name], after[name]) for name in before}
    made.save(output)
    say_counts(counts)
    if json:
        print_json({"output": str(output), **vars(report), "scores": scores})
        return
    print_table(
        f"int8 on this CPU ({report.instruction_set})",
        ("", "before", "after"),
        [
            ("size", *(f"{size / 1e6:.1f} MB" for size in report.size)),
            ("speed", *(f"{speed:,.0f} texts/s" for speed in report.speed)),
            ("agreement", "1", f"{report.agreement:.4f} (least {report.least:.4f})"),
            *((name, *(f"{value:.4f}" for value in both)) for name, both in scores.items()),
        ],
    )
    kept = f"; these stay in fp32: {', '.join(report.kept)}" if report.kept else ""
    say(f"{len(report.int8)} of {len(report.int8) + len(report.kept)} layers in int8{kept}")
    then = command("embed", output, "--data", data, "--output", "vectors.npy")
    say(f"Model in {output}, which bertloom alone opens; next: {then}")


def _score(model: Any, dev: str) -> dict[str, float]:
    from bertloom.text.sources import ReadCounts

    task = model.require_task()
    records = task.usable(list(task.told_by(dev).read(dev, ReadCounts())), ReadCounts())
    return task.score([prediction for _, prediction in model.predictions(records)], records)  # type: ignore[no-any-return]
