from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import bertloom
from bertloom.corpus import Corpus
from bertloom.corpus.prepare import prepare
from bertloom.errors import InputError
from bertloom.evaluation import Measure, guessing
from bertloom.files import sha256
from bertloom.objectives import Combined
from bertloom.pretraining import Pretraining as Run
from bertloom.pretraining import pretrain
from bertloom.train.loop import Step
from bertloom.train.recipe import Recipe, read_recipe
from bertloom.train.run import precision_on, stop_signals


def recipe(prepared: Corpus, output: Path, **changes: Any) -> Recipe:
    made = Recipe(
        corpus=str(prepared.path), output=str(output), model="tiny", steps=12, batch_size=8, length=48, short_length=24,
        short_share=0.5, micro_tokens=150, save_every=5, evaluate_examples=16, seed=3,
    )  # fmt: skip
    return replace(made, **changes)


def weights(run: Path) -> str:
    return sha256(run / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    run = tmp_path_factory.mktemp("runs") / "alone"
    assert pretrain(recipe(corpus, run))
    return run


def stop_after(step: int) -> Any:
    def watch(run: Run, done: Step, measures: dict[str, Measure]) -> None:
        if done.number + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return watch


def test_a_run_folder(alone: Path) -> None:
    assert sorted(path.name for path in alone.iterdir()) == [
        "checkpoint-00000010", "checkpoint-00000012", "curves.png", "metrics.jsonl", "model", "recipe.toml",
    ]  # fmt: skip
    rows = [json.loads(line) for line in (alone / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "tokens" in row] == list(range(1, 13))
    assert [row["step"] for row in rows if "held_out" in row] == [5, 10, 12]
    most = [
        max(row["held_out"]["mlm"]["count"] for row in rows if row["step"] == step and "held_out" in row)
        for step in (5, 12)
    ]
    assert most[0] < 0.7 * most[1], "measured at the length of the moment"
    lengths = [row["tokens"] / 8 for row in rows if "tokens" in row]
    assert max(lengths[:6]) <= 24 < max(lengths[6:]) <= 48, "short sequences first, then long ones"


def test_transformers_opens_the_run_whole(alone: Path, tmp_path: Path) -> None:
    for kind in (transformers.AutoModel, transformers.BertForPreTraining):
        _, info = kind.from_pretrained(alone / "model", output_loading_info=True)
        assert not info["missing_keys"]
    card = (alone / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers")
    (block,) = re.findall(r"```toml\n(.*?)```", card, re.DOTALL)
    (tmp_path / "card.toml").write_text(block)
    known = Recipe(**read_recipe(tmp_path / "card.toml"))
    assert known.shaping() == Recipe(**read_recipe(alone / "recipe.toml")).shaping()
    for said in ("## Data", "270 documents", "## Measures", "| MLM |", "## How to load", "## Recipe", "seed = 3"):
        assert said in card


def test_a_run_shipped_by_hand_keeps_its_card_and_nothing_is_saved_over(alone: Path, tmp_path: Path) -> None:
    model = bertloom.load(alone)
    model.save(tmp_path / "shipped")
    for name in ("README.md", "config.json", "model.safetensors", "tokenizer.json", "vocab.txt"):
        assert sha256(tmp_path / "shipped" / name) == sha256(alone / "model" / name)
    with pytest.raises(InputError, match="shipped: is there already and is not written over"):
        model.save(tmp_path / "shipped")
    with pytest.raises(InputError, match="model: is there already"):
        model.save(alone / "model")


@pytest.mark.parametrize("stops", [(1,), (4, 6, 8), (10,)])
def test_stopped_anywhere_it_ends_in_the_same_bytes(
    alone: Path, corpus: Corpus, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    for step in stops:
        assert not pretrain(recipe(corpus, tmp_path / "run"), watch=stop_after(step)), "a signal saves and stops"
        assert len(list((tmp_path / "run").glob(f"checkpoint-*{step + 1:02d}"))) == 1, "the step under way ends first"
    assert pretrain(recipe(corpus, tmp_path / "run"))
    assert weights(tmp_path / "run") == weights(alone)
    both = [(run / "metrics.jsonl").read_text().splitlines() for run in (alone, tmp_path / "run")]
    losses = [[json.loads(line)["losses"] for line in lines if "losses" in line] for lines in both]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_bytes(alone: Path, corpus: Corpus, tmp_path: Path, workers: int) -> None:
    assert pretrain(recipe(corpus, tmp_path / "run", workers=workers))
    assert weights(tmp_path / "run") == weights(alone)


def test_a_signal_to_every_process_of_a_run_saves_first(alone: Path, corpus: Corpus, tmp_path: Path) -> None:
    def watch(run: Run, step: Step, measures: dict[str, Measure]) -> None:
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        if step.number == 2:
            for number in (*(worker.pid for worker in workers), os.getpid()):
                os.kill(number or 0, signal.SIGTERM)

    assert not pretrain(recipe(corpus, tmp_path / "run", workers=2), watch=watch)
    assert (tmp_path / "run" / "checkpoint-00000004").is_dir()
    assert pretrain(recipe(corpus, tmp_path / "run", workers=2))
    assert weights(tmp_path / "run") == weights(alone)


def test_a_corpus_of_other_bytes_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    shutil.copytree(corpus.path, tmp_path / "c")
    with (tmp_path / "c" / "tokens.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    with pytest.raises(InputError, match=r"tokens.npy: holds other bytes"):
        pretrain(recipe(Corpus(tmp_path / "c"), tmp_path / "run"))


def test_a_finished_run_stays_as_it_is(alone: Path, corpus: Corpus) -> None:
    before = weights(alone)
    assert pretrain(recipe(corpus, alone))
    assert weights(alone) == before


def test_a_truncated_checkpoint_falls_back_and_says_so(alone: Path, corpus: Corpus, tmp_path: Path) -> None:
    pretrain(recipe(corpus, tmp_path / "run"), watch=stop_after(6))
    damaged = tmp_path / "run" / "checkpoint-00000007" / "model" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    said: list[str] = []
    assert pretrain(recipe(corpus, tmp_path / "run"), warn=said.append)
    assert "checkpoint-00000007" in said[0]
    assert weights(tmp_path / "run") == weights(alone)


def test_every_checkpoint_damaged_is_said_each_time_and_nothing_goes(corpus: Corpus, tmp_path: Path) -> None:
    pretrain(recipe(corpus, tmp_path / "run"), watch=stop_after(6))
    damaged = next((tmp_path / "run").glob("checkpoint-*7")) / "state" / "optimizer.safetensors"
    for folder in (tmp_path / "run").glob("checkpoint-*5"):
        (folder / "state" / "step.json").write_text("{}")
    damaged.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(InputError, match="every checkpoint is damaged"):
            pretrain(recipe(corpus, tmp_path / "run"), warn=lambda message: None)
    assert damaged.is_file()


def test_a_link_left_behind_by_a_kill_is_set_right(alone: Path, corpus: Corpus) -> None:
    (alone / "model").unlink()
    (alone / "model").symlink_to("checkpoint-00000010/model", target_is_directory=True)
    (alone / ".checkpoint-00000099.1.part").mkdir()
    (alone / ".model.1.part").symlink_to("checkpoint-00000010/model", target_is_directory=True)
    assert pretrain(recipe(corpus, alone))
    assert os.readlink(alone / "model") == "checkpoint-00000012/model"
    assert not list(alone.glob("*.part"))


def test_a_run_killed_at_its_first_breath_begins_again(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").touch()
    (folder / ".recipe.toml.1.part").write_text("mod")
    assert pretrain(recipe(corpus, folder, steps=1))
    assert not list(folder.glob("*.part"))
    (folder / "recipe.toml").unlink()
    with pytest.raises(InputError, match="is there and is no run"):
        pretrain(recipe(corpus, folder, steps=1))


def test_another_corpus_in_the_same_place_is_refused(
    corpus: Corpus, text_file: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(corpus.path, tmp_path / "c")
    given = recipe(corpus, tmp_path / "run", corpus=str(tmp_path / "c"))
    pretrain(given, watch=stop_after(3))
    shutil.rmtree(tmp_path / "c")
    prepare([text_file, text_file], tokenizer_folder, tmp_path / "c", held_out=0.1)
    with pytest.raises(InputError, match="the run was on another text"):
        pretrain(given)


def test_a_held_out_part_that_cannot_be_measured_is_said_before_the_work(
    text_file: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    made = prepare([text_file], tokenizer_folder, tmp_path / "c", held_out=0.003)
    assert Corpus(made.path / "held-out").manifest["documents"] == 1
    with pytest.raises(InputError, match="held-out: one document, at least two needed"):
        pretrain(recipe(made, tmp_path / "run"))


def test_a_start_brings_its_size_and_the_recipe_its_dropout(alone: Path, corpus: Corpus, tmp_path: Path) -> None:
    given = recipe(corpus, tmp_path / "run", model="", start=str(alone), dropout=0.3, steps=1)
    assert pretrain(given)
    config = bertloom.load(tmp_path / "run").config
    assert (config.hidden_size, config.hidden_dropout_prob) == (128, 0.3)
    with pytest.raises(InputError, match="model: 'tiny' given beside from"):
        pretrain(replace(given, model="tiny", output=str(tmp_path / "other")))


def test_a_run_goes_on_without_the_model_it_began_with(
    alone: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(alone, tmp_path / "start")
    whole = recipe(corpus, tmp_path / "whole", model="", start=str(tmp_path / "start"))
    assert pretrain(whole)
    monkeypatch.chdir(tmp_path)
    given = replace(whole, output=str(tmp_path / "run"), start="start")
    assert not pretrain(given, watch=stop_after(5))
    shutil.rmtree("start")
    with pytest.raises(InputError, match="from: 'other' given, the run has 'start'"):
        pretrain(replace(given, start="other"))
    assert pretrain(replace(given, start=str(tmp_path / "start")))
    assert sha256(tmp_path / "run/model/model.safetensors") == sha256(tmp_path / "whole/model/model.safetensors")


KILLED = """
import sys
from bertloom.pretraining import pretrain
from bertloom.train.recipe import Recipe, read_recipe
from pathlib import Path
pretrain(Recipe(**read_recipe(Path(sys.argv[1]))))
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_bytes(corpus: Corpus, tmp_path: Path) -> None:
    """SIGKILL at moments spread over the run, among them while a checkpoint is written."""
    settings = {"steps": 40, "save_every": 2, "length": 24, "short_length": 0}
    assert pretrain(recipe(corpus, tmp_path / "alone", **settings))
    run = recipe(corpus, tmp_path / "run", **settings)
    run.write(tmp_path / "r.toml")
    kills = 0
    for seconds in (0.3, 0.55, 0.8, 1.05):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "r.toml")])
        before = len(list((tmp_path / "run").glob("*")))
        deadline = time.monotonic() + 60
        while (
            process.poll() is None and len(list((tmp_path / "run").glob("*"))) == before and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        time.sleep(seconds)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 2
    assert pretrain(run)
    assert weights(tmp_path / "run") == weights(tmp_path / "alone")


def test_mlm_alone_on_single_segments(corpus: Corpus, tmp_path: Path) -> None:
    for settings in ({"segments": "full"}, {"segments": "sentence", "mask": "words"}):
        run = tmp_path / settings["segments"]
        assert pretrain(recipe(corpus, run, objective="mlm", steps=2, **settings))
        _, info = transformers.BertForMaskedLM.from_pretrained(run / "model", output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"], "no pooler and no head that never learned"
        again = recipe(corpus, run, objective="mlm", steps=2, **settings)
        assert Run(again, lambda message: None).first == 2


def test_going_on_from_another_model(alone: Path, corpus: Corpus, tmp_path: Path) -> None:
    run = Run(recipe(corpus, tmp_path / "run", model="", start=str(alone)), lambda message: None)
    want = bertloom.load(alone).state()
    assert all((value == want[name]).all() for name, value in run.encoder.state_dict().items())
    assert all((value == want[name]).all() for name, value in run.objective.state_dict().items())


def test_first_losses_and_their_fall(alone: Path, corpus: Corpus, tmp_path: Path) -> None:
    assert pretrain(
        recipe(
            corpus,
            tmp_path / "run",
            steps=250,
            batch_size=16,
            learning_rate=2e-3,
            dropout=0.0,
            save_every=250,
            evaluate_examples=200,
        )
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["losses"]["mlm"] == pytest.approx(4.94, rel=0.1)
    assert rows[0]["losses"]["nsp"] == pytest.approx(0.693, rel=0.1)
    guess = guessing(Corpus(corpus.path / "held-out"), Combined(bertloom.load(alone).config, "mlm"))["mlm"]
    assert rows[-1]["held_out"]["mlm"]["loss"] < guess.loss - 0.8
    assert rows[-1]["held_out"]["mlm"]["accuracy"] > 2 * guess.accuracy


def test_what_cannot_be_run(alone: Path, corpus: Corpus, tmp_path: Path, minilm: Path) -> None:
    def refused(said: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=said):
            pretrain(recipe(corpus, changes.pop("output", tmp_path / "run"), **changes))
        assert not (tmp_path / "run").exists()

    refused("is the run of another recipe .seed: 4 given, the run has 3", output=alone, seed=4)
    refused("examples of length 48, at least batch_size", batch_size=100_000)
    refused("length: 600 given, at most 512", length=600)
    refused("corpus was prepared with vocabulary", start=str(minilm), model="")
    refused("no prepared corpus", corpus=str(tmp_path))
    refused("corpus: none given", corpus="")
    refused("did you mean 'tiny'", model="tinyy")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").touch()
    refused("is there and is no run", output=tmp_path / "full")
    with pytest.raises(InputError, match="output: none given"):
        pretrain(Recipe(corpus=str(corpus.path)))


@pytest.mark.parametrize("has_it", [True, False])
def test_half_precision_is_chosen_where_the_device_has_it(has_it: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_it and not including_emulation)
    assert precision_on(torch.device("cuda")) == ("bf16" if has_it else "fp32")
    assert precision_on(torch.device("cpu")) == "fp32"
    assert precision_on(torch.device("cpu"), "bf16") == "bf16"


def test_a_second_signal_ends_at_once_and_handlers_return() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_signals() as stopped:
        assert not stopped()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_the_callers() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stop_signals() as stopped:
            seen.append(stopped())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_further_pretraining_on_raw_text_in_one_call(alone: Path, text_file: Path, tmp_path: Path) -> None:
    given = Recipe(
        start=str(alone), text=str(text_file), output=str(tmp_path / "run"), steps=3, batch_size=4, length=32
    )
    said: list[str] = []
    assert pretrain(given, warn=said.append)
    assert Corpus(tmp_path / "run-corpus").vocab_size == bertloom.load(tmp_path / "run").config.vocab_size
    assert len(said) == 1
    assert pretrain(given, warn=said.append), "the same again finds the corpus"
    assert len(said) == 1
    with pytest.raises(InputError, match="run-corpus: is made of another text"):
        pretrain(replace(given, text=__file__), warn=said.append)
    (tmp_path / "latin.txt").write_bytes("Über\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin.txt:1: byte .* bertloom prepare has these flags, --corpus takes"):
        pretrain(replace(given, text=str(tmp_path / "latin.txt"), output=str(tmp_path / "l")), warn=said.append)
    (tmp_path / "one.txt").write_text("The cat meows loudly. The dog barks.\n" * 40)
    alone_text = replace(given, text=str(tmp_path / "one.txt"), output=str(tmp_path / "one"), objective="mlm")
    assert pretrain(alone_text, warn=said.append), "of one document none is held out"
    for changes in ({"start": ""}, {"corpus": "c"}):
        with pytest.raises(InputError, match=r"text: .* given, allowed with from and output"):
            pretrain(replace(given, **changes))  # type: ignore[arg-type]
