"""What of a model is exported, traced once for any number and length of texts, and what it must come to.

B texts of n places, D hidden size, K outputs of a head, V words.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from bertloom import embedding
from bertloom.api import Model
from bertloom.errors import InputError, nearest
from bertloom.example import Example
from bertloom.model.packed import Batch, pack
from bertloom.model.padded import Padded
from bertloom.tasks.heads import FeatureHead, reads_first
from bertloom.tasks.task import TARGET, Task

Array = npt.NDArray[Any]
# What can be exported: states of tokens, vectors of texts, what a fine-tuned model's head says, words for tokens.
KINDS = ("states", "vectors", "task", "mlm")
# Texts by which it is traced and those by which it is compared, as lengths; the last are as long as can be.
TRACED, COMPARED, LONG = (7, 4), ((9,), (3, 12, 5), (64, 33)), 512


@dataclass(frozen=True)
class Form:
    """A model and which of `KINDS` of it is exported."""

    model: Model
    kind: str

    @classmethod
    def of(cls, model: Model, kind: str = "") -> Form:
        """What is asked for, or what the model is for; raises where it has none of it."""
        has = {
            "states": True, "vectors": True, "task": model.task is not None, "mlm": "mlm" in model.trained,
        }  # fmt: skip
        usual = "task" if model.task else "vectors" if model.sentence else "mlm" if has["mlm"] else "states"
        kind = kind or usual
        if kind not in KINDS:
            raise InputError(f"what: {nearest(kind, KINDS)}")
        if not has[kind]:
            raise InputError(f"what: {kind} given, a model with such a head needed", model.path)
        if kind == "mlm" and model.config.direction != "both":
            raise InputError("what: mlm given, a model that sees both sides needed", model.path)
        head = model.heads[model.task.part] if kind == "task" and model.task else None
        if isinstance(head, FeatureHead) and head.lstm is not None:
            raise InputError("has a BiLSTM on frozen features, a head that other runtimes know needed", model.path)
        return cls(model, kind)

    @property
    def task(self) -> Task | None:
        """The task whose head is exported."""
        return self.model.task if self.kind == "task" else None

    @property
    def by_text(self) -> bool:
        """Whether there is one row of outputs a text, and not one a token."""
        if self.task is None:
            return self.kind == "vectors"
        head = self.model.heads[self.task.part]
        return head.pooled if isinstance(head, FeatureHead) else self.task.pooled

    @property
    def inputs(self) -> list[str]:
        """Names of what goes in, each (B, n)."""
        segments = self.model.config.type_vocab_size > 1 and self.model.tokenizer.special.segments
        return ["input_ids", "attention_mask", *(["token_type_ids"] if segments else [])]

    @property
    def outputs(self) -> list[str]:
        """Names of what comes out: (B, …) by text, (B, n, …) by token."""
        if self.task is not None and self.task.name == "answer":
            return ["start_logits", "end_logits"]
        return [{"states": "last_hidden_state", "vectors": "sentence_embedding"}.get(self.kind, "logits")]

    @property
    def longest(self) -> int:
        """Most tokens of a text."""
        if self.kind == "vectors":
            return self.model.how.cut(self.model.config.longest)
        return self.task.most(self.model.config) if self.task else self.model.config.longest

    @cached_property
    def program(self) -> ExportedProgram:
        """The traced model (`torch.export`)."""
        batch, length = Dim("batch", min=1), Dim("length", min=2, max=self.model.config.longest)
        given = padded(self.texts(TRACED), self.inputs)
        shapes = {name: {0: batch, 1: length} for name in given}
        traced = _Traced(self).eval()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tensors = {name: torch.from_numpy(one) for name, one in given.items()}
            return torch.export.export(traced, (), tensors, dynamic_shapes=shapes, strict=False)

    def texts(self, lengths: Sequence[int]) -> list[Example]:
        """Drawn tokens, in two segments where there are such."""
        rng, config = np.random.default_rng(sum(lengths)), self.model.config
        made = []
        for length in lengths:
            segments = np.zeros(length, np.int64)
            if "token_type_ids" in self.inputs and length > 6:
                segments[length // 2 :] = 1
            made.append(Example(rng.integers(0, config.vocab_size, length), segments))
        return made

    @torch.no_grad()
    def ours(self, examples: Sequence[Example]) -> list[list[Array]]:
        """Of each output, by text what our own packed model says: (…) or (n, …)."""
        device = self.model.encoder.embeddings.word.weight.device
        found = [self._say(pack([self._asked(one)]).to(device)) for one in examples]
        return [[one[number].float().cpu().numpy() for one in found] for number in range(len(self.outputs))]

    def _asked(self, example: Example) -> Example:
        if self.task is None:
            return example
        rows = np.arange(1 if self.by_text else len(example))
        return replace(example, targets={TARGET: (rows, np.zeros(len(rows), np.int64))})

    def _say(self, batch: Batch) -> list[Tensor]:
        said = _said(self, batch)
        logits = said[0] if self.by_text else said
        return list(logits.unbind(-1)) if len(self.outputs) == 2 else [logits]


def _said(form: Form, batch: Batch) -> Tensor:
    """(B, …) or (T, …) what a model says of a batch."""
    encoder = form.model.encoder
    if form.kind == "vectors":
        return embedding.of_batch(encoder, form.model.how, batch)
    if form.task is not None:
        return form.model.heads[form.task.part](encoder, batch)  # type: ignore[no-any-return]
    states: Tensor = encoder(batch)
    if form.kind == "mlm":
        states = form.model.heads["mlm"](states, encoder.embeddings.word.weight)
    return states


class _Traced(nn.Module):
    """The model as other runtimes have it: ids, mask and segments (B, n) in, outputs by text or token."""

    def __init__(self, form: Form):
        super().__init__()
        self.form = form
        self.encoder, self.heads = form.model.encoder, form.model.heads

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        segments = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        batch = Padded.of(input_ids, attention_mask, segments)
        if self.form.task is not None:
            rows = batch.starts if self.form.by_text else torch.arange(input_ids.numel(), device=input_ids.device)
            read = batch.starts if self.form.by_text and not self._needs_all() else None
            if read is not None:
                rows = torch.arange(input_ids.shape[0], device=input_ids.device)
            batch = replace(batch, read=read, targets={TARGET: (rows, rows)})
        said = _said(self.form, batch)
        if self.form.by_text:
            return (said,)
        said = said.view(*input_ids.shape, -1)
        return tuple(said.unbind(-1)) if len(self.form.outputs) == 2 else (said,)

    def _needs_all(self) -> bool:
        """Whether a head on whole texts looks at more than first tokens."""
        assert self.form.task is not None
        return isinstance(self.heads[self.form.task.part], FeatureHead) or not reads_first(self.form.model.config)


def padded(examples: Sequence[Example], names: Sequence[str]) -> dict[str, Array]:
    """Examples as ids, mask and segments (B, n), padded with zeros, which nothing looks at."""
    most = max(map(len, examples))
    made = {name: np.zeros((len(examples), most), np.int64) for name in names}
    for row, one in enumerate(examples):
        parts: Mapping[str, Any] = {"input_ids": one.input_ids, "attention_mask": 1, "token_type_ids": one.segment_ids}
        for name in names:
            made[name][row, : len(one)] = parts[name]
    return made
