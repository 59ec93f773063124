"""`bertloom compress`: quantize, prune, distill and low-rank, or a recipe of several steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from cyclopts import Parameter

from bertloom.cli import Words, commands
from bertloom.cli.flags import flags, given
from bertloom.cli.options import AModel, AnEncoding, AsJson, OnBad, Whole
from bertloom.errors import InputError, nearest
from bertloom.finetuning.recipe import Tuning, tuning

if TYPE_CHECKING:
    from bertloom.api import Model
    from bertloom.text.sources import ReadCounts

_app = commands("compress", "Make a model smaller and faster, and say what it costs.")
Texts = Annotated[
    str, Parameter(help="Texts like those it will read: lines of a .txt, a column of .jsonl, .csv, .tsv or .parquet.")
]
Output = Annotated[Path, Parameter(help="Folder to make.")]
Dev = Annotated[Path | None, Parameter(help="Records with answers: a fine-tuned model's score before and after.")]
_HINTS = get_type_hints(Tuning)
_OWN = ("task", "model", "teacher", "train", "dev", "output", "augment", "augment_share", "augment_copies")
_FLAGS = flags("Flags", __name__, [(one, _HINTS[one.name]) for one in fields(Tuning) if one.name not in _OWN])


def compress(*words: Words) -> int | None:
    """Make a model smaller and faster, and say what it costs."""
    if words and Path(words[0]).suffix == ".toml":
        words = ("recipe", *words)
    known = ("quantize", "prune", "distill", "low-rank", "recipe")
    if words and words[0] not in known and not words[0].startswith("-"):
        raise InputError(f"compress: {nearest(words[0], known[:-1])}; a recipe's .toml file is the other way")
    return _app(words or ("--help",), exit_on_error=False, print_error=False)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How texts or records are read."""

    column: Annotated[str, Parameter(help="Column that holds the text.")] = "text"
    encoding: AnEncoding = "utf-8"
    on_bad: OnBad = "error"

    def texts(self, data: str, counts: ReadCounts) -> list[str]:
        """Those that a step looks at."""
        from bertloom.ship.measure import some_texts
        from bertloom.text.sources import ReadOptions

        return some_texts(data, self.column, ReadOptions(encoding=self.encoding, on_bad=self.on_bad), counts)


AReading = Annotated[Reading, Parameter(name="*")]
HOW = Reading()


def _scores(models: Sequence[Model], dev: Path | None) -> dict[str, tuple[float, ...]]:
    """By metric each model's score."""
    from bertloom.ship.measure import dev_records, scores

    if dev is None:
        return {}
    found = [scores(model, dev_records(model, str(dev))) for model in models]
    return {name: tuple(one[name] for one in found) for name in found[0]}


def _done(
    title: str,
    rows: Sequence[Sequence[str]],
    made: Model,
    output: Path,
    counts: ReadCounts,
    report: Any,
    scores: dict[str, tuple[float, ...]],
    json: bool,
) -> None:
    """Save what was made, and tell of it: a table of before and after, and what to do next."""
    from bertloom.cli.show import command, print_json, print_table, say, say_counts
    from bertloom.hub import is_plain

    made.save(output)
    say_counts(counts)
    plain = is_plain(made.config, made.state())
    if json:
        print_json({"output": str(output), **vars(report), "scores": scores, "opens_in_transformers": plain})
        return
    print_table(
        title,
        ("", "before", "after"),
        [*rows, *((name, *(f"{one:.4f}" for one in two)) for name, two in scores.items())],
    )
    then = command("embed", output, "--data", "FILE", "--output", "vectors.npy")
    if scores:
        then = command("predict", output, "--data", "FILE", "--output", "FILE.jsonl")
    say(f"Model in {output}{'' if plain else ', which bertloom alone opens'}; next: {then}")


def _megabytes(sizes: tuple[int, int]) -> tuple[str, str, str]:
    before, after = (f"{size / 1e6:.1f} MB" for size in sizes)
    return "size", before, after


