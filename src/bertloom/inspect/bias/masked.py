"""What masked language models are asked by several measures of bias."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.evaluation import hidden
from bertloom.example import Example, Ints
from bertloom.text.bracketed import Span
from bertloom.text.records import Place
from bertloom.text.sequence import room


def require_masked(model: Model) -> None:
    """Raise where a model cannot name what is hidden by both sides of it."""
    model.head("mlm")
    if model.config.direction != "both":
        raise InputError("reads one way, a masked language model needed", model.path)


def whole(model: Model, ids: Sequence[int], place: Place) -> Ints:
    """The ids of a text with [CLS] and [SEP]; raises where the model cannot read it at once."""
    special = model.tokenizer.special
    most = room(special, model.config.longest)
    if len(ids) > most:
        raise place.error(f"text of {len(ids):,} tokens, at most {most} allowed")
    return np.array([special.cls, *ids, special.sep])


def hidden_word(model: Model, text: str, word: Span, place: Place, beside: Sequence[Span] = ()) -> Example:
    """A text that is asked for all pieces of a word in it; they are hidden, and so are those of characters `beside`."""
    ids, spans = model.tokenizer.pieces([text])[0]
    around = whole(model, ids, place)

    def within(low: int, high: int) -> list[int]:
        return [number for number, (start, end) in enumerate(spans, 1) if start < high and end > low]

    places = within(*word)
    if not places or model.tokenizer.special.unk in around[places]:
        said = f"word {text[slice(*word)]!r} given, one that the vocabulary makes something of needed"
        raise place.error(said)
    return hidden(around, places, model, [one for span in beside for one in within(*span)])
