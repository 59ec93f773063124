"""Texts in, vectors out: tokenised ahead, packed by length, given back in the order they came in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from bertloom.example import Example
from bertloom.model.encoder import Encoder
from bertloom.model.packed import Batch, longest_first
from bertloom.model.pooling import pooled
from bertloom.model.workers import side_by_side
from bertloom.sentence import Sentence
from bertloom.text.sequence import room, sequence
from bertloom.text.tokenizer import Tokenizer

# Texts that are tokenised and sorted by length together.
WINDOW = 1024
Vectors = npt.NDArray[np.float32]
Made = TypeVar("Made")


@dataclass(frozen=True)
class TokenVectors:
    """A text's tokens (n), `spans` (n, 2) where each begins and ends in it, and `vectors` (n, D)."""

    tokens: list[str]
    spans: npt.NDArray[np.int64]
    vectors: Vectors


def examples(tokenizer: Tokenizer, texts: Sequence[str], most: int) -> list[Example]:
    """Texts with special tokens, cut at `most` tokens."""
    special = tokenizer.special
    return [Example(*sequence(special, ids[: room(special, most)])) for ids in tokenizer.ids(texts)]


def of_batch(encoder: Encoder, sentence: Sentence, batch: Batch) -> Tensor:
    """(B, D) a vector of each sequence of a batch."""
    found = pooled(encoder, batch, sentence.pooling).float()
    return F.normalize(found) if sentence.normalize else found


def vectors(
    encoder: Encoder, tokenizer: Tokenizer, sentence: Sentence, texts: Iterable[str], tokens: int
) -> Iterator[Vectors]:
    """(n, D) vectors of the texts of a stream, a window of them at a time."""
    begin, most = sentence.prompt, sentence.cut(encoder.config.longest)

    def tokenised(window: tuple[str, ...]) -> list[Example]:
        return examples(tokenizer, [begin + text for text in window] if begin else window, most)

    for made in ahead(tokenised, texts):
        result = np.empty((len(made), sentence.width(encoder.config.hidden_size)), np.float32)
        for numbers, found in computed(encoder, made, tokens, lambda batch: of_batch(encoder, sentence, batch).cpu()):
            result[numbers] = found.numpy()
        yield result


def token_vectors(
    encoder: Encoder, tokenizer: Tokenizer, sentence: Sentence, texts: Iterable[str], tokens: int
) -> Iterator[TokenVectors]:
    """Of each text of a stream its tokens with their last hidden states."""

    most = sentence.cut(encoder.config.longest)

    def tokenised(window: tuple[str, ...]) -> tuple[tuple[str, ...], list[Example]]:
        return window, examples(tokenizer, window, most)

    def states(batch: Batch) -> Tensor:
        return encoder(batch).float().cpu()  # type: ignore[no-any-return]

    for window, made in ahead(tokenised, texts):
        found: list[Vectors] = [np.empty((0, 0), np.float32)] * len(made)
        for numbers, rows in computed(encoder, made, tokens, states):
            for number, one in zip(numbers, rows.split([len(made[number]) for number in numbers])):  # type: ignore[no-untyped-call]
                # Special tokens stand in no text.
                found[number] = one[1:-1].numpy()
        for text, example, own in zip(window, made, found):
            spans = np.array(tokenizer.spans(text)[: len(own)], np.int64).reshape(-1, 2)
            yield TokenVectors(tokenizer.shown(example.input_ids[1:-1].tolist()), spans, own)


def computed(
    encoder: Encoder, examples: list[Example], tokens: int, compute: Callable[[Batch], Tensor]
) -> Iterator[tuple[list[int], Tensor]]:
    """What is computed of batches of examples, longest first, with the numbers of the examples in each."""
    device = encoder.embeddings.word.weight.device

    def work(part: tuple[list[int], Batch]) -> tuple[list[int], Tensor]:
        return part[0], compute(part[1].to(device))

    return side_by_side(work, longest_first(examples, tokens), device)


def ahead(make: Callable[[tuple[str, ...]], Made], texts: Iterable[str]) -> Iterator[Made]:
    """What is made of windows of texts, the next one while the last is computed with."""
    stream = iter(texts)
    windows = iter(lambda: tuple(islice(stream, WINDOW)), ())
    few = list(islice(windows, 2))
    if len(few) < 2:
        yield from map(make, few)
        return
    with ThreadPoolExecutor(1) as thread:
        coming: Future[Made] | None = None
        for window in chain(few, windows):
            coming, ready = thread.submit(make, window), coming
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()
