"""A teacher's answers learned by a student: of every task, of another family and vocabulary, stopped and gone on."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bertloom
from bertloom.api import Model
from bertloom.cli import main
from bertloom.config import preset
from bertloom.errors import InputError
from bertloom.files import sha256
from bertloom.finetuning.data import read
from bertloom.finetuning.recipe import Tuning, tuning
from bertloom.finetuning.run import Finetuning
from bertloom.finetuning.tune import finetune
from bertloom.model.encoder import Encoder
from bertloom.model.init import initialise
from bertloom.model.packed import pack
from bertloom.ship.distill import of_layers
from bertloom.ship.prune import asking, prune
from bertloom.ship.steps import Distill, read_recipe
from bertloom.tasks import TASKS
from bertloom.tasks.objective import Taught, _relations, _Traced
from bertloom.text.records import Place
from bertloom.text.sources import ReadCounts
from bertloom.text.vocabulary import train_vocabulary
from tests.finetuning.test_tune import quiet, stop_after, write
from tests.tasks import cases

ROOT = Path(__file__).parents[2]
NAMES = ["classify", "classify-multi", "classify-score", "tag", "answer", "choose"]


def teacher_of(name: str, tiny_model: Path, folder: Path) -> Path:
    """A fine-tuned model whose answers differ from text to text, with no training."""
    start = bertloom.load(tiny_model)
    torch.manual_seed(3)
    task, _ = cases.made(name, 60)
    encoder = start.encoder
    initialise(encoder, 0.3)
    encoder.give_pooler(task.pools(start.config))
    if task.pools(start.config):
        # One without biases counts as one that never learned.
        nn.init.normal_(encoder.pooler.dense.bias, std=0.1)
    head = task.head(start.config)
    Model(encoder, nn.ModuleDict({task.part: head}), start.tokenizer, {}, folder, task=task).save(folder)
    return folder


def student_of(teacher: Path, folder: Path, **changes: Any) -> Path:
    """A new model over a teacher's vocabulary."""
    its = bertloom.load(teacher)
    config = preset("tiny", **{
        "vocab_size": len(its.tokenizer), "num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 128,
        "max_position_embeddings": 64, **changes,
    })  # fmt: skip
    torch.manual_seed(5)
    encoder = Encoder(config)
    initialise(encoder, 0.05)
    Model(encoder, nn.ModuleDict(), its.tokenizer, {}, folder).save(folder)
    return folder