@_app.command
def quantize(
    model: AModel,
    *,
    data: Texts,
    output: Output,
    agreement: Annotated[
        float, Parameter(help="Least mean cosine with the vectors of before; layers stay in fp32 until it is reached.")
    ] = 0.995,
    dev: Dev = None,
    reading: AReading = HOW,
    json: AsJson = False,
) -> None:
    """Weights and activations in int8, calibrated on texts; what does not bear it stays, by measurement."""
    from bertloom.api import load
    from bertloom.cli.show import remarks, say
    from bertloom.files import refuse_existing
    from bertloom.ship import quantize as work
    from bertloom.text.sources import ReadCounts

    refuse_existing(output)
    counts = ReadCounts()
    some, loaded = reading.texts(data, counts), load(model)
    if dev:
        loaded.require_task()
    with remarks.status("Calibrating"):
        made, report = work.quantize(loaded, some, agreement)
        scores = _scores((loaded, made), dev)
    kept = f"; these stay in fp32: {', '.join(report.kept)}" if report.kept else ""
    if not json:
        say(f"{len(report.int8)} of {len(report.int8) + len(report.kept)} layers in int8{kept}")
    rows = [
        _megabytes(report.size),
        ("speed", *(f"{speed:,.0f} texts/s" for speed in report.speed)),
        ("agreement", "1", f"{report.agreement:.4f} (least {report.least:.4f})"),
    ]
    title = f"int8 on this CPU ({report.instruction_set})"
    _done(title, rows, made, output, counts, report, scores, json)


@_app.command
def prune(
    model: AModel,
    *,
    data: Annotated[
        str, Parameter(help="What tells what matters: a fine-tuned model's records with answers, other models' texts.")
    ],
    output: Output,
    heads: Annotated[float, Parameter(help="Share of the attention heads that go, from all layers.")] = 0.0,
    inner: Annotated[float, Parameter(help="Share of each layer's inner neurons that go.")] = 0.0,
    layers: Annotated[Whole, Parameter(help="Whole layers that go.")] = 0,
    dev: Dev = None,
    reading: AReading = HOW,
    json: AsJson = False,
) -> None:
    """Heads, inner neurons and whole layers that matter least, taken away; what stays takes over what it can.

    `compress distill` teaches the rest from the model as it was.
    """
    from bertloom.api import load
    from bertloom.cli.show import command, remarks, say
    from bertloom.files import refuse_existing
    from bertloom.ship import prune as work
    from bertloom.text.sources import ReadCounts

    refuse_existing(output)
    counts, loaded = ReadCounts(), load(model)
    if dev:
        loaded.require_task()
    some = [] if loaded.task else reading.texts(data, counts)
    with remarks.status("Looking for what matters least"):
        made, report = work.prune(
            loaded, work.asking(loaded, data, some, counts), heads=heads, inner=inner, layers=layers
        )
        scores = _scores((loaded, made), dev)
    config = loaded.config
    gone = f" (without {', '.join(map(str, report.gone))})" if report.gone else ""
    rows = [
        _megabytes(report.size),
        ("layers", str(config.num_hidden_layers), f"{made.config.num_hidden_layers}{gone}"),
        ("heads", str(config.num_attention_heads), " ".join(map(str, report.heads))),
        ("inner neurons", *(f"{one:,}" for one in report.inner)),
        ("loss", *(f"{one:.4f}" for one in report.loss)),
    ]
    _done("Pruned", rows, made, output, counts, report, scores, json)
    if loaded.task and not json:
        train = command("compress", "distill", model, "--student", output, "--train", data, "--dev", dev or "FILE")
        say(f"To bring back what it lost: {train} --output FOLDER")


