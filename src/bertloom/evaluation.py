"""Measures of a pretrained model: held-out losses beside guessing, and grammar by minimal pairs."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertloom.corpus import Corpus, Draw
from bertloom.errors import InputError
from bertloom.example import Example
from bertloom.files import read_text
from bertloom.model.encoder import Encoder
from bertloom.model.heads import LanguageHead
from bertloom.model.packed import TOKENS_AT_ONCE, by_tokens, pack
from bertloom.objectives import Combined
from bertloom.text.tokenizer import Tokenizer
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
    corpus: Corpus,
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
        with one_dnn(False):
            measured = objective.measured(encoder, pack(drawn[part]).to(device))
        for name, values in measured.items():
            totals[name] = [total + value for total, value in zip(totals[name], values)]
    return {
        name: Measure(loss / max(1, count), right / max(1, count), int(count))
        for name, (loss, right, count) in totals.items()
    }


def guessing(corpus: Corpus, names: list[str]) -> dict[str, Measure]:
    """What someone scores who knows only the corpus's token frequencies, or tosses a coin."""
    frequencies = corpus.frequencies[corpus.frequencies > 0] / corpus.frequencies.sum()
    entropy = float(-(frequencies * np.log(frequencies)).sum())
    known = {"mlm": Measure(entropy, float(frequencies.max()), 0), "nsp": Measure(math.log(2), 0.5, 0)}
    return {name: known[name] for name in names if name in known}


@torch.no_grad()
def pseudo_log_likelihoods(
    encoder: Encoder,
    head: LanguageHead,
    tokenizer: Tokenizer,
    texts: list[str],
    progress: Callable[[int], None] = lambda done: None,
    places: Sequence[str] | None = None,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(len(texts),) of each text the sum of log p(token | the others), each token masked once (Salazar et al. 2020).

    A text that cannot be scored raises; `places` (len(texts),) say where each came from.
    """
    encoder.eval()
    special, scores = tokenizer.special, np.zeros(len(texts))
    ids = tokenizer.ids(texts, special=False)
    longest = encoder.config.longest - 2
    for number, one in enumerate(ids):
        if not 0 < len(one) <= longest:
            said = f"text of {len(one):,} tokens, 1 to {longest} allowed: {texts[number][:60]!r}"
            raise InputError(said, places[number] if places else None)
    owners: list[int] = []
    copies: list[Example] = []
    tokens = 0

    def flush() -> None:
        nonlocal tokens
        device = encoder.embeddings.word.weight.device
        batch = pack(copies).to(device)
        rows, labels = batch.targets["mlm"]
        logits = head(encoder(batch)[rows], encoder.embeddings.word.weight).float()
        chosen = logits.gather(1, labels[:, None])[:, 0] - logits.logsumexp(1)
        np.add.at(scores, owners, chosen.double().cpu().numpy())
        owners.clear()
        copies.clear()
        tokens = 0

    # Sorted by length, so that the blocks of the attention are full.
    for done, number in enumerate(sorted(range(len(ids)), key=lambda n: len(ids[n]))):
        whole = np.array([special.cls, *ids[number], special.sep])
        for place in range(1, len(whole) - 1):
            masked = whole.copy()
            masked[place] = special.mask
            target = (np.array([place]), whole[place : place + 1])
            copies.append(Example(masked, np.zeros(len(whole), np.int64), {"mlm": target}))
            owners.append(number)
            tokens += len(whole)
            if tokens >= TOKENS_AT_ONCE:
                flush()
                progress(done)
    if copies:
        flush()
    return scores


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
    encoder: Encoder,
    head: LanguageHead,
    tokenizer: Tokenizer,
    pairs: list[dict[str, str]],
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Grammar]:
    """By phenomenon, and as `mean over paradigms` over all, the share of pairs told right; a tie is wrong."""
    texts = [pair[key] for key in ("good", "bad") for pair in pairs]
    places = [pair.get("place", pair["paradigm"]) for pair in pairs] * 2
    scores = pseudo_log_likelihoods(encoder, head, tokenizer, texts, progress, places)
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
