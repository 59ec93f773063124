"""`bertloom probe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bertloom.cli.options import AModel, AsJson, Whole

if TYPE_CHECKING:
    from bertloom.inspect.heads import Heads

# How a table shows which way a head looks.
ARROWS = {"to head": "→ head", "to dependent": "head →"}


def probe(
    model: AModel,
    file: str,
    *,
    output: Path | None = None,
    least: Whole = 20,
    control: bool = False,
    seed: Whole = 0,
    encoding: str = "utf-8",
    on_bad: Literal["error", "skip"] = "error",
    json: AsJson = False,
) -> None:
    """What a model's heads look at: of each relation of words the best head, beside the best fixed offset.

    Parameters
    ----------
    file
        Trees in CoNLL-U.
    output
        Picture to make, in .png or .svg: a map of heads for each relation and habit.
    least
        Words that a relation must have in the file.
    control
        Ask the same of the model with random weights too.
    seed
        Of the bootstrap that intervals come from, and of the random weights.
    encoding
        Encoding of the file.
    on_bad
        Stop at a bad sentence, or leave it out and count it.
    """
    from bertloom.api import load
    from bertloom.cli.show import print_json, say, say_counts
    from bertloom.errors import InputError
    from bertloom.files import TAKEN
    from bertloom.inspect.heads import draw, heads, told, untrained
    from bertloom.text.sources import ReadCounts, ReadOptions
    from bertloom.text.trees import trees

    if output is not None and output.suffix not in (".png", ".svg"):
        raise InputError(f"output: {output.name!r} given, a name in .png or .svg allowed")
    if output is not None and output.exists():
        raise InputError(TAKEN, output)
    if least < 1:
        raise InputError(f"least: {least} given, at least 1 allowed")
    counts, options = ReadCounts(), ReadOptions(encoding=encoding, on_bad=on_bad)
    loaded = load(model)
    found = heads(loaded, trees(file, options, counts), least, seed)
    without = heads(untrained(loaded, seed), trees(file, options, ReadCounts()), least, seed) if control else None
    say_counts(counts)
    say_counts(found.counts)
    if output is not None:
        draw(found, output)
    if json:
        beside_it = {"control": told(without)} if without else {}
        print_json({**told(found), **beside_it, "output": str(output) if output else None})
        return

    _table(found, without)
    if output is not None:
        say(f"A map of every relation and habit in {output}")


def _table(found: Heads, without: Heads | None) -> None:
    from bertloom.cli.show import print_table

    def share(value: float, interval: tuple[float, float]) -> str:
        return f"{100 * value:.1f} ± {50 * (interval[1] - interval[0]):.1f}"

    beside = {one.name: one.accuracy for one in without.relations} if without else {}
    columns = ["relation", "n", "head", "looks", "right, %", "step", "right, %"] + ["new, %"] * bool(without)
    rows = [
        (
            one.name, f"{one.count:,}", f"{one.head[0]}-{one.head[1]}", ARROWS[one.direction],
            share(one.accuracy, one.interval), f"{one.offset:+d}", share(one.offset_accuracy, one.offset_interval),
            *([f"{100 * beside[one.name]:.1f}"] if without else []),
        )
        for one in found.relations
    ]  # fmt: skip
    title = f"{found.sentences:,} sentences of {found.words:,} words; ± is half of the 95 % interval"
    print_table(title, columns, rows)
