"""`bertloom finetune TASK MODEL`, a command for each task, and `bertloom finetune RECIPE.toml`, which names its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from cyclopts import Parameter

from bertloom.cli import Words, commands
from bertloom.cli.flags import flags, given
from bertloom.cli.pretrain import Watcher
from bertloom.errors import InputError, nearest
from bertloom.finetuning.recipe import Tuning, read_tuning, tuning
from bertloom.tasks import TASKS, Task
from bertloom.tasks.task import options
from bertloom.train.keys import blamed

_app = commands("finetune", "Fine-tune a model for a task, or go on where it stopped.")
_KINDS = {**get_type_hints(Tuning)}
_OWN = [one for one in fields(Tuning) if one.name not in ("task", "model")]


def _finetuned(task: str, model: str, flags: dict[str, Any], json: bool) -> int:
    """Run flags, or a recipe's file with flags over it; a key of the file that cannot be is blamed on its line."""
    if Path(model).suffix != ".toml":
        return run(tuning(task, {**flags, "model": model}), json)
    named, keys = read_tuning(Path(model))
    if named not in (None, task):
        raise InputError(f"task: {named!r} given, {task} asked for", model)
    try:
        return run(tuning(task, {**keys, **flags}), json)
    except InputError as error:
        of_file = str(error).partition(":")[0].replace("-", "_") in keys.keys() - flags.keys()
        raise (blamed(error, Path(model)) if of_file else error) from None


def _command(kind: type[Task]) -> Callable[..., int]:
    hints = get_type_hints(kind)
    own = [(one, hints[one.name]) for one in options(kind)]
    keys = flags("Flags", __name__, [*((one, _KINDS[one.name]) for one in _OWN), *own])

    def command(model: str, *, keys: Any = keys(), json: bool = False) -> int:  # noqa: B008
        return _finetuned(kind.name, model, given(keys), json)

    command.__name__ = kind.name
    command.__doc__ = (kind.__doc__ or "").strip() + (
        "\n\nParameters\n----------\nmodel\n    A model's folder, a run, a Hub id; or a recipe's .toml file, over "
        "which flags stand.\njson\n    Print one JSON object."
    )
    command.__annotations__ = {
        "model": str,
        "keys": Annotated[keys, Parameter(name="*")],
        "json": bool,
        "return": int,
    }
    return command


for _name, _kind in TASKS.items():
    _app.command(_command(_kind), name=_name)


def finetune(*words: Words) -> int:
    """Fine-tune a model for a task, or go on where it stopped."""
    first = words[0] if words else "--help"
    if Path(first).suffix == ".toml":
        task, _ = read_tuning(Path(first))
        if task is None:
            raise InputError(f"no key task, one of {', '.join(TASKS)} needed", first)
        words = (task, *words)
    if words and words[0] not in TASKS and not first.startswith("-"):
        raise InputError(f"finetune: {nearest(words[0], TASKS)}; a recipe's .toml file is the other way")
    return _app(words or ("--help",), exit_on_error=False, print_error=False)  # type: ignore[no-any-return]


class TaskWatcher(Watcher):
    """The live bar of a fine-tuning, with a line for each measure on dev."""

    def __call__(self, run: Any, step: Any, measures: dict[str, Any]) -> None:
        """Show a step; each seed has a bar of its own."""
        if self.task is not None and self.progress.tasks[self.task].description != run.name:
            self.task, self.speed = None, 0.0
        super().__call__(run, step, measures)

    def said(self, run: Any, done: int, measures: dict[str, Any]) -> list[str]:
        """The deciding metric, then the others."""
        (one,) = measures.values()
        named = [run.metric, *(name for name in one.metrics if name != run.metric and not name.endswith("total"))][:6]
        scores = ", ".join(f"{name} {one.metrics[name]:.4g}" for name in named)
        return [f"epoch {done / run.epoch:.1f}  dev: {scores}; loss {one.loss:.3f}"]


def run(recipe: Tuning, json: bool) -> int:
    """Run a recipe and show what came of it; the exit code."""
    from bertloom.cli.show import print_json, say
    from bertloom.finetuning.tune import finetune as tune

    with TaskWatcher(quiet=json) as watcher:
        report = tune(recipe, watch=watcher, say=say, begin=_show_settings)
    if report is None:
        if json:
            print_json({"output": recipe.output, "finished": False})
        say(f"Stopped and saved at step {watcher.done:,}; the same command goes on from there.")
        return 130
    if json:
        print_json({"output": recipe.output, "finished": True, **report})
    else:
        show_report(report, Path(recipe.output))
    return 0


def _show_settings(settings: dict[str, Any]) -> None:
    """The settings a run goes by, on stderr, where progress is."""
    from bertloom.cli.show import say

    named = (
        "epochs", "steps", "batch_size", "learning_rate", "schedule", "warmup", "weight_decay", "clip", "dropout",
        "length", "layer_decay", "freeze", "seeds",
    )  # fmt: skip
    shown = [f"{name} {settings[name]:.3g}" if isinstance(settings[name], float) else f"{name} {settings[name]}"
             for name in named if settings.get(name) not in (None, "")]  # fmt: skip
    say("Settings: " + ", ".join(shown))


def show_report(report: dict[str, Any], output: Path) -> None:
    """Scores of what is shipped and over seeds, the confusion table, and what to do next."""
    from bertloom.cli.show import command, print_table, say, score, show_confusion

    several = len(report["runs"]) > 1
    spread = report["over_seeds"]
    rows = []
    for name, value in report["scores"].items():
        over = spread.get(name)
        cells = (
            [f"{over['mean']:.4f} ± {over['deviation']:.4f}", f"{over['low']:.4f} – {over['high']:.4f}"]
            if over and not isinstance(value, int)
            else ["", ""]
        )
        rows.append((name, score(value), *(cells if several else [])))
    columns = ("on dev", "this model", *([f"{len(report['runs'])} seeds", "range"] if several else []))
    best = next(run for run in report["runs"] if run["seed"] == report["shipped"])
    title = f"{report['task']}: seed {report['shipped']}, best by {report['metric']} after {best['epochs']:g} epochs"
    print_table(title, columns, rows)
    if found := report.get("confusion"):
        show_confusion(found["labels"], found["matrix"])
    if fitted := report["calibration"]:
        say(
            f"Temperature {fitted['temperature']:.2f}: expected calibration error {fitted['ece_before']:.3f} before, "
            f"{fitted['ece_after']:.3f} after, on dev itself"
        )
    pictures = [name for name in ("curves.png", "confusion.png") if (output / name).is_file()]
    say(
        f"{', '.join(pictures)} and report.json in {output}; next: "
        + command("predict", output, "--data", "FILE", "--output", "FILE.jsonl")
    )
