"""Dependency trees of CoNLL-U files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bertloom.errors import InputError
from bertloom.text.conll import COLUMNS, Token, is_universal, sentences
from bertloom.text.records import Place, require_file
from bertloom.text.sources import ReadCounts, ReadOptions

_ID, _FORM, _UPOS, _HEAD, _DEPREL = (COLUMNS.index(name) for name in ("id", "form", "upos", "head", "deprel"))


@dataclass(frozen=True)
class Tree:
    """A sentence's `words`, with the place of each one's head among them (the root's is -1), its relation and tag."""

    place: Place
    words: tuple[str, ...]
    heads: tuple[int, ...]
    relations: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def text(self) -> str:
        """The words with a space between."""
        return " ".join(self.words)

    @property
    def depths(self) -> list[int]:
        """How many words stand above each, none above the root."""
        found = []
        for word in range(len(self.words)):
            depth = 0
            while (word := self.heads[word]) >= 0:
                depth += 1
            found.append(depth)
        return found

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Where each word stands in the text."""
        found, start = [], 0
        for word in self.words:
            found.append((start, start + len(word)))
            start += len(word) + 1
        return found


def trees(source: str, options: ReadOptions, counts: ReadCounts) -> Iterator[Tree]:
    """The trees of a file, streamed; a malformed line raises with its number, or its sentence is left out and counted.

    Words that stand for several tokens, and tokens that stand for none, are passed over.
    """
    require_file(source)
    if not is_universal(source):
        raise InputError("given, a file of CoNLL-U in .conllu allowed", source)
    for tokens in sentences(source, options, counts):
        try:
            yield _tree(tokens)
        except InputError:
            if options.on_bad == "error":
                raise
            counts.mended["malformed sentence, left out"] += 1


def _tree(tokens: list[Token]) -> Tree:
    heads = []
    for number, token in enumerate(tokens, 1):
        given, head = token.cells[_ID], token.cells[_HEAD]
        if given != str(number):
            raise token.place.error(f"id {given!r} given, {number} allowed")
        if not (head.isascii() and head.isdecimal() and int(head) <= len(tokens) and int(head) != number):
            raise token.place.error(f"head {head!r} given, 0 to {len(tokens)} but for {number} itself allowed")
        if " " in token.cells[_DEPREL] or token.cells[_DEPREL] == "_":
            raise token.place.error(f"relation {token.cells[_DEPREL]!r} given, a word allowed")
        heads.append(int(head) - 1)
    if heads.count(-1) != 1:
        raise tokens[0].place.error(f"{heads.count(-1)} roots given, one allowed")
    for word in range(len(heads)):
        above, seen = word, set[int]()
        while above >= 0:
            if above in seen:
                raise tokens[word].place.error(f"word {word + 1} hangs in a circle, a tree allowed")
            seen.add(above)
            above = heads[above]
    words, relations, tags = (tuple(token.cells[column] for token in tokens) for column in (_FORM, _DEPREL, _UPOS))
    return Tree(tokens[0].place, words, tuple(heads), relations, tags)
