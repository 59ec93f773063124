from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.utils.data import DataLoader

import bertloom
from bertloom.api import LENGTH, Model
from bertloom.config import preset
from bertloom.corpus.draw import mix, permuted
from bertloom.errors import InputError
from bertloom.files import sha256
from bertloom.finetuning import tune
from bertloom.finetuning.data import read
from bertloom.finetuning.recipe import Tuning, read_tuning, tuning
from bertloom.finetuning.report import draw_confusion, over_fitting, spread
from bertloom.finetuning.run import Finetuning
from bertloom.finetuning.tune import finetune
from bertloom.model.encoder import Encoder
from bertloom.model.init import initialise
from bertloom.tasks.answer import Answer
from bertloom.tasks.choose import Choose
from bertloom.tasks.classify import Classify
from bertloom.tasks.tag import Tag
from bertloom.text.sources import ReadCounts
from bertloom.text.tokenizer import Tokenizer
from tests.conftest import small
from tests.tasks import cases


def write(path: Path, name: str, count: int, seed: int) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in cases.rows(name, count, seed)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "train": write(folder / "train.jsonl", "classify", 96, 1),
        "dev": write(folder / "dev.jsonl", "classify", 40, 2),
    }


def recipe(files: dict[str, Path], model: Path, output: Path, task: str = "classify", **changes: Any) -> Tuning:
    keys = {
        "model": str(model), "train": str(files["train"]), "dev": str(files["dev"]), "output": str(output),
        "epochs": 16.0, "batch_size": 16, "learning_rate": 3e-3, "save_every": 40, "evaluate_every": 24,
        "dropout": 0.01,
    }  # fmt: skip
    return tuning(task, {**keys, **changes})


def weights(output: Path) -> str:
    return sha256(output / "model" / "model.safetensors")


