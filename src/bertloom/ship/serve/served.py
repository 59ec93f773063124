"""What a served model is asked: texts made into examples, and batches of these into vectors and logits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from bertloom import embedding
from bertloom.api import Filling, Model
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.model.packed import pack
from bertloom.ship.serve.batching import Batcher
from bertloom.tasks.task import TARGET, Feature, Prediction, Record, Task
from bertloom.text.sequence import sequence

# Texts of fewer characters are tokenised where they are, of more in another thread: others are answered meanwhile.
AT_ONCE = 20_000
Vectors = npt.NDArray[np.float32]
Made = TypeVar("Made")


class Served:
    """A model under its name, whose examples wait in a queue with those of others."""

    def __init__(self, name: str, model: Model, batcher: Batcher):
        self.name, self.model, self.batcher = name, model, batcher
        self.longest = model.how.cut(model.config.longest)

    @property
    def task(self) -> Task | None:
        """What it was fine-tuned for."""
        return self.model.task

    def does(self, name: str) -> bool:
        """Whether it was fine-tuned for a task."""
        return self.task is not None and self.task.name == name

    async def embed(
        self, texts: Sequence[str | Sequence[int]], truncate: bool, normalize: bool
    ) -> tuple[list[Vectors], int]:
        """A vector (W,) of each text, or of its tokens' ids, and how many tokens these were."""
        examples = await self._made(lambda: self._examples(texts, truncate), texts)
        found = await self.batcher.ask(self._vectors, examples)
        if normalize and not self.model.how.normalize:
            found = [one / max(1e-12, float(np.linalg.norm(one))) for one in found]
        return found, sum(map(len, examples))

    async def predict(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Prediction], list[list[Any]], int]:
        """What a fine-tuned model says of records, its logits, and how many tokens these were."""
        task = self.model.require_task()
        records, features = await self._made(lambda: self._features(rows), rows)
        flat = [one for own in features for one in own]
        logits = iter(await self.batcher.ask(self._logits, flat))
        grouped = [[next(logits) for _ in own] for own in features]
        predictions = [task.decode(*one) for one in zip(records, features, grouped)]
        return predictions, grouped, sum(map(len, flat))

    async def fill(self, text: str, top: int) -> list[list[Filling]]:
        """The likeliest tokens for each mask, computed between batches."""
        self.model.head("mlm")
        example = self.model.whole(text[: 64 * self.model.config.longest])
        (found,) = await self.batcher.ask(_Filled(self.model, text, top), [example])
        return found  # type: ignore[no-any-return]

    async def _made(self, make: Callable[[], Made], given: Sequence[Any]) -> Made:
        """Tokens of texts, made here or, of long ones, in a thread."""
        characters = sum(len(one) if isinstance(one, str) else sum(map(len, map(str, _values(one)))) for one in given)
        return make() if characters < AT_ONCE else await asyncio.to_thread(make)

    def _examples(self, texts: Sequence[str | Sequence[int]], truncate: bool) -> list[Example]:
        special, vocabulary = self.model.tokenizer.special, len(self.model.tokenizer)
        begin, made = self.model.how.prompt, []
        plain = iter(self.model.tokenizer.ids([begin + one for one in texts if isinstance(one, str)], special=False))
        for number, one in enumerate(texts, 1):
            ids = next(plain) if isinstance(one, str) else list(one)
            if not isinstance(one, str) and any(not 0 <= number < vocabulary for number in ids):
                raise InputError(f"text {number}: ids from 0 to {vocabulary - 1} allowed")
            most = self.longest - 2
            if len(ids) > most and not truncate:
                raise InputError(
                    f"text {number}: {len(ids)} tokens given, at most {most} allowed unless truncate is true"
                )
            made.append(Example(*sequence(special, ids[:most])))
        return made

    def _features(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Record], list[list[Feature]]]:
        records = list(self.model.records(rows))
        return records, self.model.require_task().features(records, self.model.tokenizer, self.model.config)

    @torch.no_grad()
    def _vectors(self, examples: Sequence[Example]) -> Sequence[Vectors]:
        batch = pack(examples).to(self._device)
        found = embedding.of_batch(self.model.encoder, self.model.how, batch).cpu()
        return list(found.numpy())

    @torch.no_grad()
    def _logits(self, examples: Sequence[Example]) -> Sequence[Any]:
        task, batch = self.model.require_task(), pack(examples).to(self._device)
        logits = self.model.heads[task.part](self.model.encoder, batch).float().cpu()
        return [one.numpy() for one in logits.split([len(one.targets[TARGET][0]) for one in examples])]

    @property
    def _device(self) -> torch.device:
        return self.model.encoder.embeddings.word.weight.device


class _Filled:
    """A question that is computed alone."""

    def __init__(self, model: Model, text: str, top: int):
        self.model, self.text, self.top = model, text, top

    def __call__(self, examples: Sequence[Example]) -> Sequence[list[list[Filling]]]:
        return [self.model.fill(self.text, self.top)]


def _values(given: Any) -> Sequence[Any]:
    return list(given.values()) if isinstance(given, Mapping) else given
