"""Flags that several commands share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from bertloom.text.sources import ReadOptions


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How text is read."""

    format: Annotated[
        Literal["auto", "text", "gutenberg", "jsonl", "parquet", "wikipedia"],
        Parameter(help="What the files are; auto tells by suffix and beginning."),
    ] = "auto"
    documents: Annotated[
        Literal["blank-line", "file", "wrapped"],
        Parameter(help="A text file's documents end at blank lines or at its end; wrapped: at its end, lines joined."),
    ] = "blank-line"
    field: Annotated[str, Parameter(help="Field or column that holds the text.")] = "text"
    encoding: Annotated[str, Parameter(help="Encoding of text files.")] = "utf-8"
    fallback: Annotated[str | None, Parameter(help="Encoding of lines that are not in it, as latin-1; counted.")] = None
    on_bad: Annotated[Literal["error", "skip"], Parameter(help="Stop at a bad line, or leave it out and count it.")] = (
        "error"
    )
    max_line: Annotated[int, Parameter(help="Most bytes of a line.")] = 10_000_000

    @property
    def options(self) -> ReadOptions:
        """The same for the readers."""
        return ReadOptions(**asdict(self))