@_app.command
def distill(
    teacher: AModel,
    *,
    train: Annotated[str, Parameter(help="Records to learn on, whose answers are the teacher's: none are needed.")],
    dev: Annotated[str, Parameter(help="Records with answers, that choose the checkpoint and are scored.")],
    output: Output,
    student: Annotated[str, Parameter(help="Model that learns: of any family, or one that was pruned.")] = "",
    layers: Annotated[Whole, Parameter(help="In place of a student: so many of the teacher's own layers.")] = 0,
    keys: Annotated[_FLAGS, Parameter(name="*")] = _FLAGS(),  # type: ignore[valid-type]  # noqa: B008
    json: AsJson = False,
) -> int:
    """A fine-tuned teacher's answers, and its insides if asked, learned by a smaller student on unlabelled text.

    The loop, its flags and what is written are those of `finetune`; the same command goes on where it stopped.
    """
    from bertloom.api import load
    from bertloom.cli.finetune import run
    from bertloom.ship.distill import student_of

    if bool(student) == bool(layers):
        raise InputError("student, layers: one of the two needed")
    loaded = load(teacher)
    task = loaded.require_task()
    start = student or str(student_of(loaded, layers, output))
    own = {"model": start, "teacher": teacher, "train": train, "dev": dev, "output": str(output)}
    return run(tuning(task.name, {**given(keys), **own}), json)


@_app.command(name="low-rank")
def low_rank(
    model: AModel,
    *,
    data: Texts,
    output: Output,
    rank: Annotated[Whole, Parameter(help="Width of the table of words.")] = 128,
    dev: Dev = None,
    reading: AReading = HOW,
    json: AsJson = False,
) -> None:
    """Word embeddings as a narrow table and a matrix that widens it, nearest where the texts' words are."""
    from bertloom.api import load
    from bertloom.files import refuse_existing
    from bertloom.ship import low_rank as work
    from bertloom.text.sources import ReadCounts

    refuse_existing(output)
    counts = ReadCounts()
    some, loaded = reading.texts(data, counts), load(model)
    made, report = work.low_rank(loaded, some, rank)
    scores = _scores((loaded, made), dev)
    rows = [
        _megabytes(report.size),
        ("rank", str(loaded.config.word_size), str(rank)),
        ("squares kept", "100 %", f"{100 * report.kept:.1f} %"),
        ("agreement", "1", f"{report.agreement:.4f}"),
    ]
    _done("Word embeddings of low rank", rows, made, output, counts, report, scores, json)


@_app.command(show=False)
def recipe(
    path: Path,
    *,
    model: str | None = None,
    data: str | None = None,
    dev: str | None = None,
    column: str | None = None,
    output: str | None = None,
    json: AsJson = False,
) -> int:
    """Take a recipe's steps one after the other; the same command goes on where it stopped."""
    from bertloom.cli.show import command, print_json, print_table, say
    from bertloom.ship.steps import compress, read_recipe

    flags = {"model": model, "data": data, "dev": dev, "column": column, "output": output}
    made = read_recipe(path, {name: value for name, value in flags.items() if value is not None})
    report = compress(made, say)
    if json:
        print_json({"output": made.output, "finished": report is not None, **(report or {})})
    if report is None:
        say("Stopped and saved; the same command goes on from there.")
        return 130
    if not json:
        metric, first = report["metric"], report["rows"][0]

        def of(row: dict[str, Any]) -> float:
            return float({**row, **row.get("scores", {})}[metric])

        print_table(
            f"Step by step, on {report['texts']:,} texts",
            ("step", "size", "speed", "× first", metric, "of first"),
            [
                (
                    row["step"], f"{row['size'] / 1e6:.1f} MB", f"{row['texts_per_second']:,.0f} texts/s",
                    f"{row['speed']:.2f}", f"{of(row):.4f}", f"{100 * of(row) / of(first):.1f} %",
                )
                for row in report["rows"]
            ],
        )  # fmt: skip
        then = command("predict" if "scores" in first else "embed", f"{made.output}/model", "--data", "FILE")
        say(f"Each step's model in {made.output}, the last in {made.output}/model; next: {then}")
    return 0
