"""What a model does with one text, gathered for a page, a notebook or a picture.

n tokens, L layers, N heads, H head size, K candidates.
"""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.files import whole_file
from bertloom.inspect import named, why
from bertloom.inspect.page import Arrays, packed, page, sized
from bertloom.model.encoder import Insides
from bertloom.tasks.heads import FeatureHead
from bertloom.text.sequence import room, sequence
from bertloom.text.tokenizer import SPECIAL

# Candidates for a layer's and for a hidden token; texts of more tokens are not hidden and explained ahead.
TOP_LAYER, TOP_HIDDEN, MOST_HIDDEN, MOST_ASKED = 5, 20, 128, 16
# Of a text of so many tokens what is put for each one hidden is explained too.
MOST_EXPLAINED = 16
# Bytes of a page, and of the ranks of all words for hidden tokens.
BUDGET, RANKS = 7_500_000, 2_500_000
# A thumbnail's side; the brightest weight of each of its squares is shown.
THUMBNAIL = 24
# How many steps weights' square roots have on a page, and which weights are left out, from fine to coarse.
FLOORS = (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.02)
FORMS = ((255, 0.0), (127, 0.0), *((63, floor) for floor in FLOORS))


@dataclass(frozen=True)
class View:
    """What stands on a page: `about` is JSON, `arrays` are numbers by name; `insides` is what they were made of."""

    about: dict[str, Any]
    arrays: Arrays
    insides: Sequence[Insides]

    @property
    def tokens(self) -> list[str]:
        """The text's tokens."""
        return list(self.about["tokens"])

    @property
    def missing(self) -> dict[str, str]:
        """Which views the page has not, and why."""
        return dict(self.about["missing"])

    def html(self) -> str:
        """One page that needs nothing else."""
        return page(self.about, self.arrays)

    def _repr_html_(self) -> str:
        """The page in a notebook, in a frame of its own."""
        return (
            f'<iframe title="bertloom view" srcdoc="{html.escape(self.html())}" '
            'style="width:100%;height:720px;border:0" allowfullscreen></iframe>'
        )

    def save(self, path: str | os.PathLike[str], head: tuple[int, int] | None = None) -> None:
        """Write `.html`, or `.svg` or `.png`, which show one `head` (layer, head, both from 1) or all of them."""
        path = Path(path)
        if path.suffix not in (".html", ".svg", ".png"):
            raise InputError(f"{path.name!r} given, a name in .html, .svg or .png allowed")
        if path.suffix == ".html":
            with whole_file(path) as beside:
                beside.write_text(self.html(), encoding="utf-8")
            return
        from bertloom.inspect.picture import draw

        draw(self, path, head)


def view(model: Model, text: str, second: str | None = None, budget: int = BUDGET, part: int = 1) -> View:
    """Look into a model while it reads a text, or two; of a text that is longer than it can read at one `part`, from 1.

    Two texts that are too long together raise. What a page of `budget` bytes has no room for is left out, and `missing`
    says so.
    """
    mask = model.tokenizer.spelt["mask"]
    # However a tokenizer spells it, users know the mask as [MASK].
    text, second = text.replace(SPECIAL["mask"], mask), second and second.replace(SPECIAL["mask"], mask)
    text, parts = _windowed(model, text, part) if second is None else (text, 1)
    example = model.whole(text, second)
    tokens, insides = model.require_all_heads().trace(text, second)
    if len(insides) < 2:
        raise InputError("a model without layers given, one to look into needed", model.path)
    special = _special(model, text, second)
    words, spellings = _words(model, example, special, text, second)
    about: dict[str, Any] = {
        "model": str(model.path),
        "text": text,
        "second": second,
        "tokens": tokens,
        "spellings": spellings,
        "words": words,
        "special": special.tolist(),
        "part": part,
        "parts": parts,
        "segments": example.segment_ids.tolist(),
        "layers": len(insides) - 1,
        "heads": len(insides[1].attentions[0]),
        "size": model.config.head_size,
        "task": model.task is not None,
        "missing": {},
    }
    arrays: Arrays = {}
    _told(model, example, insides, np.flatnonzero(~special).tolist(), about, arrays)
    _asked(model, example, insides, about, arrays)
    _attended(insides, about, arrays, budget)
    return View(about, arrays, insides)


