from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from bertloom.errors import InputError
from bertloom.text.records import Place, _named, require_characters, rows, text_of
from bertloom.text.sources import ReadCounts, ReadOptions


def read(file: Path, *columns: str, **options: Any) -> list[dict[str, Any]]:
    return [row for _, row in rows(str(file), columns, ReadOptions(**options))]


def test_tab_separated_values_know_no_quotes_and_bear_marks_and_carriage_returns(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_bytes('\ufeffsentence\tlabel\r\n" he said\t1\r\nit\'s "it"\t0\r\n'.encode())
    assert read(file) == [{"sentence": '" he said', "label": "1"}, {"sentence": 'it\'s "it"', "label": "0"}]


def test_comma_separated_values_do_over_several_lines_too(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes('\ufefftext,label,\n"one, ""two""\nthree",a,\nfour,b,\n'.encode())
    found = list(rows(str(file)))
    assert [row for _, row in found] == [{"text": 'one, "two"\nthree', "label": "a"}, {"text": "four", "label": "b"}]
    assert [place.line for place, _ in found] == [2, 4]


def test_a_table_without_a_header_is_given_one(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("gj04\t1\t\tThe sailors.\n")
    assert read(file, "source", "label", "mark", "sentence")[0]["sentence"] == "The sailors."


def test_jsonl_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": 1}\n\n{"text": "y"}\n')
    assert read(tmp_path / "a.jsonl") == [{"text": "x", "label": 1}, {"text": "y"}]
    table = pyarrow.table({"text": ["x", "y"], "label": [0, 1]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [{"text": "x", "label": 0}, {"text": "y", "label": 1}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", "a\tb\n1\t2\n1\n", "a.tsv:3: 1 columns given, 2 allowed: 'a', 'b'"),
        ("a.json", '{"a": 1}', "a.json: a dict given, a list of records"),
        ("a.json", '[{"a": 1}, 3]', "a.json: record 2: a int given, an object"),
        ("a.tsv", "a\ta\n1\t2\n", "a.tsv:1: column 'a' stands twice"),
        ("a.csv", 'a,b\n1,2\n"x,y\n', "a.csv:3: is not CSV"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "a.jsonl:2: is not JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: a list given, an object"),
        ("a.jsonl", '{"a": NaN}\n', "a.jsonl:1: is not JSON: NaN given, a finite number"),
        ("a.json", '[{"a": 1},\n{"a": }]', "a.json:2: is not JSON"),
        ("a.csv", 'a,b\n1,2\n"x"y,z\n', "a.csv:3: is not CSV: ',' expected after"),
        ("a.json.gz", "no gzip", "a.json.gz: cannot be read: BadGzipFile"),
        ("a.jsonl", "[" * 100_000 + "\n", "a.jsonl:1: is not JSON: too deep"),
        ("a.parquet", "no parquet", "a.parquet: cannot be read"),
        ("a.json", b'[{"a": 1},\n{"a": "\xe9"}]', "a.json:2: byte 0xe9 is not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=said):
        read(tmp_path / name)


def test_a_bad_row_is_left_out_and_counted_where_asked(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("a\tb\n1\t2\n1\n3\t4\n")
    counts = ReadCounts()
    found = [row for _, row in rows(str(file), (), ReadOptions(on_bad="skip"), counts)]
    assert [row["a"] for row in found] == ["1", "3"]
    assert counts.mended == {"malformed row, left out": 1}


def test_utf_16_is_called_so(tmp_path: Path) -> None:
    for codec in ("utf-16-le", "utf-16-be"):
        (tmp_path / "a.tsv").write_bytes("\ufefftext\tlabel\nx\ty\n".encode(codec))
        with pytest.raises(InputError, match=r"a.tsv: is UTF-16; iconv -f utf-16 -t utf-8 makes a file"):
            list(rows(str(tmp_path / "a.tsv"), (), ReadOptions(on_bad="skip", fallback="latin-1")))


def test_no_row_stands_in_for_a_header_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_bytes(b"text\tlabel\xe9\none\ta\ntwo\tb\n")
    skip = ReadOptions(on_bad="skip")
    with pytest.raises(InputError, match=r"a.tsv:1: the header cannot be read, and no columns are named"):
        list(rows(str(file), (), skip))
    file.write_bytes(b"\n" + file.read_bytes())
    with pytest.raises(InputError, match=r"a.tsv:2: the header cannot be read"):
        list(rows(str(file), (), skip))
    assert [row["text"] for _, row in rows(str(file), ("text", "label"), skip)] == ["one", "two"]
    assert len(list(rows(str(file), (), ReadOptions(fallback="latin-1")))) == 2


def test_rows_after_a_line_left_out_have_their_own_lines(tmp_path: Path) -> None:
    for name, sign in (("a.csv", ","), ("a.tsv", "\t")):
        (tmp_path / name).write_bytes(f"text{sign}label\na\xe9{sign}x\nb{sign}y\n".encode("latin-1"))
        found = list(rows(str(tmp_path / name), (), ReadOptions(on_bad="skip")))
        assert [(place.line, row) for place, row in found] == [(3, {"text": "b", "label": "y"})]


def test_a_bad_quote_is_a_bad_row_and_an_open_one_the_files_end(tmp_path: Path) -> None:
    file, counts = tmp_path / "a.csv", ReadCounts()
    file.write_text('a,b\n1,2\n"x"y,z\n3,4\n')
    found = [row for _, row in rows(str(file), (), ReadOptions(on_bad="skip"), counts)]
    assert [row["a"] for row in found] == ["1", "3"]
    assert counts.mended == {"malformed row, left out": 1}
    file.write_text('a,b\n1,2\n"x,z\n3,4\n')
    with pytest.raises(InputError, match=r"a.csv:3: is not CSV: a quote is opened and never closed"):
        list(rows(str(file), (), ReadOptions(on_bad="skip"), counts))


def test_texts_that_cannot_be_written_down() -> None:
    place = Place("f.jsonl", 7)
    require_characters({"a": ["x", {"b": "한", "c": 3}], "d": None}, place)
    for row in ({"a": "\ud800"}, {"a": ["x", {"b": "\udc00"}]}, {"a": {"\udc00": 1}}):
        with pytest.raises(InputError, match=r"f.jsonl:7: field 'a' holds half a surrogate pair"):
            require_characters(row, place)


def test_texts_of_rows() -> None:
    place = Place("f.tsv", 7)
    assert text_of({"a": "x"}, "a", place) == "x"
    for row, said in (({}, "no column 'a'"), ({"a": 3}, "holds a int"), ({"a": " "}, "is empty")):
        with pytest.raises(InputError, match=f"f.tsv:7: .*{said}"):
            text_of(row, "a", place)


def test_labels_of_the_hub_by_name() -> None:
    names = {"label": ["no", "yes"], "tags": ["O", "B-PER"]}
    row = {"text": "x", "label": 1, "tags": [0, 1, 0], "n": 1}
    assert _named(row, names) == {"text": "x", "label": "yes", "tags": ["O", "B-PER", "O"], "n": 1}
    assert _named({"label": -1}, names) == {"label": None}
    with pytest.raises(InputError, match="hf:: no data set named"):
        list(rows("hf:"))


def test_files_of_other_names_and_standard_input_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").write_text('{"text": "x"}\n')
    assert read(tmp_path / "data") == [{"text": "x"}]
    (tmp_path / "table").write_text("text\tlabel\nx\t1\n")
    assert read(tmp_path / "table") == [{"text": "x", "label": "1"}]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b'{"text": "y"}\n'))))
    assert [row for _, row in rows("-")] == [{"text": "y"}]


def test_json_arrays_and_headers_that_are_there_though_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "x"}, {"text": "y"}]')
    assert [row["text"] for row in read(tmp_path / "a.json")] == ["x", "y"]
    for header in ("text\tlabel", "label\ttext"):
        (tmp_path / "a.tsv").write_text(f"{header}\nx\t1\n")
        assert read(tmp_path / "a.tsv", "text", "label") == [dict(zip(header.split("\t"), ["x", "1"]))]
    (tmp_path / "a.tsv").write_text("text\nx\n")
    assert read(tmp_path / "a.tsv", "source", "label", "text") == [{"text": "x"}], "a header of fewer columns"
    (tmp_path / "b.csv").write_text("a,b\n1\n")
    with pytest.raises(InputError, match=r"^\S*b.csv:2: 1 columns given"):
        read(tmp_path / "b.csv")


def test_json_without_a_suffix_is_told_by_its_beginning(tmp_path: Path) -> None:
    row = {"text": "x"}
    for content in (
        b'\xef\xbb\xbf{"text": "x"}\n',
        b'\n \n{"text": "x"}\n',
        b'[\n {"text": "x"}]',
        b'\xef\xbb\xbf[{"text": "x"}]',
    ):
        (tmp_path / "rows").write_bytes(content)
        assert read(tmp_path / "rows") == [row]
    (tmp_path / "table").write_text("[CLS]\tlabel\n[a\tb\n")
    assert read(tmp_path / "table") == [{"[CLS]": "[a", "label": "b"}]
