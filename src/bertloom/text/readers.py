"""Formats: each reader turns a source into paragraphs and ends of documents; nothing is ever read whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bertloom.errors import InputError, blaming
from bertloom.text.records import hub_data_set
from bertloom.text.sources import ReadCounts, ReadOptions, expand, extra, lines, open_bytes, plain_suffix

PASSAGE_CHARACTERS = 200_000
# In the first line that is not blank; other texts may speak of it further down.
GUTENBERG = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*[^\r\n]*Project Gutenberg")
GUTENBERG_START = re.compile(r"\*\*\* ?START OF (THE|THIS) PROJECT GUTENBERG", re.IGNORECASE)
GUTENBERG_END = re.compile(
    r"\*\*\* ?END OF (THE|THIS) PROJECT GUTENBERG|End of (the )?Project Gutenberg", re.IGNORECASE
)

# What a reader yields: (line number, paragraph), and (line number, None) where a document ends.
Paragraphs = Iterator[tuple[int, str | None]]


@dataclass(frozen=True)
class Passage:
    """A run of paragraphs of one document, of bounded size; `last` closes it, `copied`: of a copy of the one before."""

    source: str
    line: int
    paragraphs: list[str]
    last: bool
    copied: bool = False


def passages(
    sources: Sequence[str | Path], options: ReadOptions | None = None, counts: ReadCounts | None = None
) -> Iterator[Passage]:
    """Every document of `sources` in order, as passages; empty documents do not appear, and no text at all raises."""
    options, counts = options or ReadOptions(), counts or ReadCounts()
    found = False
    for source in expand(sources):
        with blaming(source, "cannot be read"):
            for passage in _grouped(source, _paragraphs(source, options, counts)):
                found = True
                yield passage
    if not found:
        raise InputError("no text in it, at least one word needed", ", ".join(map(str, sources)))


def _grouped(source: str, paragraphs: Paragraphs) -> Iterator[Passage]:
    held: list[str] = []
    size = first = 0
    opened = False
    for line, paragraph in paragraphs:
        if paragraph is None:
            if held or opened:
                yield Passage(source, first, held, last=True)
            held, size, opened = [], 0, False
        elif paragraph := paragraph.strip():
            if size + len(paragraph) > PASSAGE_CHARACTERS and held:
                yield Passage(source, first, held, last=False)
                held, size, opened = [], 0, True
            first = first if held else line
            held.append(paragraph)
            size += len(paragraph)
    assert not held, "a reader closes its last document"


def _paragraphs(source: str, options: ReadOptions, counts: ReadCounts) -> Paragraphs:
    if source.startswith("hf:"):
        return _data_set(source, options, counts)
    match options.format if options.format != "auto" else plain_suffix(source):
        case "jsonl" | ".jsonl" | ".ndjson":
            return _jsonl(source, options, counts)
        case "parquet" | ".parquet":
            return _parquet(source, options, counts)
        case "wikipedia" | ".xml":
            return _wikipedia(source, counts)
        case "gutenberg":
            return _gutenberg(source, options, counts)
    return _text(source, options, counts)


def _text(source: str, options: ReadOptions, counts: ReadCounts) -> Paragraphs:
    """Plain text; a file that begins as Project Gutenberg's do is read as one unless the format was named."""
    with open_bytes(source) as stream:
        if options.format == "auto" and GUTENBERG.match(stream.peek(1000)[:1000]):
            yield from _book(source, lines(source, stream, options, counts))
            return
        numbered = lines(source, stream, options, counts)
        if options.documents == "wrapped":
            yield from _unwrapped(numbered)
            return
        number = 0
        for number, line in numbered:
            ends = options.documents == "blank-line" and not line.strip()
            yield number, None if ends else line
        yield number, None


def _unwrapped(numbered: Iterator[tuple[int, str]]) -> Paragraphs:
    """One document whose paragraphs are lines joined up to a blank one."""
    held: list[str] = []
    number = 0
    for number, line in numbered:
        if line.strip():
            held.append(line.strip())
        elif held:
            yield number - len(held), " ".join(held)
            held = []
    yield number, " ".join(held)
    yield number, None


def _gutenberg(source: str, options: ReadOptions, counts: ReadCounts) -> Paragraphs:
    with open_bytes(source) as stream:
        yield from _book(source, lines(source, stream, options, counts))


def _book(source: str, numbered: Iterator[tuple[int, str]]) -> Paragraphs:
    """A Project Gutenberg file between its START and END lines: one document, lines joined to paragraphs."""
    if not any(GUTENBERG_START.match(line) for _, line in numbered):
        raise InputError("no line '*** START OF THE PROJECT GUTENBERG …'; --format text reads it as it is", source)

    def body() -> Iterator[tuple[int, str]]:
        for number, line in numbered:
            if GUTENBERG_END.match(line):
                return
            yield number, line

    yield from _unwrapped(body())


