"""Flags that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token

from bertloom.errors import InputError
from bertloom.text.sources import ReadOptions


def _whole(kind: Any, tokens: Sequence[Token]) -> int:
    """A number as it is written: 99.5 is refused, not rounded."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} given, a whole number allowed") from None


Whole = Annotated[int, Parameter(converter=_whole)]
AModel = Annotated[str, Parameter(help="A model's folder, a run, or a Hub id.")]
AnEncoding = Annotated[str, Parameter(help="Encoding of text files.")]
OnBad = Annotated[
    Literal["error", "skip"], Parameter(help="Stop at a bad line or sentence, or leave it out and count it.")
]
AsJson = Annotated[bool, Parameter(help="Print one JSON object.")]


def _no_flag(kind: Any, sources: Sequence[str]) -> None:
    """A misspelt flag is none of the texts, though `-` is."""
    for source in sources:
        if source.startswith("-") and source != "-":
            raise InputError(f"unknown option {source!r}; --help lists them, ./{source} is a file of that name")


# Files, folders, globs, - for standard input.
Texts = Annotated[list[str], Parameter(allow_leading_hyphen=True, validator=_no_flag)]


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
    encoding: AnEncoding = "utf-8"
    fallback: Annotated[str | None, Parameter(help="Encoding of lines that are not in it, as latin-1; counted.")] = None
    on_bad: OnBad = "error"
    max_line: Annotated[Whole, Parameter(help="Most bytes of a line.")] = 10_000_000

    @property
    def options(self) -> ReadOptions:
        """The same for the readers."""
        return ReadOptions(**asdict(self))
