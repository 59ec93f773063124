"""A fine-tuning from its recipe to the model that is shipped, over one seed or several."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bertloom.api import Model, load
from bertloom.card import CARD, finetuned_card
from bertloom.errors import InputError, blaming
from bertloom.files import held, read_json, whole_file, write_json
from bertloom.finetuning.data import Data, read
from bertloom.finetuning.recipe import Tuning, read_tuning, tuning
from bertloom.finetuning.report import FILE, draw_confusion, over_fitting, over_seeds
from bertloom.finetuning.run import Finetuning, Scores
from bertloom.tasks import Task
from bertloom.tasks.metrics import LIMITS, best_temperature, calibration, require_libraries
from bertloom.tasks.predict import grouped
from bertloom.tasks.task import Prediction
from bertloom.train import checkpoint
from bertloom.train.loop import Step
from bertloom.train.metrics import FILE as METRICS
from bertloom.train.metrics import busy, read_metrics
from bertloom.train.run import RECIPE, claim_folder, stop_signals

# How far a restarted run's seed lies from the one that learned nothing.
NEXT_SEED = 1000
# On fewer dev records one answer to all may be right.
SURE = 10
Watch = Callable[[Finetuning, Step, dict[str, Scores]], None]


@dataclass
class _Work:
    """What the runs of a fine-tuning share."""

    recipe: Tuning
    folder: Path
    data: Data
    watch: Watch
    say: Callable[[str], None]
    stopped: Callable[[], bool]


def finetune(
    recipe: Tuning,
    *,
    watch: Watch = lambda run, step, measures: None,
    say: Callable[[str], None] = print,
    begin: Callable[[dict[str, Any]], None] = lambda settings: None,
) -> dict[str, Any] | None:
    """Run a recipe to its end, from its beginning or from where it stopped; its report, None where a signal stopped it.

    `begin` is told the settings as they are resolved, before anything is trained.
    `OUTPUT/model` is the best seed's best checkpoint, `OUTPUT/report.json` the report.
    """
    folder = Path(recipe.output)
    claim_folder(folder, partial(_differing, recipe))
    require_libraries()
    if (folder / FILE).is_file() and (folder / "model").is_dir():
        with blaming(folder / FILE):
            report: dict[str, Any] = read_json(folder / FILE)
            seeds = len(report["runs"])
        if seeds >= recipe.seeds:
            _require_data(report["runs"][0]["data"], read(recipe, load(recipe.model), lambda text: None), folder)
            say(f"{folder} is finished; another --output begins again, more --seeds go on")
            for run in report["runs"]:
                if run["dead"] is not None:
                    say(f"seed {run['seed']} learned nothing: it answers {run['dead']} to everything")
            return report
    start = load(recipe.model).require_learning()
    remarks: list[str] = []

    def told(text: str) -> None:
        remarks.append(text)
        say(text)

    data = read(recipe, start, told)
    begin(_settings(recipe, start, data))
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder) as free:
        if free is False:
            raise busy(folder)
        claim_folder(folder, partial(_differing, recipe))  # another process may have ended in it meanwhile
        for seed in sorted(folder.glob("seed-*")):
            _require_data(_identity(seed), data, seed)
        recipe.write(folder / RECIPE)
        with stop_signals() as stopped:
            work = _Work(recipe, folder, data, watch, told, stopped)
            runs: list[dict[str, Any]] = []
            for number in range(recipe.seeds):
                found = _alive(work, recipe.seed + number)
                if found is None:
                    return None
                runs.append(found)
        return _shipped(work, runs, remarks)


def _identity(seed: Path) -> str | None:
    """Of what data and start model a seed's run is, None where it saved nothing."""
    if (seed / FILE).is_file():
        with blaming(seed / FILE):
            return str(read_json(seed / FILE)["data"])
    for folder in checkpoint.all_in(seed):
        # A damaged one is named when the run goes on.
        with suppress(InputError), blaming(folder):
            return str(read_json(folder / checkpoint.MANIFEST)["corpus"])
    return None


def _require_data(identity: str | None, data: Data, folder: Path) -> None:
    """Raise where a run was on other data."""
    if identity not in (None, data.identity):
        raise InputError("the run was on other data or from another model than given; give another --output", folder)


