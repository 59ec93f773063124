"""Rows of data sets: CSV, TSV, JSONL, Parquet, and Hugging Face's by name, each with the place it stands at."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from bertloom.errors import InputError, blaming
from bertloom.text.sources import ReadCounts, ReadOptions, extra, lines, open_bytes, plain_suffix

Row = dict[str, Any]
TABLES = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
# A field may be a whole book.
csv.field_size_limit(1 << 30)


@dataclass(frozen=True)
class Place:
    """Where a record stands: a file or data set, and its line, or its row or record where it has no lines, from 1."""

    source: str
    line: int | None = None
    unit: str = "line"

    def error(self, message: str) -> InputError:
        """The error that blames this place."""
        return InputError(message, self)

    def __str__(self) -> str:
        if self.line is None:
            return self.source
        return f"{self.source}:{self.line}" if self.unit == "line" else f"{self.source}: {self.unit} {self.line}"


def rows(
    source: str,
    columns: Sequence[str] = (),
    options: ReadOptions | None = None,
    counts: ReadCounts | None = None,
) -> Iterator[tuple[Place, Row]]:
    """Every row of a data set as a dict by column; `columns` names those of a table whose first line is no header.

    A row that cannot be read raises with its line, or is left out and counted with `on_bad="skip"`.
    """
    options, counts = options or ReadOptions(), counts or ReadCounts()
    require_file(source)
    with blaming(source, "cannot be read"):
        unit, readers = _readers(source, columns, options, counts)
        for number, read in readers:
            place = Place(source, number, unit)
            try:
                try:
                    row = read()
                except InputError:
                    raise
                except ValueError as error:
                    said = error.msg if isinstance(error, json.JSONDecodeError) else error
                    raise place.error(f"is not JSON: {said}") from None
                except RecursionError:
                    raise place.error("is not JSON: too deep") from None
                if not isinstance(row, dict):
                    raise place.error(f"a {type(row).__name__} given, an object of fields allowed")
            except InputError:
                if options.on_bad == "error":
                    raise
                counts.mended["malformed row, left out"] += 1
                continue
            yield place, row


def require_file(source: str) -> None:
    """Raise unless a source is a file, standard input or a data set of the Hub."""
    if source == "-" or source.startswith("hf:") or Path(source).is_file():
        return
    kind = "is a folder" if Path(source).is_dir() else "is no regular file" if Path(source).exists() else "no such file"
    raise InputError(f"{kind}, a file or hf:NAME needed", source)


Read = Iterator[tuple[int, Callable[[], Any]]]
Cut = Iterator[tuple[int, Callable[[], list[str]]]]


def _readers(source: str, columns: Sequence[str], options: ReadOptions, counts: ReadCounts) -> tuple[str, Read]:
    """What is counted in a source, and its readers."""
    if source.startswith("hf:"):
        return "row", _data_set(source)
    suffix = _suffix(source)
    if suffix in JSON_LINES:
        return "line", _json_lines(source, options, counts)
    if suffix == ".parquet":
        return "row", _parquet(source)
    if suffix == ".json":
        return "record", _json_array(source)
    return "line", _table(source, TABLES.get(suffix, "\t"), columns, options, counts)


def in_rows(source: str) -> bool:
    """Whether a source holds rows with named fields whatever else may be read from files."""
    return source.startswith("hf:") or _suffix(source) in (*JSON_LINES, ".json", ".parquet")


def _suffix(source: str) -> str:
    """The suffix that tells the format; standard input and files of other names may hold JSON by their beginning."""
    suffix = plain_suffix(source)
    if suffix in (*TABLES, *JSON_LINES, ".json", ".parquet", ".conll", ".conllu"):
        return suffix
    with nullcontext(open_bytes(source)) if source == "-" else open_bytes(source) as stream:
        beginning = stream.peek(1).removeprefix(b"\xef\xbb\xbf").lstrip()
    # No table begins with a brace; a bracket may be that of `[CLS]`.
    return JSON_LINES[0] if beginning[:1] == b"{" else ".json" if re.match(rb"\[\s*\{", beginning) else suffix


def _json_lines(source: str, options: ReadOptions, counts: ReadCounts) -> Read:
    with open_bytes(source) as stream:
        for number, line in lines(source, stream, options, counts):
            if line.strip():
                yield number, partial(json.loads, line, parse_constant=_no_number)


def json_of(source: str) -> Any:
    """The JSON value of a whole file, compressed or not; raises with the line where it is malformed."""
    require_file(source)
    with blaming(source, "cannot be read"), open_bytes(source) as stream:
        data = stream.read()
        try:
            return json.loads(data, parse_constant=_no_number)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            encoding = json.detect_encoding(data).removesuffix("-sig").upper()
            raise InputError(f"byte 0x{data[error.start]:02x} is not {encoding}", source, line) from None
        except json.JSONDecodeError as error:
            raise InputError(f"is not JSON: {error.msg}", source, error.lineno) from None
        except RecursionError:
            raise InputError("is not JSON: too deep", source) from None


def _json_array(source: str) -> Read:
    given = json_of(source)
    if not isinstance(given, list):
        raise InputError(f"a {type(given).__name__} given, a list of records allowed", source)
    for number, row in enumerate(given, 1):
        yield number, partial(_as_it_is, row)


def _as_it_is(row: Any) -> Any:
    return row


def _no_number(name: str) -> Any:
    """NaN and Infinity, which Python reads and JSON does not know."""
    raise ValueError(f"{name} given, a finite number allowed")


def _table(source: str, delimiter: str, columns: Sequence[str], options: ReadOptions, counts: ReadCounts) -> Read:
    """Tab-separated values know no quotes, as GLUE's files; comma-separated ones do, over several lines too."""
    with open_bytes(source) as stream:
        before = _left_out(counts)
        numbered = lines(source, stream, options, counts)
        if delimiter == "\t":
            cut: Cut = ((number, partial(line.split, "\t")) for number, line in numbered if line)
        else:
            cut = _comma_separated(source, numbered)
        first = next(cut, None)
        if first and not columns and _left_out(counts) > before:
            # A row in its place would name the columns.
            raise InputError("the header cannot be read, and no columns are named", source, first[0] - 1)
        names = list(columns)
        if first and (not names or _is_header(first[1], names)):
            names, first = first[1](), None
        twice = {name for name in names if name and names.count(name) > 1}
        if twice:
            raise InputError(f"column {sorted(twice)[0]!r} stands twice in the header, once allowed", source, 1)
        for number, read in chain([first] if first else [], cut):
            yield number, partial(_row, Place(source, number), names, read)


