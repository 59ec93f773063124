"""Objectives by name, alone or joined with `+`: one part chooses the segments, the others hide and predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bertloom.config import EncoderConfig
from bertloom.corpus import Corpus, Draw
from bertloom.corpus.masks import MASKS, SHARE
from bertloom.corpus.segments import SEGMENTS, assembled, examples_per_epoch
from bertloom.errors import InputError, nearest
from bertloom.example import Example, Ints
from bertloom.model.encoder import Encoder
from bertloom.model.packed import Batch
from bertloom.objectives.masked import Masked
from bertloom.objectives.pairs import NextSentence

PARTS: dict[str, Callable[[EncoderConfig, str, float], nn.Module]] = {
    "mlm": Masked,
    "nsp": lambda config, mask, share: NextSentence(config),
}


class Combined(nn.Module):
    """Masked language modelling, alone or with other parts; its modules are the parts' heads, by name."""

    def __init__(
        self,
        config: EncoderConfig,
        name: str = "mlm+nsp",
        segments: str = "full",
        mask: str = "tokens",
        mask_share: float = SHARE,
    ):
        super().__init__()
        for value, key, known in ((segments, "segments", SEGMENTS), (mask, "mask", MASKS)):
            if value not in known:
                raise InputError(f"{key}: {nearest(value, known)}")
        names = name.split("+")
        for part in names:
            if part not in PARTS:
                raise InputError(f"objective: {nearest(part, PARTS)}")
        if len(set(names)) < len(names) or "mlm" not in names:
            raise InputError(f"objective: {name!r} given, mlm alone or joined with + to others, each once, allowed")
        self.config, self.names = config, names
        self.weights = dict.fromkeys(names, 1.0)
        self._segments = segments
        for part in names:
            self.add_module(part, PARTS[part](config, mask, mask_share))

    @property
    def heads(self) -> dict[str, Any]:
        """The parts' modules, by name."""
        return {name: self.get_submodule(name) for name in self.names}

    @property
    def chooser(self) -> Any:
        """The part that chooses segments and labels them, None where none does."""
        return next((head for head in self.heads.values() if hasattr(head, "segments")), None)

    def epoch(self, corpus: Corpus, length: int) -> int:
        """Examples in one pass over a corpus."""
        return examples_per_epoch(corpus, self.chooser.kind if self.chooser else self._segments, length)

    def example(self, corpus: Corpus, draw: Draw) -> Example:
        """The example of a draw: segments, then masks; a pure function of both arguments."""
        rng = draw.rng()
        targets: dict[str, tuple[Ints, Ints]] = {}
        chooser = self.chooser
        if chooser:
            spans, targets = chooser.segments(corpus, draw, rng)
        else:
            spans = SEGMENTS[self._segments](corpus, draw, rng)
        example, places, starts = assembled(corpus, spans)
        example.targets.update(targets)
        return self.heads["mlm"].hide(corpus, example, places, starts, rng)  # type: ignore[no-any-return]

    def counts(self, batch: Batch) -> dict[str, int]:
        """Labels of each part in a batch."""
        return {part: len(batch.targets[part][1]) for part in self.names}

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        """Summed losses by part; 0 for a part without labels."""
        states = encoder(batch)  # (R, D)
        return {part: head.summed(encoder, *_labelled(part, states, batch)) for part, head in self.heads.items()}

    @torch.no_grad()
    def measured(self, encoder: Encoder, batch: Batch) -> dict[str, tuple[float, int, int]]:
        """By part the summed loss, how many labels were the first choice, and how many there are."""
        states = encoder(batch)
        measures = {}
        for part, head in self.heads.items():
            rows, labels = _labelled(part, states, batch)
            right = int(head.right(encoder, rows, labels).sum()) if len(labels) else 0
            measures[part] = (float(head.summed(encoder, rows, labels)), right, len(labels))
        return measures


def _labelled(part: str, states: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    rows, labels = batch.targets[part]
    return states[rows], labels
