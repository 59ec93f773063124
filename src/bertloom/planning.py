"""What a run takes, said before it is started: parameters, memory, FLOPs, time at this machine's measured rate.

D hidden size, F intermediate size, L layers, N heads, V vocabulary, n sequence length, T tokens of a micro-batch.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertloom.config import EncoderConfig
from bertloom.corpus.masks import SHARE
from bertloom.errors import InputError
from bertloom.model.kernels import LOGITS_AT_ONCE

# What Python, torch, matplotlib and others hold beside tensors, and what the allocator keeps around them (measured).
RUNTIME_BYTES = 450_000_000


def parameters(config: EncoderConfig) -> dict[str, int]:
    """Parameters by part; `backbone` is the count that is published for a size, `total` has its pretraining heads."""
    import torch

    from bertloom.families import FAMILIES
    from bertloom.model.encoder import Encoder
    from bertloom.model.heads import HEADS

    parts = next(iter(FAMILIES[config.model_type].pretrained.values()), ("mlm",))
    with torch.device("meta"):
        encoder, heads = Encoder(config), {f"{name}_head": HEADS[name](config) for name in parts}

    def count(module: object) -> int:
        return sum(one.numel() for one in module.parameters()) if isinstance(module, torch.nn.Module) else 0

    pooler = count(getattr(encoder, "pooler", None))
    own = {"embeddings": count(encoder.embeddings), "layers": count(encoder.layers), "pooler": pooler}
    of_heads = {name: count(head) for name, head in heads.items()}
    backbone = count(encoder)
    # A pooler is learned with what says something of two sentences, and with nothing else.
    learned = backbone - pooler * (not {"nsp", "sop"} & set(parts))
    return {**own, "backbone": backbone, **of_heads, "total": learned + sum(of_heads.values())}


def flops_per_token(config: EncoderConfig, length: int, mask_share: float = SHARE) -> dict[str, float]:
    """Training FLOPs of one token (forward and twice that backward) by part; attention alone grows with the length."""
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    return {
        "linear": 3.0 * layers * (8 * width * width + 4 * width * inner),
        "attention": 3.0 * layers * 4 * length * width,
        "head": 3.0 * mask_share * (2 * width * width + 2 * width * config.vocab_size),
    }


def activation_bytes(config: EncoderConfig, tokens: int, length: int, mask_share: float = SHARE) -> int:
    """Bytes held between forward and backward of a micro-batch in fp32, and the logits at work in the head."""
    width, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    # Projections, mixed values, the two sums and norms, the inner layer before and after its activation, byte masks.
    layer = 4 * (8 * width + 2 * inner) + 2 * width + 5 * heads * max(length, 128)
    # The last layer's queries and feed-forward are there for the rows that are read alone.
    last = 4 * 2 * width + mask_share * (layer - 4 * 2 * width)
    embeddings = 4 * 2 * width + 5 * width
    masked = int(mask_share * tokens)
    head = masked * 4 * 6 * width + 4 * min(LOGITS_AT_ONCE + config.vocab_size, masked * config.vocab_size)
    # Gradients of one layer's widest tensors on the way back.
    passing = 4 * tokens * (2 * inner + 4 * width)
    layers = max(0, config.num_hidden_layers - 1) * layer + last * (config.num_hidden_layers > 0)
    return int(tokens * (layers + embeddings)) + head + passing


@dataclass(frozen=True)
class Plan:
    """The answer to the question before a run."""

    config: EncoderConfig
    length: int
    batch: int
    micro_batch: int
    memory: int
    flops_per_second: float
    mask_share: float = SHARE

    @property
    def bytes(self) -> dict[str, int]:
        """Memory of a run by what holds it, for a micro-batch of `micro_batch` sequences."""
        weights = 4 * parameters(self.config)["total"]
        # The head makes the gradient of the tied embeddings beside the lookup's own.
        spare = 4 * self.config.vocab_size * self.config.hidden_size
        parts = {
            "weights": weights,
            "gradients": weights + spare,
            "optimizer": 2 * weights,
            "activations": activation_bytes(self.config, self.micro_batch * self.length, self.length, self.mask_share),
            "runtime": RUNTIME_BYTES,
        }
        return {**parts, "total": sum(parts.values())}

    @property
    def tokens_per_second(self) -> float:
        """Training speed at the measured rate."""
        return self.flops_per_second / sum(flops_per_token(self.config, self.length, self.mask_share).values())

    def to_dict(self) -> dict[str, Any]:
        """Everything as one JSON object."""
        step = self.batch * self.length
        lengths = sorted({128, 512, self.length} & set(range(1, self.config.max_position_embeddings + 1)))
        return {
            "parameters": parameters(self.config),
            "bytes": self.bytes,
            "flops_per_token": flops_per_token(self.config, self.length, self.mask_share),
            "flops_per_token_by_length": {
                str(n): sum(flops_per_token(self.config, n, self.mask_share).values()) for n in lengths
            },
            "micro_batch": self.micro_batch,
            "micro_tokens": self.micro_batch * self.length,
            "memory": self.memory,
            "flops_per_second": self.flops_per_second,
            "tokens_per_second": self.tokens_per_second,
            "seconds_per_step": step / self.tokens_per_second,
        }


def plan(
    config: EncoderConfig,
    length: int,
    batch: int,
    memory: int | None = None,
    rate: float | None = None,
    mask_share: float = SHARE,
) -> Plan:
    """The plan of a run with the largest micro-batch that fits in `memory` bytes (this machine's unless given)."""
    if not 8 <= length <= config.max_position_embeddings:
        raise InputError(f"length: {length} given, 8 to {config.max_position_embeddings} allowed")
    if batch < 1:
        raise InputError(f"batch: {batch} given, at least 1 allowed")
    if not 0 < mask_share < 1:
        raise InputError(f"mask_share: {mask_share} given, above 0 and under 1 allowed")
    memory = memory or available_memory()

    def of(micro: int) -> Plan:
        return Plan(config, length, batch, micro, memory, rate or 1.0, mask_share)

    if of(1).bytes["total"] > memory:
        raise InputError(
            f"memory: {memory / 1e9:.1f} GB given, at least {of(1).bytes['total'] / 1e9:.1f} GB needed for one sequence"
        )
    low, high = 1, batch
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if of(middle).bytes["total"] <= memory else (low, middle - 1)
    return Plan(config, length, batch, low, memory, rate or measured_rate(config, length), mask_share)


def measured_rate(config: EncoderConfig, length: int) -> float:
    """FLOPs a second of this machine in training: one layer of the encoder, forward and backward, timed."""
    import numpy as np
    import torch

    from bertloom.example import Example
    from bertloom.model.encoder import Layer
    from bertloom.model.packed import pack

    sequences = max(1, 2048 // length)
    batch = pack([Example(np.zeros(length, np.int64), np.zeros(length, np.int64))] * sequences)
    layer = Layer(config)
    x = torch.randn(sequences * length, config.hidden_size, requires_grad=True)
    flops = flops_per_token(config, length)
    work = sequences * length * (flops["linear"] + flops["attention"]) / max(1, config.num_hidden_layers)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        layer(x, batch).sum().backward()
        times.append(time.perf_counter() - began)
    return float(work / sorted(times)[1])


def available_memory() -> int:
    """Bytes this machine can give a process, or all it has where it does not say; at most its container's limit."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path, pattern, unit in (
        ("/proc/meminfo", r"MemAvailable:\s*(\d+) kB", 1024),
        ("/sys/fs/cgroup/memory.max", r"(\d+)", 1),
    ):
        with suppress(OSError):
            found += [int(number) * unit for number in re.findall(pattern, Path(path).read_text("ascii"))]
    return min(found)


def parse_bytes(text: str) -> int:
    """`16GB`, `900 MB`, `24GiB`, `1000B` as bytes; a number alone raises, for nobody means bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B?|B)", text.strip(), re.IGNORECASE)
    if not found:
        raise InputError(f"memory: {text!r} given, a number with KB, MB, GB or TB allowed")
    power = " KMGT".index((found[2] or " ").upper())
    size = int(float(found[1]) * (1024 if found[3] else 1000) ** power)
    if not size:
        raise InputError(f"memory: {text!r} given, above 0 allowed")
    return size
