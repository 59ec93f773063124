"""What an encoder is: one flat, frozen value with Hugging Face's field names, and the published sizes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from bertloom.errors import InputError, nearest

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh")


DIRECTIONS = ("both", "left-to-right", "two-way")
POSITIONS = ("absolute", "rotary")
POOLINGS = ("cls", "mean")
POOLERS = ("pretrained", "finetuned", "rows")
# What a token may attend to: so many tokens before it and after it, None for all of its sequence.
Window = tuple[int | None, int | None]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes, rates and mechanisms of an encoder; raises `InputError` where they cannot hold.

    The defaults are BERT's (Devlin et al. 2019, §3); a family is other values, named by `model_type`, which decides
    how a folder spells things and nothing else.
    """

    model_type: str = "bert"
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
    # Width of the embeddings where a projection takes them to hidden_size (ALBERT §3.1, ELECTRA §3.2).
    embedding_size: int | None = None
    # Layers fall into so many groups of one set of weights each (ALBERT §3.1).
    num_hidden_groups: int | None = None
    # Positions count from the id of the padding token on (RoBERTa, as fairseq has it).
    positions_after_padding: bool = False
    position_embedding_type: str = "absolute"
    # Rotary positions (Su et al. 2021) of layers that look everywhere, and of those that look about them.
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    # Width of the window of local layers, 0 for none; every so many layers, from the first, one looks everywhere.
    local_attention: int = 0
    global_attn_every_n_layers: int = 1
    # Whether tokens see both sides, what is before them, or half the width of each layer either (ELMo's two stacks).
    direction: str = "both"
    # Norms before each half layer and one at the end (Xiong et al. 2020), instead of after each.
    norm_first: bool = False
    # The activation multiplies another half (Shazeer 2020).
    gated: bool = False
    attention_bias: bool = True
    mlp_bias: bool = True
    norm_bias: bool = True
    # The language head's: activation (None: hidden_act), and biases of its dense layer and of the output.
    head_act: str | None = None
    head_bias: bool = True
    decoder_bias: bool = True
    # Who trains the pooler; `rows`: fine-tuning does, it ends in a norm, and heads on rows stand on it too.
    pooler: str = "pretrained"
    # Its activation (None: the language head's).
    pooler_act: str | None = "tanh"
    # What of a text a classifier stands on: its first token, or the mean of all.
    classifier_pooling: str = "cls"

    def __post_init__(self) -> None:
        least = {"num_hidden_layers": 0, "type_vocab_size": 0, "local_attention": 0}
        for field in fields(self):
            value, kind = getattr(self, field.name), field.type.removesuffix(" | None")
            if value is None and kind != field.type:
                continue
            lowest = 0 if field.name == "pad_token_id" else least.get(field.name, 1)
            if kind == "int" and (type(value) is not int or value < lowest):
                raise InputError(f"{field.name}: {value!r} given, a whole number from {lowest} allowed")
            if kind == "float" and (type(value) not in (int, float) or not math.isfinite(value)):
                raise InputError(f"{field.name}: {value!r} given, a number allowed")
            if kind == "bool" and type(value) is not bool:
                raise InputError(f"{field.name}: {value!r} given, true or false allowed")
            if kind == "str" and type(value) is not str:
                raise InputError(f"{field.name}: {value!r} given, a word allowed")
        for name, known in (
            ("hidden_act", ACTIVATIONS), ("head_act", ACTIVATIONS), ("pooler_act", ACTIVATIONS), ("pooler", POOLERS),
            ("direction", DIRECTIONS), ("position_embedding_type", POSITIONS),
            ("classifier_pooling", POOLINGS),
        ):  # fmt: skip
            if (value := getattr(self, name)) is not None and value not in known:
                raise InputError(f"{name}: {nearest(str(value), known)}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)} given, from 0 to under 1 allowed")
        for name in ("initializer_range", "layer_norm_eps", "global_rope_theta", "local_rope_theta"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: {getattr(self, name)} given, above 0 allowed")
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            raise InputError(f"pad_token_id: {self.pad_token_id} given, under vocab_size ({self.vocab_size}) allowed")
        self._require_sizes_that_fit()

    def _require_sizes_that_fit(self) -> None:
        if self.num_attention_heads % self.sides:
            raise InputError(f"num_attention_heads: {self.num_attention_heads} given, an even number allowed two-way")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size: {self.hidden_size} given, a multiple of num_attention_heads "
                f"({self.num_attention_heads}) allowed"
            )
        if self.position_embedding_type == "rotary" and self.head_size % 2:
            raise InputError(
                f"hidden_size: heads of {self.head_size} given, an even size allowed with rotary positions"
            )
        if self.num_hidden_groups and self.num_hidden_groups > max(1, self.num_hidden_layers):
            raise InputError(
                f"num_hidden_groups: {self.num_hidden_groups} given, at most num_hidden_layers "
                f"({self.num_hidden_layers}) allowed"
            )
        if self.longest < 1:
            raise InputError(
                f"max_position_embeddings: {self.max_position_embeddings} given, more than {self.first_position} "
                "allowed: positions begin after the padding's"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def sides(self) -> int:
        """How many stacks a layer has, which share its width: two where tokens see either side by itself."""
        return 2 if self.direction == "two-way" else 1

    @property
    def word_size(self) -> int:
        """Width of a word's vector, and of what the language head compares with it."""
        return self.embedding_size or (self.hidden_size // 2 if self.direction == "two-way" else self.hidden_size)

    @property
    def side(self) -> EncoderConfig:
        """Of a two-way model the left-to-right one that each half is by itself."""
        halves: dict[str, Any] = {
            name: getattr(self, name) // 2 for name in ("hidden_size", "num_attention_heads", "intermediate_size")
        }
        return replace(self, **halves, direction="left-to-right", embedding_size=None)

    @property
    def first_position(self) -> int:
        """The number of a sequence's first position."""
        return (self.pad_token_id or 0) + 1 if self.positions_after_padding else 0

    @property
    def longest(self) -> int:
        """Most tokens of a sequence."""
        return self.max_position_embeddings - self.first_position

    def is_local(self, layer: int) -> bool:
        """Whether the tokens of a layer, from 0, look about themselves alone."""
        return bool(self.local_attention) and bool(layer % self.global_attn_every_n_layers)

    def window(self, layer: int) -> Window:
        """What a token of a layer sees before and after it; of a two-way model its first side's."""
        reach = self.local_attention // 2 if self.is_local(layer) else None
        return reach, reach if self.direction == "both" else 0

    def rope_theta(self, layer: int) -> float | None:
        """The base of a layer's rotary positions, None where positions are in the embeddings."""
        if self.position_embedding_type == "absolute":
            return None
        return self.local_rope_theta if self.is_local(layer) else self.global_rope_theta

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def _of(base: EncoderConfig, layers: int, hidden: int, heads: int, **others: Any) -> EncoderConfig:
    sizes: dict[str, Any] = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    return replace(base, **{**sizes, "intermediate_size": 4 * hidden, **others})


# What each family is, at the defaults of its class in `transformers`, which a folder's config may leave out.
BERT = EncoderConfig()
ROBERTA = replace(
    BERT, model_type="roberta", vocab_size=50265, pad_token_id=1, positions_after_padding=True, head_act="gelu"
)
XLM_ROBERTA = replace(ROBERTA, model_type="xlm-roberta", vocab_size=30522)
ALBERT = replace(
    _of(BERT, 12, 4096, 64),
    model_type="albert", vocab_size=30000, embedding_size=128, num_hidden_groups=1, hidden_act="gelu_new",
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
DISTILBERT = replace(
    BERT, model_type="distilbert", num_hidden_layers=6, type_vocab_size=0, pooler="finetuned", pooler_act="relu"
)
ELECTRA = replace(
    _of(BERT, 12, 256, 4),
    model_type="electra", embedding_size=128, head_act="gelu", pooler="finetuned", pooler_act="gelu",
)  # fmt: skip
MODERNBERT = EncoderConfig(
    model_type="modernbert", vocab_size=50368, num_hidden_layers=22, intermediate_size=1152, hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0, max_position_embeddings=8192, type_vocab_size=0, layer_norm_eps=1e-5,
    pad_token_id=50283, position_embedding_type="rotary", local_attention=128, global_attn_every_n_layers=3,
    norm_first=True, gated=True, attention_bias=False, mlp_bias=False, norm_bias=False, head_act="gelu",
    head_bias=False, pooler="rows", pooler_act=None,
)  # fmt: skip

_CASED: dict[str, Any] = {"vocab_size": 28996}
_ROBERTA: dict[str, Any] = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_ALBERTS = {"base": (12, 768, 12), "large": (24, 1024, 16), "xlarge": (24, 2048, 16), "xxlarge": (12, 4096, 64)}
# The first version had dropout and the exact activation; its largest had neither dropout.
_VERSIONS: dict[str, dict[str, Any]] = {
    "v1": {"hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    "v2": {},
}

PRESETS: dict[str, EncoderConfig] = {
    "bert-tiny": _of(BERT, 2, 128, 2),
    "bert-mini": _of(BERT, 4, 256, 4),
    "bert-small": _of(BERT, 4, 512, 8),
    "bert-medium": _of(BERT, 8, 512, 8),
    "bert-base-uncased": BERT,
    "bert-large-uncased": _of(BERT, 24, 1024, 16),
    "bert-base-cased": replace(BERT, **_CASED),
    "bert-large-cased": _of(BERT, 24, 1024, 16, **_CASED),
    "bert-large-uncased-whole-word-masking": _of(BERT, 24, 1024, 16),
    "bert-large-cased-whole-word-masking": _of(BERT, 24, 1024, 16, **_CASED),
    "bert-base-multilingual-cased": replace(BERT, vocab_size=119547),
    "bert-base-multilingual-uncased": replace(BERT, vocab_size=105879),
    "bert-base-chinese": replace(BERT, vocab_size=21128),
    # Turc et al. 2019.
    **{
        f"bert_uncased_L-{layers}_H-{hidden}_A-{hidden // 64}": _of(BERT, layers, hidden, hidden // 64)
        for layers in range(2, 13, 2)
        for hidden in (128, 256, 512, 768)
    },
    "all-MiniLM-L6-v2": _of(BERT, 6, 384, 12),
    "all-MiniLM-L12-v2": _of(BERT, 12, 384, 12),
    "spanbert-base-cased": replace(BERT, **_CASED),
    "spanbert-large-cased": _of(BERT, 24, 1024, 16, **_CASED),
    "roberta-base": _of(ROBERTA, 12, 768, 12, **_ROBERTA),
    "roberta-large": _of(ROBERTA, 24, 1024, 16, **_ROBERTA),
    "distilroberta-base": _of(ROBERTA, 6, 768, 12, **_ROBERTA),
    "xlm-roberta-base": _of(XLM_ROBERTA, 12, 768, 12, **_ROBERTA, vocab_size=250002),
    "xlm-roberta-large": _of(XLM_ROBERTA, 24, 1024, 16, **_ROBERTA, vocab_size=250002),
    **{
        f"albert-{size}-{version}": _of(ALBERT, *sizes, **changes)
        for size, sizes in _ALBERTS.items()
        for version, changes in _VERSIONS.items()
    },
    "distilbert-base-uncased": DISTILBERT,
    "distilbert-base-cased": replace(DISTILBERT, **_CASED),
    "distilbert-base-multilingual-cased": replace(DISTILBERT, vocab_size=119547),
    "electra-small-discriminator": ELECTRA,
    "electra-small-generator": _of(ELECTRA, 12, 64, 1),
    "electra-base-discriminator": _of(ELECTRA, 12, 768, 12, embedding_size=None),
    "electra-base-generator": _of(ELECTRA, 12, 256, 4, embedding_size=768),
    "electra-large-discriminator": _of(ELECTRA, 24, 1024, 16, embedding_size=None),
    "electra-large-generator": _of(ELECTRA, 24, 256, 4, embedding_size=1024),
    "ModernBERT-base": MODERNBERT,
    "ModernBERT-large": _of(MODERNBERT, 28, 1024, 16, intermediate_size=2624),
}

# By the name of the family, what models of it have in common.
BASES: dict[str, EncoderConfig] = {
    one.model_type: one
    for one in (
        BERT,
        replace(ROBERTA, **_ROBERTA),
        replace(XLM_ROBERTA, **_ROBERTA),
        ALBERT,
        DISTILBERT,
        ELECTRA,
        MODERNBERT,
    )
}


def in_family(config: EncoderConfig, family: str) -> EncoderConfig:
    """A model of another family of a size: its layers, widths and heads, the mechanisms and rates of the other.

    Narrow embeddings stay as narrow as published; a gated layer is half again as wide as the model, others four times.
    """
    if family not in BASES:
        raise InputError(f"family: {nearest(family, BASES)}")
    if config.model_type == family:
        return config
    base, width = BASES[family], config.hidden_size
    changes: dict[str, Any] = {
        name: getattr(config, name)
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    }
    if base.gated != config.gated:
        changes["intermediate_size"] = width * 3 // 2 if base.gated else width * 4
    if base.embedding_size:
        changes["embedding_size"] = min(base.embedding_size, width)
        if base.model_type == "electra" and changes["embedding_size"] == width:
            # ALBERT projects its embeddings all the same.
            changes["embedding_size"] = None
    if base.pad_token_id is not None and base.pad_token_id >= config.vocab_size:
        changes["pad_token_id"] = config.pad_token_id
    return replace(base, **changes)


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