def _jsonl(source: str, options: ReadOptions, counts: ReadCounts) -> Paragraphs:
    with open_bytes(source) as stream:
        for number, line in lines(source, stream, options, counts):
            if line.strip():
                yield from _record(partial(json.loads, line), options, counts, source, number)


def _record(read: Callable[[], Any], options: ReadOptions, counts: ReadCounts, source: str, number: int) -> Paragraphs:
    """One record as one document; its field's lines are paragraphs. A bad one raises, or is left out and counted."""
    try:
        text = _text_of(read, options.field, source, number)
    except InputError:
        if options.on_bad == "error":
            raise
        counts.mended["malformed record, left out"] += 1
        return
    for paragraph in text.splitlines():
        yield number, paragraph
    yield number, None


def _text_of(read: Callable[[], Any], field: str, source: str, number: int) -> str:
    try:
        record = read()
    except json.JSONDecodeError as error:
        raise InputError(f"is not JSON: {error.msg}", source, number) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}", source, number) from None
    if not isinstance(record, dict) or field not in record:
        given = ", ".join(map(str, record)) if isinstance(record, dict) else type(record).__name__
        raise InputError(f"no text in field {field!r}, fields given: {given}; --field names another", source, number)
    text = record[field]
    if not isinstance(text, str):
        raise InputError(f"field {field!r} holds a {type(text).__name__}, a text allowed", source, number)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"field {field!r} holds half a surrogate pair, whole characters allowed", source, number
        ) from None
    return text


def _parquet(source: str, options: ReadOptions, counts: ReadCounts) -> Paragraphs:
    parquet = extra("pyarrow.parquet", "data")
    arrow = extra("pyarrow", "data")
    try:
        file = parquet.ParquetFile(source)
    except arrow.ArrowInvalid as error:
        raise InputError(f"is not Parquet: {str(error).splitlines()[0]}", source) from None
    with file:
        if options.field not in file.schema_arrow.names:
            names = ", ".join(file.schema_arrow.names)
            raise InputError(f"no column {options.field!r}, columns given: {names}; --field names another", source)
        row = 0
        for batch in file.iter_batches(batch_size=256, columns=[options.field]):
            counts.bytes += batch.nbytes
            for text in batch.column(0).to_pylist():
                row += 1
                yield from _record(partial(dict, {options.field: text}), options, counts, source, row)


def _data_set(source: str, options: ReadOptions, counts: ReadCounts) -> Paragraphs:
    for number, record in enumerate(hub_data_set(source), 1):
        yield from _record(partial(dict, record), options, counts, source, number)


def _wikipedia(source: str, counts: ReadCounts) -> Paragraphs:
    """Articles of a MediaWiki XML dump: pages of namespace 0 that are no redirects, without their markup."""
    with open_bytes(source) as stream:
        number = 0
        try:
            events = ElementTree.iterparse(stream, ("start", "end"))
            _, root = next(events)
            for event, element in events:
                if event == "start" or element.tag.rpartition("}")[2] != "page":
                    continue
                number += 1
                text = element.findtext("{*}revision/{*}text") or ""
                counts.bytes += len(text)
                if element.findtext("{*}ns", "0") == "0" and element.find("{*}redirect") is None:
                    for paragraph in plain_wiki(text).splitlines():
                        yield number, paragraph
                    yield number, None
                # The root would keep every page that was read, empty as it is.
                root.clear()
        except ElementTree.ParseError as error:
            raise InputError(f"is not XML: {error}", source, error.position[0]) from None


NOT_PROSE = re.compile(r"\[\[(?:File|Image|Category|Media)\s*:", re.IGNORECASE)


def plain_wiki(markup: str) -> str:
    """An article's prose: headings, tables, templates, references, pictures and categories are left out."""
    parser = extra("mwparserfromhell", "data")
    code = parser.parse(markup)
    for tag in code.filter_tags(recursive=True, matches=lambda node: str(node.tag) in ("ref", "table", "gallery")):
        _remove(code, tag)
    for link in code.filter_wikilinks(matches=lambda node: NOT_PROSE.match(str(node)) is not None):
        _remove(code, link)
    for heading in code.filter_headings():
        _remove(code, heading)
    return str(code.strip_code(normalize=True, collapse=True))


def _remove(code: Any, node: Any) -> None:
    # A node inside one that was removed before is gone already.
    if code.contains(node):
        code.remove(node)
