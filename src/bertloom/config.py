"""What an encoder is: one flat, frozen value with Hugging Face's field names, and the published sizes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from bertloom.errors import InputError, nearest

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes and rates of an encoder (Devlin et al. 2019, §3); raises `InputError` where they cannot hold."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (type(value) is not int or value < (field.name != "num_hidden_layers")):
                raise InputError(f"{field.name}: {value!r} given, a whole number from 1 allowed")
            if field.type == "float" and (type(value) not in (int, float) or not math.isfinite(value)):
                raise InputError(f"{field.name}: {value!r} given, a number allowed")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size: {self.hidden_size} given, a multiple of num_attention_heads "
                f"({self.num_attention_heads}) allowed"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise InputError(f"hidden_act: {nearest(str(self.hidden_act), ACTIVATIONS)}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)} given, from 0 to under 1 allowed")
        for name in ("initializer_range", "layer_norm_eps"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: {getattr(self, name)} given, above 0 allowed")
        if self.pad_token_id is not None and (
            type(self.pad_token_id) is not int or not 0 <= self.pad_token_id < self.vocab_size
        ):
            raise InputError(f"pad_token_id: {self.pad_token_id} given, under vocab_size ({self.vocab_size}) allowed")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def to_dict(self) -> dict[str, Any]:
        """The fields by Hugging Face's names."""
        return asdict(self)


def _bert(layers: int, hidden: int, heads: int, **others: Any) -> EncoderConfig:
    return EncoderConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        **others,
    )


PRESETS: dict[str, EncoderConfig] = {
    "bert-tiny": _bert(2, 128, 2),
    "bert-mini": _bert(4, 256, 4),
    "bert-small": _bert(4, 512, 8),
    "bert-medium": _bert(8, 512, 8),
    "bert-base-uncased": _bert(12, 768, 12),
    "bert-large-uncased": _bert(24, 1024, 16),
    "bert-base-cased": _bert(12, 768, 12, vocab_size=28996),
    "bert-large-cased": _bert(24, 1024, 16, vocab_size=28996),
    "bert-base-multilingual-cased": _bert(12, 768, 12, vocab_size=119547),
    "bert-base-multilingual-uncased": _bert(12, 768, 12, vocab_size=105879),
    "bert-base-chinese": _bert(12, 768, 12, vocab_size=21128),
}

ALIASES: dict[str, str] = {
    "tiny": "bert-tiny",
    "mini": "bert-mini",
    "small": "bert-small",
    "medium": "bert-medium",
    "base": "bert-base-uncased",
    "large": "bert-large-uncased",
}


def short_name(name: str) -> str:
    """`tiny` for `bert-tiny`; a name without a shorter one stays."""
    return next((short for short, full in ALIASES.items() if full == name), name)


def preset(name: str, **changes: Any) -> EncoderConfig:
    """The config of a published size, with fields changed; an unknown name raises and names the nearest."""
    full = ALIASES.get(name, name)
    if full not in PRESETS:
        raise InputError(f"model: {nearest(name, [*ALIASES, *PRESETS])}")
    return replace(PRESETS[full], **changes)
