"""Predictions written as they come: JSONL, or a table of what fits in one."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from bertloom.errors import InputError
from bertloom.files import refuse_existing, whole_file
from bertloom.tasks.task import Prediction, Record, Task

Write = Callable[[Record, Prediction], None]
TABLES = {".csv": ",", ".tsv": "\t"}


@contextmanager
def writer(path: Path | None, task: Task) -> Iterator[Write]:
    """A function that writes a record's prediction; the file is whole or not there, None is standard output."""
    if path is None:
        yield _lines(sys.stdout)
        return
    if path.suffix not in (".jsonl", ".ndjson", *TABLES):
        raise InputError(f"output ending in {path.suffix or 'nothing'!r} given, .jsonl, .csv or .tsv allowed", path)
    if path.is_dir() or path.exists():
        refuse_existing(path)
    with whole_file(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        yield _table(file, TABLES[path.suffix]) if path.suffix in TABLES else _lines(file)


def _lines(file: TextIO) -> Write:
    def write(record: Record, prediction: Prediction) -> None:
        told = {"id": record.id} if record.id else {}
        file.write(json.dumps({**told, **prediction}, ensure_ascii=False) + "\n")

    return write


def _table(file: TextIO, delimiter: str) -> Write:
    """Lists and dicts are JSON inside a cell."""
    table: Any = None

    def write(record: Record, prediction: Prediction) -> None:
        nonlocal table
        row = {"id": record.id, **prediction}
        if table is None:
            table = csv.DictWriter(file, list(row), delimiter=delimiter, lineterminator="\n")
            table.writeheader()
        table.writerow(
            {
                key: json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
                for key, value in row.items()
            }
        )

    return write
