from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bertloom.tasks.classify import Classify, Text
from bertloom.tasks.writing import writer
from bertloom.text.records import Place, rows

ODD = 'a\rb "c", d\n\te;é\r\n'


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_is_read_again_whatever_a_text_holds(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"said{suffix}"
    with writer(file, Classify()) as write:
        for number in range(2):
            prediction = {"text": ODD, "probability": 0.5, "probabilities": {"a": 0.5}}
            write(Text(place=Place("x", 7), text="x", id=number), prediction)
    ours = [row for _, row in rows(str(file))]
    text = ODD if suffix == ".csv" else 'a b "c", d e;é '
    assert [row["text"].replace("\r\n", "\n") for row in ours] == [text.replace("\r\n", "\n")] * 2
    assert [(row["id"], row["line"], row["probability"]) for row in ours] == [("0", "7", "0.5"), ("1", "7", "0.5")]
    if suffix == ".csv":
        with file.open(encoding="utf-8", newline="") as stream:
            assert [row["text"] for row in csv.DictReader(stream)] == [ODD] * 2
