"""The commands as users type them: what they print, what they leave, and one clear line where they cannot."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bertloom.cli import main
from bertloom.corpus import Corpus


class Typed:
    """Runs a command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]):
        self.capsys = capsys

    def __call__(self, *words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        out, err = self.capsys.readouterr()
        return int(left.value.code or 0), out, err

    def json(self, *words: object) -> Any:
        """The one JSON object of a command that works."""
        code, out, _ = self(*words, "--json")
        assert code == 0
        return json.loads(out)

    def refused(self, *words: object) -> str:
        """The one line of a command that does not."""
        code, out, err = self(*words)
        assert code == 2, err
        assert out == ""
        (line,) = (line for line in err.splitlines() if line.strip())
        assert line.startswith("bertloom: error: ")
        return line.removeprefix("bertloom: error: ")


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(capsys)


@pytest.fixture(scope="module")
def run(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = f"pretrain --corpus {corpus.path} --model tiny --steps 6 --batch-size 8 --length 32 --output {folder}"
    with pytest.raises(SystemExit) as left:
        main(words.split())
    assert left.value.code == 0
    return folder


def test_text_to_model_as_typed(typed: Typed, text_file: Path, tmp_path: Path) -> None:
    v, c, r = (tmp_path / name for name in "vcr")
    assert typed.json("vocab", text_file, "--size", 120, "--output", v)["size"] == 120
    made = typed.json("prepare", text_file, "--tokenizer", v, "--output", c, "--held-out", 0.1, "--workers", 1)
    assert made["documents"] == 270
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('model = "tiny"\nsteps = 4\nbatch_size = 8\nlength = 32\n')
    done = typed.json("pretrain", recipe, "--corpus", c, "--output", r, "--steps", 3)
    assert done["finished"]
    assert done["step"] == 3
    assert set(done["measures"]) == {"mlm", "nsp"}
    measured = typed.json("evaluate", r, "--corpus", c, "--length", 32)
    assert set(measured["measures"]["mlm"]) == {"loss", "accuracy", "count", "perplexity"}
    assert measured["guessing"]["nsp"]["accuracy"] == 0.5
    filled = typed.json("fill", r, "The [MASK] and the [MASK].", "--top", 2)
    assert [len(candidates) for candidates in filled["masks"]] == [2, 2]


def test_tables_for_people(typed: Typed, run: Path, corpus: Corpus, tmp_path: Path, text_file: Path) -> None:
    for words, said in (
        (("fill", run, "The [MASK] meows."), ["The [MASK] meows.", "probability"]),
        (
            ("evaluate", run, "--corpus", corpus.path, "--length", 32),
            ["MLM perplexity", "guessing", "NSP accuracy", "50.0 %"],
        ),
        (("plan", "tiny", "--memory", "8GB"), ["4,385,920", "tokens/s", "attention", "GFLOP/s"]),
        (
            ("prepare", text_file, "--tokenizer", corpus.tokenizer_folder, "--output", tmp_path / "c"),
            ["[UNK] rate", "16-31"],
        ),
    ):
        code, out, _ = typed(*words)
        assert code == 0
        assert all(one in out for one in said), out


def test_minimal_pairs(typed: Typed, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    pair = {"good": "The cat meows.", "bad": "The cat cat.", "paradigm": "p", "phenomenon": "sounds"}
    file.write_text(json.dumps(pair) + "\n")
    made = typed.json("evaluate", run, "--suite", "blimp", "--data", file)
    assert made["shares"]["sounds"]["count"] == 1
    code, out, _ = typed("evaluate", run, "--suite", "blimp", "--data", file)
    assert code == 0
    assert "a tie is wrong" in out


def test_plan_in_json(typed: Typed) -> None:
    made = typed.json("plan", "base", "--batch", 256, "--length", 512, "--memory", "24GB")
    assert made["parameters"]["backbone"] == 109_482_240
    assert set(made["bytes"]) == {"weights", "gradients", "optimizer", "activations", "runtime", "total"}
    assert made["flops_per_token_by_length"]["512"] > made["flops_per_token_by_length"]["128"]
    assert made["micro_batch"] >= 1


def test_the_same_command_again_goes_on(typed: Typed, run: Path, corpus: Corpus) -> None:
    words = f"pretrain --corpus {corpus.path} --model tiny --steps 6 --batch-size 8 --length 32 --output {run}".split()
    before = (run / "metrics.jsonl").read_bytes()
    assert typed(*words)[0] == 0
    assert (run / "metrics.jsonl").read_bytes() == before


BAD = [
    ("pretrain --corpus {c} --modle tiny", "Did you mean --model"),
    ("pretrain --corpus {c} --output {t}/r --model tinny", "model: unknown 'tinny', did you mean 'tiny'"),
    ("pretrain --corpus {c} --output {t}/r --steps many", "many"),
    ("pretrain --corpus {c} --output {run} --steps 7", "is the run of another recipe"),
    ("pretrain {t}/none.toml", "none.toml: no such file"),
    ("pretrain {t}/bad.toml", "bad.toml:2: key unknown 'stepz', did you mean 'steps'"),
    ("pretrain --corpus {c} --output {t}/r --batch-size 9999", "at least batch_size (9999) needed"),
    ("prepare {t}/none --tokenizer {c}/tokenizer --output {t}/x", "none: no such file"),
    ("prepare {t}/latin.txt --tokenizer {c}/tokenizer --output {t}/x", "latin.txt:2: byte 0xe9"),
    ("prepare {t}/long.txt --tokenizer {c}/tokenizer --output {t}/x --max-line 1000", "long.txt:1: line longer"),
    ("prepare {t}/empty.txt --tokenizer {c}/tokenizer --output {t}/x", "no document in the text"),
    ("prepare {t}/latin.txt --tokenizer {t} --output {t}/x", "no tokenizer there"),
    ("prepare {t}/latin.txt --tokenizer {c}/tokenizer --output {c}", "not written over"),
    ("prepare {t}/latin.txt --tokenizer {c}/tokenizer --output {t}/x --workers 0", "workers: 0"),
    ("vocab {t}/small.txt --size 5000 --output {t}/v", "at most"),
    ("vocab {t}/small.txt --size 100 --output {c}", "not written over"),
    ("fill {t}/none/of/this [MASK]", "no model there"),
    ("fill {run} nothing", "no [MASK] in the text"),
    ("evaluate {run}", "give either --corpus"),
    ("evaluate {run} --suite blimp", "give either --corpus"),
    ("evaluate {run} --corpus {c} --length 9999", "at most 512 positions"),
    ("evaluate {run} --corpus {c} --examples 0", "at least 1"),
    ("evaluate {minilm} --corpus {c}", "corpus was prepared with vocabulary"),
    ("plan enormous", "model: unknown 'enormous'"),
    ("plan base --memory much", "memory: 'much'"),
    ("nonsense", "nonsense"),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=[words.replace("{", "").replace("}", "") for words, _ in BAD])
def test_bad_input_is_one_line_and_leaves_nothing(
    typed: Typed, words: str, said: str, run: Path, corpus: Corpus, minilm: Path, tmp_path: Path
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"good\ncaf\xe9\n")
    (tmp_path / "long.txt").write_bytes(b"x" * 5000)
    (tmp_path / "small.txt").write_text("a few words, said twice: a few words\n")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "bad.toml").write_text("\nstepz = 3\n")
    before = sorted(tmp_path.rglob("*"))
    line = typed.refused(*words.format(c=corpus.path, t=tmp_path, run=run, minilm=minilm).split())
    assert said in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_the_users_to_mend(
    typed: Typed, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "v" / "tokenizer.json"))

    monkeypatch.setattr("bertloom.text.tokenizer.write_json", full)
    assert "No space left on device" in typed.refused("vocab", text_file, "--size", 120, "--output", tmp_path / "v")
    assert list(tmp_path.iterdir()) == []


def test_help_is_quick_and_brings_no_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "bertloom", "--help"]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "bertloom", "--help"], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - began)
    assert "pretrain" in done.stdout
    assert "| torch" not in subprocess.run(command, capture_output=True, text=True, check=True).stderr
    # 0.3 s on an idle machine; tests may share theirs.
    assert min(times) < 0.6


@pytest.mark.parametrize("command", ["vocab", "prepare", "pretrain", "evaluate", "fill", "plan", "demo"])
def test_every_command_explains_itself(typed: Typed, command: str) -> None:
    code, out, _ = typed(command, "--help")
    assert code == 0
    assert "Usage: bertloom " + command in out
    assert typed("--version")[1].strip() == "0.1.0"


def test_whoever_stops_reading_ends_us_quietly(run: Path) -> None:
    command = f"{sys.executable} -m bertloom fill {run} 'The [MASK].' --top 100 | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_demo_learns_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bertloom", "demo", "--output", str(tmp_path / "demo"), "--steps", "30"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "masked words: loss in nats" in done.stdout
    assert "The state of the union is [MASK]." in done.stdout
    assert "Next: bertloom" in done.stderr
    assert (tmp_path / "demo" / "run" / "curves.png").is_file()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout.splitlines()[-12:] == done.stdout.splitlines()[-12:]
