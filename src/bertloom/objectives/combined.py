"""Objectives by name, alone or joined with `+`: one part predicts tokens, others choose or look beside."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from bertloom.config import BASES, EncoderConfig
from bertloom.corpus import Draw, Source
from bertloom.corpus.masks import MASKS
from bertloom.corpus.segments import SEGMENTS, assembled, examples_per_epoch
from bertloom.errors import InputError, nearest
from bertloom.example import Example
from bertloom.families import FAMILIES
from bertloom.model.encoder import Encoder
from bertloom.model.packed import Batch
from bertloom.objectives.boundary import SpanBoundary
from bertloom.objectives.causal import BothWays, NextToken
from bertloom.objectives.distilled import Distilled
from bertloom.objectives.masked import Masked, Spans, WholeWords
from bertloom.objectives.pairs import NextSentence, SentenceOrder
from bertloom.objectives.part import Choices, Measured, Part, Targets
from bertloom.objectives.replaced import ReplacedToken
from bertloom.objectives.structural import WordStructure

PARTS: dict[str, type[Part]] = {
    "mlm": Masked,
    "wwm": WholeWords,
    "span": Spans,
    "wso": WordStructure,
    "nsp": NextSentence,
    "sop": SentenceOrder,
    "sbo": SpanBoundary,
    "rtd": ReplacedToken,
    "causal": NextToken,
    "bilm": BothWays,
    "distill": Distilled,
}


def parts_of(name: str) -> dict[str, type[Part]]:
    """The parts of an objective's name; raises where there are none such, or they do not go together."""
    names = [one.strip() for one in name.split("+")]
    for one in names:
        if one not in PARTS:
            raise InputError(f"objective: {nearest(one, PARTS)}")
    kinds = {one: PARTS[one] for one in names}
    roles: dict[str, str] = {}
    for one, kind in kinds.items():
        for other in names:
            if kind.beside is not None and other not in (one, *kind.beside):
                allowed = f"with {' or '.join(kind.beside)}" if kind.beside else "alone"
                raise InputError(f"objective: {other} given beside {one}, which stands {allowed}: {kind.reason}")
        if kind.role in roles:
            reason = kind.reason or "both hide tokens"
            raise InputError(f"objective: {roles[kind.role]} and {one} given, one of them allowed: {reason}")
        roles[kind.role] = one
    if len(kinds) < len(names):
        raise InputError(f"objective: {name!r} given, each part once allowed")
    for one, kind in kinds.items():
        if kind.beside and not kinds.keys() & set(kind.beside):
            raise InputError(f"objective: {one} given, {' or '.join(kind.beside)} needed beside it: {kind.reason}")
    if "tokens" not in roles:
        raise InputError(f"objective: {name!r} given, joined with + to a part that predicts tokens allowed, as mlm")
    return kinds


def model_of(name: str, config: EncoderConfig) -> EncoderConfig:
    """The config of a new model that learns an objective; raises where its family has none such."""
    for one, kind in parts_of(name).items():
        try:
            made = kind.config(config)
            FAMILIES[made.model_type].settings(made)
        except InputError:
            able = [family for family, base in BASES.items() if _learns(kind, base)]
            title = FAMILIES[config.model_type].title
            said = f"which no {title} can learn, a model of family {' or '.join(able)} allowed"
            raise InputError(f"objective: {one} given, {said}") from None
        config = made
    return config


def _learns(kind: type[Part], config: EncoderConfig) -> bool:
    """Whether a family's folders can hold what learns it."""
    made = kind.config(config)
    try:
        FAMILIES[made.model_type].settings(made)
    except InputError:
        return False
    return True


def published_objective(config: EncoderConfig) -> str:
    """What a family was pretrained on, by the heads of its folders."""
    if config.word_size > config.hidden_size:
        # A generator, which is narrower than the embeddings it shares.
        return "mlm"
    found = next(iter(FAMILIES[config.model_type].pretrained.values()), ("mlm",))
    return {"left-to-right": "causal", "two-way": "bilm"}.get(config.direction, "+".join(found))


def heads_of(name: str) -> set[str]:
    """The heads that folders of an objective hold, as far as it is known."""
    return {head for one in name.split("+") if one in PARTS for head in PARTS[one].trains}


def taught(name: str) -> bool:
    """Whether an objective is learned from a teacher."""
    return any("teacher" in PARTS[one].choices for one in name.split("+") if one in PARTS)