def unlabelled(path: Path, name: str, count: int, seed: int) -> Path:
    """Records without their answers."""
    task = TASKS[name.partition("-")[0]]()
    rows = cases.rows(name, count, seed)
    shown = task.shown(rows[0], Place("toy", 1))
    path.write_text("".join(json.dumps(shown.without_gold(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(teacher: Path, student: Path, folder: Path, name: str = "classify", **changes: Any) -> Tuning:
    train = unlabelled(folder / f"{name}.jsonl", name, 96, 1)
    dev = write(folder / f"{name}-dev.jsonl", name, 24, 2)
    keys = {
        "model": str(student), "teacher": str(teacher), "train": str(train), "dev": str(dev),
        "output": str(folder / "run"), "epochs": 8.0, "batch_size": 16, "learning_rate": 3e-3, "dropout": 0.0,
        "evaluate_every": 1000,
        "restarts": 0,
    }  # fmt: skip
    return tuning(name.partition("-")[0], {**keys, **changes})


@pytest.fixture(scope="module")
def teacher(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teacher_of("classify", tiny_model, tmp_path_factory.mktemp("teacher") / "model")


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_more_and_more_as_its_teacher(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """Logits that were learned from records without answers come near the teacher's on others."""
    teacher = teacher_of(name, tiny_model, tmp_path / "teacher")
    given = recipe(teacher, student_of(teacher, tmp_path / "student"), tmp_path, name)
    data = read(given, bertloom.load(given.model), quiet)
    run = Finetuning(given, 0, tmp_path / "run", data, quiet)
    losses = [step.losses["soft"] for step, _ in run.train(lambda: False)]
    assert np.mean(losses[-6:]) < 0.35 * np.mean(losses[:3])
    assert run.objective.head.training


def test_its_logits_are_the_targets(teacher: Path, tmp_path: Path) -> None:
    """Every example has what the teacher says of it; gold answers that stand there are not looked at."""
    student = student_of(teacher, tmp_path / "student")
    given = recipe(teacher, student, tmp_path)
    silent = read(given, bertloom.load(student), quiet)
    labelled = write(tmp_path / "labelled.jsonl", "classify", 96, 1)
    told = read(replace(given, train=str(labelled)), bertloom.load(student), quiet)
    assert silent.identity == told.identity
    its = bertloom.load(teacher)
    names = its.require_task().labels  # type: ignore[attr-defined]
    answers = its.predict([record.text for record in silent.train])  # type: ignore[attr-defined]
    for one, answer in zip(silent.features, answers):
        shares = torch.from_numpy(one.targets["soft"][1][0]).softmax(0)
        assert [answer["probabilities"][name] for name in names] == pytest.approx(shares.tolist(), abs=1e-5)


def test_stopped_it_ends_in_the_same_bytes(teacher: Path, tmp_path: Path) -> None:
    """With a narrower student, whose targets are the teacher's states in fewer directions."""
    student = student_of(teacher, tmp_path / "student", hidden_size=32, intermediate_size=64)
    given = recipe(teacher, student, tmp_path, match="states+relations", epochs=4.0)
    assert finetune(given, say=quiet)
    again = replace(given, output=str(tmp_path / "again"))
    assert finetune(again, watch=stop_after(7), say=quiet) is None
    assert finetune(again, say=quiet)
    weights = [sha256(tmp_path / name / "model" / "model.safetensors") for name in ("run", "again")]
    assert weights[0] == weights[1]
    with pytest.raises(InputError, match="other data or from another model"):
        finetune(replace(again, teacher=str(teacher_of("classify", student, tmp_path / "other"))), say=quiet)


@pytest.mark.parametrize("match", ["states", "relations", "states+relations"])
def test_insides_come_nearer(match: str, teacher: Path, tmp_path: Path) -> None:
    student = student_of(teacher, tmp_path / "student", hidden_size=32, intermediate_size=64)
    given = recipe(teacher, student, tmp_path, match=match, learning_rate=1e-2)
    run = Finetuning(given, 0, tmp_path / "run", read(given, bertloom.load(student), quiet), quiet)
    losses = [step.losses for step, _ in run.train(lambda: False)]
    for name in match.split("+"):
        assert losses[-1][name] < 0.8 * losses[0][name]


def test_a_student_that_is_its_teacher_has_nothing_to_learn(teacher: Path, tmp_path: Path) -> None:
    """All losses are zero, of states and relations too, and of a head that the student has already."""
    given = recipe(teacher, teacher, tmp_path, match="states+relations")
    run = Finetuning(given, 0, tmp_path / "run", read(given, bertloom.load(teacher), quiet), quiet)
    step, _ = next(iter(run.train(lambda: False)))
    assert max(step.losses.values()) < 1e-9


def test_relations_by_hand(teacher: Path) -> None:
    """The divergence of likenesses, text by text in plain words."""
    model = bertloom.load(teacher)
    model.encoder.requires_grad_(False)
    other = model.with_encoder(model.encoder)
    with torch.no_grad():
        other.encoder.layers[-1].attention.qkv.weight += 0.1 * torch.randn(3 * 64, 64)
    batch = pack(model.examples(["The cat sleeps.", "A dog.", "한국어 문장도", "The cow moos loudly."]))
    seen: list[Any] = []
    for one in (model, other):
        seen.append([])
        _Traced(one.encoder, seen[-1])(batch)
    total, start = 0.0, 0
    for length in batch.lengths:
        for name in ("queries", "keys", "values"):
            shares = []
            for side in seen:
                rows = getattr(side[-1], name)[start : start + length].reshape(length, 8, 8).transpose(0, 1)
                shares.append((rows @ rows.transpose(1, 2) / 8**0.5).softmax(-1))
            total += float((shares[1] * (shares[1].log() - shares[0].log())).sum()) / 8 / 3
        start += length
    assert float(_relations(seen[0][-1], seen[1][-1], batch)) == pytest.approx(total, rel=1e-4)


def test_of_another_family_and_vocabulary(teacher: Path, tmp_path: Path, text_file: Path) -> None:
    """Answers to whole texts need no common tokens; insides and tags do."""
    words = train_vocabulary(text_file.read_text(encoding="utf-8").splitlines(), 90)
    words.save(tmp_path / "words")
    own = bertloom.load(teacher)
    config = preset("electra-small-discriminator", vocab_size=len(words), num_hidden_layers=1, hidden_size=64,
                    intermediate_size=64, max_position_embeddings=64, embedding_size=32)  # fmt: skip
    encoder = Encoder(config)
    initialise(encoder, 0.05)
    Model(encoder, nn.ModuleDict(), words, {}, tmp_path).save(tmp_path / "student")
    given = recipe(teacher, tmp_path / "student", tmp_path)
    data = read(given, bertloom.load(tmp_path / "student"), quiet)
    answers = own.predict([record.text for record in data.train])  # type: ignore[attr-defined]
    labels = own.require_task().labels  # type: ignore[attr-defined]
    assert [labels[int(one.targets["soft"][1][0].argmax())] for one in data.features] == [
        one["label"] for one in answers
    ]
    report = finetune(given, say=quiet)
    assert report
    assert bertloom.load(tmp_path / "run").config.model_type == "electra"
    with pytest.raises(InputError, match="none allowed where teacher and student have other vocabularies"):
        read(replace(given, match="states"), bertloom.load(tmp_path / "student"), quiet)


def test_answers_in_texts_need_the_same_pieces(tiny_model: Path, tmp_path: Path, text_file: Path) -> None:
    teacher = teacher_of("answer", tiny_model, tmp_path / "teacher")
    words = train_vocabulary(text_file.read_text(encoding="utf-8").splitlines(), 90)
    config = preset("tiny", vocab_size=len(words), num_hidden_layers=1, max_position_embeddings=64)
    Model(Encoder(config), nn.ModuleDict(), words, {}, tmp_path).save(tmp_path / "student")
    with pytest.raises(InputError, match=r"answer.jsonl:\d+: falls into other pieces for the teacher"):
        read(recipe(teacher, tmp_path / "student", tmp_path, "answer"), bertloom.load(tmp_path / "student"), quiet)


def test_a_pruned_student_is_brought_back(teacher: Path, tmp_path: Path) -> None:
    """It begins with its own head, and ends nearer to its teacher than it began."""
    its = bertloom.load(teacher)
    labelled = str(write(tmp_path / "labelled.jsonl", "classify", 60, 4))
    smaller, _ = prune(its, asking(its, labelled, [], ReadCounts()), heads=0.5, inner=0.5)
    smaller.save(tmp_path / "pruned")
    given = recipe(teacher, tmp_path / "pruned", tmp_path)
    data = read(given, bertloom.load(tmp_path / "pruned"), quiet)
    run = Finetuning(given, 0, tmp_path / "run", data, quiet)
    assert torch.equal(run.objective.head.weight, its.heads["classifier"].weight)
    losses = [step.losses["soft"] for step, _ in run.train(lambda: False)]
    assert np.mean(losses[-6:]) < 0.5 * np.mean(losses[:6])
    again = bertloom.load(tmp_path / "run" / "model")
    assert [one.attention.heads for one in again.encoder.layers] == [1, 1]
    assert isinstance(run.objective, Taught)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"match": "dreams"}, "match: unknown 'dreams'"),
        ({"match": "states", "teacher": ""}, "match: given, a --teacher to match needed"),
    ],
)
def test_recipes_that_cannot_be(teacher: Path, tmp_path: Path, changes: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(recipe(teacher, teacher, tmp_path), **changes)


def test_teachers_that_cannot_be(teacher: Path, tiny_model: Path, tmp_path: Path) -> None:
    student = bertloom.load(student_of(teacher, tmp_path / "student", hidden_size=96, num_attention_heads=2))
    with pytest.raises(InputError, match="is not fine-tuned"):
        read(recipe(tiny_model, student.path, tmp_path), student, quiet)
    with pytest.raises(InputError, match="is fine-tuned to classify, a teacher of tag needed"):
        read(recipe(teacher, student.path, tmp_path, "tag"), student, quiet)
    with pytest.raises(InputError, match=r"a student at most as wide as its teacher \(64\) needed"):
        read(recipe(teacher, student.path, tmp_path, match="states"), student, quiet)


def test_layers_of_the_teacher(golden: Model) -> None:
    """At even distances, the first among them."""
    three = of_layers(golden, 3)
    for mine, its in zip(three.encoder.layers, (0, 2, 4)):
        assert torch.equal(mine.attention.qkv.weight, golden.encoder.layers[its].attention.qkv.weight)
    with pytest.raises(InputError, match="layers: 6 given, from 1 to 5 allowed"):
        of_layers(golden, 6)


def test_as_users_type_it(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`distill --layers`, and a recipe of every step, told in a table and gone on with where it stopped."""
    train = unlabelled(tmp_path / "train.jsonl", "classify", 60, 1)
    dev = write(tmp_path / "dev.jsonl", "classify", 24, 2)
    labelled = write(tmp_path / "labelled.jsonl", "classify", 60, 4)

    def typed(*words: object) -> str:
        with pytest.raises(SystemExit) as left:
            main(["compress", *map(str, words)])
        assert left.value.code == 0
        return capsys.readouterr().out

    common = ("--train", train, "--dev", dev, "--epochs", 1, "--output", tmp_path / "out", "--layers", 1)
    told = json.loads(typed("distill", teacher, *common, "--json"))
    assert told["settings"]["teacher"] == str(teacher)
    assert bertloom.load(tmp_path / "out").config.num_hidden_layers == 1
    assert "is finished" not in typed("distill", teacher, *common, "--json")
    steps = tmp_path / "small.toml"
    steps.write_text(
        f'model = "{teacher}"\ndata = "{labelled}"\ndev = "{dev}"\noutput = "{tmp_path / "small"}"\n'
        '[[steps]]\ndo = "prune"\nheads = 0.5\nlayers = 1\n[[steps]]\ndo = "distill"\nepochs = 2.0\nrestarts = 0\n'
        '[[steps]]\ndo = "low-rank"\nrank = 32\n[[steps]]\ndo = "quantize"\nagreement = 0.9\n'
    )
    report = json.loads(typed(steps, "--json"))
    assert [row["step"] for row in report["rows"][1:]] == ["prune", "distill", "low-rank", "quantize"]
    sizes = [row["size"] for row in report["rows"]]
    assert sizes[0] > sizes[1] == sizes[2] > sizes[3] > sizes[4]
    small = bertloom.load(tmp_path / "small" / "model")
    rows = [json.loads(line) for line in dev.read_text().splitlines()]
    assert report["rows"][-1]["scores"] == pytest.approx(small.evaluate(rows))
    before = {
        path.name: path.stat().st_mtime_ns for path in (tmp_path / "small").glob("*.json") if path.name[0].isdigit()
    }
    assert "distill" in typed(steps)
    assert before == {name: (tmp_path / "small" / name).stat().st_mtime_ns for name in before}
    with pytest.raises(SystemExit):
        main(["compress", str(steps), "--model", "other"])
    assert "is that of another recipe" in capsys.readouterr().err


def test_the_shipped_recipe_builds() -> None:
    made = read_recipe(ROOT / "recipes" / "smaller.toml", {"model": "m", "data": "d", "output": "o"})
    assert [one.name for one in made.steps] == ["prune", "low-rank", "distill", "quantize"]
    (distill,) = (one for one in made.steps if isinstance(one, Distill))
    assert tuning("classify", {**distill.keys, "model": "m", "train": "t", "dev": "d", "output": "o"}).epochs == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "steps: none given"),
        ("[[steps]]\ndo = 'prunes'", "step 1: do: unknown 'prunes'"),
        ("[[steps]]\ndo = 'prune'\nhead = 0.5", "step 1: key unknown 'head'"),
        ("[[steps]]\ndo = 'prune'\nlayers = 0.5", "step 1: layers: 0.5 given, a int allowed"),
        ("stepps = 1", "key unknown 'stepps'"),
        ("steps = [1]", "tables needed"),
    ],
)
def test_steps_that_cannot_be(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError, match=re.escape(said)):
        read_recipe(tmp_path / "r.toml", {"model": "m", "data": "d", "output": "o"})