def _left_out(counts: ReadCounts) -> int:
    """How many lines could not be read."""
    return sum(number for what, number in counts.mended.items() if what.endswith("left out"))


def _is_header(read: Callable[[], list[str]], columns: Sequence[str]) -> bool:
    """Whether a line holds nothing but names that were given for lines without a header."""
    try:
        return set(read()) <= set(columns)
    except InputError:
        return False


def _comma_separated(source: str, numbered: Iterator[tuple[int, str]]) -> Cut:
    taken: list[int] = []

    def texts() -> Iterator[str]:
        for number, line in numbered:
            taken.append(number)
            yield line + "\n"

    reader = csv.reader(texts(), strict=True)
    while True:
        taken.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            first = taken[0]
            if "end of data" in str(error):
                # A quote that is never closed swallows the rest of the file: more than one row's loss.
                raise InputError("is not CSV: a quote is opened and never closed", source, first) from None
            yield first, partial(_no_csv, Place(source, first), str(error))
        else:
            if cells:
                yield taken[0], partial(list, cells)


def _no_csv(place: Place, said: str) -> list[str]:
    raise place.error(f"is not CSV: {said}")


def _row(place: Place, names: Sequence[str], read: Callable[[], list[str]]) -> Row:
    cells = read()
    if len(cells) != len(names):
        raise place.error(f"{len(cells)} columns given, {len(names)} allowed: {', '.join(map(repr, names))[:120]}")
    # What stands between a last comma and the line's end is no column.
    return {name: cell for name, cell in zip(names, cells) if name}