class Combined(nn.Module):
    """The parts of an objective; its modules are their heads, named as in folders, and what learns beside."""

    def __init__(self, config: EncoderConfig, name: str = "mlm+nsp", **choices: Any):
        super().__init__()
        chosen = Choices(**choices)
        for value, key, known in ((chosen.segments, "segments", SEGMENTS), (chosen.mask, "mask", MASKS)):
            if value not in known:
                raise InputError(f"{key}: {nearest(value, known)}")
        kinds = parts_of(name)
        for one, kind in kinds.items():
            if config.direction != kind.direction:
                said = f"a model whose direction is {kind.direction} needed, not {config.direction}"
                raise InputError(f"objective: {one} given, {said}")
        self.config, self.name, self._segments = config, name, chosen.segments
        read = {choice for kind in kinds.values() for choice in kind.choices}
        if not any(kind.kind for kind in kinds.values()):
            read.add("segments")
        for choice in fields(chosen):
            value = getattr(chosen, choice.name)
            if choice.name not in read and value != choice.default:
                raise InputError(f"{choice.name}: {value!r} given, which {name} has no use for")
        self.parts = {one: kind(config, chosen) for one, kind in kinds.items()}
        self.weights = {loss: weight for part in self.parts.values() for loss, weight in part.weights.items()}
        for part in self.parts.values():
            for key, module in {**part.heads, **part.others}.items():
                self.add_module(key, module)

    @property
    def heads(self) -> dict[str, nn.Module]:
        """The parts' heads, by the names that folders have."""
        return {name: head for part in self.parts.values() for name, head in part.heads.items()}

    @property
    def pools(self) -> bool:
        """Whether the encoder's pooler learns."""
        return any(part.pools for part in self.parts.values())

    @property
    def fastest(self) -> float:
        """The highest rate taken where none is given."""
        return min(part.fastest for part in self.parts.values())

    @property
    def guessed(self) -> dict[str, str]:
        """By measure what it stands beside, where anything is known."""
        return {name: how for part in self.parts.values() for name, how in part.guessed.items()}

    @property
    def chooser(self) -> Part | None:
        """The part that chooses segments and labels them, None where none does."""
        return next((part for part in self.parts.values() if part.kind), None)

    def companions(self, encoder: Encoder) -> dict[str, tuple[EncoderConfig, dict[str, Tensor]]]:
        """Models that learn beside the encoder, by name, with config and state."""
        return {key: one for part in self.parts.values() for key, one in part.companions(encoder).items()}

    def asked(self) -> Self:
        """The same heads, asked as every model is, whatever was chosen for training."""
        made = copy.copy(self)
        roles = {part.role for part in self.parts.values()}
        made.parts = {name: part.asked(roles) for name, part in self.parts.items()}
        return made

    def epoch(self, source: Source, length: int) -> int:
        """Examples in one pass over a corpus."""
        kind = self.chooser.kind if self.chooser else self._segments
        return sum(examples_per_epoch(corpus, kind, length) for corpus in source.parts)

    def example(self, source: Source, draw: Draw) -> Example:
        """The example of a draw: segments, then what is done to them; a pure function of both arguments."""
        corpus, draw = source.drawn(draw)
        rng = draw.rng()
        targets: Targets = {}
        if self.chooser:
            spans, targets = self.chooser.segments(corpus, draw, rng)
        else:
            spans = SEGMENTS[self._segments](corpus, draw, rng)
        example, places, starts = assembled(corpus, spans)
        example.targets.update(targets)
        for part in self.parts.values():
            example = part.example(corpus, example, places, starts, rng)
        return example

    def counts(self, batch: Batch) -> dict[str, int]:
        """Labels of each loss in a batch."""
        return {name: count for part in self.parts.values() for name, count in part.counts(batch).items()}

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        """Summed losses by name; 0 where there are no labels."""
        losses: dict[str, Tensor] = {}
        for part in self.parts.values():
            batch, found = part.before(encoder, batch)
            losses |= found
        states = encoder(batch)  # (R, D)
        for part in self.parts.values():
            losses |= part.losses(encoder, states, batch)
        return losses

    @torch.no_grad()
    def measured(self, encoder: Encoder, batch: Batch) -> dict[str, Measured]:
        """By name the summed loss, how many labels were the first choice, and how many there are."""
        found: dict[str, Measured] = {}
        for part in self.parts.values():
            batch, told = part.before(encoder, batch, measure=True)
            found |= told
        states = encoder(batch)
        for part in self.parts.values():
            found |= part.measured(encoder, states, batch)
        return found