def _settings(recipe: Tuning, model: Model, data: Data) -> dict[str, Any]:
    """Every key with the value that an automatic one has."""
    length = data.task.most(model.config)
    dropped = recipe.dropped(model.config.hidden_size)
    dropout = model.config.hidden_dropout_prob if dropped is None else dropped
    if data.task.frozen:
        dropout = 0.0  # but for an LSTM's own
    return {
        **recipe.values(),
        "learning_rate": recipe.rate(model.config.hidden_size),
        "metric": recipe.metric or data.task.metrics[0],
        "dropout": dropout,
        "length": length,
        "steps": data.steps(recipe),
    }


def _differing(recipe: Tuning, file: Path) -> dict[str, tuple[Any, Any]]:
    """What a recipe has otherwise than the run's in that file, if anything was saved by it that would be lost.

    Who ran out of memory before that may take smaller micro-batches.
    """
    had, folder = _known(file, recipe), file.parent
    saved = (folder / FILE).is_file() or any(folder.glob(f"seed-*/{checkpoint.PREFIX}*"))
    return recipe.differing(had) if saved else {}


def _known(file: Path, recipe: Tuning) -> Tuning:
    try:
        task, given = read_tuning(file)
    except InputError as error:
        if "is not TOML" in str(error):
            raise
        task, given = None, {}
    if task != recipe.task.name:
        what = f"a fine-tuning for {task}" if task else "a run that is no fine-tuning"
        raise InputError(f"is {what}, {recipe.task.name} given; give another --output", file.parent)
    return tuning(task, given)


def _alive(work: _Work, seed: int) -> dict[str, Any] | None:
    """The report of a seed's run, or of another's where that one learned nothing; None where a signal stopped it."""
    tried: list[dict[str, Any]] = []
    while True:
        found = _one(work, seed)
        if found is None:
            return None
        tried.append(found)
        either = " either" if len(tried) > 1 else ""
        said = f"seed {seed} learned nothing{either}: it answers {found['dead']} to everything"
        # Those that were tried when more restarts were allowed count too: the best of them may be what was shipped.
        more = len(tried) <= work.recipe.restarts or (work.folder / f"seed-{seed + NEXT_SEED}" / FILE).is_file()
        if found["dead"] is None or not more:
            break
        seed += NEXT_SEED
        work.say(f"{said}; again with seed {seed}")
    if found["dead"] is not None:
        work.say(f"{said}; a lower --learning-rate, more --epochs or more data may help")
        found = max(tried, key=_worth)
    if found["over_fitting"]:
        work.say(f"seed {found['seed']}: {found['over_fitting']}")
    return {**found, "dead_before": [one["seed"] for one in tried if one is not found]}


def _worth(run: dict[str, Any]) -> tuple[bool, float]:
    """What the best of several runs has most of: a constant answer may score best where dev is not balanced."""
    return run["dead"] is None, float(run["scores"][run["metric"]])


def _one(work: _Work, seed: int) -> dict[str, Any] | None:
    """The report of one seed's run, from where it stopped or as it was written."""
    folder = work.folder / f"seed-{seed}"
    if (folder / FILE).is_file():
        with blaming(folder / FILE):
            found: dict[str, Any] = read_json(folder / FILE)
            return found
    run = Finetuning(work.recipe, seed, folder, work.data, work.say)
    done = run.first
    for step, measures in run.train(work.stopped):
        work.watch(run, step, measures)
        done = step.number + 1
    with (folder / METRICS).open("rb") as file:
        rows = [row for row, _ in read_metrics(file)]
    measured = [row for row in rows if "held_out" in row]
    if done < run.last and not run.ends(measured):
        return None
    best = run.best(measured)
    assert best is not None, "the last step is measured"
    model = load(folder / "model")
    task, logits = _on_dev(model, work.data)
    remark = over_fitting(rows, run.task.name, run.epoch)
    trained = [row for row in rows if "tokens" in row]
    found = {
        "seed": seed,
        "data": work.data.identity,
        "scores": next(row["held_out"][run.task.name] for row in measured if row["step"] == best),
        "metric": run.metric,
        "best_step": best,
        "steps": done,
        "epochs": round(best / run.epoch, 2),
        "seconds": round(sum(row["seconds"] for row in trained), 1),
        "tokens": sum(row["tokens"] for row in trained),
        "samples_per_second": round(_samples(run, done) / max(1e-9, sum(row["seconds"] for row in trained)), 2),
        "dead": task.dead(_decoded(task, work.data, logits), work.data.dev) if len(work.data.dev) >= SURE else None,
        "over_fitting": remark,
    }
    write_json(folder / FILE, found)
    return found