def quiet(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def alone(files: dict[str, Path], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "alone"
    assert finetune(recipe(files, tiny_model, output), say=quiet)
    return output


def stop_after(*done: int) -> Any:
    def watch(run: Finetuning, step: Any, measures: Any) -> None:
        if step.number + 1 in done:
            os.kill(os.getpid(), signal.SIGTERM)

    return watch


def test_a_fine_tuned_folder(alone: Path) -> None:
    names = sorted(path.name for path in alone.iterdir())
    assert names == ["confusion.png", "curves.png", "model", "recipe.toml", "report.json", "seed-0"]
    assert sorted(path.name for path in (alone / "seed-0").iterdir()) == [
        "curves.png", "metrics.jsonl", "recipe.toml", "report.json",
    ], "checkpoints go when the model is shipped"  # fmt: skip
    report = json.loads((alone / "report.json").read_text())
    assert report["scores"]["accuracy"] > 0.9, "the toy language is easy"
    assert report["settings"]["steps"] == 96
    assert np.sum(report["confusion"]["matrix"]) == 40
    assert report["runs"][0]["dead"] is None
    card = (alone / "model" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "| accuracy |" in card
    assert "learning_rate = 0.003" in card
    classifier = transformers.pipeline("text-classification", str(alone / "model"))
    (mine,) = bertloom.load(alone).predict(["The cat lives in the house. loudly"])
    (theirs,) = classifier(["The cat lives in the house. loudly"])
    assert theirs["label"] == mine["label"] == "cat"
    assert theirs["score"] == pytest.approx(mine["probability"], abs=1e-5)


@pytest.mark.parametrize("stops", [(1,), (30, 45, 80), (48,)])
def test_stopped_anywhere_it_ends_in_the_same_bytes(
    alone: Path, files: dict[str, Path], tiny_model: Path, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    given = recipe(files, tiny_model, tmp_path / "run")
    for stop in stops:
        assert finetune(given, watch=stop_after(stop), say=quiet) is None
    assert finetune(given, say=quiet)
    assert weights(tmp_path / "run") == weights(alone)
    reports = [json.loads((run / "report.json").read_text()) for run in (alone, tmp_path / "run")]
    assert reports[0]["scores"] == reports[1]["scores"]


def test_without_dropout_every_step_is_that_of_transformers_trainer(
    files: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    """From the same head and in the same order; measures and checkpoints come between our steps.

    Without a warm-up: ours rises from its first step, Trainer's from its second.
    """
    changes = {"dropout": 0.0, "epochs": 10.0, "evaluate_every": 7, "save_every": 5, "warmup": 0.0}
    given = recipe(files, tiny_model, tmp_path / "run", **changes)
    data = read(given, bertloom.load(tiny_model), quiet)
    run = Finetuning(given, 3, tmp_path / "run", data, quiet)
    run.model().save(tmp_path / "begun")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "begun", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "begun")
    names, count = theirs.config.label2id, len(data.train)
    rows = [{**tokenizer(row.text), "label": names[row.labels[0]]} for row in data.train]
    order = [[permuted(n, count, mix(3, epoch)) for n in range(count)] for epoch in range(10)]
    batches = [epoch[start : start + 16] for epoch in order for start in range(0, count, 16)]

    class InOurOrder(transformers.Trainer):
        def get_train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(rows, batch_sampler=batches, collate_fn=self.data_collator)  # type: ignore[arg-type]

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "trainer"), learning_rate=3e-3, weight_decay=0.01, adam_epsilon=1e-6,
        num_train_epochs=1, logging_steps=1, report_to=[], disable_tqdm=True, use_cpu=True, save_strategy="no",
    )  # fmt: skip
    trainer = InOurOrder(theirs, arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    wanted = [(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row]
    found = [(*step.losses.values(), step.norm) for step, _ in run.train(lambda: False)]
    assert len(found) == len(wanted) == len(batches)
    assert np.allclose(found, wanted, atol=3e-4)
    assert found[-1][0] < 0.7 * found[0][0]


def test_micro_batches_and_saving_change_nothing_but_bits(
    alone: Path, files: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    finetune(recipe(files, tiny_model, tmp_path / "a", save_every=1000), say=quiet)
    assert weights(tmp_path / "a") == weights(alone)
    finetune(recipe(files, tiny_model, tmp_path / "b", dropout=0.0, epochs=4.0, restarts=0), say=quiet)
    finetune(recipe(files, tiny_model, tmp_path / "c", dropout=0.0, micro_tokens=40, epochs=4.0, restarts=0), say=quiet)
    states = [bertloom.load(tmp_path / name).state() for name in "bc"]
    assert all(torch.allclose(states[0][name], states[1][name], atol=2e-3) for name in states[0])


def test_finished_it_is_not_begun_again_and_other_recipes_are_refused(
    alone: Path, files: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    report = finetune(recipe(files, tiny_model, alone, save_every=9), say=said.append)
    assert report == json.loads((alone / "report.json").read_text())
    assert "is finished" in said[0]
    with pytest.raises(InputError, match=r"another recipe \(epochs: 3.0 given, the run has 16.0"):
        finetune(recipe(files, tiny_model, alone, epochs=3.0), say=quiet)
    with pytest.raises(InputError, match="is a fine-tuning for classify, tag given"):
        finetune(recipe(files, tiny_model, alone, task="tag"), say=quiet)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").touch()
    with pytest.raises(InputError, match="is there and is no run"):
        finetune(recipe(files, tiny_model, tmp_path / "full"), say=quiet)


def test_other_data_under_the_same_name_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    files = {
        "train": write(tmp_path / "t.jsonl", "classify", 96, 1),
        "dev": write(tmp_path / "d.jsonl", "classify", 20, 2),
    }
    given = recipe(files, tiny_model, tmp_path / "run")
    assert finetune(given, watch=stop_after(30), say=quiet) is None
    for name, seed, count in (("t.jsonl", 7, 96), ("d.jsonl", 9, 20)):
        before = (tmp_path / name).read_bytes()
        write(tmp_path / name, "classify", count, seed)
        with pytest.raises(InputError, match="was on other data"):
            finetune(given, say=quiet)
        (tmp_path / name).write_bytes(before)


def test_a_run_knows_its_data_and_its_start(files: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    copies = {name: tmp_path / path.name for name, path in files.items()}
    for name, path in files.items():
        shutil.copy(path, copies[name])
    given = recipe(copies, tiny_model, tmp_path / "run", epochs=2.0, restarts=0)
    assert finetune(given, say=quiet)
    with pytest.raises(InputError, match=r"run: the run was on other data or from another model"):
        finetune(replace(given, dev=given.train), say=quiet)
    before = weights(tmp_path / "run")
    other = bertloom.load(tiny_model)
    with torch.no_grad():
        other.encoder.embeddings.word.weight.mul_(1.5)
    other.save(tmp_path / "other")
    said = (tmp_path / "run" / "recipe.toml").read_text()
    for change in ({"model": str(tmp_path / "other")}, {"dev": given.train}):
        with pytest.raises(InputError, match=r"seed-0: the run was on other data or from another model"):
            finetune(replace(given, **change, seeds=2), say=quiet)
    assert (tmp_path / "run" / "recipe.toml").read_text() == said
    write(copies["train"], "classify", 80, 5)
    with pytest.raises(InputError, match=r"seed-0: the run was on other data or from another model"):
        finetune(replace(given, seeds=2), say=quiet)
    assert weights(tmp_path / "run") == before
    shutil.copy(files["train"], copies["train"])
    half = replace(given, output=str(tmp_path / "half"))
    assert finetune(half, watch=stop_after(5), say=quiet) is None
    with pytest.raises(InputError, match="the run was on other data"):
        finetune(replace(half, model=str(tmp_path / "other")), say=quiet)


def test_an_lstm_stopped_ends_in_the_same_bytes(files: dict[str, Path], minilm: Path, tmp_path: Path) -> None:
    """Its dropout is torch's own."""
    shown = {}
    for name in ("alone", "stopped"):
        given = recipe(
            files, minilm, tmp_path / name, features_from="weighted-sum", body="bilstm", epochs=1.0, restarts=0,
            dropout=-1.0,
        )  # fmt: skip
        if name == "stopped":
            assert finetune(given, watch=stop_after(3), say=quiet) is None
        assert finetune(given, say=quiet)
        shown[name] = weights(tmp_path / name)
    assert shown["alone"] == shown["stopped"]


def test_who_is_refused_changes_nothing_of_a_run_that_has_saved_nothing(
    files: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    """Before its first checkpoint a run may begin again with another recipe, but not under the first's hands."""
    given = recipe(files, tiny_model, tmp_path / "run", epochs=2.0, restarts=0)
    said: list[str] = []

    def watch(run: Finetuning, step: Any, measures: Any) -> None:
        if not said:
            with pytest.raises(InputError, match="another process is training in it") as found:
                finetune(replace(given, learning_rate=1e-3), say=quiet)
            said.append(str(found.value))

    assert finetune(given, watch=watch, say=quiet)
    assert said
    assert read_tuning(tmp_path / "run" / "recipe.toml")[1]["learning_rate"] == given.learning_rate


def test_a_finished_run_is_known_by_its_data_however_the_files_are_spelt(
    files: dict[str, Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = recipe(files, tiny_model, tmp_path / "run", epochs=2.0, restarts=0)
    report = finetune(given, say=quiet)
    monkeypatch.chdir(files["train"].parent)
    assert finetune(replace(given, train="train.jsonl", dev="./dev.jsonl"), say=quiet) == report


def test_a_length_that_pretraining_did_not_reach_is_told_of(
    files: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    model = bertloom.load(tiny_model)
    model.others[LENGTH] = 16
    for length, wanted in ((24, True), (16, False), (0, False)):
        said: list[str] = []
        read(recipe(files, tiny_model, tmp_path / "x", length=length), model, said.append)
        assert ("length: 24 given, pretraining reached 16: positions beyond are as they were made" in said) is wanted


def test_labels_of_any_kind_and_number_are_drawn(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    draw_confusion(np.eye(3, dtype=int), [r"$\foo$", "US$ or C$", "한국어"], tmp_path / "a.png")
    draw_confusion(np.eye(1500, dtype=int), [str(number) for number in range(1500)], tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size < 2_000_000
    assert not recwarn.list


def test_seeds_are_added_to_a_finished_run(
    files: dict[str, Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A better one is shipped instead, with a worse one the best stays; seeds 0 and 2 are made to learn nothing."""
    before = Finetuning._build

    def weak(self: Finetuning) -> None:
        before(self)
        if self.seed != 1:
            self.rate = lambda step: 0.0

    monkeypatch.setattr(Finetuning, "_build", weak)
    output = tmp_path / "run"
    given = recipe(files, tiny_model, output, epochs=8.0, restarts=0)
    assert finetune(given, say=quiet)
    first = weights(output)
    for seeds in (2, 3):
        report = finetune(replace(given, seeds=seeds), say=quiet)
        assert report is not None
        values = [run["scores"]["accuracy"] for run in report["runs"]]
        assert [run["seed"] for run in report["runs"]] == list(range(seeds))
        assert report["shipped"] == values.index(max(values)) == 1
        assert report["scores"]["accuracy"] == pytest.approx(max(values))
        assert weights(output) != first
        assert f"over seeds {', '.join(map(str, range(seeds)))} |" in (output / "model" / "README.md").read_text()
        assert not list(output.glob("seed-*/checkpoint-*"))
    assert finetune(given, say=quiet) == report, "fewer seeds are there already"
    at_once = finetune(replace(given, seeds=3, output=str(tmp_path / "at-once")), say=quiet)
    assert at_once is not None
    assert weights(output) == weights(tmp_path / "at-once")


def test_seeds_have_a_mean_and_the_best_is_shipped(files: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    given = recipe(files, tiny_model, tmp_path / "run", seeds=3, epochs=11.0, calibrate=True, metric="f1_macro")
    report = finetune(given, say=quiet)
    assert report
    values = [run["scores"]["f1_macro"] for run in report["runs"]]
    assert [run["seed"] for run in report["runs"]] == [0, 1, 2]
    assert len({run["scores"]["loss"] for run in report["runs"]}) == 3, "seeds differ"
    assert report["over_seeds"]["f1_macro"] == pytest.approx(spread(values))
    assert report["scores"]["f1_macro"] == max(values)
    assert report["shipped"] == values.index(max(values))
    fitted = report["calibration"]
    assert fitted["ece_after"] <= fitted["ece_before"]
    model = bertloom.load(tmp_path / "run")
    assert model.require_task().temperature == fitted["temperature"]


def test_a_dead_run_is_restarted_and_reported(
    files: dict[str, Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 0 is made to learn nothing, as small sets sometimes do."""
    before = Finetuning._build

    def killed(self: Finetuning) -> None:
        before(self)
        if self.seed == 0:
            self.rate = lambda step: 0.0
            self.objective.head.bias.data[0] = 100.0

    monkeypatch.setattr(Finetuning, "_build", killed)
    said: list[str] = []
    report = finetune(recipe(files, tiny_model, tmp_path / "run"), say=said.append)
    assert report
    assert report["shipped"] == tune.NEXT_SEED
    assert report["runs"][0]["dead_before"] == [0]
    assert any("seed 0 learned nothing: it answers 'cat'" in one for one in said), said
    none = finetune(recipe(files, tiny_model, tmp_path / "none", restarts=0), say=said.append)
    assert none
    assert none["runs"][0]["dead"] == "'cat'"
    assert any("seed 0 learned nothing: it answers 'cat' to everything; a lower" in one for one in said)


def test_a_dead_run_is_not_shipped_for_a_score_that_a_constant_answer_has(
    files: dict[str, Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classify, "dead", lambda self, predictions, records: "'cat'")
    given = recipe(files, tiny_model, tmp_path / "run", restarts=0, epochs=2.0)
    report = finetune(given, say=quiet)
    assert report
    assert report["runs"][0]["dead"] == "'cat'"
    monkeypatch.undo()
    file = tmp_path / "run" / "seed-0" / "report.json"
    best = json.loads(file.read_text())
    file.write_text(json.dumps({**best, "scores": {**best["scores"], "accuracy": 2.0}}))
    monkeypatch.setattr(Classify, "dead", lambda self, predictions, records: None)
    report = finetune(replace(given, seeds=2), say=quiet)
    assert report
    assert [run["dead"] for run in report["runs"]] == ["'cat'", None]
    assert report["shipped"] == 1


def test_of_dead_runs_the_best_is_kept(
    files: dict[str, Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classify, "dead", lambda self, predictions, records: "'cat'")
    said: list[str] = []
    report = finetune(recipe(files, tiny_model, tmp_path / "run", restarts=2, epochs=2.0), say=said.append)
    assert report
    tried = [json.loads(file.read_text()) for file in (tmp_path / "run").glob("seed-*/report.json")]
    assert len(tried) == 3
    best = max(one["scores"]["accuracy"] for one in tried)
    assert report["runs"][0]["scores"]["accuracy"] == report["scores"]["accuracy"] == best
    assert len(report["runs"][0]["dead_before"]) == 2
    assert report["shipped"] not in report["runs"][0]["dead_before"]
    assert sum("learned nothing either" in one for one in said) == 2
    # With fewer restarts the model that stands is still that of the report.
    again = finetune(recipe(files, tiny_model, tmp_path / "run", restarts=0, epochs=2.0, seeds=2), say=said.append)
    assert again
    assert again["runs"][0] == report["runs"][0]
    if again["shipped"] == report["shipped"]:
        assert again["scores"] == report["scores"]


def test_patience_ends_a_run_and_the_best_checkpoint_is_kept(
    files: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    given = recipe(
        files, tiny_model, tmp_path / "run", epochs=60.0, patience=2, evaluate_every=10, restarts=0, learning_rate=4e-3
    )
    report = finetune(given, say=quiet)
    assert report
    (run,) = report["runs"]
    assert run["steps"] < 360
    rows = [json.loads(line) for line in (tmp_path / "run" / "seed-0" / "metrics.jsonl").read_text().splitlines()]
    values = [(row["step"], row["held_out"]["classify"]["accuracy"]) for row in rows if "held_out" in row]
    best = max(value for _, value in values)
    first = next(step for step, value in values if value == best)
    assert run["best_step"] == first
    assert values[-1][0] == first + 20
    assert report["scores"]["accuracy"] == best


def test_frozen_layers_stay_and_lower_ones_learn_less(files: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    before = bertloom.load(tiny_model).state()
    finetune(recipe(files, tiny_model, tmp_path / "frozen", freeze=1, epochs=1.0, restarts=0), say=quiet)
    after = bertloom.load(tmp_path / "frozen").state()
    for name, tensor in before.items():
        if name.startswith(("embeddings.", "layers.0.")):
            assert torch.equal(tensor, after[name]), name
    assert not torch.equal(before["layers.1.attention.qkv.weight"], after["layers.1.attention.qkv.weight"])
    data = tune.read(recipe(files, tiny_model, tmp_path / "x"), bertloom.load(tiny_model), quiet)
    decayed = recipe(files, tiny_model, tmp_path / "x", layer_decay=0.5)
    run = Finetuning(decayed, 0, tmp_path / "x", data, quiet)
    scales = {name: group["scale"] for group in run.optimizer.param_groups for name in group["param_names"]}
    assert scales["embeddings.word.weight"] == 0.125
    assert scales["layers.0.attention.qkv.weight"] == 0.25
    assert scales["layers.1.attention.norm.bias"] == 0.5
    assert scales["head.weight"] == scales["pooler.dense.weight"] == 1
    next(iter(run.train(lambda: True)))
    rates = {group["scale"]: group["lr"] for group in run.optimizer.param_groups}
    assert rates[0.125] == pytest.approx(rates[1] / 8)


@pytest.mark.parametrize("way", ["concat", "weighted-sum", "last", "embeddings", "second-to-last"])
@pytest.mark.parametrize(("name", "body"), [("classify", "linear"), ("tag", "bilstm")])
def test_features_of_a_frozen_encoder(
    name: str, body: str, way: str, tiny_model: Path, minilm: Path, tmp_path: Path
) -> None:
    start = minilm if way in ("concat", "weighted-sum") else tiny_model  # four layers are needed
    files = {"train": write(tmp_path / "t.jsonl", name, 64, 1), "dev": write(tmp_path / "d.jsonl", name, 20, 2)}
    given = recipe(
        files, start, tmp_path / "run", task=name, features_from=way, body=body, learning_rate=0.0, epochs=2.0,
        restarts=0, dropout=-1.0,
    )  # fmt: skip
    assert finetune(given, say=quiet)
    model, before = bertloom.load(tmp_path / "run"), bertloom.load(start).state()
    assert all(torch.equal(before[key], value) for key, value in model.encoder.state_dict().items())
    task = model.require_task()
    records = list(task.read(str(files["dev"]), ReadCounts()))
    together = [one for _, one in model.predictions(records)]
    alone = [one for record in records for _, one in model.predictions([record])]
    if name == "classify":
        assert [one["label"] for one in alone] == [one["label"] for one in together]
    else:
        assert [one["tags"] for one in alone] == [one["tags"] for one in together]
    _, info = transformers.AutoModel.from_pretrained(tmp_path / "run" / "model", output_loading_info=True)
    assert not info["missing_keys"] - {"pooler.dense.weight", "pooler.dense.bias"}


def test_augmented_copies_are_learned_too(
    files: dict[str, Path], tiny_model: Path, minilm: Path, tmp_path: Path
) -> None:
    given = recipe(files, tiny_model, tmp_path / "x", augment="mask+delete+swap", augment_copies=2)
    data = tune.read(given, bertloom.load(tiny_model), quiet)
    new = [one.input_ids.tobytes() for one in data.features[96:]]
    old = {one.input_ids.tobytes() for one in data.features[:96]}
    assert 96 * 5 < len(new) <= 96 * 6, "a word swapped for itself, or that is not known, makes no new text"
    assert sum(one in old for one in new) < 96
    assert len(data.train) == 96
    (tmp_path / "one.tsv").write_text("text\tlabel\ncat\ta\ndog\tb\n")
    short = recipe(dict.fromkeys(("train", "dev"), tmp_path / "one.tsv"), tiny_model, tmp_path / "x", augment="swap")
    assert len(tune.read(short, bertloom.load(tiny_model), quiet).features) == 2, "one word has none to swap with"
    with pytest.raises(InputError, match="no trained mlm head"):
        tune.read(replace(given, augment="mask"), bertloom.load(minilm), quiet)
    tags = {"train": write(tmp_path / "t.jsonl", "tag", 8, 1), "dev": write(tmp_path / "d.jsonl", "tag", 4, 2)}
    with pytest.raises(InputError, match="augment: swap given, none allowed for tag"):
        tune.read(
            recipe(tags, tiny_model, tmp_path / "x", task="tag", augment="swap"), bertloom.load(tiny_model), quiet
        )


def test_remarks_name_what_is_odd_in_the_data(tiny_model: Path, tmp_path: Path) -> None:
    rows = [*["cat one\ta"] * 9, "cat one\tb", "dog two\tb", "cow three\tc", "duck four\ta"]
    lines = ["text\tlabel\tid", *(f"{row}\t{min(number, 11)}" for number, row in enumerate(rows))]
    (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "d.tsv").write_text("text\tlabel\ndog two\tb\nnew\ta\n")
    said: list[str] = []
    files = {"train": tmp_path / "t.tsv", "dev": tmp_path / "d.tsv"}
    tune.read(recipe(files, tiny_model, tmp_path / "x"), bertloom.load(tiny_model), said.append)
    text = "\n".join(said)
    for part in (
        "13 training and 2 dev records; best by accuracy on dev",
        "a 10, b 2, c 1",
        "labels are not balanced: 'a' is 10 times as frequent as 'c'",
        f"1 label has one example: 'c' ({tmp_path / 't.tsv'}:13)",
        "9 training records repeat others",
        "1 training records have the id of another one, as " + str(tmp_path / "t.tsv:14"),
        "10 training records have another answer than the same text elsewhere (label noise)",
        "1 of 2 dev records stand in the training file too, as " + str(tmp_path / "d.tsv:2"),
    ):
        assert part in text, text


def test_long_texts_are_told_of(tiny_model: Path, tmp_path: Path) -> None:
    row = json.dumps({"text": "the cat " * 100, "label": "a"}) + "\n" + json.dumps({"text": "dog", "label": "b"}) + "\n"
    (tmp_path / "t.jsonl").write_text(row)
    said: list[str] = []
    files = dict.fromkeys(("train", "dev"), tmp_path / "t.jsonl")
    tune.read(recipe(files, tiny_model, tmp_path / "x"), bertloom.load(tiny_model), said.append)
    assert (
        "1 of 2 training records have more text than fits into 64 tokens, which was cut; --long windows reads it whole"
        in said
    )


def test_no_longer_than_pretraining_was(files: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    model = bertloom.load(tiny_model)
    model.others[LENGTH] = 16
    assert tune.read(recipe(files, tiny_model, tmp_path / "x"), model, quiet).task.length == 16
    assert tune.read(recipe(files, tiny_model, tmp_path / "x", length=32), model, quiet).task.length == 32
    long = small(max_position_embeddings=1024)
    assert (Answer().most(long), Answer(length=512).most(long), Classify().most(long)) == (384, 512, 1024)


def test_over_fitting_is_said() -> None:
    rows = [
        {"step": step, "held_out": {"classify": {"loss": loss}}} for step, loss in ((10, 0.5), (20, 0.3), (30, 0.6))
    ]
    said = over_fitting(rows, "classify", 10)
    assert said
    assert "lowest after 2.0 epochs (0.300) and 0.600 at the end" in said
    assert over_fitting(rows[:2], "classify", 10) is None
    assert over_fitting(rows[:1], "classify", 10) is None


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    given = tuning("answer", {"model": "m", "train": "t", "dev": "d", "output": "o", "stride": 64, "script": "korquad"})
    given.write(tmp_path / "r.toml")
    task, keys = read_tuning(tmp_path / "r.toml")
    assert task
    assert tuning(task, keys) == given
    assert given.differing(replace(given, output="x", seed=3)) == {"seed": (0, 3)}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"epochs": 0.0}, "epochs: 0.0 given, above 0"),
        ({"layer_decay": 0.0}, "layer_decay: 0.0 given, above 0"),
        ({"layer_decay": 1.5}, "layer_decay: 1.5 given, a share"),
        ({"dropout": 1.0}, "dropout: 1.0 given, from 0"),
        ({"augment": "mask+rot13"}, "augment: unknown 'rot13'"),
        ({"seed": 2**63 - 1}, "under 2..63"),
        ({"train": ""}, "train: none given"),
        ({"batch_size": 0}, "batch_size: 0 given, at least 1"),
        ({"stride": "x"}, "stride: 'x' given, a int"),
        ({"colour": 1}, "key unknown 'colour'"),
        ({"problem": "sinlge"}, "problem: unknown 'sinlge', did you mean 'single'"),
        ({"stride": -1}, "stride: -1 given"),
    ],
)
def test_keys_that_cannot_be(keys: dict[str, Any], said: str) -> None:
    given = {"model": "m", "train": "t", "dev": "d", "output": "o"}
    with pytest.raises(InputError, match=said):
        tuning("classify", {**given, **keys})
    with pytest.raises(InputError, match="task: unknown 'clasify', did you mean 'classify'"):
        tuning("clasify", given)


def test_what_the_run_needs_and_has_not(files: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    def refused(said: str, **changes: Any) -> None:
        given = recipe(files, tiny_model, tmp_path / "run", **changes)
        with pytest.raises(InputError, match=said):
            finetune(given, say=quiet)
        assert not (tmp_path / "run").exists(), "a mistake can be mended under the same name"

    refused("freeze: 3 given, at most the model's 2", freeze=3)
    refused("metric: 'f2' given, one of accuracy", metric="f2")
    refused("length: 65 given, at most 64", length=65)
    refused("none.tsv: no such file", train=str(tmp_path / "none.tsv"))
    empty = tmp_path / "empty.tsv"
    empty.write_text("text\tlabel\n")
    refused("empty.tsv: no records in it", train=str(empty))
    refused("empty.tsv: no usable record in it", dev=str(empty))
    scores = tmp_path / "scores.tsv"
    scores.write_text("text\tscore\none\t1.5\ntwo\t2.5\n")
    refused("calibrate: given, a task whose answers have prob", calibrate=True, train=str(scores), problem="regression")
    refused("features-from: given, and freeze, layer-decay or dropout", features_from="last", freeze=1)


@pytest.mark.parametrize("bias", [None, 0.0, 0.5])
def test_a_pooler_that_never_learned_begins_anew(
    files: dict[str, Path], tiny_model: Path, tmp_path: Path, bias: float | None
) -> None:
    """Or that is not there; one that learned is taken as it is, and nothing is said."""
    model = bertloom.load(tiny_model)
    if bias is None:
        del model.encoder.pooler
        model.heads = torch.nn.ModuleDict()
    else:
        torch.nn.init.constant_(model.encoder.pooler.dense.bias, bias)
    model.save(tmp_path / "start")
    said: list[str] = []
    given = recipe(files, tmp_path / "start", tmp_path / "run", epochs=2.0, restarts=0)
    data = read(given, bertloom.load(tmp_path / "start"), said.append)
    begun = Finetuning(given, 0, tmp_path / "x", data, quiet).encoder.pooler.dense
    kept = bias is not None and torch.equal(begun.weight, model.encoder.pooler.dense.weight)
    assert kept == (bias == 0.5) == (not any("no pooler that was trained" in one for one in said))
    if not kept:
        # A normal distribution cut at two deviations.
        assert float(begun.weight.detach().std()) == pytest.approx(0.88 * 64**-0.5, rel=0.05)
    assert finetune(given, say=quiet)
    assert bertloom.load(tmp_path / "run").encoder.pooler.trained


def test_long_epochs_are_measured_within_where_dev_is_small(
    files: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    given = recipe(files, tiny_model, tmp_path / "run", evaluate_every=0, batch_size=32)
    data = read(given, bertloom.load(tiny_model), quiet)
    for learned, dev, parts in [(64_000, 800, 10), (64_000, 32_000, 1), (9_632, 96, 3), (2_000, 20, 1)]:
        long = replace(data, features=data.features[:1] * learned, dev_features=[data.features[:1]] * dev)
        assert long.parts(given) == parts, (learned, dev)
    run = Finetuning(given, 0, tmp_path / "run", data, quiet)
    run.epoch, run.parts, run.last = 301, 3, 800
    assert [step for step in range(1, 801) if run.due(step, False)] == [101, 201, 301, 402, 502, 602, 703, 800]


@pytest.mark.parametrize(
    ("epochs", "width", "dropout", "rate"),
    [(1.0, 512, -1.0, 0.0), (1.5, 512, -1.0, 0.3), (1.5, 448, -1.0, 0.0), (1.0, 512, 0.2, 0.2), (1.5, 64, 0.2, 0.2)],
)
def test_a_single_epoch_or_a_narrow_model_drops_nothing_unless_asked(
    files: dict[str, Path], tokenizer: Tokenizer, tmp_path: Path, epochs: float, width: int, dropout: float, rate: float
) -> None:
    """And the model that is saved keeps its own dropout."""
    config = preset(
        "tiny", vocab_size=len(tokenizer), num_hidden_layers=2, num_attention_heads=8, hidden_size=width,
        intermediate_size=32, max_position_embeddings=64, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3,
    )  # fmt: skip
    start = Encoder(config)
    initialise(start, config.initializer_range, config.pad_token_id)
    Model(start, torch.nn.ModuleDict(), tokenizer, {}, tmp_path / "start").save(tmp_path / "start")
    given = recipe(files, tmp_path / "start", tmp_path / "run", epochs=epochs, dropout=dropout, restarts=0)
    told: list[dict[str, Any]] = []
    assert finetune(given, say=quiet, begin=told.append)
    assert told[0]["dropout"] == rate
    data = read(given, bertloom.load(tmp_path / "start"), quiet)
    encoder = Finetuning(given, 0, tmp_path / "x", data, quiet).encoder
    assert {
        encoder.embeddings.rate,
        encoder.layers[0].attention.attention_rate,
        encoder.layers[1].feed_forward.rate,
    } == {rate}
    assert bertloom.load(tmp_path / "run").config.hidden_dropout_prob == 0.3


def test_defaults_are_those_of_the_paper_scaled() -> None:
    given = Tuning(task=Classify(), model="m", train="t", dev="d", output="o")
    assert given.rate(768) == 5e-5
    assert given.rate(384) == 1e-4
    assert replace(given, learning_rate=1e-5).rate(384) == 1e-5
    assert replace(given, task=Classify(features_from="last")).rate(384) == 1e-3
    assert [given.dropped(width) for width in (384, 512)] == [0.0, None]
    assert [replace(given, task=one).dropped(384) for one in (Choose(), Answer(), Tag())] == [0.0, None, None]
    assert (given.epochs, given.batch_size, given.warmup, given.clip) == (3, 32, 0.1, 1)


def test_records_without_a_usable_answer_are_left_out_where_asked(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("text\tlabel\n" + "cat\ta\ndog\tb\n" * 4 + "cow\t\n")
    (tmp_path / "d.tsv").write_text("text\tlabel\ncat\ta\ndog\tzebra\n")
    files = {"train": tmp_path / "t.tsv", "dev": tmp_path / "d.tsv"}
    said: list[str] = []
    data = tune.read(recipe(files, tiny_model, tmp_path / "x", on_bad="skip"), bertloom.load(tiny_model), said.append)
    assert (len(data.train), len(data.dev)) == (8, 1)
    assert "2 × record without a usable answer, left out" in said


def test_a_recipe_names_the_line_of_what_cannot_be(tmp_path: Path) -> None:
    for content, said in (
        ('model = "m"\ntask = "foo"\n', "r.toml:2: task: unknown 'foo'"),
        ("task = 3\n", "r.toml:1: task: unknown 3, known"),
        ('task = "classify"\nlongest = 3\n', "r.toml:2: key unknown 'longest'"),
    ):
        (tmp_path / "r.toml").write_text(content)
        with pytest.raises(InputError, match=said):
            read_tuning(tmp_path / "r.toml")
    with pytest.raises(InputError, match="key unknown 1"):
        tuning("classify", {1: 2})  # type: ignore[dict-item]


def test_a_damaged_report_or_recipe_is_said_to_be_so(
    alone: Path, files: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(alone, tmp_path / "again", symlinks=True)
    (tmp_path / "again" / "report.json").write_text("{}")
    with pytest.raises(InputError, match=r"report.json: is damaged: KeyError 'runs'"):
        tune.finetune(recipe(files, tiny_model, tmp_path / "again"), say=quiet)
    (tmp_path / "again" / "recipe.toml").write_text("task = ")
    with pytest.raises(InputError, match=r"recipe.toml: is not TOML"):
        tune.finetune(recipe(files, tiny_model, tmp_path / "again"), say=quiet)


def test_a_finished_run_knows_its_data(files: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    own = {name: tmp_path / file.name for name, file in files.items()}
    for name, file in files.items():
        shutil.copyfile(file, own[name])
    given = recipe(own, tiny_model, tmp_path / "out", epochs=1.0)
    assert tune.finetune(given, say=quiet) == tune.finetune(given, say=quiet)
    lines = own["train"].read_text().splitlines()
    own["train"].write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(InputError, match="the run was on other data"):
        tune.finetune(given, say=quiet)


def test_what_no_pieces_make_is_counted(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"text": "the \N{GRINNING FACE}at lives", "entities": [[start, 7, "X"]]} for start in (4, 5)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said: list[str] = []
    both = {"train": tmp_path / "t.jsonl", "dev": tmp_path / "t.jsonl"}
    tune.read(recipe(both, tiny_model, tmp_path / "x", "tag"), bertloom.load(tiny_model), said.append)
    what = "records have an answer that no pieces of the vocabulary make exactly"
    assert [one for one in said if what in one] == [
        f"1 of 2 {side} {what}, as {tmp_path / 't.jsonl:2'}" for side in ("training", "dev")
    ]


def test_before_anything_is_saved_the_recipe_may_be_another(
    files: dict[str, Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Finetuning, "batches", lambda self: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            finetune(recipe(files, tiny_model, tmp_path / "out", epochs=1.0), say=quiet)
    assert (tmp_path / "out" / "recipe.toml").is_file()
    given = recipe(files, tiny_model, tmp_path / "out", epochs=1.0, micro_tokens=64)
    assert finetune(given, say=quiet) is not None
    assert read_tuning(tmp_path / "out" / "recipe.toml")[1]["micro_tokens"] == 64
    with pytest.raises(InputError, match="micro_tokens: 4096 given, the run has 64"):
        finetune(recipe(files, tiny_model, tmp_path / "out", epochs=1.0), say=quiet)
