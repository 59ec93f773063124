"""Text to a prepared corpus, in several processes, in memory that does not grow with the text."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertloom.corpus.arrays import ARRAYS, FORMAT, HELD_OUT, ArrayWriter, Corpus, token_dtype
from bertloom.errors import InputError
from bertloom.files import refuse_existing, sha256, whole_folder, write_json
from bertloom.text.counterfactual import Swapper, with_copies
from bertloom.text.encoding import BulkEncoder
from bertloom.text.readers import PASSAGE_CHARACTERS, Passage, passages
from bertloom.text.sentences import sentences
from bertloom.text.sources import ReadCounts, ReadOptions, expand
from bertloom.text.tokenizer import Tokenizer


@dataclass
class Tokenised:
    """Tokens of several passages, sentence lengths (S,), and per passage its sentences, whether it is the last of a
    document, and whether that is a copy."""

    tokens: npt.NDArray[Any]
    lengths: npt.NDArray[np.int32]
    passages: list[tuple[int, bool, bool]]


class Worker:
    """Cuts passages into sentences and sentences into ids; made once in each process."""

    current: Worker

    def __init__(self, folder: Path, language: str):
        tokenizer = Tokenizer.load(folder)
        self.encode = BulkEncoder(tokenizer, token_dtype(len(tokenizer)))
        self.language = language

    def __call__(self, batch: list[Passage]) -> Tokenised:
        """The passages of a batch, cut and tokenised."""
        cut = [list(sentences(passage.paragraphs, self.language)) for passage in batch]
        tokens, lengths = self.encode([sentence for part in cut for sentence in part])
        counts, at = [], 0
        for part, passage in zip(cut, batch):
            size = int(np.count_nonzero(lengths[at : at + len(part)]))
            counts.append((size, passage.last, passage.copied))
            at += len(part)
        return Tokenised(tokens, lengths[lengths > 0], counts)


def _start(folder: Path, language: str) -> None:
    # Each process is one core's work; the library's own threads would fight the other processes.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C reaches every process of the terminal; the one that reads the text ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Killed outright, that one cannot.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    Worker.current = Worker(folder, language)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _work(batch: list[Passage]) -> Tokenised:
    return Worker.current(batch)


def _batched(stream: Iterable[Passage]) -> Iterator[list[Passage]]:
    held: list[Passage] = []
    size = 0
    for passage in stream:
        length = sum(map(len, passage.paragraphs))
        if held and size + length > PASSAGE_CHARACTERS:
            yield held
            held, size = [], 0
        held.append(passage)
        size += length
    if held:
        yield held


def _tokenised(stream: Iterable[Passage], folder: Path, language: str, workers: int) -> Iterator[Tokenised]:
    """The batches in order; a few are under way at a time, however long the stream is."""
    if workers == 1:
        yield from map(Worker(folder, language), _batched(stream))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (folder, language)) as pool:
        waiting: deque[Future[Tokenised]] = deque()
        for batch in _batched(stream):
            waiting.append(pool.submit(_work, batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class CorpusWriter:
    """One corpus being written: arrays that grow, and what its report needs."""

    def __init__(self, folder: Path, vocabulary_size: int, stack: ExitStack):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        dtypes: dict[str, Any] = {
            "tokens": token_dtype(vocabulary_size),
            "word_starts": bool,
            "sentences": np.int64,
            "documents": np.int64,
        }
        self.arrays = {name: stack.enter_context(ArrayWriter(folder / f"{name}.npy", dtypes[name])) for name in ARRAYS}
        for name in ("sentences", "documents"):
            self.arrays[name].append(np.zeros(1, np.int64))
        self.frequencies = np.zeros(vocabulary_size, np.int64)
        self.histogram = np.zeros(32, np.int64)
        self.open_sentences = self.copies = 0

    def append(self, tokens: npt.NDArray[Any], lengths: npt.NDArray[np.int32], starts: npt.NDArray[np.bool_]) -> None:
        """Whole sentences at the end of the document that is open."""
        before = self.arrays["tokens"].length
        self.arrays["tokens"].append(tokens)
        self.arrays["word_starts"].append(starts[tokens])
        self.arrays["sentences"].append(before + np.cumsum(lengths, dtype=np.int64))
        self.frequencies += np.bincount(tokens, minlength=len(self.frequencies))
        self.histogram += np.bincount(np.frexp(lengths)[1], minlength=len(self.histogram))
        self.open_sentences += len(lengths)

    def close_document(self) -> None:
        """End the open document, if it has a sentence."""
        if self.open_sentences:
            self.arrays["documents"].append(np.array([self.arrays["sentences"].length - 1]))
        self.open_sentences = 0

    @property
    def sizes(self) -> dict[str, int]:
        """Documents, sentences and tokens so far."""
        names = {"documents": "documents", "sentences": "sentences"}
        return {name: self.arrays[key].length - 1 for name, key in names.items()} | {
            "tokens": self.arrays["tokens"].length
        }

    def report(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """What a user should look at before training on this."""
        total = max(1, int(self.frequencies.sum()))
        special = set(tokenizer.special.ids.values())
        unused = [number for number in np.flatnonzero(self.frequencies == 0) if int(number) not in special]
        top = int(np.flatnonzero(self.histogram).max(initial=0))
        return {
            "unused_tokens": len(unused),
            "unused_examples": tokenizer.shown([int(number) for number in unused[:20]]),
            "unk_rate": int(self.frequencies[tokenizer.special.unk]) / total,
            "sentence_lengths": {
                f"{1 << power >> 1}-{(1 << power) - 1}" if power > 1 else "1": int(self.histogram[power])
                for power in range(1, top + 1)
            },
        }


def prepare(
    sources: Sequence[str | Path],
    tokenizer_path: str | Path,
    output: str | Path,
    *,
    options: ReadOptions | None = None,
    language: str = "auto",
    held_out: float = 0.0,
    counterfactual: Swapper | None = None,
    workers: int = 1,
    progress: Callable[[ReadCounts], None] | None = None,
) -> Corpus:
    """Write the corpus of `sources` at `output`, whole or not at all, and open it.

    Every `1 / held_out`-th document goes to a corpus of its own in `output/held-out`. Behind each other one that
    `counterfactual` changes stands its changed copy. A script that asks for several
    `workers` needs Python's `if __name__ == "__main__"`, as any that starts processes.
    """
    output = Path(output)
    if not 0 <= held_out <= 0.5:
        raise InputError(f"held_out: {held_out} given, a share from 0 to 0.5 allowed")
    if workers < 1:
        raise InputError(f"workers: {workers} given, at least 1 allowed")
    if not re.fullmatch("auto|[a-z]{2,3}", language):
        raise InputError(f"language: {language!r} given, auto or a code of ISO 639 as en, ko or de allowed")
    refuse_existing(output)
    tokenizer = Tokenizer.load(tokenizer_path)
    files = expand(sources)
    counts = ReadCounts()
    with whole_folder(output) as folder:
        tokenizer.save(folder / "tokenizer")
        with ExitStack() as stack:
            writers = [CorpusWriter(folder, len(tokenizer), stack)]
            if held_out:
                writers.append(CorpusWriter(folder / HELD_OUT, len(tokenizer), stack))
            stream = passages(files, options, counts)
            if counterfactual:
                stream = with_copies(stream, counterfactual)
            tokenised = _tokenised(stream, folder / "tokenizer", language, workers)
            _write(tokenised, writers, tokenizer.starts_word, held_out, lambda: progress and progress(counts))
        if counterfactual and not writers[0].copies:
            raise InputError("counterfactual: none of the words given in the text, at least one needed")
        if held_out:
            tokenizer.save(folder / HELD_OUT / "tokenizer")
        for writer in writers:
            if not writer.sizes["documents"]:
                said = "no document in the text, at least one needed"
                if held_out:
                    where = "to train on" if writer is writers[0] else "held out"
                    said = f"held_out: {held_out} given, leaves no document {where}, at least one needed"
                raise InputError(said, ", ".join(map(str, sources)))
            swaps = counterfactual if writer is writers[0] else None
            _write_manifest(writer, tokenizer, files, counts, swaps)
    return Corpus(output)


def _write(
    stream: Iterable[Tokenised],
    writers: list[CorpusWriter],
    starts: npt.NDArray[np.bool_],
    held_out: float,
    progress: Callable[[], object],
) -> None:
    """Append every passage to the corpus its document belongs to."""
    document = 0
    held = False
    for batch in stream:
        token = sentence = 0
        for count, last, copied in batch.passages:
            lengths = batch.lengths[sentence : sentence + count]
            size = int(lengths.sum())
            if not copied:
                # A document is held out where the share of those before it passes another half.
                held = int((document + 1) * held_out + 0.5) > int(document * held_out + 0.5)
            # What is held out stays as it was written, and no copy of it is learned from.
            if not (copied and held):
                writers[held].append(batch.tokens[token : token + size], lengths, starts)
            token, sentence = token + size, sentence + count
            if last:
                whole = bool(writers[held].open_sentences)
                document += whole and not copied
                writers[held].copies += whole and copied
                writers[held].close_document()
        progress()


def _write_manifest(
    writer: CorpusWriter, tokenizer: Tokenizer, files: list[str], counts: ReadCounts, swaps: Swapper | None
) -> None:
    folder = writer.folder
    arrays: dict[str, Any] = {}
    for name in ARRAYS:
        file = folder / f"{name}.npy"
        array = writer.arrays[name]
        arrays[name] = {"length": array.length, "dtype": str(array.dtype), "sha256": sha256(file)}
    versions = {name: importlib.metadata.version(name) for name in ("bertloom", "tokenizers", "sentencex", "numpy")}
    write_json(
        folder / "manifest.json",
        {
            "format": FORMAT,
            **writer.sizes,
            "arrays": arrays,
            "vocabulary": {
                "fingerprint": tokenizer.fingerprint,
                "size": len(tokenizer),
                "special": tokenizer.special.ids,
            },
            "report": writer.report(tokenizer),
            "sources": [Path(file).name for file in files[:1000]],
            "bytes_read": counts.bytes,
            "mended": dict(counts.mended),
            **(
                {"counterfactual": {**swaps.sizes, "fingerprint": swaps.fingerprint, "documents": writer.copies}}
                if swaps
                else {}
            ),
            "versions": versions,
        },
    )
