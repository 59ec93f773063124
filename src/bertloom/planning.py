"""What a run takes, said before it is started: parameters, memory, FLOPs, time at this machine's measured rate.

D hidden size, F intermediate size, L layers, N heads, V vocabulary, n sequence length, T tokens of a micro-batch.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertloom.config import EncoderConfig
from bertloom.corpus.masks import SHARE
from bertloom.errors import InputError
from bertloom.model.attention import FLASH
from bertloom.model.kernels import LOGITS_AT_ONCE
from bertloom.model.packed import BLOCK, EVERYWHERE
from bertloom.objectives import Combined, heads_of, model_of, parts_of, published_objective

# What Python, torch, matplotlib and others hold beside tensors, and what the allocator keeps around them (measured).
RUNTIME_BYTES = 450_000_000
# Seconds after which a rate is known well enough.
LONGEST_MEASURED = 3.0


def parameters(config: EncoderConfig, objective: str = "") -> dict[str, int]:
    """Parameters by part; `backbone` is the count that is published for a size.

    `total` is what the objective trains and saves: with its heads, and without a pooler that it has no use for.
    """
    import torch

    from bertloom.model.encoder import Encoder
    from bertloom.model.heads import HEADS, POOLED

    parts = heads_of(objective or published_objective(config))
    with torch.device("meta"):
        encoder, heads = Encoder(config), {f"{name}_head": HEADS[name](config) for name in HEADS if name in parts}

    def count(module: object) -> int:
        return sum(one.numel() for one in module.parameters()) if isinstance(module, torch.nn.Module) else 0

    pooler = count(getattr(encoder, "pooler", None))
    own = {"embeddings": count(encoder.embeddings), "layers": count(encoder.layers), "pooler": pooler}
    of_heads = {name: count(head) for name, head in heads.items()}
    backbone = count(encoder)
    # A pooler is learned with what says something of two sentences, and with nothing else.
    learned = backbone - pooler * (not POOLED & parts)
    return {**own, "backbone": backbone, **of_heads, "total": learned + sum(of_heads.values())}


def beside(config: EncoderConfig, objective: str) -> tuple[EncoderConfig, int, bool] | None:
    """A generator, which learns beside an encoder and shares its embeddings, or a teacher, which has twice its layers.

    Its config, the parameters it has for itself, and whether it learns.
    """
    for kind in parts_of(objective).values():
        if found := kind.second(config):
            made, learns = found
            counts = parameters(made, "mlm")
            return made, counts["total"] - counts["embeddings"] * learns, learns
    return None


def flops_per_token(
    config: EncoderConfig, length: int, mask_share: float = SHARE, objective: str = "mlm"
) -> dict[str, float]:
    """Training FLOPs of one token by part, forward and twice that backward; attention alone grows with the length.

    `beside` is what else learns or is learned from: a generator, or a teacher, which only goes forward.
    """
    asked = {"mlm": _shares(objective, mask_share)[1], "sbo": mask_share, "rtd": 1.0}
    shares = {name: asked[name] for name in heads_of(objective) & asked.keys()}
    flops = {name: 3 * value for name, value in _forward(config, length, shares).items()}
    if other := beside(config, objective):
        its = _forward(other[0], length, {"mlm": mask_share})
        # What a generator writes is drawn from logits that are made once more.
        flops["beside"] = 3 * sum(its.values()) + its["head"] if other[2] else sum(its.values())
    return flops


def _shares(objective: str, mask_share: float) -> tuple[float, float]:
    """What shares of all tokens have their last states read, and are named."""
    parts = parts_of(objective).values()
    return max(mask_share, *(one.reads for one in parts)), max(mask_share, *(one.names for one in parts))


def _forward(config: EncoderConfig, length: int, shares: Mapping[str, float]) -> dict[str, float]:
    """FLOPs of one token going forward, given what share of the tokens goes through each head."""
    import torch

    from bertloom.model.encoder import Encoder
    from bertloom.model.heads import HEADS

    with torch.device("meta"):
        encoder, heads = Encoder(config), {name: HEADS[name](config) for name in shares}

    def product(module: torch.nn.Module) -> float:
        return 2.0 * sum(one.weight.numel() for one in module.modules() if isinstance(one, torch.nn.Linear))

    layers = range(config.num_hidden_layers)
    # Two halves share a language head; what names words compares with each of them.
    words = 2.0 * config.word_size * config.vocab_size
    return {
        "linear": sum(product(encoder.layers[encoder.order[one]]) for one in layers)
        + (product(encoder.projection) if hasattr(encoder, "projection") else 0.0),
        "attention": sum(4.0 * _seen(config, one, length) * config.hidden_size for one in layers),
        "head": config.sides
        * sum(shares[name] * (product(head) + words * (name != "rtd")) for name, head in heads.items()),
    }


def _seen(config: EncoderConfig, layer: int, length: int) -> float:
    """How many tokens each is compared with: attention is cut into blocks, and what a block masks is computed too."""
    most = max(length, BLOCK)
    if length <= BLOCK:
        return most
    # Of what lies to either side at most the window's part, and as much as there is on the mean.
    before, after = ((length - BLOCK) / 2 if reach is None else reach for reach in config.window(layer))
    return min(most, before + BLOCK + after)


def activation_bytes(
    config: EncoderConfig, tokens: int, length: int, mask_share: float = SHARE, objective: str = "mlm"
) -> int:
    """Bytes held between forward and backward of a micro-batch in fp32, and the logits at work in the head."""
    reads, names = _shares(objective, mask_share)
    width, inner = config.hidden_size, config.intermediate_size
    drops = config.hidden_dropout_prob > 0
    # Projections, mixed values, the two sums and norms, the inner layer before and after its activation, byte masks;
    # of a gated one both halves, the activated one and their product.
    layer = 4 * (8 * width + (4 if config.gated else 2) * inner) + 2 * width * drops
    # The last layer's queries and feed-forward are there for the rows that are read alone.
    last = 4 * 2 * width + reads * (layer - 4 * 2 * width)
    numbers = range(config.num_hidden_layers)
    weights = [_weights_bytes(config, number, length) * (1 if number < numbers[-1] else reads) for number in numbers]
    embeddings = 4 * 2 * config.word_size + 5 * width
    named, held = int(names * tokens), sum(one.holds for one in parts_of(objective).values())
    head = named * 4 * 6 * config.word_size + 4 * min(LOGITS_AT_ONCE + config.vocab_size, named * config.vocab_size)
    head += held * named * 4 * config.vocab_size
    # Gradients of one layer's widest tensors on the way back.
    passing = 4 * tokens * (2 * inner + 4 * width)
    layers = max(0, config.num_hidden_layers - 1) * layer + last * (config.num_hidden_layers > 0)
    return int(tokens * (layers + sum(weights) + embeddings)) + head + passing


def _weights_bytes(config: EncoderConfig, layer: int, length: int) -> float:
    """Bytes of a token's attention weights that are kept, with the masks of what is dropped."""
    drops = config.attention_probs_dropout_prob > 0
    if not drops and length > FLASH and config.window(layer) == EVERYWHERE:
        return 0.0
    return (5.0 if drops else 4.0) * config.num_attention_heads * _seen(config, layer, length)


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
    objective: str = ""

    @property
    def bytes(self) -> dict[str, int]:
        """Memory of a run by what holds it, for a micro-batch of `micro_batch` sequences."""
        learned, other = 4 * parameters(self.config, self.objective)["total"], beside(self.config, self.objective)
        tokens = self.micro_batch * self.length
        activations = activation_bytes(self.config, tokens, self.length, self.mask_share, self.objective)
        fixed = 0
        if other:
            config, count, learns = other
            learned, fixed = (learned + 4 * count, 0) if learns else (learned, 4 * count)
            activations += learns * activation_bytes(config, tokens, self.length, self.mask_share)
        # The head makes the gradient of the tied embeddings beside the lookup's own.
        spare = 4 * self.config.vocab_size * self.config.word_size
        parts = {
            "weights": learned + fixed,
            "gradients": learned + spare,
            "optimizer": 2 * learned,
            "activations": activations,
            "runtime": RUNTIME_BYTES,
        }
        return {**parts, "total": sum(parts.values())}

    @property
    def tokens_per_second(self) -> float:
        """Training speed at the measured rate."""
        return self.flops_per_second / sum(self.flops(self.length).values())

    def flops(self, length: int) -> dict[str, float]:
        """Training FLOPs of a token of a sequence of a length, by part."""
        return flops_per_token(self.config, length, self.mask_share, self.objective)

    def to_dict(self) -> dict[str, Any]:
        """Everything as one JSON object."""
        step, other = self.batch * self.length, beside(self.config, self.objective)
        lengths = sorted({n for n in (128, 512, 2048, 8192, self.length) if n <= self.config.longest})
        return {
            "objective": self.objective,
            "parameters": {**parameters(self.config, self.objective), **({"beside": other[1]} if other else {})},
            "bytes": self.bytes,
            "flops_per_token": self.flops(self.length),
            "flops_per_token_by_length": {str(n): sum(self.flops(n).values()) for n in lengths},
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
    objective: str = "",
) -> Plan:
    """The plan of a run with the largest micro-batch that fits in `memory` bytes (this machine's unless given).

    It learns `objective`, or what the family was published with.
    """
    import torch

    objective = objective or published_objective(config)
    config = model_of(objective, config)
    with torch.device("meta"):
        # Raises where the model cannot learn it.
        Combined(config, objective)
    if not 8 <= length <= config.longest:
        raise InputError(f"length: {length} given, 8 to {config.longest} allowed")
    if batch < 1:
        raise InputError(f"batch: {batch} given, at least 1 allowed")
    if not 0 < mask_share < 1:
        raise InputError(f"mask_share: {mask_share} given, above 0 and under 1 allowed")
    memory = memory or available_memory()

    def of(micro: int) -> Plan:
        return Plan(config, length, batch, micro, memory, rate or 1.0, mask_share, objective)

    if of(1).bytes["total"] > memory:
        raise InputError(
            f"memory: {memory / 1e9:.1f} GB given, at least {of(1).bytes['total'] / 1e9:.1f} GB needed for one sequence"
        )
    low, high = 1, batch
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if of(middle).bytes["total"] <= memory else (low, middle - 1)
    return replace(of(low), flops_per_second=rate or measured_rate(config, length))


def measured_rate(config: EncoderConfig, length: int) -> float:
    """FLOPs a second of this machine in training: one layer of the encoder, forward and backward, timed."""
    import numpy as np
    import torch

    from bertloom.example import Example
    from bertloom.model.encoder import Layer, Look, TwoSides
    from bertloom.model.packed import pack

    sequences = max(1, 2048 // length)
    batch = pack([Example(np.zeros(length, np.int64), np.zeros(length, np.int64))] * sequences)
    layer = TwoSides(config) if config.direction == "two-way" else Layer(config)
    look = Look(config.window(0), config.rope_theta(0))
    x = torch.randn(sequences * length, config.hidden_size, requires_grad=True)
    flops = flops_per_token(replace(config, num_hidden_layers=1, num_hidden_groups=None, embedding_size=None), length)
    work = sequences * length * (flops["linear"] + flops["attention"])
    times = []
    for _ in range(5):
        began = time.perf_counter()
        layer(x, batch, look).sum().backward()
        times.append(time.perf_counter() - began)
        if sum(times) > LONGEST_MEASURED:
            break
    return float(work / sorted(times)[len(times) > 1])


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
