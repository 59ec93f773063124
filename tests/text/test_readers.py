from __future__ import annotations

import bz2
import gzip
import io
import json
import sys
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from bertloom.errors import InputError
from bertloom.text import readers
from bertloom.text.readers import passages, plain_wiki
from bertloom.text.sources import ReadCounts, ReadOptions


def documents(*sources: Path | str, counts: ReadCounts | None = None, **options: object) -> list[list[str]]:
    """Every document as its paragraphs."""
    made: list[list[str]] = [[]]
    for passage in passages(list(sources), ReadOptions(**options), counts):  # type: ignore[arg-type]
        made[-1] += passage.paragraphs
        if passage.last:
            made.append([])
    assert made.pop() == []
    return made


def test_blank_lines_end_documents(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\n \r\n\r\nthree")
    assert documents(file) == [["one", "two"], ["three"]]


def test_one_file_is_one_document_and_wrapped_lines_join(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n\nthree\n")
    assert documents(file, documents="file") == [["one", "two", "three"]]
    assert documents(file, documents="wrapped") == [["one two", "three"]]


def test_folders_globs_and_compressed_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "sub" / "a.txt.gz").write_bytes(gzip.compress(b"a"))
    (tmp_path / "sub" / "c.txt.zst").write_bytes(zstandard.compress(b"c"))
    (tmp_path / "sub" / "d.txt.bz2").write_bytes(bz2.compress(b"d"))
    (tmp_path / "sub" / ".hidden.txt").write_text("no")
    (tmp_path / "sub" / "picture.png").write_bytes(b"\x89")
    assert documents(tmp_path) == [["b"], ["a"], ["c"], ["d"]]
    assert documents(str(tmp_path / "**" / "*.gz"), str(tmp_path / "b*")) == [["a"], ["b"]]


def test_endings_in_capitals_and_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "A.TXT").write_text("a")
    assert documents(tmp_path) == [["a"]]
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"b\.txt: cannot be read"):
        documents(tmp_path)


def test_zstandard_of_several_frames_and_of_none(tmp_path: Path) -> None:
    file = tmp_path / "a.txt.zst"
    file.write_bytes(zstandard.compress(b"one\n" * 50_000) + zstandard.compress(b"two\n"))
    assert documents(file) == [["one"] * 50_000 + ["two"]]
    file.write_bytes(b"")
    with pytest.raises(InputError, match="zst: no text in it"):
        documents(file)


def test_bad_records_are_left_out_where_asked(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "good"}\nnonsense\n{"other": 1}\n{"text": "\\ud800"}\n{"text": "too"}\n')
    counts = ReadCounts()
    assert documents(file, on_bad="skip", counts=counts) == [["good"], ["too"]]
    assert counts.mended == {"malformed record, left out": 3}


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"from\n\nstdin\n"))))  # type: ignore[arg-type]
    assert documents("-") == [["from"], ["stdin"]]


