"""Where text comes from: files, folders, globs, compressed files, standard input; read by lines, never whole."""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import importlib
import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal, cast

from bertloom.errors import InputError

SUFFIXES = (".txt", ".text", ".md", ".jsonl", ".ndjson", ".parquet", ".xml")
COMPRESSED = (".gz", ".zst", ".bz2")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How sources are read; `documents` says where a text file's documents end."""

    format: Literal["auto", "text", "gutenberg", "jsonl", "parquet", "wikipedia"] = "auto"
    documents: Literal["blank-line", "file", "wrapped"] = "blank-line"
    field: str = "text"
    encoding: str = "utf-8"
    fallback: str | None = None
    on_bad: Literal["error", "skip"] = "error"
    max_line: int = 10_000_000

    def __post_init__(self) -> None:
        for name in (self.encoding, self.fallback or self.encoding):
            try:
                ends_lines = b"\n".decode(name) == "\n"
            except UnicodeError:
                ends_lines = False
            except (LookupError, ValueError):
                raise InputError(f"encoding: unknown {name!r}, a codec of Python's such as utf-8 allowed") from None
            if not ends_lines:
                raise InputError(
                    f"encoding: {name!r} given, one whose lines end in byte 0x0a allowed; "
                    f"iconv -f {name} -t utf-8 makes such a file"
                )
        if self.max_line < 1:
            raise InputError(f"max_line: {self.max_line} given, at least 1 allowed")


@dataclass
class ReadCounts:
    """What was read so far, and what was skipped or mended because the user asked for it."""

    bytes: int = 0
    mended: Counter[str] = field(default_factory=Counter)


def extra(module: str, name: str) -> ModuleType:
    """An optional library, or an error that names the extra which brings it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"needs {module}, which is not installed: pip install 'bertloom[{name}]'") from None


def expand(sources: Sequence[str | Path]) -> list[str]:
    """Files, in a stable order, of paths, folders (searched whole), globs, `-` and `hf:` names."""
    if isinstance(sources, str | Path):
        raise InputError("text: one name given, a list of names allowed")
    found: list[str] = []
    for source in map(str, sources):
        path = Path(source)
        if not source:
            raise InputError("text: an empty name given, a file, folder, glob or - allowed")
        if source == "-" or source.startswith("hf:") or (path.exists() and not path.is_dir()):
            found.append(source)
        elif path.is_dir():
            inside = [str(file) for file in sorted(path.rglob("*")) if not file.is_dir() and _known(file)]
            if not inside:
                raise InputError(f"folder without text, files ending in {' '.join(SUFFIXES)} allowed", source)
            found.extend(inside)
        else:
            matches = sorted(name for name in glob.glob(source, recursive=True) if Path(name).is_file())
            if not matches:
                raise InputError("no such file", source)
            found.extend(matches)
    if not found:
        raise InputError("no text given, at least one file, folder, glob or - allowed")
    return found


def _known(file: Path) -> bool:
    suffixes = [suffix for suffix in file.suffixes if suffix.lower() not in COMPRESSED]
    return not file.name.startswith(".") and bool(suffixes) and suffixes[-1].lower() in SUFFIXES


def plain_suffix(source: str) -> str:
    """The suffix that tells the format: `.txt` of `a.txt.gz`."""
    suffixes = [suffix for suffix in Path(source).suffixes if suffix.lower() not in COMPRESSED]
    return suffixes[-1].lower() if suffixes else ""


def open_bytes(source: str) -> io.BufferedReader:
    """The decompressed bytes of a source."""
    if source == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed", source)
        return cast(io.BufferedReader, sys.stdin.buffer)
    stream: object
    match Path(source).suffix.lower():
        case ".gz":
            stream = gzip.open(source)  # noqa: SIM115
        case ".bz2":
            stream = bz2.open(source)  # noqa: SIM115
        case ".zst":
            stream = _Zstandard(source)
        case _:
            return open(source, "rb")
    return io.BufferedReader(cast(io.RawIOBase, stream), 1 << 20)


class _Zstandard(io.RawIOBase):
    """The bytes of a Zstandard file's frames; the library's own reader takes a frame cut short for a whole one."""

    def __init__(self, source: str):
        self.start = extra("zstandard", "data").ZstdDecompressor().decompressobj
        self.file = open(source, "rb")  # noqa: SIM115
        self.frame, self.held, self.open = self.start(), b"", False

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what comes next, 0 at the end."""
        while not self.held:
            read = (self.frame.unused_data if self.frame.eof else b"") or self.file.read(1 << 14)
            if not read:
                if self.open:
                    raise EOFError("the last frame is cut short")
                return 0
            if self.frame.eof:
                self.frame = self.start()
            self.held = self.frame.decompress(read)
            self.open = not self.frame.eof
        size = min(len(buffer), len(self.held))
        buffer[:size], self.held = self.held[:size], self.held[size:]
        return size

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        super().close()


def lines(source: str, stream: BinaryIO, options: ReadOptions, counts: ReadCounts) -> Iterator[tuple[int, str]]:
    """The lines of a stream, from 1, without their ends; a bad or endless line raises with its place.

    With `fallback` a line that is not in `encoding` is read in that one, with `on_bad="skip"` it is left out;
    both are counted in `counts.mended`.
    """
    number = 0
    while raw := stream.readline(options.max_line + 1):
        number += 1
        counts.bytes += len(raw)
        if len(raw) > options.max_line and not raw.endswith(b"\n"):
            if options.on_bad == "error":
                raise InputError(
                    f"line longer than {options.max_line:,} bytes, shorter ones allowed; "
                    "--max-line raises the limit, --on-bad skip leaves such lines out",
                    source,
                    number,
                )
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(1 << 20)
                counts.bytes += len(raw)
            counts.mended["line too long, left out"] += 1
            continue
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        text = _decode(raw, source, number, options, counts)
        if text is not None:
            yield number, text.rstrip("\r\n")


def _decode(raw: bytes, source: str, number: int, options: ReadOptions, counts: ReadCounts) -> str | None:
    try:
        return raw.decode(options.encoding)
    except UnicodeDecodeError as error:
        if number == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError("is UTF-16; iconv -f utf-16 -t utf-8 makes a file that can be read", source) from None
        if options.fallback:
            counts.mended[f"line read as {options.fallback}"] += 1
            return raw.decode(options.fallback, errors="replace")
        if options.on_bad == "skip":
            counts.mended[f"line not {options.encoding}, left out"] += 1
            return None
        raise InputError(
            f"byte 0x{raw[error.start]:02x} at column {error.start + 1} is not {options.encoding}; "
            "--fallback latin-1 reads such lines in another encoding, --on-bad skip leaves them out",
            source,
            number,
        ) from None