def _parquet(source: str) -> Read:
    parquet = extra("pyarrow.parquet", "data")
    with parquet.ParquetFile(source) as file:
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield number, partial(dict, row)


def _data_set(source: str) -> Read:
    """`hf:NAME[:CONFIG][:SPLIT]`, labels by their names where the data set has names for them."""
    records = hub_data_set(source)
    kinds = (getattr(records, "features", None) or {}).items()
    each = {name: getattr(kind, "feature", kind) for name, kind in kinds}  # of a list's parts
    named = {name: kind.names for name, kind in each.items() if hasattr(kind, "int2str")}
    for number, record in enumerate(records, 1):
        yield number, partial(_named, dict(record), named)


def _named(record: Row, named: dict[str, list[str]]) -> Row:
    def spelt(value: Any, names: list[str]) -> Any:
        if isinstance(value, list):
            return [spelt(one, names) for one in value]
        # A label of -1 is the Hub's way to leave one out.
        return value if not isinstance(value, int) else names[value] if value >= 0 else None

    return {key: spelt(value, named[key]) if key in named else value for key, value in record.items()}


def hub_data_set(source: str) -> Any:
    """The records of `hf:NAME[:CONFIG][:SPLIT]`, streamed by `datasets`; the split is `train` if unnamed."""
    name, *rest = source.removeprefix("hf:").split(":")
    split = rest[-1] if rest else "train"
    config = rest[0] if len(rest) > 1 else None
    if not name:
        raise InputError("no data set named, hf:NAME[:CONFIG][:SPLIT] allowed", source)
    datasets = extra("datasets", "data")
    try:
        return datasets.load_dataset(name, config, split=split, streaming=True)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(str(error).splitlines()[0], source) from None


def require_characters(row: Row, place: Place) -> None:
    """Raise where a text of a row cannot be written down."""
    for name, value in row.items():
        try:
            _encode(name)
            _encode(value)
        except UnicodeEncodeError:
            raise place.error(f"field {name!r} holds half a surrogate pair, whole characters allowed") from None


def _encode(value: Any) -> None:
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        for key, part in value.items():
            _encode(key)
            _encode(part)
    elif isinstance(value, list):
        for part in value:
            _encode(part)


def text_of(row: Row, name: str, place: Place) -> str:
    """The text of a column; raises where it is none, or empty."""
    if name not in row:
        raise place.error(f"no column {name!r}, columns given: {', '.join(map(repr, row))[:200]}")
    value = row[name]
    if not isinstance(value, str):
        raise place.error(f"column {name!r} holds a {type(value).__name__}, a text allowed")
    if not value.strip():
        raise place.error(f"column {name!r} is empty, a text needed; --on-bad skip leaves such rows out")
    return value


def texts(source: str, column: str, options: ReadOptions, counts: ReadCounts) -> Iterator[str]:
    """The texts of a source in order: each line of a .txt, or a column of rows; a row without it raises."""
    require_file(source)
    if not in_rows(source) and plain_suffix(source) not in (".csv", ".tsv", ".tab"):
        with blaming(source, "cannot be read"), open_bytes(source) as stream:
            yield from (line for _, line in lines(source, stream, options, counts))
        return
    for place, row in rows(source, (), options, counts):
        value = row.get(column)
        if isinstance(value, str):
            yield value
        elif options.on_bad == "skip":
            counts.mended["row without a text, left out"] += 1
        elif column in row:
            raise place.error(f"{column}: {value!r} given, a text allowed")
        else:
            raise place.error(f"no column {column!r}, --column names one of {', '.join(map(str, row))}")