def test_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one\\ntwo"}\n\n{"text": "three", "id": 3}\n')
    assert documents(file) == [["one", "two"], ["three"]]
    file.write_text('{"text": "one"}\n{"body": "x"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: no text in field 'text', fields given: body"):
        documents(file)
    file.write_text('{"text": "one"}\n{"text": 3}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: field 'text' holds a int, a text allowed"):
        documents(file)
    file.write_text('{"text": "one"}\n{"text": \n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: is not JSON"):
        documents(file)


def test_parquet(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"body": ["one\ntwo", "three"], "n": [1, 2]}), file)
    assert documents(file, field="body") == [["one", "two"], ["three"]]
    with pytest.raises(InputError, match="no column 'text', columns given: body, n"):
        documents(file)
    file.write_text("no parquet")
    with pytest.raises(InputError, match="is not Parquet"):
        documents(file)


def test_gutenberg_header_and_footer_are_cut(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    head = "\ufeffThe Project Gutenberg EBook of X\n\nlicence\n\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\n"
    file.write_text(head + "One line\nand its end.\n\nTwo.\n\nEnd of the Project Gutenberg EBook of X\nmore licence\n")
    assert documents(file) == [["One line and its end.", "Two."]]
    assert len(documents(file, format="text")) > 1
    file.write_text("A book\nof Project Gutenberg's\n")
    assert documents(file) == [["A book", "of Project Gutenberg's"]]
    file.write_text("Project Gutenberg without marks\n")
    with pytest.raises(InputError, match="START OF THE PROJECT GUTENBERG"):
        documents(file)


WIKI = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">
<page><title>A</title><ns>0</ns><revision><text>'''Anarchism''' is a [[political philosophy|philosophy]].{{Cite x}}
== History ==
[[File:x.png|thumb|A picture [[with]] a link]] It is ''old''.&lt;ref&gt;source&lt;/ref&gt;
{| class="x"
| cell
|}
[[Category:Ideas]]</text></revision></page>
<page><title>B</title><ns>0</ns><redirect title="A"/><revision><text>#REDIRECT [[A]]</text></revision></page>
<page><title>Talk:A</title><ns>1</ns><revision><text>talk</text></revision></page>
</mediawiki>"""


def test_wikipedia_dump(tmp_path: Path) -> None:
    file = tmp_path / "dump.xml.bz2"
    file.write_bytes(bz2.compress(WIKI.encode()))
    assert documents(file) == [["Anarchism is a philosophy.", "It is old."]]
    broken = tmp_path / "broken.xml"
    broken.write_text(WIKI[:200])
    with pytest.raises(InputError, match="is not XML"):
        documents(broken)


def test_pages_of_a_dump_do_not_stay_in_memory(tmp_path: Path) -> None:
    page = f"<page><ns>1</ns><revision><text>{'talk ' * 2000}</text></revision></page>\n"
    article = "<page><ns>0</ns><revision><text>An article.</text></revision></page>"
    file = tmp_path / "dump.xml"
    file.write_text(f"<mediawiki>{page * 1000}{article}</mediawiki>")
    tracemalloc.start()
    assert documents(file) == [["An article."]]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 0.5 * file.stat().st_size


def test_wiki_markup_nested_in_markup() -> None:
    assert plain_wiki("{| \n| <ref>a</ref>\n|}\nrest") == "rest"


def test_data_set_by_name_through_the_library(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in ("one\ntwo", "three")))
    assert documents(f"hf:{folder}") == [["one", "two"], ["three"]]
    with pytest.raises(InputError, match="hf:"):
        documents(f"hf:{tmp_path / 'none'}")


def test_long_documents_come_in_pieces_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "PASSAGE_CHARACTERS", 100)
    file = tmp_path / "a.txt"
    file.write_text("\n".join(["x" * 30] * 20) + "\n\nlast\n")
    made = list(passages([file]))
    assert all(sum(map(len, passage.paragraphs)) <= 100 for passage in made)
    assert documents(file) == [["x" * 30] * 20, ["last"]]


def test_bytes_that_are_not_utf8_are_refused_mended_or_skipped(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"good\ncaf\xe9 bad\n")
    with pytest.raises(InputError, match=r"a\.txt:2: byte 0xe9 at column 4 is not utf-8"):
        documents(file)
    counts = ReadCounts()
    assert documents(file, counts=counts, fallback="latin-1") == [["good", "café bad"]]
    assert counts.mended == {"line read as latin-1": 1}
    counts = ReadCounts()
    assert documents(file, counts=counts, on_bad="skip") == [["good"]]
    assert counts.mended == {"line not utf-8, left out": 1}


def test_a_huge_line_is_refused_or_skipped(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"good\n" + b"x" * 5000 + b"\nafter\n" + b"y" * 5000)
    with pytest.raises(InputError, match=r"a\.txt:2: line longer than 1,000 bytes"):
        documents(file, max_line=1000)
    counts = ReadCounts()
    assert documents(file, counts=counts, max_line=1000, on_bad="skip") == [["good", "after"]]
    assert counts.mended == {"line too long, left out": 2}


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        documents(tmp_path / "none.txt")
    with pytest.raises(InputError, match="folder without text"):
        documents(tmp_path)
    for one in (str(tmp_path), tmp_path):
        with pytest.raises(InputError, match="text: one name given, a list"):
            list(passages(one))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no text given"):
        documents()
    with pytest.raises(InputError, match="unknown 'utf-99'"):
        ReadOptions(encoding="utf-99")