def _windowed(model: Model, text: str, part: int) -> tuple[str, int]:
    """One part of a text, cut before words so that the model can read it whole, and how many there are."""
    most, (ids,) = room(model.tokenizer.special, model.config.longest), model.tokenizer.ids([text])
    begins, windows, start = model.tokenizer.starts_word[ids], [], 0
    while start < len(ids):
        stop = min(start + most, len(ids))
        before = np.flatnonzero(begins[start + 1 : stop + 1])
        if stop < len(ids) and len(before):
            stop = start + 1 + int(before[-1])
        windows.append((start, stop))
        start = stop
    if not 1 <= part <= max(1, len(windows)):
        raise InputError(f"part: {part} given, 1 to {max(1, len(windows))} allowed of a text of {len(ids):,} tokens")
    if len(windows) < 2:
        return text, 1
    spans, (start, stop) = model.tokenizer.spans(text), windows[part - 1]
    return text[spans[start][0] : spans[stop - 1][1]], len(windows)


def _words(
    model: Model, example: Example, special: npt.NDArray[np.bool_], text: str, second: str | None
) -> tuple[list[int], list[str]]:
    """Of each token its word, from 0, and how the user spells it; special tokens are words alone."""
    begins = model.tokenizer.starts_word[example.input_ids] | special
    begins[1:] |= special[:-1]
    found = [(given, span) for given in (text, second) if given is not None for span in model.tokenizer.spans(given)]
    places, last = iter(found), ("", 0)
    shown = model.tokenizer.shown(example.input_ids.tolist())
    spelt = []
    for token, alone in zip(shown, special):
        if alone:
            spelt.append(token)
            continue
        given, (start, end) = next(places)
        # A letter that is several tokens is spelt by the first.
        first = max(start, last[1]) if given is last[0] else start
        spelt.append(given[first:end])
        last = given, end
    return (np.cumsum(begins) - 1).tolist(), spelt


def _special(model: Model, text: str, second: str | None) -> npt.NDArray[np.bool_]:
    """(n,) where [CLS] and [SEP] stand around texts; written out in them they are the user's."""
    lengths = [len(ids) for ids in model.tokenizer.ids([text] if second is None else [text, second])]
    marks, _ = sequence(replace(model.tokenizer.special, cls=1, sep=1), *([0] * length for length in lengths))
    return marks.astype(bool)


def _told(
    model: Model,
    example: Example,
    insides: Sequence[Insides],
    places: list[int],
    about: dict[str, Any],
    arrays: Arrays,
) -> None:
    """What the language head says at places, of every layer and of hidden tokens."""
    if "mlm" not in model.trained:
        reason = "This model has no language head, so it puts no words anywhere."
        about["missing"] |= {"layers": reason, "mask": reason}
        return
    if not places:
        about["missing"] |= dict.fromkeys(("layers", "mask"), "There is no token in the text.")
        return
    layers = named.by_layer(model, insides, places, TOP_LAYER)
    about["places"] = places
    arrays |= {"layer_ids": packed(_ids(layers.ids)), "layer_shares": packed(layers.probabilities)}
    used = set(layers.ids.flatten().tolist())
    masks = np.flatnonzero(example.input_ids == model.tokenizer.special.mask).tolist()
    hidden = places if len(example) <= MOST_HIDDEN else masks
    if not hidden:
        about["missing"]["mask"] = (
            f"A text of {len(example)} tokens; on a page, those of up to {MOST_HIDDEN} are hidden ahead. "
            "bertloom view --port shows every one."
        )
    else:
        found = named.hidden(model, example, hidden, TOP_HIDDEN)
        about["hidden"] = hidden
        arrays |= {
            "hidden_ids": packed(_ids(found.candidates.ids)),
            "hidden_shares": packed(found.candidates.probabilities),
            "own_rank": packed(_ids(found.own_rank)),
            "own_share": packed(found.own_probability),
        }
        used |= set(found.candidates.ids.flatten().tolist())
        size = model.config.vocab_size
        if len(hidden) * size * 2 <= RANKS and size <= 1 << 16:
            about["points"] = named.ranks_of(size).tolist()
            arrays |= {"ranks": packed((found.ranks - 1).astype(np.uint16)), "curve": packed(found.curve)}
            used = set(range(min(size, len(model.tokenizer))))
    ids = sorted(used)
    about["named"] = dict(zip(map(str, ids), model.tokenizer.shown(ids)))


