"""How each family's folder spells its config and its weights: a table of names for each, used in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from bertloom.config import ALBERT, BERT, DISTILBERT, ELECTRA, MODERNBERT, ROBERTA, XLM_ROBERTA, EncoderConfig
from bertloom.errors import InputError

# Ours: the names whose tensors, end to end along the first dimension, make it. `{}` is the number of a layer, or of a
# group where layers share weights; `*` is weight and bias. Names that a model does not have are passed over.
Names = Mapping[str, list[str]]
Settings = dict[str, Any]

CLASSIFIER: Names = {"classifier.*": ["classifier.*"]}
# The heads of tasks' classes, for families that do not say otherwise.
TASKS: Mapping[str, Names] = {
    "ForSequenceClassification": CLASSIFIER,
    "ForTokenClassification": CLASSIFIER,
    "ForMultipleChoice": CLASSIFIER,
    "ForQuestionAnswering": {"qa_outputs.*": ["qa_outputs.*"]},
}


def _as_it_is(settings: Settings) -> Settings:
    return settings


@dataclass(frozen=True, kw_only=True)
class Family:
    """A `model_type`: what it fixes, and how its config and weights are spelt."""

    # What a folder's config may leave out, and what no folder of the family tells.
    base: EncoderConfig
    # How people write it.
    title: str
    # What its classes in `transformers` begin with, and where those with a head hold the backbone.
    classes: str
    backbone: str
    names: Names
    # Pretraining heads: their names, what weights of theirs begin with, and the parts of each class, the fullest first.
    heads: Names
    claims: tuple[str, ...]
    pretrained: Mapping[str, tuple[str, ...]]
    # Classes of tasks that differ from `TASKS`; the pooler's names stand here where it is part of the head.
    tasks: Mapping[str, Names] = field(default_factory=dict)
    # Fields of a config that a folder tells, with their keys there.
    keys: Mapping[str, str] = field(default_factory=dict)
    # Keys of a config that hold special tokens' ids beside the padding's, with the tokens' roles.
    special: Mapping[str, str] = field(default_factory=dict)
    # Settings that would change the mathematics, and the only value we compute.
    required: Mapping[str, Any] = field(default_factory=dict)
    # The class of a left-to-right model with its language head.
    causal: str = "ForCausalLM"
    # Second names of what is there already.
    twice: Mapping[str, str] = field(default_factory=dict)
    # From a folder's settings to ones that `keys` knows, and back.
    read: Callable[[Settings], Settings] = _as_it_is
    written: Callable[[Settings], Settings] = _as_it_is

    def config(self, given: Mapping[str, Any]) -> tuple[EncoderConfig, Settings]:
        """The config of a folder's settings, and those that are not its."""
        for key, only in self.required.items():
            if given.get(key, only) != only:
                raise InputError(f"{key}: {given[key]!r} given, {only!r} allowed")
        told = self.read(dict(given))
        fields_of = {key: name for name, key in self.keys.items()}
        values = {fields_of[key]: value for key, value in told.items() if key in fields_of}
        try:
            config = EncoderConfig(**{**self.base.to_dict(), **values})
        except InputError as error:
            # The folder's own word for a field.
            name, colon, rest = str(error).partition(":")
            raise InputError(f"{self.keys.get(name, name)}{colon}{rest}") from None
        return config, {key: value for key, value in told.items() if key not in fields_of}

    def settings(self, config: EncoderConfig) -> Settings:
        """A config as a folder of the family tells it; raises where the family has no such model."""
        for one in fields(config):
            value, only = getattr(config, one.name), getattr(self.base, one.name)
            if one.name not in self.keys and value != only:
                kind = self.base.model_type
                raise InputError(f"{one.name}: {value!r} given, {only!r} allowed where model_type is {kind}")
        return self.written({key: getattr(config, name) for name, key in self.keys.items()})

    def head_names(self, task: str) -> dict[str, list[str]]:
        """The names of the heads where a model's class ends in `task`; of all heads where that is no task's class.

        Heads that would stand under the same names are left out then.
        """
        own = self.tasks.get(task) or TASKS.get(task)
        if own is None:
            return {**self.heads, **{ours: theirs for one in TASKS.values() for ours, theirs in one.items()}}
        taken = {name for theirs in own.values() for name in theirs}
        parts = {ours.partition(".")[0] for ours, theirs in self.heads.items() if taken & set(theirs)}
        return {**{ours: one for ours, one in self.heads.items() if ours.partition(".")[0] not in parts}, **own}


def _read_direction(settings: Settings) -> Settings:
    causal = settings.pop("is_decoder", False)
    if causal not in (True, False):
        raise InputError(f"is_decoder: {causal!r} given, true or false allowed")
    return {**settings, "direction": "left-to-right" if causal else "both"}


