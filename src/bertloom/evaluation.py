"""Measures of a pretrained model: held-out losses beside guessing, and grammar by minimal pairs."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from bertloom.api import Model
from bertloom.corpus import Draw, Source
from bertloom.errors import InputError
from bertloom.example import Example, Ints
from bertloom.files import read_text
from bertloom.model.encoder import Encoder
from bertloom.model.noise import dropout_stream
from bertloom.model.packed import TOKENS_AT_ONCE, by_tokens, pack
from bertloom.objectives import Combined
from bertloom.train.memory import one_dnn


@dataclass(frozen=True)
class Measure:
    """A mean loss in nats and the share of first choices that were right, over `count` labels."""

    loss: float
    accuracy: float
    count: int

    @property
    def perplexity(self) -> float:
        """Exponential of the loss."""
        return math.exp(min(self.loss, 700.0))


@torch.no_grad()
def held_out(
    encoder: Encoder,
    objective: Combined,
    corpus: Source,
    *,
    examples: int,
    length: int,
    seed: int = 0,
    tokens: int = TOKENS_AT_ONCE,
) -> dict[str, Measure]:
    """Each part's measure on the first `examples` draws of a corpus, at most one epoch of them, dropout off.

    `tokens` go through the encoder at a time.
    """
    encoder.eval()
    count = min(examples, objective.epoch(corpus, length))
    drawn = [objective.example(corpus, Draw(seed, index, length)) for index in range(count)]
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    device = next(encoder.parameters()).device
    for part in by_tokens([len(example) for example in drawn], tokens):
        # What is drawn on the way, as a generator's tokens are, is the same at every measure.
        with one_dnn(False), dropout_stream(seed, part.start):
            measured = objective.measured(encoder, pack(drawn[part]).to(device))
        for name, values in measured.items():
            totals[name] = [total + value for total, value in zip(totals[name], values)]
    return {
        name: Measure(loss / max(1, count), right / max(1, count), int(count))
        for name, (loss, right, count) in totals.items()
    }


def guessing(corpus: Source, objective: Combined, measures: Mapping[str, Measure] | None = None) -> dict[str, Measure]:
    """What someone scores who knows only the corpus's token frequencies, tosses a coin, or always says the same.

    Of the last the measures tell how often that is wrong.
    """
    known = {"words": _by_shares(corpus.frequencies / corpus.frequencies.sum()), "coin": _by_shares(np.full(2, 0.5))}
    for name, how in objective.guessed.items():
        if measures and how in measures:
            wrong = measures[how].count / max(1, measures[name].count)
            known[how] = _by_shares(np.array([wrong, 1 - wrong]))
    return {name: known[how] for name, how in objective.guessed.items() if how in known}


def _by_shares(shares: npt.NDArray[np.float64]) -> Measure:
    """What someone scores who knows how often each answer is right."""
    there = shares[shares > 0]
    return Measure(float(-(there * np.log(there)).sum()), float(there.max()), 0)


def _masked(whole: Ints, model: Model) -> Iterator[Example]:
    """A copy for each token, in which it is hidden (Salazar et al. 2020)."""
    for place in range(1, len(whole) - 1):
        yield hidden(whole, [place], model)


def hidden(whole: Ints, places: Sequence[int], model: Model, beside: Sequence[int] = ()) -> Example:
    """A copy of a text that is asked for its tokens at `places`; they, and those `beside`, are [MASK] in it."""
    ids = whole.copy()
    ids[[*places, *beside]] = model.tokenizer.special.mask
    return _asked(ids, {"here": (np.array(places), whole[list(places)])})


def _in_turn(whole: Ints, model: Model) -> Iterator[Example]:
    """Each token after those before it, and where the model reads both ways each before those after it."""
    targets = {"next": (np.arange(len(whole) - 1), whole[1:])}
    if model.config.direction == "two-way":
        targets["back"] = (np.arange(1, len(whole)), whole[:-1])
    yield _asked(whole, targets)


def _as_it_is(whole: Ints, model: Model) -> Iterator[Example]:
    """Each token where it stands, as the text's own."""
    yield _asked(whole, {"own": (np.arange(1, len(whole) - 1), np.zeros(len(whole) - 2, np.int64))})


def _asked(ids: Ints, targets: dict[str, tuple[Ints, Ints]]) -> Example:
    return Example(ids, np.zeros(len(ids), np.int64), {**targets})


def log_probabilities(model: Model, examples: Sequence[Example], gates: torch.Tensor | None = None) -> torch.Tensor:
    """(B,) of each example the summed log probability of its labels; `gates` (B, L, N) is how much each head counts."""
    encoder = model.encoder
    word = encoder.embeddings.word.weight
    batch = replace(pack(examples), gates=gates).to(word.device)
    states, totals = encoder(batch), torch.zeros(len(examples), dtype=torch.float64)
    sides = dict(zip(("next", "back"), encoder.sides(states)))
    for name, (rows, labels) in batch.targets.items():
        found = sides.get(name, states)[rows]
        if name == "own":
            chosen = F.logsigmoid(-model.head("rtd")(found).float())
        else:
            logits = model.head("mlm")(found, word).float()
            chosen = logits.gather(1, labels[:, None])[:, 0] - logits.logsumexp(1)
        owners = torch.repeat_interleave(torch.tensor([len(one.targets[name][0]) for one in examples]))
        totals = totals.index_add(0, owners, chosen.double().cpu())
    return totals


