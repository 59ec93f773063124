"""The prepared corpus on disk: four `.npy` arrays opened by memory map, and the manifest that vouches for them.

S sentences, D documents, T tokens: `tokens` (T,), `word_starts` (T,) bool, `sentences` (S+1,) token offsets,
`documents` (D+1,) sentence offsets.
"""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from bertloom.corpus.draw import Draw
from bertloom.errors import InputError, blaming
from bertloom.example import Ints
from bertloom.files import read_json, sha256

ARRAYS = ("tokens", "word_starts", "sentences", "documents")
FORMAT = 1
HELD_OUT = "held-out"
HEADER = 128


def token_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """The narrowest type that holds every id."""
    return np.dtype(np.uint16 if vocabulary_size <= 1 << 16 else np.int32)


class ArrayWriter:
    """An `.npy` file that grows: rows are appended, the header is set when the length is known."""

    def __init__(self, path: Path, dtype: npt.DTypeLike):
        self.dtype = np.dtype(dtype)
        self.length = 0
        self.file = path.open("wb")
        self.file.write(b"\0" * HEADER)

    def append(self, values: npt.NDArray[Any]) -> None:
        """Add a one-dimensional array at the end."""
        self.file.write(np.ascontiguousarray(values, dtype=self.dtype).data)
        self.length += len(values)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        fields = f"{{'descr': {npy.dtype_to_descr(self.dtype)!r}, 'fortran_order': False, 'shape': ({self.length},), }}"
        body = HEADER - len(npy.magic(1, 0)) - 2
        self.file.seek(0)
        self.file.write(npy.magic(1, 0) + body.to_bytes(2, "little") + fields.ljust(body - 1).encode() + b"\n")
        self.file.close()


class Corpus:
    """A prepared corpus, opened for reading; raises `InputError` where arrays and manifest do not agree."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not (self.path / "manifest.json").is_file():
            raise InputError("no prepared corpus there (no manifest.json); bertloom prepare makes one", self.path)
        self.manifest: dict[str, Any] = read_json(self.path / "manifest.json")
        with blaming(self.path / "manifest.json", "is no corpus's manifest, prepare it again"):
            if self.manifest.get("format") != FORMAT:
                raise InputError(f"corpus format {self.manifest.get('format')!r}, {FORMAT} allowed", self.path)
            self.special = {str(role): int(number) for role, number in self.manifest["vocabulary"]["special"].items()}
            self.vocab_size = int(self.manifest["vocabulary"]["size"])
            self.fingerprint = str(self.manifest["vocabulary"]["fingerprint"])
            if set(self.special) != {"pad", "unk", "cls", "sep", "mask"}:
                raise InputError("special tokens missing", self.path)
            if not all(0 <= number < self.vocab_size for number in self.special.values()):
                raise InputError("special tokens beyond the vocabulary", self.path)
            for name in ("documents", "sentences", "tokens"):
                self.manifest[name] = int(self.manifest[name])
            self.manifest["sources"] = [str(source) for source in self.manifest["sources"]]
            self.hashes = {name: str(self.manifest["arrays"][name]["sha256"]) for name in ARRAYS}
        self.tokens = self._open("tokens")
        self.word_starts = self._open("word_starts")
        self.sentences = self._open("sentences")
        self.documents = self._open("documents")
        self._require_sound()

    def _open(self, name: str) -> npt.NDArray[Any]:
        file = self.path / f"{name}.npy"
        with blaming(file, "is damaged, prepare the corpus again"):
            stated = self.manifest["arrays"][name]
            array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
            for what, given, want in (
                ("shape", array.shape, (stated["length"],)),
                ("type", str(array.dtype), stated["dtype"]),
            ):
                if given != want:
                    raise InputError(f"{what} {given}, {want} in the manifest; prepare it again", file)
        return array

    def _require_sound(self) -> None:
        """Offsets go from 0 to the end of what they cut."""
        for name, offsets, end in (
            ("sentences", self.sentences, len(self.tokens)),
            ("documents", self.documents, len(self.sentences) - 1),
        ):
            if not len(offsets) or offsets[0] != 0 or offsets[-1] != end:
                raise InputError(f"offsets do not go from 0 to {end:,}; prepare it again", self.path / f"{name}.npy")

    def __reduce__(self) -> tuple[type[Corpus], tuple[Path]]:
        return Corpus, (self.path,)

    @property
    def parts(self) -> tuple[Corpus, ...]:
        """The corpora it is made of: itself."""
        return (self,)

    def drawn(self, draw: Draw) -> tuple[Corpus, Draw]:
        """The corpus of a draw, and which draw of that one's it is."""
        return self, draw

    @property
    def held_out(self) -> Corpus | None:
        """The documents set aside, None where there are none."""
        aside = self.path / HELD_OUT
        return Corpus(aside) if aside.is_dir() else None

    @cached_property
    def spans(self) -> Ints:
        """(D+1,) token offsets of the documents."""
        return np.asarray(self.sentences[np.asarray(self.documents)], dtype=np.int64)

    @cached_property
    def ordinary(self) -> Ints:
        """(V - specials,) every id that is not a special token's, for random replacement."""
        return np.setdiff1d(np.arange(self.vocab_size), list(self.special.values()))

    @property
    def identity(self) -> str:
        """A hash of the text and the vocabulary, the same wherever and whenever they were prepared."""
        return hashlib.sha256("".join([self.fingerprint, *self.hashes.values()]).encode()).hexdigest()[:32]

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer that made the corpus lies."""
        return self.path / "tokenizer"

    def require(self, fingerprint: str, whose: object) -> None:
        """Raise unless a tokenizer with this fingerprint made the corpus."""
        if self.fingerprint != fingerprint:
            raise InputError(
                f"corpus was prepared with vocabulary {self.fingerprint[:12]}, {whose} has {fingerprint[:12]}; "
                "prepare the text again with that tokenizer",
                self.path,
            )

    def verify(self) -> None:
        """Raise unless every array has the bytes its manifest tells of; reads them all."""
        for name, stated in self.hashes.items():
            file = self.path / f"{name}.npy"
            if sha256(file) != stated:
                raise InputError("holds other bytes than the manifest's hash tells of; prepare it again", file)

    @cached_property
    def frequencies(self) -> Ints:
        """(V,) how often each id stands in the corpus."""
        counts = np.zeros(self.vocab_size, np.int64)
        for start in range(0, len(self.tokens), 1 << 22):
            counts += np.bincount(self.tokens[start : start + (1 << 22)], minlength=self.vocab_size)
        return counts


def default_workers() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