def _asked(model: Model, example: Example, insides: Sequence[Insides], about: dict[str, Any], arrays: Arrays) -> None:
    """Why the model says what it says."""
    if model.task is not None and isinstance(model.heads[model.task.part], FeatureHead):
        about["missing"]["why"] = "This model's head stands on frozen features, through which no gradient goes."
        return
    targets = why.targets(model, example)[:MOST_ASKED]
    found = [why.reasons(model, example, one, insides) for one in targets]
    own = [place for one in targets for place in one.places]
    hidden = [] if model.task else [place for place in about.get("hidden", []) if place not in own]
    if len(example) <= MOST_EXPLAINED:
        found += [why.hidden_reasons(model, example, place) for place in hidden]
    if not found:
        about["missing"]["why"] = (
            "Nothing to ask of this text: a [MASK] in it, or a fine-tuned model's answer, can be explained. Of texts "
            f"up to {MOST_EXPLAINED} tokens each one hidden is explained ahead; bertloom view --port explains any."
        )
        return
    about["reasons"] = [
        {
            "name": one.name,
            "places": one.places,
            "before": one.before,
            "after": one.after,
            "hidden": number >= len(targets),
        }
        for number, one in enumerate(found)
    ]
    arrays |= {
        "added": packed(np.stack([one.added for one in found])),
        "rollout": packed(np.stack([one.rollout for one in found])),
    }


def _attended(insides: Sequence[Insides], about: dict[str, Any], arrays: Arrays, budget: int) -> None:
    """Attention as bytes, and queries and keys where there is room for them."""
    layers = [one.attentions[0].float().cpu().numpy() for one in insides[1:]]
    arrays["thumbnails"] = packed(np.stack([_thumbnails(_bytes(one, *FORMS[0])) for one in layers]))
    neurons: Arrays = {}
    about["scales"] = []
    for number, one in enumerate(insides[1:]):
        assert one.queries is not None
        assert one.keys is not None
        both = [each.float().cpu().numpy() for each in (one.queries, one.keys)]
        scales = [float(np.abs(each).max()) / 127 or 1.0 for each in both]
        about["scales"].append(scales)
        for name, each, scale in zip(("queries", "keys"), both, scales):
            neurons[f"{name}-{number}"] = packed(np.round(each / scale).astype(np.int8))
    left = budget - len(page(about, arrays))
    for steps, floor in FORMS:
        about |= {"steps": steps, "floor": floor}
        kept = {f"attention-{number}": packed(_bytes(one, steps, floor)) for number, one in enumerate(layers)}
        if sized(kept) <= left:
            break
    arrays |= kept
    if sized(neurons) <= left - sized(kept):
        arrays |= neurons
    else:
        about["missing"]["neurons"] = (
            f"Queries and keys of {len(about['tokens'])} tokens have no room on a page; "
            "bertloom view --port shows them, or a shorter text."
        )


def _bytes(weights: npt.NDArray[np.float32], steps: int, floor: float) -> npt.NDArray[np.uint8]:
    """Weights as steps of their square roots, so that small ones are told apart too; those not above a floor are 0."""
    return np.where(weights > floor, np.round(np.sqrt(weights) * steps), 0).astype(np.uint8)


def _thumbnails(weights: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(N, n, n) at a thumbnail's size."""
    size = weights.shape[-1]
    edges = np.unique(np.linspace(0, size, min(size, THUMBNAIL) + 1).round().astype(int))[:-1]
    rows = np.maximum.reduceat(weights, edges, axis=1)
    return np.maximum.reduceat(rows, edges, axis=2)


def _ids(ids: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    return ids.astype(np.uint32)
