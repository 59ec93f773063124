"""`finetune`, `predict` and `evaluate` as users type them."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bertloom.cli import main
from tests.cli.test_cli import Typed
from tests.tasks import cases


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(capsys)


def write(path: Path, name: str, count: int, seed: int) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in cases.rows(name, count, seed)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def desk(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a fine-tuned tagger."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("tag", "classify"):
        write(folder / f"{name}.jsonl", name, 64, 1), write(folder / f"{name}-dev.jsonl", name, 20, 2)
    words = (
        f"finetune tag {tiny_model} --train {folder}/tag.jsonl --dev {folder}/tag-dev.jsonl --output {folder}/tagger"
    )
    with pytest.raises(SystemExit) as left:
        main([*words.split(), "--learning-rate", "3e-3", "--epochs", "12", "--batch-size", "16"])
    assert left.value.code == 0
    return folder


def test_predict_and_evaluate(typed: Typed, desk: Path) -> None:
    scored = typed.json("evaluate", desk / "tagger", "--data", desk / "tag-dev.jsonl")
    assert scored["scores"]["f1"] == json.loads((desk / "tagger" / "report.json").read_text())["scores"]["f1"] > 0.9
    code, out, _ = typed("evaluate", desk / "tagger", "--data", desk / "tag-dev.jsonl")
    assert code == 0
    assert "f1/ANIMAL" in out
    made = typed.json("predict", desk / "tagger", "--data", desk / "tag-dev.jsonl", "--output", desk / "said.jsonl")
    assert made["records"] == 20
    rows = [json.loads(line) for line in (desk / "said.jsonl").read_text().splitlines()]
    for row in rows:
        for one in row["entities"]:
            assert row["text"][one["start"] : one["end"]] == one["text"]
            assert 0 < one["probability"] <= 1
    assert typed("predict", desk / "tagger", "--data", desk / "tag-dev.jsonl", "--output", desk / "said.csv")[0] == 0
    with (desk / "said.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert json.loads(table[0]["entities"]) == rows[0]["entities"]
    code, out, _ = typed("predict", desk / "tagger", "--data", desk / "tag-dev.jsonl")
    assert [json.loads(line) for line in out.splitlines()] == rows


def test_a_recipe_is_the_same_run(typed: Typed, desk: Path) -> None:
    report = typed.json("finetune", desk / "tagger" / "recipe.toml", "--output", desk / "again")
    first, again = (json.loads((desk / name / "report.json").read_text()) for name in ("tagger", "again"))
    assert first["scores"] == again["scores"] == report["scores"]
    assert report["finished"]
    code, _, err = typed("finetune", desk / "again" / "recipe.toml")
    assert code == 0
    assert "is finished" in err


def test_the_terminal_shows_settings_scores_and_what_is_next(typed: Typed, desk: Path, tiny_model: Path) -> None:
    code, out, err = typed(
        "finetune", "classify", tiny_model, "--train", desk / "classify.jsonl", "--dev", desk / "classify-dev.jsonl",
        "--output", desk / "c", "--epochs", 1, "--seeds", 2, "--restarts", 0, "--calibrate",
    )  # fmt: skip
    assert code == 0
    wanted = [
        "Settings: epochs 1, steps 2, batch_size 32, learning_rate 0.0006",
        "64 training and 20 dev records",
        "epoch 1.0 dev: accuracy",
        "learned nothing: it answers",
        "Temperature",
        "next: bertloom predict",
    ]
    for said in wanted:
        assert said in " ".join(err.split()), said
    assert "2 seeds" in out
    assert "Gold labels (rows) by given ones (columns)" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("finetune classify {m} --train=- --dev x --output {t}/o", "-: standard input given, a file"),
        ("finetune classify {m} --train /dev/null --dev x --output {t}/o", "/dev/null: is no regular file, a file"),
        ("finetune tag {m} --train x --dev x --output {t}/pretrained", "is a run that is no fine-tuning, tag given"),
        ("finetune clasify x", "finetune: unknown 'clasify', did you mean 'classify'"),
        ("finetune classify {m} --trian x", "Unknown option"),
        ("finetune classify {m} --train {d}/none --dev x --output {t}/o", "none: no such file"),
        ("finetune classify {m} --train {d} --dev x --output {t}/o", "is a folder, a file or hf:NAME"),
        ("finetune classify {m} --dev x --output {t}/o", "train: none given, one needed"),
        ("finetune {t}/none.toml", "none.toml: no such file"),
        ("finetune {t}/no-task.toml", "no-task.toml: no key task, one of classify, tag"),
        ("finetune {t}/odd.toml", "odd.toml:2: key unknown 'epohcs', did you mean 'epochs'"),
        ("finetune {t}/bad.toml", "bad.toml:2: epochs: -1 given, above 0"),
        ("finetune {t}/late.toml --train {d}/tag.jsonl --dev {d}/tag.jsonl", "late.toml:2: metric: 'none'"),
        ("finetune {t}/words.toml", "words.toml:2: on-bad: unknown 'skpi', did you mean 'skip'"),
        ("predict {m} --data {d}/tag.jsonl --output {t}/p.jsonl", "is not fine-tuned"),
        ("predict {d}/tagger --data {d}/tag.jsonl --output {t}/p.xml", "output ending in '.xml' given"),
        ("predict {d}/tagger --data {d}/tag.jsonl --output {d}/tag.jsonl", "is there already"),
        ("predict {d}/tagger --data {d}/tag.jsonl --pair x", "tag: unknown 'pair'"),
        ("predict {d}/tagger --data {d}/tag.jsonl --json", "output: none given beside --json"),
        ("evaluate {d}/tagger --data {d}/none.jsonl", "none.jsonl: no such file"),
        ("evaluate {d}/tagger --data {d}/classify.jsonl", "no tags"),
        ("evaluate {d}/tagger --data {d}/tag.jsonl --seed 3", "are for --corpus"),
        ("evaluate {d}/tagger", "give either --corpus DIR"),
    ],
)
def test_one_clear_line(typed: Typed, desk: Path, tiny_model: Path, tmp_path: Path, words: str, said: str) -> None:
    keys = 'model = "m"\ntrain = "t"\ndev = "d"\noutput = "o"\n'
    (tmp_path / "no-task.toml").write_text(keys)
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "recipe.toml").write_text('corpus = "x"\n')
    (tmp_path / "odd.toml").write_text('task = "tag"\nepohcs = 3\n')
    (tmp_path / "bad.toml").write_text(f'task = "tag"\nepochs = -1\n{keys}')
    (tmp_path / "words.toml").write_text(f'task = "tag"\non_bad = "skpi"\n{keys}')
    (tmp_path / "late.toml").write_text(
        f'task = "tag"\nmetric = "none"\nmodel = "{tiny_model}"\noutput = "{tmp_path}/o"\n'
    )
    line = typed.refused(*words.format(m=tiny_model, d=desk, t=tmp_path).split())
    assert said in line


def test_help_brings_no_torch() -> None:
    for words in ("finetune --help", "finetune tag --help", "predict --help"):
        command = [sys.executable, "-X", "importtime", "-m", "bertloom", *words.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        # Nested imports are indented.
        assert not re.search(r"\|\s+torch$", done.stderr, re.MULTILINE)
        assert "Usage: bertloom" in done.stdout


def test_messages_survive_odd_names(typed: Typed, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "데이터 – 1"
    folder.mkdir()
    (folder / "t.tsv").write_bytes(b"text\tlabel\ncaf\xe9\t1\n")
    line: Any = typed.refused(
        "finetune",
        "classify",
        tiny_model,
        "--train",
        folder / "t.tsv",
        "--dev",
        folder / "t.tsv",
        "--output",
        tmp_path / "o",
    )
    assert "t.tsv:2: byte 0x" in line