def asked_of(model: Model) -> Callable[[Ints, Model], Iterator[Example]]:
    """The copies of a text in which a model is asked for each of its tokens, by what it learned."""
    if "mlm" not in model.trained and "rtd" in model.trained:
        return _as_it_is
    return _masked if model.config.direction == "both" else _in_turn


def log_likelihoods(
    model: Model,
    texts: list[str],
    progress: Callable[[int], None] = lambda done: None,
    places: Sequence[str] | None = None,
) -> npt.NDArray[np.float64]:
    """(len(texts),) how likely a model finds each text, by what it learned: every token masked once (pseudo-log-
    likelihood), or named in turn, or held to be the text's own.

    A text that cannot be scored raises; `places` (len(texts),) say where each came from.
    """
    special = model.tokenizer.special
    ids = model.tokenizer.ids(texts, special=False)
    longest = model.config.longest - 2
    for number, one in enumerate(ids):
        if not 0 < len(one) <= longest:
            said = f"text of {len(one):,} tokens, 1 to {longest} allowed: {texts[number][:60]!r}"
            raise InputError(said, places[number] if places else None)
    kind = asked_of(model)
    # Sorted by length, so that the blocks of the attention are full.
    order = sorted(range(len(ids)), key=lambda n: len(ids[n]))

    def copies() -> Iterator[tuple[int, Example]]:
        for done, number in enumerate(order):
            progress(done)
            for example in kind(np.array([special.cls, *ids[number], special.sep]), model):
                yield number, example

    return summed(model, copies(), len(texts))


@torch.no_grad()
def summed(model: Model, examples: Iterable[tuple[int, Example]], size: int) -> npt.NDArray[np.float64]:
    """(size,) by its number the summed log probabilities of the labels of examples that bear it."""
    model.encoder.eval()
    totals = np.zeros(size)
    held: list[tuple[int, Example]] = []
    tokens = 0

    def flush() -> None:
        owners, copies = zip(*held)
        np.add.at(totals, list(owners), log_probabilities(model, copies).numpy())

    for owner, example in examples:
        held.append((owner, example))
        tokens += len(example)
        if tokens >= TOKENS_AT_ONCE:
            flush()
            held, tokens = [], 0
    if held:
        flush()
    return totals


@dataclass(frozen=True)
class Grammar:
    """Share of minimal pairs whose good sentence scores higher, with a 95 % interval (Wilson's)."""

    share: float
    low: float
    high: float
    count: int


def interval(right: int, count: int, z: float = 1.96) -> Grammar:
    """Wilson's interval of a share."""
    share = right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return Grammar(share, centre - half, centre + half, count)


def read_pairs(file: Path) -> list[dict[str, str]]:
    """BLiMP's minimal pairs from JSONL: `good`, `bad`, `paradigm`, `phenomenon`, and the `place` they stand at.

    A bad line raises with its number.
    """
    records = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            # Half a surrogate pair is legal in JSON and no text.
            json.dumps(record, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise InputError(f"is not JSON: {error}", file, number) from None
        for key in ("good", "bad", "paradigm", "phenomenon"):
            if not isinstance(record, dict) or not isinstance(record.get(key), str) or not record[key].strip():
                raise InputError(f"no text in field {key!r}, good, bad, paradigm and phenomenon needed", file, number)
        records.append({**record, "place": f"{file}:{number}"})
    if not records:
        raise InputError("no pairs in it, at least one needed", file)
    return records


def blimp(
    model: Model,
    pairs: list[dict[str, str]],
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Grammar]:
    """By phenomenon, and as `mean over paradigms` over all, the share of pairs told right; a tie is wrong."""
    texts = [pair[key] for key in ("good", "bad") for pair in pairs]
    places = [pair.get("place", pair["paradigm"]) for pair in pairs] * 2
    scores = log_likelihoods(model, texts, progress, places)
    # Rounded, since the same sentence scored in two batches may differ in the last bits, and a tie is wrong.
    right = np.round(scores[: len(pairs)], 4) > np.round(scores[len(pairs) :], 4)
    groups: dict[str, list[bool]] = defaultdict(list)
    paradigms: dict[str, list[bool]] = defaultdict(list)
    for pair, won in zip(pairs, right):
        groups[pair["phenomenon"]].append(bool(won))
        paradigms[pair["paradigm"]].append(bool(won))
    result = {name: interval(sum(won), len(won)) for name, won in sorted(groups.items())}
    mean = float(np.mean([np.mean(won) for won in paradigms.values()]))
    # Each paradigm is a stratum of its own; shares are drawn a little to the middle, so that 0 and 1 are not certain.
    near = [((sum(won) + 1) / (len(won) + 2), len(won)) for won in paradigms.values()]
    half = 1.96 * math.sqrt(sum(share * (1 - share) / count for share, count in near)) / len(near)
    result["mean over paradigms"] = Grammar(mean, max(0.0, mean - half), min(1.0, mean + half), len(pairs))
    return result
