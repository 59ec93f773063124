"""Sentences of CoNLL and CoNLL-U files: a token a line, its columns, an empty line between sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from unicodedata import normalize

from bertloom.errors import blaming
from bertloom.text.records import Place
from bertloom.text.sources import ReadCounts, ReadOptions, lines, open_bytes, plain_suffix

# The columns of CoNLL-U, as they are called.
COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


@dataclass(frozen=True)
class Token:
    """A line's columns, and where it stands."""

    place: Place
    cells: list[str]

    def fault(self, columns: int, universal: bool) -> str:
        """What is wrong with a line that is to have so many columns, "" for nothing."""
        if len(self.cells) != columns:
            which = "of CoNLL-U" if universal else "as in the line before"
            return f"{len(self.cells)} columns given, {columns} {which} allowed: a word a line; texts go into JSON rows"
        empty = "" in (self.cells[0], self.cells[-1])
        return "an empty first or last column given, a word and its tag needed" if empty else ""

    def cell(self, column: str, universal: bool) -> str:
        """The column of a number, from 1 or back from -1, or of a CoNLL-U name; raises where it is not there."""
        number = COLUMNS.index(column.lower()) + 1 if universal and column.lower() in COLUMNS else 0
        if column.removeprefix("-").isdecimal() and abs(int(column)) <= len(self.cells):
            number = int(column)
        if not number:
            known = f"1 to {len(self.cells)}" + (f" or {', '.join(COLUMNS)}" if universal else "")
            raise self.place.error(f"column {column!r} given, {known} allowed")
        found = self.cells[number - 1 if number > 0 else number]
        if not found:
            raise self.place.error(f"column {column} is empty, a word or tag needed")
        return found


def is_universal(source: str) -> bool:
    """Whether a file is CoNLL-U by its name."""
    return plain_suffix(source) == ".conllu"


def is_column(name: str) -> bool:
    """Whether a column's name is one of lines, and not of rows."""
    return name.removeprefix("-").isdecimal() or name.lower() in COLUMNS


def sentences(source: str, options: ReadOptions, counts: ReadCounts, spaces: bool = False) -> Iterator[list[Token]]:
    """The sentences of a file, streamed; a malformed one raises with its line, or is left out and counted.

    `spaces` is whether a line of one space is a character, and not blank.
    """
    universal = is_universal(source)
    with blaming(source, "cannot be read"), open_bytes(source) as stream:
        numbered = lines(source, stream, options, counts)
        beginning = list(islice(numbered, 1000))
        comment = _is_universal_comment if universal else _comments([line for _, line in beginning])
        for held in _groups(chain(beginning, numbered), comment, spaces):
            tokens = [Token(Place(source, number), _cells(line)) for number, line in held]
            if universal:
                # Words that stand for several tokens, or for none.
                tokens = [token for token in tokens if not {"-", "."} & set(token.cells[0])]
            tokens = [token for token in tokens if token.cells[0] != "-DOCSTART-"]
            wanted = len(COLUMNS) if universal else len(tokens[0].cells) if tokens else 0
            odd = next((token for token in tokens if token.fault(wanted, universal)), None)
            if odd and options.on_bad == "error":
                raise odd.place.error(odd.fault(wanted, universal))
            if odd:
                counts.mended["malformed sentence, left out"] += 1
            elif tokens:
                yield tokens


def _cells(line: str) -> list[str]:
    return line.split("\t" if "\t" in line else None) or [line]


def _is_universal_comment(line: str) -> bool:
    return line.startswith("#")


def _comments(beginning: Sequence[str]) -> Callable[[str], bool]:
    """Which lines that begin like a sign and a space are no word: other cells than most, or KLUE's two signs."""
    tabs = any("\t" in line for line in beginning)
    usual = Counter(len(_cells(line)) for line in beginning if line.strip()).most_common(1)

    def is_comment(line: str) -> bool:
        if not line.startswith(("# ", "## ")):
            return False
        # A file of tabs holds no word and tag that are divided by a space.
        return line.startswith("## ") or "\t" not in line if tabs else len(_cells(line)) != usual[0][0]

    return is_comment


def _groups(
    numbered: Iterable[tuple[int, str]], is_comment: Callable[[str], bool], spaces: bool
) -> Iterator[list[tuple[int, str]]]:
    """The lines between blank ones, without comments, which stand before a sentence's first word."""
    held: list[tuple[int, str]] = []
    for number, line in numbered:
        if not line.strip() and not (spaces and line == " "):
            if held:
                yield held
            held = []
        elif held or not is_comment(line):
            held.append((number, line))
    if held:
        yield held


def by_characters(beginning: Sequence[Sequence[Token]], alike: bool) -> bool:
    """Whether tokens are characters with spaces among them, as in texts whose words have parts of their own.

    Where the file is to be `alike` to one of characters, it is one without a space too.
    """
    firsts = [token.cells[0] for tokens in beginning for token in tokens]
    return (alike or " " in firsts) and sum(len(normalize("NFC", cell)) == 1 for cell in firsts) > 0.9 * len(firsts)
