"""The cost of a token by the length of its sequence: in a local layer, in a global one, and of whole models.

    .venv/bin/python bench/long.py [LENGTH…]

ModernBERT's layers at BERT-mini's size (width 256, windows of 128 tokens in local layers, dropout none), one step of
4,096 tokens forward and backward, or of one sequence where that is longer. Ours are packed; the peer is
`transformers`' ModernBERT with PyTorch's attention, of sequences without padding. `--bert` measures BERT-mini instead,
whose every layer is global.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import transformers
from side_by_side import Apart, finish, in_turn, row

from bertloom.config import EncoderConfig, in_family, preset
from bertloom.example import Example
from bertloom.families import FAMILIES
from bertloom.model.encoder import Encoder, Layer, Look
from bertloom.model.init import initialise
from bertloom.model.packed import Batch, pack
from bertloom.train.memory import keep_freed_memory

TOKENS, WORDS, MOST = 4096, 1000, 8192


def config_of(family: str) -> EncoderConfig:
    none: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    sizes: dict[str, Any] = {"max_position_embeddings": MOST, "vocab_size": WORDS, "pad_token_id": 0}
    return replace(in_family(preset("mini"), family), **sizes, **none)


def batch_of(length: int) -> Batch:
    rng = np.random.default_rng(0)
    ids = [rng.integers(5, WORDS, length) for _ in range(max(1, TOKENS // length))]
    return pack([Example(one, np.zeros(length, np.int64)) for one in ids])


class Ours:
    """Packed, ours."""

    def __init__(self, family: str):
        # As in a run.
        keep_freed_memory()
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        self.config = config_of(family)
        self.encoder = Encoder(self.config)
        initialise(self.encoder, 0.02)
        self.layer = Layer(self.config)
        self.encoder.train()

    def whole(self, length: int) -> float:
        """Seconds of a step."""
        return timed(lambda batch: self.encoder(batch), batch_of(length))

    def one(self, length: int, number: int) -> float:
        """Seconds of one layer, with the window and the positions of that number."""
        look = Look(self.config.window(number), self.config.rope_theta(number))
        batch = batch_of(length)
        x = torch.randn(len(batch.input_ids), self.config.hidden_size, requires_grad=True)
        # Blocks, masks and turns are made once for all layers.
        self.layer(x, batch, look)
        return timed(lambda batch: self.layer(x, batch, look), batch)

    def memory(self) -> float:
        """Most bytes the process had."""
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


class Theirs:
    """`transformers`."""

    def __init__(self, family: str):
        config = config_of(family)
        told = transformers.CONFIG_MAPPING[family](**FAMILIES[family].settings(config))
        torch.manual_seed(0)
        self.model = transformers.AutoModel.from_config(told, attn_implementation="sdpa").train()

    def whole(self, length: int) -> float:
        """Seconds of a step."""
        ids = batch_of(length).input_ids.view(-1, length)
        return timed(lambda ids: self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state, ids)

    def memory(self) -> float:
        """Most bytes the process had."""
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def timed(forward: Callable[[Any], torch.Tensor], given: Any) -> float:
    began = time.perf_counter()
    forward(given).sum().backward()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("lengths", nargs="*", type=int, default=[128, 512, 2048, 8192])
    parser.add_argument("--bert", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    family = "bert" if given.bert else "modernbert"
    rows = []
    for length in given.lengths:
        # Of each length in processes of their own, whose memory is that length's.
        ours, theirs = Apart(Ours, family), Apart(Theirs, family)
        mine, its = in_turn(
            lambda _, n=length, one=ours: one.call("whole", n), lambda _, n=length, one=theirs: one.call("whole", n),
            given.rounds,
        )  # fmt: skip
        more = {"GB": round(ours.call("memory") / 1e9, 2), "their GB": round(theirs.call("memory") / 1e9, 2)}
        tokens = len(batch_of(length).input_ids)
        for name, number in (("global", 0), *((("local", 1),) if not given.bert else ())):
            times = sorted(ours.call("one", length, number) for _ in range(given.rounds + 1))
            more[f"{name} layer, µs a token"] = round(1e6 * times[len(times) // 2] / tokens, 2)
        rows.append(row(f"{family} {length:,}", tokens / mine, "transformers", tokens / its, "tokens/s", **more))
        ours.close(), theirs.close()
    finish("long", rows, "transformers")


if __name__ == "__main__":
    main()