def _written_direction(settings: Settings) -> Settings:
    direction = settings.pop("direction")
    if direction == "two-way":
        raise InputError(
            "direction: 'two-way' given, 'both' or 'left-to-right' allowed but where model_type is two-way"
        )
    return {**settings, "is_decoder": direction == "left-to-right"}


_TOLD = {
    name: name
    for name in (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
        "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
        "initializer_range", "layer_norm_eps", "pad_token_id",
    )
}  # fmt: skip
_DIRECTED = {**_TOLD, "direction": "direction"}
_REQUIRED = {"position_embedding_type": "absolute", "add_cross_attention": False, "tie_word_embeddings": True}
_EMBEDDINGS: Names = {
    "embeddings.word.weight": ["embeddings.word_embeddings.weight"],
    "embeddings.position.weight": ["embeddings.position_embeddings.weight"],
    "embeddings.segment.weight": ["embeddings.token_type_embeddings.weight"],
    "embeddings.norm.*": ["embeddings.LayerNorm.*"],
}
_LAYERS: Names = {
    "layers.{}.attention.qkv.*": [f"encoder.layer.{{}}.attention.self.{part}.*" for part in ("query", "key", "value")],
    "layers.{}.attention.output.*": ["encoder.layer.{}.attention.output.dense.*"],
    "layers.{}.attention.norm.*": ["encoder.layer.{}.attention.output.LayerNorm.*"],
    "layers.{}.feed_forward.inner.*": ["encoder.layer.{}.intermediate.dense.*"],
    "layers.{}.feed_forward.output.*": ["encoder.layer.{}.output.dense.*"],
    "layers.{}.feed_forward.norm.*": ["encoder.layer.{}.output.LayerNorm.*"],
}
_POOLER: Names = {"pooler.dense.*": ["pooler.dense.*"]}
# A classification head of two layers, of which the first is our pooler.
_DEEP_CLASSIFIER: Names = {"pooler.dense.*": ["classifier.dense.*"], "classifier.*": ["classifier.out_proj.*"]}

# What `transformers` calls the tokens around a text.
_ENDS = {"bos_token_id": "cls", "eos_token_id": "sep"}

