"""The commands as users type them: what they print, what they leave, and one clear line where they cannot."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard

from bertloom.api import load
from bertloom.cli import main
from bertloom.cli.demo import MASKED
from bertloom.corpus import Corpus
from bertloom.errors import InputError


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
        (line,) = err.splitlines()
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
    assert made["held_out"]["documents"] == 30
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('model = "tiny"\nsteps = 4\nbatch_size = 8\nlength = 32\n')
    done = typed.json("pretrain", recipe, "--corpus", c, "--output", r, "--steps", 3)
    assert done["finished"]
    assert done["step"] == 3
    assert set(done["measures"]) == {"mlm", "nsp"}
    measured = typed.json("evaluate", r, "--corpus", c)
    assert measured["length"] == 32, "positions it never saw are not asked for"
    assert set(measured["measures"]["mlm"]) == {"loss", "accuracy", "count", "perplexity"}
    assert measured["guessing"]["nsp"]["accuracy"] == 0.5
    assert measured["held_out"]
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
    other = [{str(corpus.path): f"{corpus.path}/", "tiny": "bert-tiny"}.get(word, word) for word in words]
    assert typed.json(*other)["step"] == 6, "the same run, spelt otherwise"


def test_what_was_never_learned_is_not_measured(typed: Typed, corpus: Corpus, text_file: Path, tmp_path: Path) -> None:
    c, r = tmp_path / "c", tmp_path / "r"
    typed.json("prepare", text_file, "--tokenizer", corpus.tokenizer_folder, "--output", c, "--workers", 1)
    sizes = ("--model", "tiny", "--steps", 1, "--batch-size", 8, "--length", 32, "--objective", "mlm")
    typed.json("pretrain", "--corpus", c, *sizes, "--output", r)
    made = typed.json("evaluate", r, "--corpus", c, "--length", 32)
    assert set(made["measures"]) == {"mlm"}
    assert not made["held_out"]
    assert "Not held out" in typed("evaluate", r, "--corpus", c, "--length", 32)[1]
    with pytest.raises(InputError, match="no trained nsp head"):
        load(r).next_sentence("One.", "Two.")


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
    ("prepare {t}/empty.txt --tokenizer {c}/tokenizer --output {t}/x", "empty.txt: no text in it"),
    ("prepare {t}/small.txt --tokenizer {c}/tokenizer --output {t}/x --held-out 0.5", "no document to train on"),
    ("prepare hf: --tokenizer {c}/tokenizer --output {t}/x", "hf:: no data set named"),
    ("prepare {t}/latin.txt --tokenizer {c}/tokenizer --output {t}/x --encoding utf-16", "encoding: 'utf-16' given"),
    ("prepare {t}/latin.txt --tokenizer {t} --output {t}/x", "no tokenizer there"),
    ("prepare {t}/latin.txt --tokenizer {c}/tokenizer --output {c}", "not written over"),
    ("prepare {t}/latin.txt --tokenizer {c}/tokenizer --output {t}/x --workers 0", "workers: 0"),
    ("vocab {t}/small.txt --size 5000 --output {t}/v", "none supported by this text"),
    ("vocab {t}/small.txt --size 99.5 --output {t}/v", "'99.5' given, a whole number allowed"),
    ("vocab {t}/small.txt --size 100 --output {c}", "not written over"),
    ("vocab - --size 100 --output {t}/v --exponent 0.7", "exponent: 0.7 given beside -, which cannot be read twice"),
    ("vocab {t}/small.txt --size 100 --output {t}/v --exponent -1", "exponent: -1.0 given, from 0 to 1.0 allowed"),
    ("vocab {t}/small.txt --size 100 --output {t}/v --exponent nan", "exponent: nan given, from 0 to 1.0 allowed"),
    (
        "pretrain --corpus {c} --output {t}/r --temperature 1e300",
        "temperature: 1e+300 given, at most 1000000.0",
    ),
    ("pretrain --corpus {c} --output {t}/r --weights a=1", "weights: 'a=1' given, allowed with a folder of several"),
    ("pretrain --corpus {c} --output {t}/r --exponent -1", "exponent: -1.0 given, at least 0 allowed"),
    ("pretrain --corpus {c} --output {t}/r --length 9999", "at most 512 positions allowed; --positions gives more"),
    ("pretrain --corpus {c} --output {t}/r --from {run} --positions 8", "positions: 8 given, at least"),
    ("pretrain --corpus {c} --output {t}/r --from {run} --stretch tiles", "stretch: unknown 'tiles', did you mean"),
    ("fill {t}/none/of/this [MASK]", "no model there"),
    ("fill {run} nothing", "no [MASK] in the text"),
    ("evaluate {run}", "give either --corpus"),
    ("evaluate {run} --suite blimp", "give either --corpus"),
    ("evaluate {run} --corpus {c} --length 9999", "at most 512 positions"),
    ("evaluate {run} --corpus {c} --examples 0", "at least 1"),
    ("evaluate {minilm} --corpus {c}", "corpus was prepared with vocabulary"),
    ("plan enormous", "model: unknown 'enormous'"),
    ("plan base --memory much", "memory: 'much'"),
    ("plan base --length 2048 --positions 1024", "length: 2048 given, 8 to 1024 allowed"),
    ("plan base --family robberta", "family: unknown 'robberta', did you mean 'roberta'"),
    ("plan base --objective mlm+mlm", "objective: 'mlm+mlm' given, each part once allowed"),
    ("nonsense", "nonsense"),
    ("prepare {t}/cut.txt.gz --tokenizer {c}/tokenizer --output {t}/x", "cut.txt.gz: cannot be read: EOFError"),
    ("prepare {t}/cut.txt.zst --tokenizer {c}/tokenizer --output {t}/x", "cut.txt.zst: cannot be read: EOFError"),
    ("prepare {t}/cut.txt.bz2 --tokenizer {c}/tokenizer --output {t}/x", "cut.txt.bz2: cannot be read: EOFError"),
    ("prepare {t}/no.txt.gz --tokenizer {c}/tokenizer --output {t}/x", "no.txt.gz: cannot be read: BadGzipFile"),
    ("prepare {t}/no.txt.zst --tokenizer {c}/tokenizer --output {t}/x", "no.txt.zst: cannot be read: ZstdError"),
    ("prepare {t}/half.jsonl --tokenizer {c}/tokenizer --output {t}/x", "half.jsonl:1: field 'text' holds half"),
    ("prepare {t}/deep.jsonl --tokenizer {c}/tokenizer --output {t}/x", "deep.jsonl:1: is not JSON"),
    ("prepare {t}/small.txt --sizee 3 --tokenizer {c}/tokenizer --output {t}/x", "unknown option '--sizee'"),
    ("prepare {t}/small.txt --tokenizer {t}/odd --output {t}/x", "tokenizer.json: is no tokenizer"),
    ("prepare {t}/small.txt --tokenizer {c}/tokenizer --output {t}/small.txt/x", "small.txt: is a file"),
    ("prepare {t}/small.txt --tokenizer {c}/tokenizer --output {t}/gone", "gone: is there already"),
    ("prepare {t}/small.txt --tokenizer {c}/tokenizer --output {t}/" + 300 * "n", "File name too long"),
    ("vocab {t}/small.txt --size 99999999999999999999 --output {t}/v", "size: 99999999999999999999 given"),
    ("vocab {t}/small.txt --size 100 --min-frequency -1 --output {t}/v", "min_frequency: -1 given"),
    (
        "vocab {t}/small.txt --size 100 --kind unigram --min-frequency 3 --output {t}/v",
        "kind: unigram given beside --min-frequency: it joins no pairs",
    ),
    ("pretrain --corpus {c} --output {t}/r --seed 18446744073709551616", "seed: 18446744073709551616 given"),
    ("pretrain --corpus {c} --output {t}/r --clip inf", "clip: inf given"),
    ("pretrain --corpus {c} --output {t}/r --dropout 0.999", "dropout: 0.999 given"),
    ("pretrain --corpus {c} --output {t}/r --from {run} --model base", "model: 'base' given beside from"),
    ("pretrain --corpus {t}/broken --output {t}/r", "manifest.json: is no corpus's manifest"),
    ("pretrain {t}/later.toml", "later.toml:2: key unknown 'step'"),
    ("evaluate {run} --suite blimp --data {t}/half.jsonl", "half.jsonl:1: is not JSON"),
    ("plan tiny --steps -5", "steps: -5 given"),
    ("demo --output {t}/small.txt", "small.txt: is a file"),
    ("demo --output {t}/d --steps 0", "steps: 0 given"),
    ("evaluate {run} --suite blimp --data {t}/wordy.jsonl", "wordy.jsonl:2: text of 1,200 tokens, 1 to 510 allowed"),
    ("evaluate {run} --suite blimp --data {t}/half.jsonl --examples 5", "--examples, --length and --seed are for"),
    ("evaluate {run} --suite blimp --data {t}/latin.txt", "latin.txt:2: byte 0xe9 is not UTF-8"),
    ("fill {run} \udcff[MASK]", "a string of whole characters allowed"),
    ("plan tiny --memory 0GB", "memory: '0GB' given"),
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
    (tmp_path / "later.toml").write_text("steps = 5\nstep = 4\n")
    (tmp_path / "half.jsonl").write_text('{"text": "a \\ud800 b"}\n')
    pair = {"good": "a", "bad": "b", "paradigm": "p", "phenomenon": "q"}
    wordy = {**pair, "bad": "a, " * 600}
    (tmp_path / "wordy.jsonl").write_text(f"{json.dumps(pair)}\n{json.dumps(wordy)}\n")
    (tmp_path / "deep.jsonl").write_text("[" * 100_000 + "\n")
    lines = os.urandom(4000).hex().encode() + b"\n"
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(lines)[:-900])
    (tmp_path / "cut.txt.bz2").write_bytes(bz2.compress(lines)[:-900])
    (tmp_path / "cut.txt.zst").write_bytes(zstandard.compress(lines)[:-900])
    for suffix in ("gz", "zst"):
        (tmp_path / f"no.txt.{suffix}").write_text("plain text")
    for name in ("odd", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "odd" / "tokenizer.json").write_text('{"model": {"vocab": 3}}')
    (tmp_path / "broken" / "manifest.json").write_text("[]")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    line = typed.refused(*words.format(c=corpus.path, t=tmp_path, run=run, minilm=minilm).split())
    assert said in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        "vocab {text} --size 120 --output {t}/x",
        "prepare {text} --tokenizer {c}/tokenizer --output {t}/x --workers 1",
        "pretrain --corpus {c} --model tiny --steps 2 --batch-size 4 --length 16 --output {t}/x",
    ],
)
def test_a_full_disk_is_the_users_to_mend(words: str, text_file: Path, corpus: Corpus, tmp_path: Path) -> None:
    """A limit on the size of files stops the very writers that a full disk stops, in Python and in Rust."""
    given = words.format(text=text_file, c=corpus.path, t=tmp_path)
    command = f"ulimit -f 2; exec {sys.executable} -m bertloom {given}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("bertloom: error: ")
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_text_from_standard_input(
    typed: Typed, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"The cat meows.\nThe dog barks.\n")))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", text)
    made = typed.json("prepare", "-", "--tokenizer", corpus.tokenizer_folder, "--output", tmp_path / "c")
    assert made["sentences"] == 2


def test_text_may_hold_what_looks_like_markup(typed: Typed, run: Path) -> None:
    code, out, _ = typed("fill", run, "a [/b] [red] [MASK]")
    assert code == 0
    assert "a [/b] [red] [MASK]" in out


def test_other_masks_stay_in_a_filled_text(typed: Typed, run: Path) -> None:
    filled = typed.json("fill", run, "The [MASK] and the [MASK].")
    assert all(one["text"].count("[MASK]") == 1 for candidates in filled["masks"] for one in candidates)


def test_help_is_quick_and_brings_no_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "bertloom", "--help"]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "bertloom", "--help"], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - began)
    assert "pretrain" in done.stdout
    imported = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    # Nested imports are indented.
    assert not re.search(r"\|\s+torch$", imported, re.MULTILINE)
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
    wide = {**os.environ, "COLUMNS": "160"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=wide)
    assert "masked words: loss in nats" in done.stdout
    assert all(sentence in done.stdout for sentence in MASKED)
    assert "Next: bertloom" in done.stderr
    assert (tmp_path / "demo" / "run" / "curves.png").is_file()
    again = subprocess.run(command, capture_output=True, text=True, check=True, env=wide)
    assert again.stdout.splitlines()[-12:] == done.stdout.splitlines()[-12:]


def test_several_languages_of_one_vocabulary(typed: Typed, text_file: Path, tmp_path: Path) -> None:
    """A small text's share is smoothed in the vocabulary and in what is drawn; each is measured by itself."""
    (tmp_path / "small.txt").write_text("\n\n".join(["Eine Katze schläft im Garten.\nDie Katze schläft gern."] * 20))
    texts, v = [text_file, tmp_path / "small.txt"], tmp_path / "v"
    assert typed("vocab", *texts, "--size", 150, "--exponent", 0.5, "--output", v)[0] == 0
    for name, text in zip(("ko", "de"), texts):
        made = tmp_path / "corpora" / name
        assert typed("prepare", text, "--tokenizer", v, "--output", made, "--held-out", 0.2, "--workers", 1)[0] == 0
    flags = ("--model", "tiny", "--objective", "mlm", "--steps", 2, "--batch-size", 4, "--length", 16)
    code, _, said = typed("pretrain", "--corpus", tmp_path / "corpora", *flags, "--output", tmp_path / "run")
    assert code == 0
    assert "Drawn from de " in said
    code, out, _ = typed("evaluate", tmp_path / "run", "--corpus", tmp_path / "corpora", "--json")
    assert code == 0
    found = json.loads(out)["corpora"]
    assert [Path(one["corpus"]).parent.name for one in found] == ["de", "ko"]
    assert all(one["held_out"] and one["measures"]["mlm"]["count"] for one in found)
