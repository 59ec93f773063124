"""Text to a training-ready corpus in MB/s, ours against `datasets.map` + `tokenizers` + grouping.

    BERTLOOM_DATA=../shared/data .venv/bin/python bench/prepare.py [--memory]

The peer is the way of `transformers`' language-modelling examples: a text data set, one line a record, tokenised in
batches by the fast tokenizer in as many processes as there are cores, then concatenated and cut into blocks of 128.
`--memory` prints our peak memory on 10 MB and on 300 MB of text as well.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import transformers
from side_by_side import data, finish, in_turn, row

from bertloom.corpus.arrays import default_workers
from bertloom.text.readers import passages
from bertloom.text.sources import ReadOptions
from bertloom.text.vocabulary import train_vocabulary

BLOCK = 128


def plain_text(folder: Path) -> Path:
    """Books and Wikipedia as one UTF-8 file, a paragraph a line, a blank line between documents."""
    file = folder / "text.txt"
    with file.open("w", encoding="utf-8") as out:
        for passage in passages(
            [data("pretrain", "books"), data("pretrain", "wiki_en.txt")], ReadOptions(fallback="latin-1")
        ):
            out.write("".join(f"{paragraph}\n" for paragraph in passage.paragraphs) + "\n" * passage.last)
    return file


def ours(file: Path, folder: Path) -> float:
    """The command as a user types it, Python's start included."""
    shutil.rmtree(folder / "ours", ignore_errors=True)
    began = time.perf_counter()
    subprocess.run(command(file, folder, folder / "ours"), check=True, capture_output=True)
    return file.stat().st_size / 1e6 / (time.perf_counter() - began)


def command(file: Path, folder: Path, output: Path) -> list[str]:
    words = ["prepare", str(file), "--tokenizer", str(folder / "vocabulary"), "--output", str(output)]
    return [sys.executable, "-m", "bertloom", *words]


def theirs(file: Path, folder: Path) -> float:
    shutil.rmtree(folder / "cache", ignore_errors=True)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "vocabulary" / "tokenizer.json"))

    def tokenised(records: dict[str, list[str]]) -> Any:
        return tokenizer(records["text"], return_special_tokens_mask=True)

    def grouped(records: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {key: list(chain.from_iterable(values)) for key, values in records.items()}
        total = len(joined["input_ids"]) // BLOCK * BLOCK
        return {key: [one[at : at + BLOCK] for at in range(0, total, BLOCK)] for key, one in joined.items()}

    began = time.perf_counter()
    made = datasets.load_dataset("text", data_files=str(file), split="train", cache_dir=str(folder / "cache"))
    processes = default_workers()
    made = made.map(tokenised, batched=True, num_proc=processes, remove_columns=["text"])
    made = made.map(grouped, batched=True, num_proc=processes)
    assert len(made) > 1000
    return file.stat().st_size / 1e6 / (time.perf_counter() - began)


PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def peak(megabytes: int, folder: Path) -> float:
    """Peak memory in MB of `bertloom prepare`, its largest process, on so much of wiki_en.txt, repeated."""
    source = data("pretrain", "wiki_en.txt").read_bytes()
    large = folder / f"{megabytes}.txt"
    with large.open("wb") as out:
        for at in range(0, megabytes * 1_000_000, len(source)):
            out.write(source[: megabytes * 1_000_000 - at].rpartition(b"\n")[0] + b"\n\n")
    words = [sys.executable, "-c", PEAK, *command(large, folder, folder / f"corpus-{megabytes}")]
    return float(subprocess.run(words, capture_output=True, check=True, text=True).stdout)


def main() -> None:
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = plain_text(folder)
        paragraphs = (line for passage in passages([file]) for line in passage.paragraphs)
        train_vocabulary(paragraphs, 8000).save(folder / "vocabulary")
        mine, other = in_turn(lambda _: ours(file, folder), lambda _: theirs(file, folder), 3)
        more = {}
        if "--memory" in sys.argv:
            more = {f"peak_mb_{size}": round(peak(size, folder), 1) for size in (10, 300)}
        rows = [row("text", mine, "datasets.map", other, "MB/s", **more)]
    finish("prepare", rows, "datasets", "tokenizers", "transformers")


if __name__ == "__main__":
    main()