_BERT = Family(
    base=BERT,
    title="BERT",
    classes="Bert",
    causal="LMHeadModel",
    backbone="bert.",
    names={**_EMBEDDINGS, **_LAYERS, **_POOLER},
    heads={
        "mlm.dense.*": ["cls.predictions.transform.dense.*"],
        "mlm.norm.*": ["cls.predictions.transform.LayerNorm.*"],
        "mlm.bias": ["cls.predictions.bias"],
        "nsp.*": ["cls.seq_relationship.*"],
    },
    claims=("cls.predictions.", "cls.seq_relationship."),
    pretrained={"ForPreTraining": ("mlm", "nsp"), "ForMaskedLM": ("mlm",)},
    keys=_DIRECTED,
    required=_REQUIRED,
    twice={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    read=_read_direction,
    written=_written_direction,
)

_ROBERTA = Family(
    base=ROBERTA,
    title="RoBERTa",
    classes="Roberta",
    backbone="roberta.",
    names=_BERT.names,
    heads={
        "mlm.dense.*": ["lm_head.dense.*"],
        "mlm.norm.*": ["lm_head.layer_norm.*"],
        "mlm.bias": ["lm_head.bias"],
    },
    claims=("lm_head.",),
    pretrained={"ForMaskedLM": ("mlm",)},
    tasks={"ForSequenceClassification": _DEEP_CLASSIFIER},
    keys=_DIRECTED,
    special=_ENDS,
    required=_REQUIRED,
    twice={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    read=_read_direction,
    written=_written_direction,
)

_XLM_ROBERTA = replace(_ROBERTA, base=XLM_ROBERTA, title="XLM-RoBERTa", classes="XLMRoberta")

_ALBERT_LAYER = "encoder.albert_layer_groups.{}.albert_layers.0."
_ALBERT = Family(
    base=ALBERT,
    title="ALBERT",
    classes="Albert",
    backbone="albert.",
    names={
        **_EMBEDDINGS,
        "projection.*": ["encoder.embedding_hidden_mapping_in.*"],
        "layers.{}.attention.qkv.*": [f"{_ALBERT_LAYER}attention.{part}.*" for part in ("query", "key", "value")],
        "layers.{}.attention.output.*": [f"{_ALBERT_LAYER}attention.dense.*"],
        "layers.{}.attention.norm.*": [f"{_ALBERT_LAYER}attention.LayerNorm.*"],
        "layers.{}.feed_forward.inner.*": [f"{_ALBERT_LAYER}ffn.*"],
        "layers.{}.feed_forward.output.*": [f"{_ALBERT_LAYER}ffn_output.*"],
        "layers.{}.feed_forward.norm.*": [f"{_ALBERT_LAYER}full_layer_layer_norm.*"],
        "pooler.dense.*": ["pooler.*"],
    },
    heads={
        "mlm.dense.*": ["predictions.dense.*"],
        "mlm.norm.*": ["predictions.LayerNorm.*"],
        "mlm.bias": ["predictions.bias"],
        "sop.*": ["sop_classifier.classifier.*"],
    },
    claims=("predictions.", "sop_classifier."),
    pretrained={"ForPreTraining": ("mlm", "sop"), "ForMaskedLM": ("mlm",)},
    keys={**_TOLD, "embedding_size": "embedding_size", "num_hidden_groups": "num_hidden_groups"},
    special=_ENDS,
    required={**_REQUIRED, "inner_group_num": 1},
    twice={
        "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias",
    },
)

_DISTILBERT_LAYER = "transformer.layer.{}."
_PRE_CLASSIFIER: Names = {"pooler.dense.*": ["pre_classifier.*"], **CLASSIFIER}
_DISTILBERT = Family(
    base=DISTILBERT,
    title="DistilBERT",
    classes="DistilBert",
    backbone="distilbert.",
    names={
        **_EMBEDDINGS,
        "layers.{}.attention.qkv.*": [f"{_DISTILBERT_LAYER}attention.{part}_lin.*" for part in "qkv"],
        "layers.{}.attention.output.*": [f"{_DISTILBERT_LAYER}attention.out_lin.*"],
        "layers.{}.attention.norm.*": [f"{_DISTILBERT_LAYER}sa_layer_norm.*"],
        "layers.{}.feed_forward.inner.*": [f"{_DISTILBERT_LAYER}ffn.lin1.*"],
        "layers.{}.feed_forward.output.*": [f"{_DISTILBERT_LAYER}ffn.lin2.*"],
        "layers.{}.feed_forward.norm.*": [f"{_DISTILBERT_LAYER}output_layer_norm.*"],
    },
    heads={
        "mlm.dense.*": ["vocab_transform.*"],
        "mlm.norm.*": ["vocab_layer_norm.*"],
        "mlm.bias": ["vocab_projector.bias"],
    },
    claims=("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
    pretrained={"ForMaskedLM": ("mlm",)},
    tasks={"ForSequenceClassification": _PRE_CLASSIFIER, "ForMultipleChoice": _PRE_CLASSIFIER},
    keys={
        "vocab_size": "vocab_size", "hidden_size": "dim", "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads", "intermediate_size": "hidden_dim", "hidden_act": "activation",
        "hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout",
        "max_position_embeddings": "max_position_embeddings", "initializer_range": "initializer_range",
        "pad_token_id": "pad_token_id",
    },
    required={"tie_word_embeddings": True},
    twice={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
)  # fmt: skip


def _read_electra(settings: Settings) -> Settings:
    """No projection where it would not change the width."""
    told = {"embedding_size": ELECTRA.embedding_size, "hidden_size": ELECTRA.hidden_size, **settings}
    same = told["embedding_size"] == told["hidden_size"]
    return _read_direction({**settings, "embedding_size": None if same else told["embedding_size"]})


def _written_electra(settings: Settings) -> Settings:
    return _written_direction({**settings, "embedding_size": settings["embedding_size"] or settings["hidden_size"]})


_ELECTRA = Family(
    base=ELECTRA,
    title="ELECTRA",
    classes="Electra",
    backbone="electra.",
    names={**_EMBEDDINGS, "projection.*": ["embeddings_project.*"], **_LAYERS},
    heads={
        "rtd.dense.*": ["discriminator_predictions.dense.*"],
        "rtd.output.*": ["discriminator_predictions.dense_prediction.*"],
        "mlm.dense.*": ["generator_predictions.dense.*"],
        "mlm.norm.*": ["generator_predictions.LayerNorm.*"],
        "mlm.bias": ["generator_lm_head.bias"],
    },
    claims=("discriminator_predictions.", "generator_predictions.", "generator_lm_head."),
    pretrained={"ForPreTraining": ("rtd",), "ForMaskedLM": ("mlm",)},
    tasks={
        "ForSequenceClassification": _DEEP_CLASSIFIER,
        "ForMultipleChoice": {"pooler.dense.*": ["sequence_summary.summary.*"], **CLASSIFIER},
    },
    keys={**_DIRECTED, "embedding_size": "embedding_size"},
    required={**_REQUIRED, "summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"},
    twice={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
    read=_read_electra,
    written=_written_electra,
)

_KINDS = {False: "full_attention", True: "sliding_attention"}


def _read_modernbert(settings: Settings) -> Settings:
    """Layers' kinds and rotary bases, which are lists and tables since version 5, as the numbers they were before."""
    every = settings.get("global_attn_every_n_layers", MODERNBERT.global_attn_every_n_layers)
    kinds = settings.pop("layer_types", None)
    if kinds:
        local = [number for number, kind in enumerate(kinds) if kind == _KINDS[False]][1:]
        every = local[0] if local else max(2, len(kinds))
        if kinds != [_KINDS[bool(number % every)] for number in range(len(kinds))]:
            raise InputError(f"layer_types: {kinds!r} given, one full_attention at first and every so many allowed")
    told = {**settings, "global_attn_every_n_layers": every}
    for key, kind in (("global_rope_theta", _KINDS[False]), ("local_rope_theta", _KINDS[True])):
        table = (settings.get("rope_parameters") or {}).get(kind) or {}
        if table.get("rope_type", "default") != "default":
            raise InputError(f"rope_parameters: {kind} of type {table['rope_type']!r} given, 'default' allowed")
        found = table.get("rope_theta", settings.get(key))
        if found is None:
            # A model without a base of its own for local layers has the global one there.
            given = key in settings and "global_rope_theta" in told
            found = told["global_rope_theta"] if given else getattr(MODERNBERT, key)
        told[key] = found if type(found) is float else float(found)
    told.pop("rope_parameters", None)
    return told


def _written_modernbert(settings: Settings) -> Settings:
    every, layers = settings["global_attn_every_n_layers"], settings["num_hidden_layers"]
    thetas = {_KINDS[False]: settings["global_rope_theta"], _KINDS[True]: settings["local_rope_theta"]}
    return {
        **settings,
        "layer_types": [_KINDS[bool(number % every)] for number in range(layers)],
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in thetas.items()},
    }


_HEAD: Names = {"pooler.dense.*": ["head.dense.*"], "pooler.norm.*": ["head.norm.*"]}
_MODERNBERT = Family(
    base=MODERNBERT,
    title="ModernBERT",
    classes="ModernBert",
    backbone="model.",
    names={
        "embeddings.word.weight": ["embeddings.tok_embeddings.weight"],
        "embeddings.norm.*": ["embeddings.norm.*"],
        "layers.{}.attention.norm.*": ["layers.{}.attn_norm.*"],
        "layers.{}.attention.qkv.*": ["layers.{}.attn.Wqkv.*"],
        "layers.{}.attention.output.*": ["layers.{}.attn.Wo.*"],
        "layers.{}.feed_forward.norm.*": ["layers.{}.mlp_norm.*"],
        "layers.{}.feed_forward.inner.*": ["layers.{}.mlp.Wi.*"],
        "layers.{}.feed_forward.output.*": ["layers.{}.mlp.Wo.*"],
        "norm.*": ["final_norm.*"],
    },
    heads={"mlm.dense.*": ["head.dense.*"], "mlm.norm.*": ["head.norm.*"], "mlm.bias": ["decoder.bias"]},
    claims=("head.", "decoder."),
    pretrained={"ForMaskedLM": ("mlm",)},
    tasks={
        **{name: {**_HEAD, **CLASSIFIER} for name in TASKS},
        "ForQuestionAnswering": {**_HEAD, "qa_outputs.*": ["classifier.*"]},
    },
    keys={
        **{
            name: name
            for name in (
                "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                "max_position_embeddings", "initializer_range", "pad_token_id", "local_attention", "attention_bias",
                "mlp_bias", "norm_bias", "decoder_bias", "classifier_pooling", "global_attn_every_n_layers",
                "global_rope_theta", "local_rope_theta",
            )
        },
        "hidden_act": "hidden_activation", "layer_norm_eps": "norm_eps", "head_act": "classifier_activation",
        "head_bias": "classifier_bias", "hidden_dropout_prob": "mlp_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    },
    special={**_ENDS, "cls_token_id": "cls", "sep_token_id": "sep"},
    required={"tie_word_embeddings": True},
    twice={"decoder.weight": "model.embeddings.tok_embeddings.weight"},
    read=_read_modernbert,
    written=_written_modernbert,
)  # fmt: skip

# No class of `transformers` has it, so that all weights keep our names.
_TWO_WAY = Family(
    base=replace(BERT, model_type="two-way", direction="two-way"),
    title="pair of stacks",
    classes="",
    backbone="",
    names={},
    heads={},
    claims=(),
    pretrained={},
    keys=_TOLD,
)

FAMILIES: dict[str, Family] = {
    one.base.model_type: one
    for one in (_BERT, _ROBERTA, _XLM_ROBERTA, _ALBERT, _DISTILBERT, _ELECTRA, _MODERNBERT, _TWO_WAY)
}
