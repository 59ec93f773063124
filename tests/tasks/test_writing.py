from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from bertloom.tasks.classify import Classify, Text
from bertloom.tasks.writing import writer
from bertloom.text.records import Place, rows

PLACE = Place("x", 7)
ODD = 'a\rb "c", d\n\te;é\r\n'


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_is_read_again_whatever_a_text_holds(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"said{suffix}"
    with writer(file, Classify()) as write:
        for number in range(2):
            prediction = {"text": ODD, "probability": 0.5, "probabilities": {"a": 0.5}}
            write(Text(place=PLACE, text="x", id=number), prediction)
    ours = [row for _, row in rows(str(file))]
    text = ODD if suffix == ".csv" else 'a b "c", d e;é '
    assert [row["text"].replace("\r\n", "\n") for row in ours] == [text.replace("\r\n", "\n")] * 2
    assert [(row["id"], row["line"], row["probability"]) for row in ours] == [("0", "7", "0.5"), ("1", "7", "0.5")]
    if suffix == ".csv":
        with file.open(encoding="utf-8", newline="") as stream:
            assert [row["text"] for row in csv.DictReader(stream)] == [ODD] * 2


def test_standard_output_of_another_encoding_is_json_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, "latin-1", errors="backslashreplace"))
    with writer(None, Classify()) as write:
        write(Text(place=PLACE, text="x"), {"text": "é 한 👨"})
    sys.stdout.flush()
    assert json.loads(stream.getvalue().decode("latin-1")) == {"line": 7, "text": "é 한 👨"}
