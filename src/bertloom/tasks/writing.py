"""Predictions written as they come: JSONL, or a table of what fits in one."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from bertloom.errors import InputError
from bertloom.files import json_line, refuse_existing, whole_file
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
    """What tells the record, its id or its line, and the prediction."""

    def write(record: Record, prediction: Prediction) -> None:
        known = {"line": record.place.line} if record.id == "" and record.place.line else {}
        file.write(json_line({**known, **prediction}, file))

    return write


def _table(file: TextIO, delimiter: str) -> Write:
    """Lists and dicts are JSON inside a cell; a TSV knows no quotes, as ours is read."""
    table: Any = None

    def write(record: Record, prediction: Prediction) -> None:
        nonlocal table
        # Both, as some records of a file may have ids and others none.
        row = {"line": record.place.line or "", "id": record.id, **prediction}
        if table is None:
            # Every text of a CSV is quoted: Python leaves a lone carriage return bare.
            how: dict[str, Any] = {"quoting": csv.QUOTE_NONNUMERIC}
            if delimiter == "\t":
                how = {"quoting": csv.QUOTE_NONE, "quotechar": None}
            table = csv.DictWriter(file, list(row), delimiter=delimiter, lineterminator="\n", **how)
            table.writeheader()
        if row.keys() != set(table.fieldnames):
            raise record.place.error(
                f"columns {', '.join(row)} in a table of {', '.join(table.fieldnames)}; .jsonl takes any"
            )
        table.writerow({key: _cell(value, delimiter) for key, value in row.items()})

    return write


def _cell(value: Any, delimiter: str) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return re.sub(r"[\t\r\n]+", " ", value) if isinstance(value, str) and delimiter == "\t" else value