def _samples(run: Finetuning, done: int) -> int:
    """Examples that so many steps saw."""
    whole, rest = divmod(done, run.epoch)
    return whole * len(run.data.features) + min(rest * run.recipe.batch_size, len(run.data.features))


def _decoded(task: Task, data: Data, logits: Any) -> list[Prediction]:
    """What logits say of dev."""
    return [task.decode(*one) for one in zip(data.dev, data.dev_features, logits)]


def _on_dev(model: Model, data: Data) -> tuple[Task, Any]:
    """The task with dev's threshold, and a saved model's logits on dev by record."""
    from bertloom.tasks.predict import outputs

    task, made = model.require_task(), data.dev_features
    logits, _ = outputs(task, model.encoder, model.heads[task.part], [one for features in made for one in features])
    by_record = list(grouped(map(len, made), logits))
    return data.task.tuned(_decoded(task, data, by_record), data.dev), by_record


def _shipped(work: _Work, runs: list[dict[str, Any]], remarks: list[str]) -> dict[str, Any]:
    """The best run's model in its final form, the report and the pictures; the runs' checkpoints go."""
    recipe, folder, data = work.recipe, work.folder, work.data
    metric = runs[0]["metric"]
    best = max(runs, key=_worth)
    source = folder / f"seed-{best['seed']}"
    # Checkpoints of seeds that were shipped before others were added are gone; the best of them stands already.
    model = load(source / "model" if (source / "model").is_dir() else folder / "model")
    task, logits = _on_dev(model, data)
    fitted: dict[str, float] = {}
    if recipe.calibrate:
        task, fitted = _calibrated(task, data, logits)
        if not LIMITS[0] * 1.01 < fitted["temperature"] < LIMITS[1] * 0.99:
            work.say("the temperature is at the end of its range: dev says too little of how sure the model may be")
        if fitted["ece_after"] > fitted["ece_before"]:
            work.say(
                "the temperature makes the calibration error of dev greater: it fits the likelihood of the answers"
            )
    model.task = task
    predictions = _decoded(task, data, logits)
    scores = task.score(predictions, data.dev)
    report: dict[str, Any] = {
        "task": task.name,
        "metric": metric,
        "shipped": best["seed"],
        "scores": scores,
        "over_seeds": over_seeds(runs),
        "runs": runs,
        "calibration": fitted,
        "model": recipe.model,
        "train": {"source": recipe.train, "records": len(data.train), "examples": len(data.features)},
        "dev": {"source": recipe.dev, "records": len(data.dev)},
        "settings": _settings(recipe, model, data),
        "remarks": remarks,
    }
    if confusion := task.confusion(predictions, data.dev):
        labels, matrix = confusion
        report["confusion"] = {"labels": labels, "matrix": matrix.tolist()}
    card = finetuned_card(model.config, task, report)
    if (source / "model").is_dir():
        (folder / FILE).unlink(missing_ok=True)  # without it the run is not at its end
        shutil.rmtree(folder / "model", ignore_errors=True)
        model.save(folder / "model", card)
    else:
        with whole_file(folder / "model" / CARD) as beside:
            beside.write_text(card, encoding="utf-8")
    if confusion:
        draw_confusion(matrix, labels, folder / "confusion.png")
    shutil.copyfile(source / "curves.png", folder / "curves.png")
    write_json(folder / FILE, report)
    for old in folder.glob("seed-*"):
        if (old / "model").is_symlink():
            os.unlink(old / "model")
        for left in checkpoint.all_in(old):
            shutil.rmtree(left)
    return report


def _calibrated(task: Any, data: Data, logits: Any) -> tuple[Any, dict[str, float]]:
    """The task with the temperature that fits dev, and how far confidence lay from accuracy before and after."""
    pairs = [pair for one in zip(data.dev, data.dev_features, logits) for pair in task.decisions(*one)]
    chosen, gold = [one for one, _ in pairs], [wanted for _, wanted in pairs]
    temperature = best_temperature(chosen, gold)
    fitted: Mapping[str, float] = {
        "temperature": temperature,
        "ece_before": calibration(chosen, gold),
        "ece_after": calibration(chosen, gold, temperature),
    }
    return replace(task, temperature=temperature), dict(fitted)
